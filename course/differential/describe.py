"""Cases and differences in words and tables, for a person."""

from __future__ import annotations

from collections.abc import Mapping

from course.differential.case import Case
from course.differential.compare import Backend, compare
from course.differential.shrink import odd_fields, size


def describe(case: Case) -> str:
    """A few lines: the case's shape, every request of every step, and what is not plain."""
    lines = [
        f"size {size(case)}: {case.num_heads} query heads, {case.num_kv_heads} kv heads of {case.head_size}, "
        f"blocks of {case.block_size}"
    ]
    for number, step in enumerate(case.steps):
        for part in step:
            blocks = ", ".join(map(str, part.blocks[:6])) + (", ..." if len(part.blocks) > 6 else "")
            lines.append(
                f"  step {number}, request {part.request}: {part.seq_len} tokens in the cache, {part.query_len} of them "
                f"queries, blocks [{blocks}]"
                if part.seq_len
                else f"  step {number}, request {part.request}: no tokens in the cache, {part.query_len} queries"
            )
    odd = [f"{name}={getattr(case, name)}" for name in odd_fields(case) if name != "blocks"]
    if "blocks" in odd_fields(case):
        odd.append("high block numbers")
    lines.append("  not plain: " + (", ".join(odd) or "nothing"))
    return "\n".join(lines)


def table(backends: Mapping[str, Backend], cases: Mapping[str, Case], reference: Backend) -> str:
    """Every backend on every case, by name: "." where it agrees with the reference, "X" where it does not."""
    width = max(map(len, backends))
    lines = [
        " " * (width + 2) + f"{number:>2} = {name}"
        if number == 1
        else f"{'':{width + 2}}{number:>2} = {name}"
        for number, name in enumerate(cases, start=1)
    ]
    lines.append(" " * width + "".join(f"{number:>4}" for number in range(1, len(cases) + 1)))
    for name, backend in backends.items():
        marks = ["." if compare(backend, reference, case) is None else "X" for case in cases.values()]
        lines.append(f"{name:{width}}" + "".join(f"{mark:>4}" for mark in marks))
    return "\n".join(lines)
