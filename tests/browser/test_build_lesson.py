"""Lesson 3 in JupyterLab with every answer filled in: it runs, every check passes, and its pictures are there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.answers import Answers, answers_of
from tests.browser.conftest import Screenshot
from tests.browser.jupyterlab import Notebook, Server

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

LESSON = "03_build"


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    return answers_of(LESSON, tmp_path_factory.mktemp("instructor"))


def test_lesson_3_runs_with_every_answer_and_can_be_read(
    server: Server, context: BrowserContext, answers: Answers, screenshot: Screenshot, course_folder: Path
) -> None:
    notebook = Notebook(context.new_page(), server, f"work/{LESSON}/{LESSON}.ipynb")
    notebook.fill_in(answers.solutions)
    notebook.restart_and_run_all()
    shown = {name: notebook.outputs(name) for name in notebook.ids()}
    assert {name: output.errors for name, output in shown.items() if output.errors} == {}
    assert [name for name in answers.checks if not shown[name].text.startswith("✓")] == []
    for name in ("steps-picture", "q8-picture", "roofline"):
        assert notebook.output(name).locator("img").count() == 1
        screenshot(notebook.page, f"lesson-3-{name}")
    assert notebook.output("q10b-timeline").get_by_text("Which schedule ends first?").count() == 1
    assert "nothing of yours was timed" in shown["roofline"].text
    assert notebook.overflowing() == []
