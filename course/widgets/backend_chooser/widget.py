"""The form over vLLM's selector in JupyterLab."""

from __future__ import annotations

from typing import ClassVar

from course.vllm.rules import Deployment, select
from course.widgets.backend_chooser.model import Chooser
from course.widgets.view import View

__all__ = ["BackendChooser"]


class BackendChooser(View, folder="backend_chooser"):
    """Change the GPU, dtype, head size and features; see who is valid, who is chosen, and vLLM's reasons against the rest.

        BackendChooser(Deployment((9, 0), "bfloat16", 128), guess_first=True)

    guess_first: after each change, somebody has to say who will be chosen before the verdicts are shown. `chosen` is the
    backend that vLLM picks now, guessed or not.
    """

    operations: ClassVar[frozenset[str]] = frozenset({"change", "load", "reset", "guess", "set_guess_first"})

    def __init__(self, deployment: Deployment | None = None, *, guess_first: bool = False) -> None:
        self.chooser = Chooser(deployment, guess_first=guess_first)
        super().__init__(self.chooser, title="Who computes attention? vLLM 0.22.1's selector")

    @property
    def chosen(self) -> str:
        return select(self.chooser.deployment)
