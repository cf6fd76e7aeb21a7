"""One step of online softmax in numbers and words, as the page draws it."""

from __future__ import annotations

from typing import Any, Protocol

import torch

from course.online_softmax import SoftmaxStep
from course.widgets.softmax_stepper.comparison import compare, dense

__all__ = ["frames", "number"]

# Numbers of acc that are shown; a head has 64 or more.
_SHOWN = 8
# Float32's rounding over a long row, and not a mistake in a formula.
_TOLERANCE = 1e-3


class Row(Protocol):
    """scores [n], values [n, head_size], the steps over them, and what a step takes in: "tile" or "block"."""

    scores: torch.Tensor
    values: torch.Tensor
    steps: list[SoftmaxStep]

    @property
    def unit(self) -> str: ...


def frames(row: Row) -> list[dict[str, Any]]:
    """One for each step: the state before, rescaled, and after, what the naive formula has, and sentences."""
    sides = compare(row.scores, row.values, row.steps)
    return [_frame(index, row, sides[index]) for index in range(len(row.steps))]


def number(value: float) -> str:
    """As it is shown: five digits, "inf", "-inf" or "nan"."""
    return f"{value:.5g}"


def _frame(index: int, row: Row, sides: list[dict[str, Any]]) -> dict[str, Any]:
    step = row.steps[index]
    before = row.steps[index - 1] if index else None
    m_before = before.m if before else -torch.inf
    l_before = before.l if before else 0.0
    acc_before = before.acc.cpu() if before else torch.zeros(row.values.shape[1])
    # What the tile itself brings, measured against the new maximum.
    weights = torch.exp(step.scores.cpu() - (step.m if step.m > -torch.inf else 0.0))
    brought = weights @ step.values.cpu()
    acc, shown = step.acc.cpu(), range(min(_SHOWN, row.values.shape[1]))
    truth = dense(row.scores[: step.end], row.values[: step.end])
    frame: dict[str, Any] = {
        "index": index,
        "name": f"{row.unit} {index}"
        if step.physical is None
        else f"block {index} (physical {step.physical})",
        "first": step.first,
        "scores": [_finite(score) for score in step.scores.tolist()],
        "texts": [number(score) for score in step.scores.tolist()],
        "scores_text": _listed(step.scores.tolist()),
        "m_before": number(m_before),
        "m": number(step.m),
        "heights": {"m_before": _finite(m_before), "m": _finite(step.m)},
        "factor": number(step.factor),
        "factor_value": _finite(step.factor),
        "rule": _rule(m_before, step.m, step.factor),
        "l": _bars(l_before, step.factor, float(weights.sum()), step.l),
        "acc": [
            _bars(float(acc_before[dim]), step.factor, float(brought[dim]), float(acc[dim])) for dim in shown
        ],
        "output": [number(float(step.output[dim])) for dim in shown],
        "sides": sides,
        "fates": [side["fate"] for side in sides if side["fate"]],
        "wrong": _wrong(step, row),
        "dense": {
            "values": [number(float(truth[dim])) for dim in shown],
            "sentence": _agreement(step, truth, last=index == len(row.steps) - 1),
        },
    }
    frame["question"] = (
        f"{frame['name'].capitalize()} comes in with scores {frame['scores_text']}; m is {frame['m_before']}. "
        "What will m be, and by which factor are l and acc multiplied?"
    )
    frame["sentence"] = (
        f"After {frame['name']}: {frame['rule']} l is {number(step.l)}, acc[0] is {number(float(acc[0]))}, "
        f"acc[0] / l is {frame['output'][0]}."
    )
    return frame


def _wrong(step: SoftmaxStep, row: Row) -> list[str]:
    """Where a state is not what the definition says, one sentence each; only your own update can be wrong."""
    seen = row.scores[: step.end].double()
    m = float(seen.max())
    weights = torch.exp(seen - (m if m > -torch.inf else 0.0))
    acc = weights @ row.values[: step.end].double()
    said = []
    for name, got, expected in (("m", step.m, m), ("l", step.l, float(weights.sum()))):
        if not _close(got, expected):
            said.append(
                f"{name} after {row.unit} {step.block}: expected {number(expected)}, got {number(got)}."
            )
    for dim, (got, expected) in enumerate(zip(step.acc.tolist(), acc.tolist(), strict=True)):
        if not _close(got, expected):
            said.append(
                f"acc[{dim}] after {row.unit} {step.block}: expected {number(expected)}, got {number(got)}."
            )
            break
    return said


def _finite(value: float) -> float | None:
    """A number that can be drawn; JSON has no others."""
    return value if abs(value) < torch.inf else None


def _bars(before: float, factor: float, brought: float, after: float) -> dict[str, Any]:
    numbers = {"before": before, "rescaled": before * factor, "brought": brought, "after": after}
    return {
        "numbers": {name: _finite(value) for name, value in numbers.items()},
        "texts": {name: number(value) for name, value in numbers.items()},
    }


def _rule(m_before: float, m: float, factor: float) -> str:
    """Why the factor is what it is, one sentence."""
    if m == -torch.inf:
        return "every score so far is masked, m stays -inf, and nothing is added."
    if m_before == -torch.inf:
        return f"nothing was seen before, so the factor is exp(-inf - {_operand(m)}) = 0."
    rule = f"exp({number(m_before)} - {_operand(m)}) = {number(factor)}"
    if m == m_before:
        return f"m stays {number(m)}, so the factor is {rule}."
    change = "grows" if m > m_before else "FALLS"
    return f"m {change} from {number(m_before)} to {number(m)}, so l and acc are multiplied by {rule}."


def _operand(value: float) -> str:
    return f"({number(value)})" if value < 0 else number(value)


def _listed(scores: list[float]) -> str:
    shown = ", ".join(number(score) for score in scores[:_SHOWN])
    return f"{shown}, … ({len(scores)} scores)" if len(scores) > _SHOWN else shown


def _close(got: float, expected: float) -> bool:
    return got == expected or abs(got - expected) <= _TOLERANCE * max(1.0, abs(expected))


def _agreement(step: SoftmaxStep, truth: torch.Tensor, *, last: bool) -> str:
    """How acc / l and the dense softmax over everything seen compare."""
    difference = float((step.output.cpu().double() - truth).abs().max())
    verdict = "acc / l is equal to it" if _close(difference, 0.0) else "acc / l is NOT equal to it"
    over = "over the whole row" if last else f"over the {step.end} scores seen so far"
    return f"Dense softmax {over}: {verdict}, largest difference {difference:.1e}."
