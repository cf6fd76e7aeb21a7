"""What axe finds in a cell's output, in each of JupyterLab's kinds of theme."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.browser.jupyterlab import Notebook

THEMES = ("JupyterLab Light", "JupyterLab Dark", "JupyterLab Dark High Contrast")


@contextmanager
def in_theme(notebook: Notebook, theme: str) -> Iterator[str]:
    """JupyterLab in a theme, with the theme's name as a file's name has it; light again afterwards."""
    # Lab's body is 0 pixels high and hides what does not fit. People see its contents all the same, but axe takes them
    # for invisible and then does not look at contrast.
    notebook.page.evaluate("document.body.style.height = '100vh'")
    notebook.use_theme(theme)
    try:
        yield theme.removeprefix("JupyterLab ").lower().replace(" ", "-")
    finally:
        notebook.use_theme("JupyterLab Light")
        notebook.page.evaluate("document.body.style.height = ''")


def serious_faults(notebook: Notebook, cell: str) -> list[tuple[str, list[Any]]]:
    """The rules that a cell's output breaks, with the elements that do."""
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="needs axe-playwright-python"
    ).Axe()
    notebook.output(cell)
    results = axe.run(notebook.page, context=f'.jp-Cell[data-cell="{cell}"] .jp-Cell-outputArea').response
    assert "color-contrast" in [rule["id"] for rule in results["passes"] + results["violations"]]
    serious = [fault for fault in results["violations"] if fault["impact"] in ("serious", "critical")]
    return [(fault["id"], [node["html"] for node in fault["nodes"]]) for fault in serious]
