"""What our code draws into a notebook passes axe, in each of JupyterLab's kinds of theme."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.browser.conftest import Screenshot
from tests.browser.jupyterlab import Notebook

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

DRAWN_BEFORE_THE_FIRST_EXERCISE = (
    "setup",
    "waste",
    "pool-moments",
    "q1-worked-table",
    "q1-worked-reveal",
    "q1-deployments",
    "q1-tables",
)


@pytest.fixture(params=["JupyterLab Light", "JupyterLab Dark", "JupyterLab Dark High Contrast"])
def theme(request: pytest.FixtureRequest, lesson: Notebook) -> Iterator[str]:
    lesson.use_theme(request.param)
    yield request.param
    lesson.use_theme("JupyterLab Light")


def test_axe_finds_nothing_serious_in_our_outputs(
    lesson: Notebook, theme: str, screenshot: Screenshot
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    name = theme.removeprefix("JupyterLab ").lower().replace(" ", "-")
    found = {}
    for cell in DRAWN_BEFORE_THE_FIRST_EXERCISE:
        lesson.cell(cell)
        results = axe.run(lesson.page, context=f'.jp-Cell[data-cell="{cell}"] .jp-Cell-outputArea').response
        assert results["passes"], f"axe looked at nothing of {cell}"
        serious = [fault for fault in results["violations"] if fault["impact"] in ("serious", "critical")]
        if serious:
            found[cell] = [(fault["id"], [node["html"] for node in fault["nodes"]]) for fault in serious]
        if cell in ("waste", "pool-moments", "q1-deployments"):
            screenshot(lesson.page, f"theme-{name}-{cell}")
    assert found == {}
