"""What our code draws into a notebook passes axe, in each of JupyterLab's kinds of theme."""

from __future__ import annotations

import pytest

from tests.browser.accessibility import THEMES, in_theme, serious_faults
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


@pytest.mark.parametrize("theme", THEMES)
def test_axe_finds_nothing_serious_in_our_outputs(
    lesson: Notebook, answers: Answers, theme: str, screenshot: Screenshot
) -> None:
    lesson.fill_in({"q2-metadata-code": answers.logical_block_as_physical()})
    lesson.run("q2-metadata-code")
    lesson.run("q2-metadata")
    with in_theme(lesson, theme) as name:
        assert serious_faults(lesson, DRAWN_BY_US) == []
        for cell in ("waste", "pool-moments", "q1-deployments", "q2-metadata"):
            lesson.output(cell)
            screenshot(lesson.page, f"theme-{name}-{cell}")
