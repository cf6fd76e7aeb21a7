"""Interactive views for the lessons: one folder each, with a model in plain Python and what JupyterLab draws of it.

    from course import widgets
    widgets.BackendChooser()

In a view's folder: `model.py` (what is shown, computed and tested without a browser), `widget.py` (what the page may
ask of the model), `view.js` and the scripts beside it, `view.css` (the drawing). `view.py` here has what all views share, `common.js` and
`common.css` its other half. A view also shows itself as a table in text and HTML, for wherever no kernel runs.

Importing `course.widgets` is cheap: a view is loaded when it is asked for, and its model loads no widget.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from course.widgets.backend_chooser.widget import BackendChooser
    from course.widgets.block_table.widget import BlockTableExplorer
    from course.widgets.call_path.widget import CallPath
    from course.widgets.mask_tiles.widget import MaskTiles
    from course.widgets.memory_view.widget import MemoryView
    from course.widgets.softmax_stepper.widget import SoftmaxStepper
    from course.widgets.split_timeline.widget import SplitTimeline

# The views by name, and the folder each is in.
_VIEWS = {
    "BackendChooser": "backend_chooser",
    "BlockTableExplorer": "block_table",
    "CallPath": "call_path",
    "MaskTiles": "mask_tiles",
    "MemoryView": "memory_view",
    "SoftmaxStepper": "softmax_stepper",
    "SplitTimeline": "split_timeline",
}

__all__ = [
    "BackendChooser",
    "BlockTableExplorer",
    "CallPath",
    "MaskTiles",
    "MemoryView",
    "SoftmaxStepper",
    "SplitTimeline",
]


def __getattr__(name: str) -> Any:
    """Import a view on first use."""
    if name in _VIEWS:
        return getattr(import_module(f"course.widgets.{_VIEWS[name]}.widget"), name)
    raise AttributeError(f"module 'course.widgets' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_VIEWS})
