"""What a minimiser is built from: how large a case is, and the cases that are one cut smaller."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from course.differential.case import Case, Part

_PLAIN: dict[str, Any] = {
    "window": None,
    "layout": "NHD",
    "dtype": "float32",
    "kv_dtype": "auto",
    "k_scale": 1.0,
    "v_scale": 1.0,
    "magnitude": 1.0,
    "unowned": "zeros",
}


def size(case: Case) -> int:
    """How much there is to look at: tokens in the cache, query tokens, requests, blocks, each counted in every step; steps;
    query heads and kv heads; and one for each field that is not plain (no window, NHD, float32, scales and magnitude of 1,
    zeros in what nobody owns, block numbers below 1000).
    """
    parts = [part for step in case.steps for part in step]
    tokens = sum(part.seq_len + part.query_len + len(part.blocks) for part in parts)
    return tokens + len(parts) + len(case.steps) + case.num_heads + case.num_kv_heads + len(odd_fields(case))


def odd_fields(case: Case) -> list[str]:
    """The names of the fields that are not plain, "blocks" among them where a block number is 1000 or more."""
    odd = [name for name, plain in _PLAIN.items() if getattr(case, name) != plain]
    high = any(block >= 1000 for step in case.steps for part in step for block in part.blocks)
    return odd + ["blocks"] * high


def smaller(case: Case) -> Iterator[Case]:
    """Cases that are one cut smaller, deep cuts first. Each has a smaller `size`; the case itself stays as it is.

    A case that fails, while none of these does, is *minimal*.
    """
    for made in _candidates(case):
        if made is not None and size(made) < size(case):
            yield made


def _candidates(case: Case) -> Iterator[Case | None]:
    # Whole steps, whole requests, a request in one step.
    for number in range(len(case.steps)):
        yield _with_steps(case, [*case.steps[:number], *case.steps[number + 1 :]])
    numbers = sorted({part.request for step in case.steps for part in step})
    for gone in numbers:
        yield _with_steps(case, [tuple(part for part in step if part.request != gone) for step in case.steps])
    for number, row, _ in _parts(case):
        step = case.steps[number]
        yield _with_part(case, number, row, None) if len(step) > 1 else None
    # Heads: fewer query heads for a kv head, fewer kv heads.
    group = case.num_heads // case.num_kv_heads
    for kv_heads in sorted({1, case.num_kv_heads // 2, case.num_kv_heads - 1} - {0}):
        yield replace(case, num_kv_heads=kv_heads, num_heads=kv_heads * group)
    for fewer in sorted({1, group // 2, group - 1} - {0}):
        yield replace(case, num_heads=case.num_kv_heads * fewer)
    # Lengths: of all parts together, of each alone.
    yield _with_steps(
        case, [tuple(_cut(case, p, p.seq_len // 2, p.query_len) for p in s) for s in case.steps]
    )
    for number, row, part in _parts(case):
        for seq_len in (0, 1, part.seq_len // 2, part.seq_len - case.block_size, part.seq_len - 1):
            if 0 <= seq_len < part.seq_len:
                yield _with_part(case, number, row, _cut(case, part, seq_len, part.query_len))
        for query_len in (0, 1, part.query_len // 2, part.query_len - 1):
            if 0 <= query_len < part.query_len:
                yield _with_part(case, number, row, replace(part, query_len=query_len))
    # Fields as plain as they can be.
    for name in odd_fields(case):
        yield _renumbered(case) if name == "blocks" else replace(case, **{name: _PLAIN[name]})


def _parts(case: Case) -> Iterator[tuple[int, int, Part]]:
    for number, step in enumerate(case.steps):
        for row, part in enumerate(step):
            yield number, row, part


def _cut(case: Case, part: Part, seq_len: int, query_len: int) -> Part:
    """The part with fewer tokens: its first ones."""
    query_len = min(query_len, max(1, seq_len))
    return replace(
        part, query_len=query_len, seq_len=seq_len, blocks=part.blocks[: -(-seq_len // case.block_size)]
    )


def _with_part(case: Case, number: int, row: int, part: Part | None) -> Case | None:
    step = case.steps[number]
    made = (*step[:row], *([part] if part is not None else []), *step[row + 1 :])
    return _with_steps(case, [*case.steps[:number], made, *case.steps[number + 1 :]])


def _with_steps(case: Case, steps: list[tuple[Part, ...]]) -> Case | None:
    steps = [step for step in steps if step]
    return replace(case, steps=tuple(steps)) if steps else None


def _renumbered(case: Case) -> Case:
    """The same case with its blocks numbered from 0."""
    blocks = sorted({block for step in case.steps for part in step for block in part.blocks})
    new = {block: number for number, block in enumerate(blocks)}
    steps = (
        tuple(replace(part, blocks=tuple(new[b] for b in part.blocks)) for part in step)
        for step in case.steps
    )
    return replace(case, steps=tuple(steps))
