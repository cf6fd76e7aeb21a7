"""What our code draws into a notebook passes axe, in each of JupyterLab's kinds of theme."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.browser.answers import Answers
from tests.browser.conftest import Screenshot
from tests.browser.jupyterlab import Notebook

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

DRAWN_BY_US = (
    "setup",
    "waste",
    "pool-moments",
    "q1-worked-table",
    "q1-worked-reveal",
    "q1-deployments",
    "q1-tables",
    "q2-metadata",  # the message of a check
)


@pytest.fixture(params=["JupyterLab Light", "JupyterLab Dark", "JupyterLab Dark High Contrast"])
def theme(request: pytest.FixtureRequest, lesson: Notebook) -> Iterator[str]:
    # Lab's body is 0 pixels high and hides what does not fit. People see its contents all the same, but axe takes them
    # for invisible and then does not look at contrast.
    lesson.page.evaluate("document.body.style.height = '100vh'")
    lesson.use_theme(request.param)
    yield request.param
    lesson.use_theme("JupyterLab Light")
    lesson.page.evaluate("document.body.style.height = ''")


def test_axe_finds_nothing_serious_in_our_outputs(
    lesson: Notebook, answers: Answers, theme: str, screenshot: Screenshot
) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="needs axe-playwright-python"
    ).Axe()
    lesson.fill_in({"q2-metadata-code": answers.logical_block_as_physical()})
    lesson.run("q2-metadata-code")
    lesson.run("q2-metadata")
    name = theme.removeprefix("JupyterLab ").lower().replace(" ", "-")
    found = {}
    for cell in DRAWN_BY_US:
        lesson.output(cell)
        results = axe.run(lesson.page, context=f'.jp-Cell[data-cell="{cell}"] .jp-Cell-outputArea').response
        assert "color-contrast" in [rule["id"] for rule in results["passes"] + results["violations"]]
        serious = [fault for fault in results["violations"] if fault["impact"] in ("serious", "critical")]
        if serious:
            found[cell] = [(fault["id"], [node["html"] for node in fault["nodes"]]) for fault in serious]
        if cell in ("waste", "pool-moments", "q1-deployments", "q2-metadata"):
            screenshot(lesson.page, f"theme-{name}-{cell}")
    assert found == {}
