"""The drawing of a call path in JupyterLab."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, ClassVar

from course.widgets.call_path.model import CallDrawing, DrawnEdges
from course.widgets.view import View

__all__ = ["CallPath"]


class CallPath(View, folder="call_path"):
    """Draw who calls whom: from box to box with the mouse, by two keys, or from two lists.

        path = CallPath({"a.py:f": "what f does", "b.py:g": "what g does"})

    nodes, edges, name: as in `CallDrawing`. `path.edges` are the arrows now, `path.code()` the same as a line of Python.
    """

    operations: ClassVar[frozenset[str]] = frozenset({"add", "choose", "cancel", "remove", "clear"})

    def __init__(
        self, nodes: Mapping[str, str] | Collection[str], edges: Iterable[Any] = (), *, name: str = "q_path"
    ) -> None:
        self.drawing = CallDrawing(nodes, edges, name=name)
        super().__init__(self.drawing, title="Draw the call path")

    @property
    def edges(self) -> DrawnEdges:
        """(caller, callee) of each arrow, in the order of drawing."""
        return DrawnEdges(self.drawing.edges)

    def code(self) -> str:
        """The drawing as text, for the cell that is handed in."""
        return self.drawing.code()
