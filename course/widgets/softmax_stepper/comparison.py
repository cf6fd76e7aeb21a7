"""The same row with and without subtracting the maximum, in float32 and in float16: what survives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from course.online_softmax import SoftmaxStep, row_steps

__all__ = ["compare", "dense"]

_SHOWN = 8  # numbers of acc
_NAMES = {torch.float32: "float32", torch.float16: "float16"}


def dense(scores: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Softmax over a whole row in float64, weighted values [head_size]; zeros where everything is masked."""
    if scores.max() == -torch.inf:
        return torch.zeros(values.shape[1], dtype=torch.float64)
    return torch.softmax(scores.double(), dim=0) @ values.double()


def compare(
    scores: torch.Tensor, values: torch.Tensor, steps: Sequence[SoftmaxStep]
) -> list[list[dict[str, Any]]]:
    """For each step four columns: with the maximum and without, in float32 and in float16.

    steps: float32's states with the maximum, which are shown as they are. Each column: name, dtype, term (its largest
    term so far in words), l, acc and output (texts), fate (a sentence about what went wrong, or "").
    """
    half = _in_tiles(scores.half(), values.half(), steps)
    columns = [_with_maximum(torch.float32, steps), _without(torch.float32, scores, values, steps)]
    columns += [_with_maximum(torch.float16, half), _without(torch.float16, scores, values, steps)]
    return [list(row) for row in zip(*columns, strict=True)]


def _in_tiles(scores: torch.Tensor, values: torch.Tensor, steps: Sequence[SoftmaxStep]) -> list[SoftmaxStep]:
    # All tiles but the last have the first one's length.
    return row_steps(scores, values, steps[0].end - steps[0].first)


def _with_maximum(dtype: torch.dtype, steps: Sequence[SoftmaxStep]) -> list[dict[str, Any]]:
    columns = []
    for step in steps:
        seen = step.m > -torch.inf
        m = _short(step.m) if step.m >= 0 else f"({_short(step.m)})"
        term = f"exp({_short(step.m)} - {m}) = 1" if seen else "nothing seen"
        fits = bool(torch.isfinite(step.acc).all())
        fate = (
            ""
            if fits
            else f"With the maximum in {_NAMES[dtype]}: a score or a value is more than it holds, or the update is wrong."
        )
        columns.append(
            _column("with the maximum", dtype, term, step.l, step.acc.cpu(), step.output.cpu(), fate)
        )
    return columns


def _without(
    dtype: torch.dtype, scores: torch.Tensor, values: torch.Tensor, steps: Sequence[SoftmaxStep]
) -> list[dict[str, Any]]:
    """The formula taken literally: exp(score), added up."""
    total, acc = torch.tensor(0.0, dtype=dtype), torch.zeros(values.shape[1], dtype=dtype)
    columns = []
    for step in steps:
        terms = torch.exp(scores[step.first : step.end].to(dtype))
        total = total + terms.sum()
        acc = acc + terms @ values[step.first : step.end].to(dtype)
        largest = float(scores[: step.end].max())
        nothing = largest == -torch.inf
        output = torch.zeros_like(acc) if nothing else acc / total
        power = float(torch.exp(torch.tensor(largest, dtype=dtype)))
        term = "nothing seen" if nothing else f"exp({_short(largest)}) = {power:.5g}"
        fate = "" if nothing else _fate(dtype, largest, float(total), acc)
        columns.append(_column("without", dtype, term, float(total), acc, output, fate))
    return columns


def _fate(dtype: torch.dtype, largest: float, total: float, acc: torch.Tensor) -> str:
    name, limit = _NAMES[dtype], torch.finfo(dtype).max
    if total == 0:
        return f"Without the maximum in {name}: exp({_short(largest)}) and every other term is 0, and 0 / 0 is nan."
    if total == torch.inf:
        return (
            f"Without the maximum in {name}: the sum of terms as large as exp({_short(largest)}) is more than "
            f"{limit:.5g}, the most that {name} holds. l is inf, and what is divided by it is 0 or nan."
        )
    if not torch.isfinite(acc).all():
        return f"Without the maximum in {name}: l still fits, acc is more than {limit:.5g} and is inf."
    return ""


def _column(
    name: str, dtype: torch.dtype, term: str, total: float, acc: torch.Tensor, output: torch.Tensor, fate: str
) -> dict[str, Any]:
    return {
        "name": name,
        "dtype": _NAMES[dtype],
        "term": term,
        "l": f"{total:.5g}",
        "acc": [f"{value:.5g}" for value in acc[:_SHOWN].tolist()],
        "output": [f"{value:.5g}" for value in output[:_SHOWN].tolist()],
        "fate": fate,
    }


def _short(value: float) -> str:
    return f"{value:.4g}"
