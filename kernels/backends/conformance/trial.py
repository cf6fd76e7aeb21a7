"""A layer on trial: a small engine whose every output is known.

It draws queries, keys and values for some requests, scatters the requests over the cache's blocks, runs the layer step by
step through the same doors as a real engine (builder, forward context, layer), and compares each output with the truth.
Nothing here knows the cache's layout: the cache starts full of NaN, and only the backend writes to it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from kernels import runtime
from kernels.backends.backend import AttentionBackend, CommonAttentionMetadata, MultipleOf
from kernels.backends.batch import StepTensors
from kernels.backends.conformance import truth
from kernels.backends.forward_context import set_forward_context
from kernels.backends.layer import Attention
from kernels.backends.mla_layer import MLAAttention
from kernels.backends.selector import get_device_capability

__all__ = ["ConformanceError", "NotSupported", "Request", "Setup", "Step", "Trial"]

LAYER = "model.layers.0.attn"


class ConformanceError(AssertionError):
    """A backend breaks the contract; the message says where, what was expected and what came."""


class NotSupported(Exception):
    """The backend says that it does not have the feature; the message says how it said so."""


@dataclass(frozen=True)
class Setup:
    """A backend and the sizes of the layer that it is tried with. For latents num_kv_heads is 1."""

    backend: type[AttentionBackend]
    device: torch.device
    dtype: torch.dtype
    num_heads: int = 4
    num_kv_heads: int = 2
    head_size: int = 32
    block_size: int = 4
    sliding_window: int | None = None
    softcap: float | None = None
    alibi_slopes: tuple[float, ...] | None = None
    sinks: tuple[float, ...] | None = None
    kv_cache_dtype: str = "auto"
    # Not head_size ** -0.5: a backend that takes that of its own accord is noticed.
    relative_scale: float = 0.8

    @property
    def scale(self) -> float:
        return self.relative_scale * float(self.head_size**-0.5)

    @property
    def value_size(self) -> int:
        """Numbers of a value: head_size, or for latents the largest power of two below it (512 of 576)."""
        return 1 << ((self.head_size - 1).bit_length() - 1) if self.backend.is_mla() else self.head_size

    def objections(self) -> list[str]:
        """The backend's own reasons against this setup."""
        return self.backend.validate_configuration(
            head_size=self.head_size,
            dtype=self.dtype,
            kv_cache_dtype=self.kv_cache_dtype,
            block_size=self.block_size,
            use_mla=self.backend.is_mla(),
            has_sink=self.sinks is not None,
            device_capability=get_device_capability(self.device),
        )


