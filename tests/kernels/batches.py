"""Named batches for the kernels' tests, and how far from the truth an output may be.

Every batch is hostile where the contract allows it: blocks are scattered, what no request owns is NaN, and entries of
the block table past a request's end are ids that do not exist.
"""

import functools
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from kernels import contract, reference

DTYPES = [
    pytest.param(torch.float32, id="fp32"),
    pytest.param(torch.float16, id="fp16"),
    pytest.param(torch.bfloat16, id="bf16", marks=pytest.mark.gpu),
]


@dataclass(frozen=True)
class Spec:
    """Requests as (query tokens, sequence length), and the model's sizes."""

    requests: tuple[tuple[int, int], ...]
    num_heads: int = 4
    num_kv_heads: int = 2
    head_size: int = 64
    block_size: int = 16


_MIXED = ((1, 40), (5, 5), (9, 30), (17, 17))
SPECS = {
    "one token": Spec(((1, 1),)),
    "decode, ragged": Spec(((1, 1), (1, 15), (1, 16), (1, 17), (1, 100))),
    "prefill, block boundaries": Spec(((15, 15), (16, 16), (17, 17), (32, 32))),
    "prefill, several tiles": Spec(((150, 290),)),
    "chunk of a prefill": Spec(((7, 50), (20, 33))),
    "prefill, chunk and decode": Spec(_MIXED),
    "many short requests": Spec(((2, 3), (1, 2), (3, 3)) * 6),
    "requests without queries": Spec(((0, 12), (3, 9), (0, 0), (0, 30), (4, 4), (0, 5))),
    "empty requests": Spec(((1, 0), (4, 20), (2, 0), (1, 7), (1, 0))),
    "no requests": Spec(()),
    "GQA of 7": Spec(_MIXED, num_heads=14, num_kv_heads=2),
    "GQA of 8": Spec(_MIXED, num_heads=8, num_kv_heads=1),
    "GQA of 3, 3 kv heads": Spec(_MIXED, num_heads=9, num_kv_heads=3),
    "as many kv heads as heads": Spec(_MIXED, num_heads=3, num_kv_heads=3),
    "MQA of 71": Spec(((3, 20), (1, 9)), num_heads=71, num_kv_heads=1),
    "head size 1": Spec(_MIXED, head_size=1),
    "head size 33": Spec(_MIXED, head_size=33),
    "head size 80": Spec(_MIXED, head_size=80),
    "head size 96": Spec(_MIXED, head_size=96),
    "head size 112": Spec(_MIXED, head_size=112),
    "head size 128": Spec(_MIXED, head_size=128),
    "head size 192": Spec(_MIXED, head_size=192),
    "head size 256": Spec(_MIXED, head_size=256),
    "block size 1": Spec(_MIXED, block_size=1),
    "block size 5": Spec(_MIXED, block_size=5),
    "block size 8": Spec(_MIXED, block_size=8),
    "block size 48": Spec(_MIXED, block_size=48),
    "block size 256": Spec(_MIXED, block_size=256),
}


@dataclass(frozen=True)
class Batch:
    """The arguments of `paged_attention` and which slots of the cache a request owns."""

    query: torch.Tensor
    key_cache: torch.Tensor
    value_cache: torch.Tensor
    block_table: torch.Tensor
    seq_lens: torch.Tensor
    query_start_loc: torch.Tensor
    scale: float
    owned: torch.Tensor  # [num_blocks, block_size] bool

    @property
    def arguments(self) -> tuple:
        return (
            self.query,
            self.key_cache,
            self.value_cache,
            self.block_table,
            self.seq_lens,
            self.query_start_loc,
            self.scale,
        )

    @property
    def decode_arguments(self) -> tuple:
        """For `paged_decode`, when every request has one query token."""
        return (*self.arguments[:5], self.scale)

    def to(self, dtype: torch.dtype) -> "Batch":
        """Queries and caches in another dtype. An fp8 cache stays: references read it exactly."""
        caches = {"key_cache": self.key_cache, "value_cache": self.value_cache}
        caches = {name: cache if is_fp8(cache) else cache.to(dtype) for name, cache in caches.items()}
        return replace(self, query=self.query.to(dtype), **caches)

    def with_fp8_cache(self, dtype: torch.dtype) -> "Batch":
        """Caches that hold the same numbers in one byte each, NaN where nobody owns the slot."""
        return replace(self, key_cache=self.key_cache.to(dtype), value_cache=self.value_cache.to(dtype))


