"""A case's tensors: what an attention function is handed for one step of it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from course.differential.case import Case, Part

_LARGE = 100.0
_T = torch.Tensor
_QUERY, _KEY, _VALUE = range(3)


@dataclass(frozen=True, eq=False)
class Inputs:
    """The arguments of a paged attention function for one step, in the words of `kernels.contract`.

    key_cache, value_cache: [num_blocks, block_size, num_kv_heads, head_size] in layout NHD, [num_blocks, num_kv_heads,
    block_size, head_size] in HND. Only blocks that are owned are in memory, and one more, the last, that nobody owns: physical
    number n of the case is row block_table says. That stands for a cache of 2**31 blocks without its bytes.
    """

    query: torch.Tensor
    key_cache: torch.Tensor
    value_cache: torch.Tensor
    block_table: torch.Tensor
    seq_lens: torch.Tensor
    query_start_loc: torch.Tensor
    scale: float
    window: int | None
    layout: str
    k_scale: float | None
    v_scale: float | None

    def as_nhd(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Both caches as [num_blocks, block_size, num_kv_heads, head_size], views of the same memory."""
        caches = self.key_cache, self.value_cache
        return caches if self.layout == "NHD" else (caches[0].transpose(1, 2), caches[1].transpose(1, 2))

    def arguments(self) -> tuple[_T, _T, _T, _T, _T, _T]:
        """What stands before `scale` in `kernels.paged_attention`'s parameters."""
        return (self.query, *self.as_nhd(), self.block_table, self.seq_lens, self.query_start_loc)


def inputs(case: Case, step: int, tables: Sequence[Sequence[int]] | None = None) -> Inputs:
    """The inputs of a step, CPU tensors.

    tables: other rows for the block table, in physical numbers; what no request of the step owns is found in no block of the
    step's and so reads what `case.unowned` says.
    """
    parts = case.steps[step]
    row_of = {block: row for row, block in enumerate(sorted(b for part in parts for b in part.blocks))}
    nobodys = len(row_of)
    tables = [part.blocks for part in parts] if tables is None else tables
    width = max(1, *(len(row) for row in tables)) + 1
    table = torch.full((len(parts), width), nobodys, dtype=torch.int32)
    for row, blocks in zip(table, tables, strict=True):
        row[: len(blocks)] = torch.tensor([row_of.get(block, nobodys) for block in blocks], dtype=torch.int32)
    key_cache, value_cache = (_cache(case, parts, row_of, which) for which in (_KEY, _VALUE))
    starts = [0]
    for part in parts:
        starts.append(starts[-1] + part.query_len)
    fp8 = case.kv_dtype == "fp8"
    return Inputs(
        _query(case, parts),
        key_cache,
        value_cache,
        table,
        torch.tensor([part.seq_len for part in parts], dtype=torch.int32),
        torch.tensor(starts, dtype=torch.int32),
        case.head_size**-0.5,
        case.window,
        case.layout,
        float(case.k_scale) if fp8 else None,
        float(case.v_scale) if fp8 else None,
    )


def _query(case: Case, parts: tuple[Part, ...]) -> torch.Tensor:
    rows = []
    for part in parts:
        heads = [
            _numbers(case, part.request, _QUERY, head, max(1, part.seq_len)) for head in range(case.num_heads)
        ]
        rows.append(torch.stack(heads, dim=1)[max(1, part.seq_len) - part.query_len :])
    return torch.cat(rows).to(getattr(torch, case.dtype))


def _cache(case: Case, parts: tuple[Part, ...], row_of: dict[int, int], which: int) -> torch.Tensor:
    scale = 1.0
    dtype = getattr(torch, case.dtype)
    if case.kv_dtype == "fp8":
        scale, dtype = float(case.k_scale if which == _KEY else case.v_scale), torch.float8_e4m3fn
    fill = {"nan": torch.nan, "zeros": 0.0, "large": _LARGE}[case.unowned]
    cache = torch.full((len(row_of) + 1, case.block_size, case.num_kv_heads, case.head_size), fill)
    for part in parts:
        heads = [_numbers(case, part.request, which, head, part.seq_len) for head in range(case.num_kv_heads)]
        tokens = torch.stack(heads, dim=1) / scale
        for number, block in enumerate(part.blocks):
            piece = tokens[number * case.block_size : (number + 1) * case.block_size]
            cache[row_of[block], : len(piece)] = piece
    if case.kv_dtype == "fp8":
        cache = cache.clamp(-448.0, 448.0)
    if case.layout == "HND":
        cache = cache.transpose(1, 2)
    return cache.contiguous().to(dtype)


def _numbers(case: Case, request: int, which: int, head: int, count: int) -> torch.Tensor:
    """[count, head_size]: the first `count` tokens of a request, for one head."""
    drawn = _drawn(case.seed, request, which, head, case.head_size, -(-max(1, count) // 64) * 64)
    return drawn[:count] * case.magnitude


@functools.lru_cache(maxsize=4096)
def _drawn(seed: int, request: int, which: int, head: int, head_size: int, count: int) -> torch.Tensor:
    # numpy draws one number after the other, so that a longer request begins like a shorter one.
    rng = np.random.default_rng([seed, request, which, head])
    return torch.from_numpy(rng.standard_normal((count, head_size), dtype=np.float32))
