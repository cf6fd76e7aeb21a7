"""Lesson 4 in JupyterLab with every answer filled in: it runs, every check passes, it can be read; then with wrong answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.answers import Answers, answers_of, run_with_every_answer
from tests.browser.conftest import Screenshot
from tests.browser.jupyterlab import Notebook, Server

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

LESSON = "04_design"
SHOWN = (
    "q11-reveal",
    "q11-picture",
    "q12-try",
    "q13-everyday",
    "q13-boundary",
    "self-grading-questions",
    "self-grading",
)


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    return answers_of(LESSON, tmp_path_factory.mktemp("instructor"))


def test_lesson_4_runs_with_every_answer_and_can_be_read(
    server: Server, lab: Page, answers: Answers, screenshot: Screenshot, course_folder: Path
) -> None:
    notebook = Notebook(lab, server, f"work/{LESSON}/{LESSON}.ipynb")
    run_with_every_answer(notebook, answers)
    for name in SHOWN:
        assert notebook.shown_text(name)
        screenshot(notebook.page, f"lesson-4-{name}")
    assert notebook.overflowing() == []

    # A benchmark of one run, and a tester that compares bits.
    plan = answers.solutions["q11-plan-code"].replace('"repetitions": 9', '"repetitions": 1')
    told(notebook, answers, "q11-plan", plan, "q11_plan", "one-run")
    screenshot(notebook.page, "lesson-4-one-run")
    bits = "def is_faulty(backend):\n    case = Case.of([13, 6])\n    return bool((backend(case)[0][0] != truth(case)[0][0]).any())"
    notebook.type("q13-detect-code", bits)
    notebook.run("q13-detect-code")
    notebook.run("q13-detect")
    assert "a right backend is accused" in notebook.shown_text("q13-detect")
    screenshot(notebook.page, "lesson-4-accused")
    notebook.close()


def told(notebook: Notebook, answers: Answers, test: str, text: str, check: str, mistake: str) -> None:
    """The check fails and names the mistake."""
    assert text != answers.solutions[f"{test}-code"]
    notebook.type(f"{test}-code", text)
    assert notebook.run(f"{test}-code").errors == []
    notebook.run(test)
    shown = " ".join(notebook.shown_text(test).split())
    assert shown.startswith(f"✗ {check}")
    assert " ".join(answers.message(check, mistake).split()) in shown
