"""Attention timed on this machine's GPU, for steps as they come: our kernels through the backends, peers where installed."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import torch

import kernels
from course import gpu_timing
from course.serving import batch as batches
from course.serving import peers
from course.serving.batch import Batch
from course.serving.kernel_times import BLOCK_SIZE, HEAD_SIZE, NUM_HEADS, NUM_KV_HEADS, contenders
from course.serving.simulate import Step
from course.serving.step_times import describe_rest
from kernels.backends import AttentionBackendEnum, get_device_capability
from kernels.backends.kv_cache_interface import AttentionSpec

PEERS: dict[str, Callable[[Batch], Callable[[], Any]]] = {
    "vLLM Triton": peers.vllm_triton,
    "FlashAttention-3": peers.flash_attention_3,
    "FlashInfer": peers.flashinfer,
}


class OnGpu:
    """CUDA events around a layer's attention, the second-level cache overwritten before each run.

    A batch is timed when a step first needs one like it (`batch.bucket`); each step then takes one of its times, drawn.
    """

    source = "gpu"

    def __init__(self) -> None:
        """Raises RuntimeError without a GPU."""
        if kernels.INTERPRET:
            raise RuntimeError('there is no GPU here to time kernels on: source="replay" serves without one')
        self._times: dict[tuple[str, str], list[float]] = {}

    @property
    def gpu(self) -> str:
        return torch.cuda.get_device_name()

    def describe(self) -> str:
        return (
            f"Attention was timed here, on {kernels.describe()}: {len(self._times)} batches of the shapes that steps had.\n"
            f"{describe_rest()}"
        )

    def attention_us(self, contender: str, seed: str) -> Callable[[Step], float]:
        """Raises ValueError for an unknown contender, RuntimeError for one whose library is not installed."""
        draw = random.Random(f"noise/{contender}/{seed}")
        return lambda step: draw.choice(self.times_us(contender, batches.bucket(step)))

    def times_us(self, contender: str, step: Step) -> list[float]:
        """Microseconds of several runs of one layer's attention on a batch of exactly this shape."""
        key = contender, repr(step)
        if key not in self._times:
            call = prepare(contender, batches.make(step, torch.device("cuda")))
            self._times[key], _ = gpu_timing.times_us(call)
        return self._times[key]


def prepare(contender: str, batch: Batch) -> Callable[[], Any]:
    """The call to time. Raises ValueError for an unknown contender, RuntimeError for one that is not installed."""
    if contender not in contenders():
        raise ValueError(f"contender: expected one of {', '.join(contenders())}, got {contender!r}")
    if contender not in PEERS:
        capability = get_device_capability(batch.device)
        hopper = contender == "ours" and capability is not None and capability.major == 9
        return through_backend("HOPPER_ATTN" if hopper else "TRITON_ATTN", batch)
    try:
        return PEERS[contender](batch)
    except ImportError as error:
        raise RuntimeError(f"{contender} is not installed here ({error}); take another contender") from None


def through_backend(name: str, batch: Batch) -> Callable[[], torch.Tensor]:
    """Our layer's impl on a batch, with the metadata that its builder makes once a step."""
    backend = AttentionBackendEnum[name].get_class()
    spec = AttentionSpec(BLOCK_SIZE, NUM_KV_HEADS, HEAD_SIZE, batch.query.dtype)
    make_impl: Any = backend.get_impl_cls()
    impl = make_impl(NUM_HEADS, HEAD_SIZE, batches.SCALE, NUM_KV_HEADS)
    metadata = backend.get_builder_cls()(spec, ["layer"], batch.device).build(0, batch.common)
    shape = backend.get_kv_cache_shape(batch.num_blocks, BLOCK_SIZE, NUM_KV_HEADS, HEAD_SIZE)
    cache = torch.randn(shape, dtype=batch.query.dtype, device=batch.device)
    # The step's keys and values are in the cache already: only the read is timed.
    nothing = batch.query[:, :NUM_KV_HEADS]
    layer = torch.nn.Module()
    return lambda: impl.forward(layer, batch.query, nothing, nothing, cache, metadata, batch.output)
