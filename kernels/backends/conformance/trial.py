"""A layer on trial: a small engine whose every output is known.

It draws queries, keys and values for some requests, scatters the requests over the cache's blocks, runs the layer step by
step through the same doors as a real engine (builder, forward context, layer), and compares each output with the truth.
Nothing here knows the cache's layout: the cache starts full of NaN, and only the backend writes to it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from kernels.backends.backend import CommonAttentionMetadata
from kernels.backends.batch import StepTensors
from kernels.backends.conformance import truth
from kernels.backends.conformance.setup import LAYER, ConformanceError, Setup, make_layer
from kernels.backends.forward_context import set_forward_context

__all__ = ["Request", "Step", "Trial", "new_memory_is_nan"]


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

    def __init__(self, setup: Setup, *, num_blocks: int = 24, filling: float = float("nan")) -> None:
        """filling: what the cache holds before anything is written, and so what nobody's slots hold.

        Raises NotSupported when the impl refuses the setup.
        """
        self.setup = setup
        self.filling = filling
        self.generator = torch.Generator().manual_seed(setup.seed)
        self.layer = make_layer(setup)
        spec = self.layer.get_kv_cache_spec(setup.block_size)
        shape = setup.backend.get_kv_cache_shape(
            num_blocks, setup.block_size, setup.num_kv_heads, setup.head_size, setup.kv_cache_dtype
        )
        self.layer.kv_cache = torch.full(shape, filling).to(spec.dtype).to(setup.device)
        self.builder = setup.backend.get_builder_cls()(spec, [LAYER], setup.device)
        # Block tables point there past a request's end. It stays as it was filled.
        self.nobodys_block, *self.free_blocks = torch.randperm(num_blocks, generator=self.generator).tolist()
        self.tensors = StepTensors(
            8,
            max(512, 8 * setup.block_size),
            num_blocks,
            setup.block_size,
            setup.device,
            unused_block=self.nobodys_block,
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
        self, batch: Sequence[tuple[Request, int]], num_padding: int = 0, common_prefix_len: int = 0
    ) -> tuple[CommonAttentionMetadata, Any]:
        """(what the batch brings, what the builder makes of it), of requests and their numbers of new tokens."""
        counts = [count for _, count in batch]
        common = self.tensors.fill(
            [request.blocks for request, _ in batch],
            [request.num_computed + count if len(request.key) else 0 for request, count in batch],
            counts,
            num_tokens=sum(counts) + num_padding,
        )
        return common, self.builder.build(common_prefix_len, common)

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
        with (
            new_memory_is_nan(self.setup.device),
            set_forward_context({LAYER: attn_metadata}, {LAYER: layer}, slot_mapping=slot_mapping),
        ):
            if self.setup.backend.is_mla():
                rank = self.setup.value_size
                output = layer(query, key[:, 0, :rank], key[:, :, rank:])
            else:
                output = layer(query, key, value)
        return output.view(len(query), self.setup.num_heads, self.setup.value_size)

    def step(
        self, batch: Sequence[tuple[Request, int]], *, num_padding: int = 0, common_prefix_len: int = 0
    ) -> Step:
        """Run the next tokens of some requests, given with their numbers of tokens."""
        common, attn_metadata = self.metadata(batch, num_padding, common_prefix_len)
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

    def step_right(self, batch: Sequence[tuple[Request, int]], **options: int) -> Step:
        """`step` with its options, and the output is the truth's."""
        step = self.step(batch, **options)
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
        hint = ""
        if got[token, head, element].isnan() and self.filling != self.filling:
            hint = "; NaN is what a slot holds that nobody wrote, so such a slot was read, or the output never written"
        off = error[wrong].nan_to_num(float("inf"), posinf=float("inf")).max().item()
        raise ConformanceError(
            f"{request.name} ({len(got)} query tokens, the last of {first + len(got)}, in blocks {request.blocks}), "
            f"its token at position {first + token}, head {head}, element {element}: "
            f"expected {expected[token, head, element].item():.6g}, got {got[token, head, element].item():.6g}; "
            f"{int(wrong.sum())} of its {wrong.numel()} numbers are off, by up to {off:.3g} "
            f"({tolerance[token, head, element].item():.1g} is allowed){hint}"
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


@contextmanager
def new_memory_is_nan(device: torch.device) -> Iterator[None]:
    """torch.empty gives NaN, so that what nobody writes does not look right by chance. On a CPU: a GPU would warn."""
    if device.type != "cpu":
        yield
        return
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
