"""What axe finds in cells' outputs, in each of JupyterLab's kinds of theme."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.browser.jupyterlab import Notebook

if TYPE_CHECKING:
    from playwright.sync_api import Page

THEMES = ("JupyterLab Light", "JupyterLab Dark", "JupyterLab Dark High Contrast")
ATTEMPTS = 6  # half a second apart, until axe has seen every cell


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


# Axe looks at the whole document whatever part of it is asked for, so that it is asked once for all cells.
_RUN = """async selectors => {
    const {passes, violations} = await axe.run(
        {include: selectors.map(selector => [selector])},
        {resultTypes: ['passes', 'violations'], elementRef: true, selectors: false}
    );
    const nodes = rules => rules.flatMap(rule => rule.nodes.map(node => (
        {rule, cell: node.element.closest('.jp-Cell').dataset.cell, html: node.html})));
    return {
        contrast: [...new Set(nodes([...passes, ...violations].filter(rule => rule.id === 'color-contrast')).map(n => n.cell))],
        serious: nodes(violations.filter(rule => ['serious', 'critical'].includes(rule.impact)))
            .map(({rule, cell, html}) => [cell, rule.id, html]),
    };
}"""


# What is scrolled out of sight axe takes for invisible.
_IN_SIGHT = """selectors => selectors.every(selector => {
    const box = document.querySelector(selector).getBoundingClientRect();
    return box.top >= 0 && box.height > 0 && box.bottom <= window.innerHeight;
})"""

_WHOLE_HEIGHT = (
    "1000 + Math.max(...[...document.querySelectorAll('.jp-WindowedPanel-inner')].map(n => n.scrollHeight))"
)


@contextmanager
def _tall(page: Page) -> Iterator[None]:
    """A window in which a whole notebook has room."""
    usual = page.viewport_size
    assert usual is not None
    page.set_viewport_size({"width": usual["width"], "height": page.evaluate(_WHOLE_HEIGHT)})
    page.evaluate(
        "for (const panel of document.querySelectorAll('.jp-WindowedPanel-outer')) panel.scrollTop = 0"
    )
    try:
        yield
    finally:
        page.set_viewport_size(usual)


def serious_faults(notebook: Notebook, cells: Sequence[str]) -> list[tuple[str, str, str]]:
    """Cell, rule and element, wherever the output of one of these cells breaks a rule."""
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="needs axe-playwright-python"
    ).Axe()
    for cell in cells:
        notebook.output(cell)
    notebook.page.evaluate(axe.axe_script)
    outputs = [f'.jp-Cell[data-cell="{cell}"] .jp-Cell-outputArea' for cell in cells]
    with _tall(notebook.page):
        notebook.page.wait_for_function(_IN_SIGHT, arg=outputs)
        for _ in range(ATTEMPTS):
            found = notebook.page.evaluate(_RUN, outputs)
            if sorted(found["contrast"]) == sorted(cells):
                break
            notebook.page.wait_for_timeout(500)  # on a busy machine a theme's colours come late
    assert sorted(found["contrast"]) == sorted(cells)  # each was seen, and its colours compared
    return [(cell, rule, html) for cell, rule, html in found["serious"]]
