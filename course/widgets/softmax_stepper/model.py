"""Online softmax over one row of scores, tile by tile: every step computed before the first one is shown."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import torch

from course.deployments import Table
from course.online_softmax import SoftmaxStep, SoftmaxSteps, Update, row_steps
from course.widgets.softmax_stepper.comparison import compare, dense

__all__ = ["MAX_SCORES", "SoftmaxRow", "number", "read_scores"]

MAX_SCORES = 512
# Numbers of acc that are shown; a head has 64 or more.
_SHOWN = 8
# Float32's rounding over a long row, and not a mistake in a formula.
_TOLERANCE = 1e-3


class SoftmaxRow:
    """One row of scores with its values, cut into tiles, and the state (m, l, acc) after each.

    scores: [n] numbers, -inf where masked; or what `course.softmax_steps` returned, whose blocks are the tiles.
    values: [n] or [n, head_size] numbers; 10, 20, 30, ... where none are given.
    tile: scores at a time. update: your own step, (state, scores, values) -> state, as for `course.softmax_steps`.
    """

    def __init__(
        self,
        scores: Sequence[float] | torch.Tensor | SoftmaxSteps,
        values: Any = None,
        *,
        tile: int = 2,
        update: Update | None = None,
    ) -> None:
        self._update = update
        self.of_a_cache = isinstance(scores, SoftmaxSteps)
        if isinstance(scores, SoftmaxSteps):
            if values is not None or update is not None:
                raise ValueError(
                    "values, update: expected none, the steps of course.softmax_steps have theirs"
                )
            if not scores:
                raise ValueError("scores: expected at least one block, got a request without tokens")
            self.title = scores.title
            self.steps: list[SoftmaxStep] = list(scores)
            self.scores = torch.cat([step.scores for step in scores]).float().cpu()
            self.values = torch.cat([step.values for step in scores]).float().cpu()
            self.tile = len(scores[0].scores)
        else:
            self.title = "Your update" if update else "Online softmax"
            self.scores = _checked(torch.as_tensor(scores, dtype=torch.float32).cpu())
            self._given = values is not None
            self.values = _values(values, len(self.scores))
            self.tile = _checked_tile(tile)
            self.steps = self._walk(self.scores, self.values, self.tile)
        self._first = (self.scores, self.values, self.tile, self.steps)

    # What the page may ask for.

    def change_scores(self, text: str) -> str:
        """Takes other scores, such as "2, 1, 5, 3, -inf". Raises ValueError for what is no row of scores."""
        self._own()
        scores = _checked(read_scores(text))
        values = self.values
        if self._given and len(scores) != len(values):
            raise ValueError(f"scores: expected {len(values)} numbers, one for each value, got {len(scores)}")
        if len(scores) != len(values):
            values = _values(None, len(scores))
        self.steps = self._walk_again(scores, values, self.tile)
        self.scores, self.values = scores, values
        return f"{len(scores)} scores in {len(self.steps)} tiles; nothing is seen yet."

    def change_tile(self, tile: int) -> str:
        """Cuts the row into tiles of another length."""
        self._own()
        self.steps = self._walk_again(self.scores, self.values, _checked_tile(tile))
        self.tile = tile
        return f"{len(self.scores)} scores in {len(self.steps)} tiles of {tile}; nothing is seen yet."

    def reset(self) -> str:
        """Back to the scores and tiles that it began with."""
        self.scores, self.values, self.tile, self.steps = self._first
        return f"Back at the beginning: {len(self.scores)} scores in {len(self.steps)} {self.unit}s."

    # What is shown.

    @property
    def unit(self) -> str:
        return "block" if self.of_a_cache else "tile"

    def frames(self) -> list[dict[str, Any]]:
        """One for each tile: the state before, rescaled, and after, in numbers and words."""
        sides = compare(self.scores, self.values, self.steps)
        return [self._frame(index, sides[index]) for index in range(len(self.steps))]

    def to_dict(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "unit": self.unit,
            "editable": not self.of_a_cache,
            "scores": ", ".join(number(score) for score in self.scores.tolist()),
            "tile": self.tile,
            "head_size": self.values.shape[1],
            "frames": self.frames(),
        }

    def describe(self) -> str:
        frames = self.frames()
        lines = [
            f"{self.title}: {len(self.scores)} scores in {len(frames)} {self.unit}s",
            repr(self._table(frames)),
        ]
        lines += [frame["sentence"] for frame in frames]
        return "\n".join(
            [*lines, *frames[-1]["wrong"], *frames[-1]["fates"], frames[-1]["dense"]["sentence"]]
        )

    def to_html(self) -> str:
        frames = self.frames()
        sentences = [*frames[-1]["wrong"], *frames[-1]["fates"], frames[-1]["dense"]["sentence"]]
        return self._table(frames)._repr_html_() + "".join(f"<p>{escape(each)}</p>" for each in sentences)

    def _table(self, frames: list[dict[str, Any]]) -> Table:
        rows = [
            [
                str(frame["index"]),
                frame["scores_text"],
                frame["m"],
                frame["factor"],
                frame["l"]["texts"]["after"],
                frame["acc"][0]["texts"]["after"],
                frame["output"][0],
            ]
            for frame in frames
        ]
        header = [self.unit, "scores", "m", "factor", "l", "acc[0]", "acc[0] / l"]
        return Table(f"What is remembered after each {self.unit}", header, rows)

    def _frame(self, index: int, sides: list[dict[str, Any]]) -> dict[str, Any]:
        step = self.steps[index]
        before = self.steps[index - 1] if index else None
        m_before = before.m if before else -torch.inf
        l_before = before.l if before else 0.0
        acc_before = before.acc.cpu() if before else torch.zeros(self.values.shape[1])
        # What the tile itself brings, measured against the new maximum.
        weights = torch.exp(step.scores.cpu() - (step.m if step.m > -torch.inf else 0.0))
        brought = weights @ step.values.cpu()
        acc, shown = step.acc.cpu(), range(min(_SHOWN, self.values.shape[1]))
        truth = dense(self.scores[: step.end], self.values[: step.end])
        frame: dict[str, Any] = {
            "index": index,
            "name": f"{self.unit} {index}"
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
                _bars(float(acc_before[dim]), step.factor, float(brought[dim]), float(acc[dim]))
                for dim in shown
            ],
            "output": [number(float(step.output[dim])) for dim in shown],
            "sides": sides,
            "fates": [side["fate"] for side in sides if side["fate"]],
            "wrong": self._wrong(step),
            "dense": {
                "values": [number(float(truth[dim])) for dim in shown],
                "sentence": _agreement(step, truth, last=index == len(self.steps) - 1),
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

    def _wrong(self, step: SoftmaxStep) -> list[str]:
        """Where a state is not what the definition says, one sentence each; only your own update can be wrong."""
        seen = self.scores[: step.end].double()
        m = float(seen.max())
        weights = torch.exp(seen - (m if m > -torch.inf else 0.0))
        acc = weights @ self.values[: step.end].double()
        said = []
        for name, got, expected in (("m", step.m, m), ("l", step.l, float(weights.sum()))):
            if not _close(got, expected):
                said.append(
                    f"{name} after {self.unit} {step.block}: expected {number(expected)}, got {number(got)}."
                )
        for dim, (got, expected) in enumerate(zip(step.acc.tolist(), acc.tolist(), strict=True)):
            if not _close(got, expected):
                said.append(
                    f"acc[{dim}] after {self.unit} {step.block}: expected {number(expected)}, got {number(got)}."
                )
                break
        return said

    def _walk(self, scores: torch.Tensor, values: torch.Tensor, tile: int) -> list[SoftmaxStep]:
        return row_steps(scores, values, tile, update=self._update)

    def _walk_again(self, scores: torch.Tensor, values: torch.Tensor, tile: int) -> list[SoftmaxStep]:
        """As `_walk`; a learner's function may fail in any way, and the page can only say what is a ValueError."""
        try:
            return self._walk(scores, values, tile)
        except Exception as error:
            raise ValueError(f"your update raised {type(error).__name__}: {error}") from error

    def _own(self) -> None:
        if self.of_a_cache:
            raise ValueError("scores: they come from a query and a cache here, and cannot be changed")


