"""Online softmax, tile by tile, in JupyterLab."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import traitlets

from course.online_softmax import SoftmaxSteps, Update
from course.widgets.softmax_stepper.model import SoftmaxRow
from course.widgets.view import View

__all__ = ["SoftmaxStepper"]


class SoftmaxStepper(View, folder="softmax_stepper"):
    """Step through online softmax on your own scores; predict the next m and factor, then see them.

        SoftmaxStepper([2.0, 1.0, 5.0, 3.0], values=[10.0, 20.0, 30.0, 40.0], tile=2)
        SoftmaxStepper(scores, values, update=online_softmax_update)      # your own function's states
        SoftmaxStepper(course.softmax_steps(query, key_cache, ...))       # a request's blocks

    step: where it stands. 2 i + 1: tile i has come in and nothing of its state is shown; 2 i + 2: its state is shown.
    predictions: tile, as text -> [m, factor] as they were typed.
    """

    step = traitlets.Int(0).tag(sync=True)
    predictions = traitlets.Dict().tag(sync=True)

    operations: ClassVar[frozenset[str]] = frozenset({"change_scores", "change_tile", "reset"})

    def __init__(
        self,
        scores: Sequence[float] | torch.Tensor | SoftmaxSteps,
        values: Any = None,
        *,
        tile: int = 2,
        update: Update | None = None,
    ) -> None:
        model = SoftmaxRow(scores, values, tile=tile, update=update)
        super().__init__(model, title=f"{model.title}, step by step")

    def refresh(self, sentence: str = "") -> None:
        """Shows the model as it is now, from its first step."""
        with self.hold_sync():
            self.step = 0
            self.predictions = {}
            super().refresh(sentence)
