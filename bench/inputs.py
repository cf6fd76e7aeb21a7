"""The tensors of a case, and the float32 attention that every output is held against."""

import math
from functools import cached_property
from typing import Any

import torch

from bench.cases import Case

FP8 = torch.float8_e4m3fn


class Inputs:
    """One copy of a case's tensors: normal random numbers, blocks in random order.

    Copies differ in their numbers and not in their block tables. The fp8 cache holds x / scale, with scales as an engine
    finds them: the largest number of the cache becomes the largest of the dtype.
    """

    def __init__(
        self, case: Case, seed: int, device: str = "cuda", dtype: torch.dtype = torch.bfloat16
    ) -> None:
        self.case = case
        self.device = torch.device(device)
        self.dtype = dtype
        generator = torch.Generator(device).manual_seed(seed)
        options: dict[str, Any] = {"generator": generator, "device": device, "dtype": dtype}
        shape = (sum(case.num_blocks), case.block_size, case.num_kv_heads, case.head_size)
        self.key_cache = torch.randn(shape, **options)
        if case.latent_size is None:
            self.value_cache = torch.randn(shape, **options)
        else:
            self.value_cache = self.key_cache[..., : case.latent_size]
        self.query = torch.randn(case.num_tokens, case.num_heads, case.head_size, **options)
        self.k_scale, self.v_scale = 1.0, 1.0
        if case.kv_dtype != "bfloat16":
            self.k_scale, self.key_cache = _to_fp8(self.key_cache)
            self.v_scale, self.value_cache = _to_fp8(self.value_cache)
        # Latent attention scales by the width before absorption: 128 + 64 in the models that have 512 + 64 after it.
        self.scale = case.head_size**-0.5 if case.latent_size is None else 192**-0.5

        self.block_table = block_table(case).to(device)
        self.seq_lens = self._int32([n for _, n in case.requests])
        starts = [0]
        for n_q, _ in case.requests:
            starts.append(starts[-1] + n_q)
        self.query_start_loc = self._int32(starts)
        self.max_query_len = max(n_q for n_q, _ in case.requests)
        self.max_seq_len = max(n for _, n in case.requests)

    def empty_output(self) -> torch.Tensor:
        """Where a contender may write: [num_tokens, num_heads, value_size], NaN so that what is not written shows."""
        case = self.case
        shape = (case.num_tokens, case.num_heads, case.value_size)
        return torch.full(shape, torch.nan, dtype=self.dtype, device=self.device)

    def gather(self, request: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of a request in order, [seq_len, num_kv_heads, head_size], in the cache's dtype."""
        seq_len = self.case.requests[request][1]
        blocks = self.block_table[request, : self.case.num_blocks[request]].long()
        key, value = (cache[blocks].flatten(0, 1) for cache in (self.key_cache, self.value_cache))
        return key[:seq_len], value[:seq_len]

    @cached_property
    def expected(self) -> torch.Tensor:
        """The right output in float32, [num_tokens, num_heads, value_size]. Worked out request by request."""
        starts = self.query_start_loc.tolist()
        outputs = []
        for request in range(len(self.case.requests)):
            query = self.query[starts[request] : starts[request + 1]].float()
            key, value = self.gather(request)
            key, value = key.float() * self.k_scale, value.float() * self.v_scale
            outputs.append(attend(query, key, value, self.scale, self.case.sliding_window))
        return torch.cat(outputs)

    def error(self, output: torch.Tensor) -> float:
        """|output - expected| / |expected| of the worst request; NaN if any element is.

        output: [num_tokens, num_heads, value_size], or [num_reqs, num_heads, n_q, value_size] from dense attention.
        """
        if output.dim() == 4:
            output = output.transpose(1, 2).flatten(0, 1)
        if output.shape != self.expected.shape:
            raise ValueError(f"output: expected shape {list(self.expected.shape)}, got {list(output.shape)}")
        lengths = [n_q for n_q, _ in self.case.requests]
        pairs = zip(output.float().split(lengths), self.expected.split(lengths), strict=True)
        return torch.stack([(got - right).norm() / right.norm() for got, right in pairs]).max().item()

    def _int32(self, values: list[int]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.int32, device=self.device)


def block_table(case: Case) -> torch.Tensor:
    """The table of every copy of a case's inputs, [num_reqs, max_num_blocks]: all blocks of the cache in random order."""
    scattered = torch.randperm(sum(case.num_blocks), generator=torch.Generator().manual_seed(0))
    table = torch.zeros(len(case.num_blocks), max(case.num_blocks), dtype=torch.int32)
    for request, own in enumerate(scattered.split(case.num_blocks)):
        table[request, : len(own)] = own
    return table


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, window: int | None
) -> torch.Tensor:
    """Causal attention of one request in the tensors' dtype, 512 queries at a time; the queries are its last tokens.

    query: [n_q, num_heads, head_size]; key, value: [seq_len, num_kv_heads, size]. Apart from kernels.reference, so that
    a mistake there would show here.
    """
    num_kv_heads, seq_len = key.shape[1], key.shape[0]
    outputs = []
    for first in range(0, len(query), 512):
        part = query[first : first + 512].unflatten(1, (num_kv_heads, -1))
        position = torch.arange(first, first + len(part), device=query.device) + seq_len - len(query)
        begin = 0 if window is None else max(0, int(position[0]) + 1 - window)
        seen = slice(begin, int(position[-1]) + 1)
        distance = position[:, None] - torch.arange(seq_len, device=query.device)[None, seen]
        hidden = distance < 0 if window is None else (distance < 0) | (distance >= window)
        scores = torch.einsum("qhgd,khd->hgqk", part, key[seen]) * scale
        weights = scores.masked_fill_(hidden, -math.inf).softmax(-1)
        outputs.append(torch.einsum("hgqk,khd->qhgd", weights, value[seen]).flatten(1, 2))
    return torch.cat(outputs)


def num_copies(case: Case, cache_bytes: int) -> int:
    """Copies of the inputs whose keys and values together are four times the L2 cache, at least two."""
    return max(2, min(32, -(-4 * cache_bytes // case.kv_bytes)))


def _to_fp8(cache: torch.Tensor) -> tuple[float, torch.Tensor]:
    scale = cache.abs().max().item() / torch.finfo(FP8).max
    return scale, (cache / scale).to(FP8)