def make_batch(
    spec: Spec, dtype: torch.dtype, device: torch.device, *, seed: int = 0, magnitude: float = 1.0
) -> Batch:
    """Normal random numbers; `magnitude` multiplies queries, so that scores grow with it."""
    generator = torch.Generator().manual_seed(seed)
    query_lens = [n_q for n_q, _ in spec.requests]
    seq_lens = [seq_len for _, seq_len in spec.requests]
    num_owned = [-(-seq_len // spec.block_size) for seq_len in seq_lens]
    num_blocks = sum(num_owned) + 3

    scattered = torch.randperm(num_blocks, generator=generator).tolist()
    table = torch.full((len(spec.requests), max(num_owned, default=0) + 1), -(2**30), dtype=torch.int32)
    owned = torch.zeros(num_blocks, spec.block_size, dtype=torch.bool)
    for request, count in enumerate(num_owned):
        blocks, scattered = scattered[:count], scattered[count:]
        table[request, :count] = torch.tensor(blocks, dtype=torch.int32)
        for position in range(seq_lens[request]):
            owned[blocks[position // spec.block_size], position % spec.block_size] = True

    cache_shape = (num_blocks, spec.block_size, spec.num_kv_heads, spec.head_size)
    key_cache = torch.randn(cache_shape, generator=generator)
    value_cache = torch.randn(cache_shape, generator=generator)
    key_cache[~owned] = float("nan")
    value_cache[~owned] = float("nan")
    query = torch.randn(sum(query_lens), spec.num_heads, spec.head_size, generator=generator) * magnitude
    starts = torch.tensor([0, *query_lens]).cumsum(0).to(torch.int32)
    return Batch(
        query.to(device, dtype),
        key_cache.to(device, dtype),
        value_cache.to(device, dtype),
        table.to(device),
        torch.tensor(seq_lens, dtype=torch.int32, device=device),
        starts.to(device),
        spec.head_size**-0.5,
        owned.to(device),
    )


def is_fp8(cache: torch.Tensor) -> bool:
    return cache.dtype in contract.FP8_DTYPES


def far_apart(cache: torch.Tensor) -> torch.Tensor:
    """The same cache with its last blocks more than 2**31 elements from its first. What lies between is never touched,
    so that on a CPU it takes addresses and no memory."""
    num_blocks = len(cache)
    stride = 2**31 // (num_blocks - 2)
    size = (num_blocks - 1) * stride + cache[0].numel()
    room = torch.empty(size, dtype=cache.dtype, device=cache.device)
    view = room.as_strided(cache.shape, (stride, *cache.stride()[1:]))
    view.copy_(cache)
    return view


# The error budget
#
# The truth is the float64 reference on the very inputs that the kernel got. With u the unit roundoff of the inputs'
# dtype, an output may be off by three things:
#   1. its own rounding: u * |output|;
#   2. the rounding of the softmax weights to that dtype, before tl.dot multiplies them with the values. A weight is
#      off by at most u of itself, so the output by u * (attention over |value|), and where weights are subnormal
#      by half the dtype's smallest step each. Not in float32, where nothing is rounded in between;
#   3. float32 arithmetic: scores, exponentials, sums. That is measured, not guessed: the error of the float32
#      reference on the same inputs, at its largest over the batch, and at least one rounding of the largest
#      value. A kernel adds in another order and has an exponential of its own, so it may err SLACK times as much.

UNIT_ROUNDOFF = {torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
SMALLEST_STEP = {torch.float32: 0.0, torch.float16: 2.0**-24, torch.bfloat16: 2.0**-133}
SLACK = 16.0


def measured(output: torch.Tensor, truth: torch.Tensor) -> float:
    """The largest error of a float32 computation, at least one rounding of the largest value."""
    if truth.numel() == 0:
        return 0.0
    finite = truth.isfinite()
    error = (output.double() - truth)[finite].abs().max().item() if finite.any() else 0.0
    largest = truth[finite].abs().max().item() if finite.any() else 0.0
    return max(error, UNIT_ROUNDOFF[torch.float32] * largest)


def assert_attention_right(batch: Batch, output: torch.Tensor, lse: torch.Tensor, **options: Any) -> None:
    """`output` and `lse` are those of paged attention over `batch` with these options, within the error budget."""
    dtype = batch.query.dtype
    attend = functools.partial(reference.paged_attention, **options)
    truth, true_lse = attend(*batch.to(torch.float64).arguments, return_lse=True)
    single, single_lse = attend(*batch.to(torch.float32).arguments, return_lse=True)
    tolerance = UNIT_ROUNDOFF[dtype] * truth.abs() + SLACK * measured(single, truth)
    lse_tolerance = SLACK * measured(single_lse, true_lse)
    absolute = batch.value_cache.double().abs()
    if is_fp8(batch.value_cache):
        absolute = absolute.to(batch.value_cache.dtype)
    weighted = attend(*replace(batch.to(torch.float64), value_cache=absolute).arguments)
    if dtype != torch.float32:
        longest = max(batch.seq_lens.tolist(), default=0)
        v_scale = torch.as_tensor(1.0 if options.get("v_scale") is None else options["v_scale"])
        largest = absolute.double().nan_to_num(0.0).max().item() * v_scale.max().item()
        tolerance += UNIT_ROUNDOFF[dtype] * weighted + SMALLEST_STEP[dtype] / 2 * longest * largest
    if options.get("softcap") is not None:
        # tanh from 1 - 2 / (exp(2x) + 1) is off by a rounding of 1, not of itself: a score by that times the cap.
        score_error = 4 * UNIT_ROUNDOFF[torch.float32] * options["softcap"]
        tolerance += 2 * score_error * weighted
        lse_tolerance += score_error
    assert output.dtype == dtype
    assert lse.dtype == torch.float32
    assert_within(output, truth, tolerance)
    assert_within(lse, true_lse, torch.full_like(true_lse, lse_tolerance))


def assert_within(got: torch.Tensor, truth: torch.Tensor, tolerance: torch.Tensor) -> None:
    assert got.shape == truth.shape
    assert got.device == truth.device
    got = got.double()
    same = got == truth  # infinities
    wrong = ~(same | ((got - truth).abs() <= tolerance))
    if wrong.any():
        index = wrong.nonzero()[0].tolist()
        at = tuple(index)
        raise AssertionError(
            f"{int(wrong.sum())} of {wrong.numel()} elements are off, first {index}: "
            f"got {got[at].item()}, expected {truth[at].item()} within {tolerance[at].item()}"
        )
