"""nbgrader's feedback page is a file without a kernel and without a network: a view in it is its table."""

from __future__ import annotations

from typing import Any

import nbformat
import pytest
import torch
from nbconvert import HTMLExporter

import course
from autograder.nbgrader_bridge.redact import RedactForFeedback
from course import widgets

VIEW = "application/vnd.jupyter.widget-view+json"


def views() -> dict[str, tuple[Any, str]]:
    """A view of each kind, and what its table says."""
    table = torch.tensor([[5, 2, 6]], dtype=torch.int32)
    shown = course.show(table, torch.tensor([8]), torch.tensor([9], dtype=torch.int32), block_size=4)
    return {
        "explorer": (widgets.BlockTableExplorer(), "0 → 9, 1 → 2, 2 → 5"),
        "tensors": (shown, "slot does not match the position"),
        "tiles": (widgets.MaskTiles(10, 6), "masked: the diagonal runs through it"),
        "chooser": (widgets.BackendChooser(), "FLASH_ATTN"),
    }


@pytest.mark.parametrize("name", views())
def test_the_feedback_shows_the_table_and_no_trace_of_a_widget(name: str) -> None:
    view, words = views()[name]
    data, _ = view._repr_mimebundle_()
    output = nbformat.v4.new_output("execute_result", data, execution_count=1)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("widgets", outputs=[output])])
    # As a front end saves it: the state of every widget, its scripts included.
    notebook.metadata["widgets"] = {
        "application/vnd.jupyter.widget-state+json": {"state": view.get_manager_state()}
    }
    assert VIEW in data
    redacted, _ = RedactForFeedback().preprocess(notebook, {})
    page, _ = HTMLExporter(template_name="classic").from_notebook_node(redacted)
    body = page[page.index("<body") :]
    assert words in body
    assert "<table" in body
    assert "widget-view" not in body
    assert "widget-state" not in body
    assert "abc-view" not in body  # the script of the view
