"""The form over vLLM's selector in JupyterLab."""

from __future__ import annotations

from typing import ClassVar

from course.vllm_rules import Deployment
from course.widgets.backend_chooser.model import Chooser
from course.widgets.view import View

__all__ = ["BackendChooser"]


class BackendChooser(View, folder="backend_chooser"):
    """Change the GPU, dtype, head size and features; see who is valid, who is chosen, and vLLM's reasons against the rest.

        BackendChooser(Deployment((9, 0), "bfloat16", 128))

    `chosen` is the backend that vLLM picks now.
    """

    operations: ClassVar[frozenset[str]] = frozenset({"change", "load", "reset"})

    def __init__(self, deployment: Deployment | None = None) -> None:
        super().__init__(Chooser(deployment), title="Who computes attention? vLLM 0.22.1's selector")

    @property
    def chosen(self) -> str:
        chosen: str = self.state["chosen"]
        return chosen
