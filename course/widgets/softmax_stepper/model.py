"""Online softmax over one row of scores, tile by tile: every step computed before the first one is shown."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import torch

from course.deployments import Table
from course.online_softmax import SoftmaxStep, SoftmaxSteps, Update, row_steps
from course.widgets.softmax_stepper.frames import frames, number
from course.widgets.softmax_stepper.scores import checked_scores, checked_tile, read_scores, values_for

__all__ = ["SoftmaxRow"]


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
            self.scores = checked_scores(torch.as_tensor(scores, dtype=torch.float32).cpu())
            self._given = values is not None
            self.values = values_for(values, len(self.scores))
            self.tile = checked_tile(tile)
            self.steps = self._walk(self.scores, self.values, self.tile)
        self._first = (self.scores, self.values, self.tile, self.steps)

    # What the page may ask for.

    def change_scores(self, text: str) -> str:
        """Takes other scores, such as "2, 1, 5, 3, -inf". Raises ValueError for what is no row of scores."""
        self._own()
        scores = checked_scores(read_scores(text))
        values = self.values
        if self._given and len(scores) != len(values):
            raise ValueError(f"scores: expected {len(values)} numbers, one for each value, got {len(scores)}")
        if len(scores) != len(values):
            values = values_for(None, len(scores))
        self.steps = self._walk_again(scores, values, self.tile)
        self.scores, self.values = scores, values
        return f"{len(scores)} scores in {len(self.steps)} tiles; nothing is seen yet."

    def change_tile(self, tile: int) -> str:
        """Cuts the row into tiles of another length."""
        self._own()
        self.steps = self._walk_again(self.scores, self.values, checked_tile(tile))
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

    def to_dict(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "unit": self.unit,
            "editable": not self.of_a_cache,
            "scores": ", ".join(number(score) for score in self.scores.tolist()),
            "tile": self.tile,
            "head_size": self.values.shape[1],
            "frames": frames(self),
        }

    def describe(self) -> str:
        shown = frames(self)
        lines = [
            f"{self.title}: {len(self.scores)} scores in {len(shown)} {self.unit}s",
            repr(self._table(shown)),
        ]
        lines += [frame["sentence"] for frame in shown]
        return "\n".join([*lines, *shown[-1]["wrong"], *shown[-1]["fates"], shown[-1]["dense"]["sentence"]])

    def to_html(self) -> str:
        shown = frames(self)
        sentences = [*shown[-1]["wrong"], *shown[-1]["fates"], shown[-1]["dense"]["sentence"]]
        return self._table(shown)._repr_html_() + "".join(f"<p>{escape(each)}</p>" for each in sentences)

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