def choose_setup(
    backend: type[AttentionBackend],
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Setup:
    """Small sizes that the backend says it takes. Raises ValueError with its reasons when it takes none."""
    if not (isinstance(backend, type) and issubclass(backend, AttentionBackend)):
        raise ValueError(f"backend: expected a subclass of AttentionBackend, got {backend!r}")
    place = torch.device(runtime.device() if device is None else device)
    if dtype is None:
        dtypes = (torch.float32, torch.float16, torch.bfloat16)
        dtype = next(filter(backend.supports_dtype, dtypes), torch.float32)
    head_sizes = [40, 72] if backend.is_mla() else [32, 64]
    head_sizes += sorted(backend.get_supported_head_sizes())
    block_sizes = [4, 16, *_block_sizes(backend)]
    setup = Setup(
        backend,
        place,
        dtype,
        num_kv_heads=1 if backend.is_mla() else 2,
        head_size=next(filter(backend.supports_head_size, head_sizes), head_sizes[0]),
        block_size=next(filter(backend.supports_block_size, block_sizes), 16),
    )
    if objections := setup.objections():
        raise ValueError(
            f"backend: {backend.get_name()} does not take this setup: {', '.join(objections)} "
            f"({str(setup.dtype).removeprefix('torch.')} on {setup.device}, head size {setup.head_size}, "
            f"blocks of {setup.block_size})"
        )
    return setup


def _block_sizes(backend: type[AttentionBackend]) -> list[int]:
    sizes = backend.get_supported_kernel_block_sizes()
    return sorted(size.base if isinstance(size, MultipleOf) else size for size in sizes)


@dataclass
class Request:
    """A request whose tokens are drawn in advance; `num_computed` of them are in the cache.

    query, key, value: [max tokens, heads, size] in the model's dtype; for latents key holds the rows, and value is key.
    """

    name: str
    blocks: list[int]
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    num_computed: int = 0

    def restart(self, blocks: Sequence[int]) -> None:
        """As after a preemption: nothing is computed, and the tokens will lie in other blocks."""
        self.blocks = list(blocks)
        self.num_computed = 0


@dataclass
class Step:
    """One step's output and who it belongs to. output: [num_tokens, num_heads, size of a value], with padding."""

    requests: list[tuple[Request, int, int]]  # (request, first position, number of query tokens)
    output: torch.Tensor
    common: CommonAttentionMetadata
    attn_metadata: Any

    def of(self, request: Request) -> torch.Tensor:
        """The request's part of the output, [query tokens, num_heads, size of a value]."""
        start = 0
        for each, _, count in self.requests:
            if each is request:
                return self.output[start : start + count]
            start += count
        raise ValueError(f"request: expected one of this step's, got {request.name}")


class Trial:
    """One layer with its cache, its builder and the requests that it serves."""

    def __init__(
        self, setup: Setup, *, num_blocks: int = 24, seed: int = 0, filling: float = float("nan")
    ) -> None:
        """filling: what the cache holds before anything is written, and so what nobody's slots hold.

        Raises NotSupported when the impl refuses the setup.
        """
        self.setup = setup
        self.generator = torch.Generator().manual_seed(seed)
        self.layer = _make_layer(setup)
        spec = self.layer.get_kv_cache_spec(setup.block_size)
        shape = setup.backend.get_kv_cache_shape(
            num_blocks, setup.block_size, setup.num_kv_heads, setup.head_size, setup.kv_cache_dtype
        )
        self.layer.kv_cache = torch.full(shape, filling).to(spec.dtype).to(setup.device)
        self.builder = setup.backend.get_builder_cls()(spec, [LAYER], setup.device)
        # Block tables point there past a request's end. It stays as it was filled.
        self.nobodys_block, *self.free_blocks = torch.randperm(num_blocks, generator=self.generator).tolist()
        self.tensors = StepTensors(
            8, 512, num_blocks, setup.block_size, setup.device, unused_block=self.nobodys_block
        )
        self.num_requests = 0

    def request(
        self,
        num_tokens: int,
        blocks: Sequence[int] | None = None,
        *,
        prefix: Request | None = None,
        num_shared_blocks: int = 0,
        magnitude: float = 1.0,
    ) -> Request:
        """A request of up to `num_tokens` tokens, in blocks of its own wherever they are free, or in `blocks`.

        prefix, num_shared_blocks: the request begins with that one's first blocks, which are computed already.
        magnitude: what queries are multiplied with, and so scores.
        """
        setup = self.setup
        if blocks is None:
            count = -(-num_tokens // setup.block_size) - num_shared_blocks
            blocks, self.free_blocks = self.free_blocks[:count], self.free_blocks[count:]
        query = self._draw(num_tokens, setup.num_heads) * magnitude
        key = self._draw(num_tokens, setup.num_kv_heads)
        value = key if setup.backend.is_mla() else self._draw(num_tokens, setup.num_kv_heads)
        name = f"request {self.num_requests}"
        self.num_requests += 1
        made = Request(name, list(blocks), query, key, value)
        if prefix is not None:
            shared = num_shared_blocks * setup.block_size
            made.blocks = prefix.blocks[:num_shared_blocks] + made.blocks
            key[:shared] = prefix.key[:shared]
            value[:shared] = prefix.value[:shared]
            made.num_computed = shared
        return made

    def metadata(
        self, batch: Sequence[tuple[Request, int]], num_padding: int = 0
    ) -> tuple[CommonAttentionMetadata, Any]:
        """(what the batch brings, what the builder makes of it), of requests and their numbers of new tokens."""
        counts = [count for _, count in batch]
        common = self.tensors.fill(
            [request.blocks for request, _ in batch],
            [request.num_computed + count if len(request.key) else 0 for request, count in batch],
            counts,
            num_tokens=sum(counts) + num_padding,
        )
        return common, self.builder.build(0, common)

    def inputs(
        self, batch: Sequence[tuple[Request, int]], num_padding: int = 0
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """This step's query, key and value; rows of padding are NaN."""
        parts = []
        for name in ("query", "key", "value"):
            rows = []
            for request, count in batch:
                own = getattr(request, name)[request.num_computed : request.num_computed + count]
                # A request of length 0 may have query rows all the same, as a CUDA graph's padding does.
                rows.append(own if len(own) == count else own.new_ones(count, *own.shape[1:]))
            example = getattr(batch[0][0], name)
            rows.append(example.new_full((num_padding, *example.shape[1:]), float("nan")))
            parts.append(torch.cat(rows))
        return parts[0], parts[1], parts[2]

    def run(
        self, inputs: tuple[torch.Tensor, ...], common: CommonAttentionMetadata, attn_metadata: Any
    ) -> torch.Tensor:
        """The layer's output, [num_tokens, num_heads, size of a value]."""
        query, key, value = inputs
        slot_mapping = {LAYER: common.slot_mapping}
        layer: Any = self.layer
        with set_forward_context({LAYER: attn_metadata}, {LAYER: layer}, slot_mapping=slot_mapping):
            if self.setup.backend.is_mla():
                rank = self.setup.value_size
                output = layer(query, key[:, 0, :rank], key[:, :, rank:])
            else:
                output = layer(query, key, value)
        return output.view(len(query), self.setup.num_heads, self.setup.value_size)

    def step(self, batch: Sequence[tuple[Request, int]], *, num_padding: int = 0) -> Step:
        """Run the next tokens of some requests, given with their numbers of tokens."""
        common, attn_metadata = self.metadata(batch, num_padding)
        output = self.run(self.inputs(batch, num_padding), common, attn_metadata)
        return self.advance(batch, output, common, attn_metadata)

    def advance(
        self,
        batch: Sequence[tuple[Request, int]],
        output: torch.Tensor,
        common: CommonAttentionMetadata,
        attn_metadata: Any,
    ) -> Step:
        """Count the batch's tokens as computed."""
        requests = [(request, request.num_computed, count) for request, count in batch]
        for request, count in batch:
            request.num_computed += count
        return Step(requests, output, common, attn_metadata)

    def step_right(self, batch: Sequence[tuple[Request, int]], *, num_padding: int = 0) -> Step:
        """`step`, and the output is the truth's."""
        step = self.step(batch, num_padding=num_padding)
        self.expect_right(step)
        return step

    def truth(self, request: Request, first: int, count: int) -> truth.Truth:
        """What the request's query tokens from position `first` on should give."""
        setup = self.setup
        end = first + count
        key = self._as_cached(request.key[:end], "_k_scale")
        value = key if setup.backend.is_mla() else self._as_cached(request.value[:end], "_v_scale")
        options: dict[str, Any] = {"sliding_window": setup.sliding_window, "softcap": setup.softcap}
        for name in ("alibi_slopes", "sinks"):
            numbers = getattr(setup, name)
            if numbers is not None:
                options[name] = torch.tensor(numbers, dtype=torch.float32, device=setup.device)
        query = request.query[first:end].double()
        return truth.attend(query, key, value, setup.scale, setup.dtype, setup.value_size, **options)

    def expect_right(self, step: Step) -> None:
        """Raise ConformanceError for the first number of the step's output that is off."""
        for request, first, count in step.requests:
            got = step.of(request)
            if len(request.key) == 0:
                self._expect(
                    got, torch.zeros_like(got.double()), torch.zeros_like(got.double()), request, first
                )
                continue
            expected = self.truth(request, first, count)
            self._expect(got, expected.output, expected.tolerance, request, first)

    def _expect(
        self, got: torch.Tensor, expected: torch.Tensor, tolerance: torch.Tensor, request: Request, first: int
    ) -> None:
        if got.dtype != self.setup.dtype:
            raise ConformanceError(
                f"the output is {got.dtype}; expected {self.setup.dtype}, the query's dtype"
            )
        error = (got.double() - expected).abs()
        wrong = ~(error <= tolerance)
        if not wrong.any():
            return
        token, head, element = wrong.nonzero()[0].tolist()
        off = error[wrong].nan_to_num(float("inf")).max().item()
        raise ConformanceError(
            f"{request.name} ({len(got)} query tokens, the last of {first + len(got)}, in blocks {request.blocks}), "
            f"its token at position {first + token}, head {head}, element {element}: "
            f"expected {expected[token, head, element].item():.6g}, got {got[token, head, element].item():.6g}; "
            f"{int(wrong.sum())} of its {wrong.numel()} numbers are off, by up to {off:.3g} "
            f"({tolerance[token, head, element].item():.1g} is allowed)"
        )

    def _draw(self, num_tokens: int, num_heads: int) -> torch.Tensor:
        numbers = torch.randn(num_tokens, num_heads, self.setup.head_size, generator=self.generator)
        return numbers.to(self.setup.device, self.setup.dtype)

    def _as_cached(self, tokens: torch.Tensor, scale_name: str) -> torch.Tensor:
        """What the cache is to hold of tokens, in float64: an fp8 cache rounds."""
        dtype = self.layer.kv_cache_torch_dtype
        if dtype.itemsize > 1:
            return tokens.double()
        scale = getattr(self.layer, scale_name)
        largest = torch.finfo(dtype).max
        return (tokens.float() / scale).clamp(-largest, largest).to(dtype).double() * scale.double()


def with_options(setup: Setup, **changes: Any) -> Setup:
    """The setup with other sizes or options. Raises NotSupported when the backend says that it does not take them."""
    changed = replace(setup, **changes)
    if objections := changed.objections():
        raise NotSupported(", ".join(objections))
    return changed


def _make_layer(setup: Setup) -> Attention | MLAAttention:
    """A layer whose projections, for latents, are the identity: what the backend computes is what comes out."""
    try:
        if setup.backend.is_mla():
            rank = setup.value_size
            identity = torch.eye(rank, dtype=setup.dtype, device=setup.device).repeat(2 * setup.num_heads, 1)
            return MLAAttention(
                setup.num_heads,
                setup.scale,
                rank,
                setup.head_size - rank,
                rank,
                rank,
                identity,
                prefix=LAYER,
                attn_backend=setup.backend,
                kv_cache_dtype=setup.kv_cache_dtype,
            )
        extra: dict[str, Any] = {}
        if setup.sinks is not None:
            extra["sinks"] = torch.tensor(setup.sinks, dtype=torch.float32, device=setup.device)
        return Attention(
            setup.num_heads,
            setup.head_size,
            setup.scale,
            setup.num_kv_heads,
            None if setup.alibi_slopes is None else list(setup.alibi_slopes),
            setup.softcap,
            setup.sliding_window,
            prefix=LAYER,
            attn_backend=setup.backend,
            dtype=setup.dtype,
            kv_cache_dtype=setup.kv_cache_dtype,
            device=setup.device,
            **extra,
        )
    except NotImplementedError as refusal:
        raise NotSupported(f"the impl says: {refusal}") from None