def number(value: float) -> str:
    """As it is shown: five digits, "inf", "-inf" or "nan"."""
    return f"{value:.5g}"


def read_scores(text: str) -> torch.Tensor:
    """A row of scores as a person writes it: "2, 1, 5, -inf". Raises ValueError, naming the part that is no number."""
    scores = []
    for part in text.replace("\u2212", "-").replace("∞", "inf").replace(",", " ").split():
        try:
            scores.append(float(part))
        except ValueError:
            raise ValueError(f"scores: expected numbers, or -inf for a masked score, got {part!r}") from None
    return torch.tensor(scores)


def _checked(scores: torch.Tensor) -> torch.Tensor:
    if scores.ndim != 1 or not 1 <= len(scores) <= MAX_SCORES:
        raise ValueError(
            f"scores: expected 1 to {MAX_SCORES} numbers in one row, got shape {list(scores.shape)}"
        )
    if torch.isnan(scores).any() or (scores == torch.inf).any():
        raise ValueError("scores: expected numbers, or -inf for a masked score, got nan or inf")
    return scores


def _checked_tile(tile: int) -> int:
    if not isinstance(tile, int) or tile < 1:
        raise ValueError(f"tile: expected at least 1, got {tile!r}")
    return tile


def _values(values: Any, count: int) -> torch.Tensor:
    """[count, head_size] float32."""
    if values is None:
        return 10.0 * torch.arange(1.0, count + 1)[:, None]
    given = torch.as_tensor(values, dtype=torch.float32).cpu()
    given = given[:, None] if given.ndim == 1 else given
    if given.ndim != 2 or len(given) != count or not given.shape[1]:
        raise ValueError(f"values: expected [{count}] or [{count}, head_size], got shape {list(given.shape)}")
    return given


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
