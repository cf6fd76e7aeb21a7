"""Lesson 3 in JupyterLab with every answer filled in: it runs, every check passes, its pictures are there; then with wrong answers."""

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

LESSON = "03_build"


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    return answers_of(LESSON, tmp_path_factory.mktemp("instructor"))


def test_lesson_3_runs_with_every_answer_and_can_be_read(
    server: Server, lab: Page, answers: Answers, screenshot: Screenshot, course_folder: Path
) -> None:
    notebook = Notebook(lab, server, f"work/{LESSON}/{LESSON}.ipynb")
    shown = run_with_every_answer(notebook, answers)
    for name in ("steps-picture", "q8-picture", "q10b-recorded", "roofline"):
        assert notebook.output(name).locator("img").count() == 1
        screenshot(notebook.page, f"lesson-3-{name}")
    assert notebook.output("q10b-timeline").get_by_text("Which schedule ends first?").count() == 1
    assert "nothing of yours was timed" in shown["roofline"].text
    assert "recorded on another machine's NVIDIA H100" in shown["q10b-recorded"].text
    assert notebook.overflowing() == []
    # At 23:00: a wrong mask, a kernel that forgot its scale, one that reads past the end, and one not begun.
    edit(notebook, answers, "q10-torch-code", ("<= query_position[:, None]", "< query_position[:, None]"))
    told(notebook, answers, "q10-torch", "paged_causal_attention", "own-token-hidden-and-nan")
    screenshot(notebook.page, "lesson-3-wrong-mask")
    edit(notebook, answers, "q9-triton-code", ('input_precision="ieee") * scale', 'input_precision="ieee")'))
    told(notebook, answers, "q9-triton", "paged_online_attention_triton", "scale-left-out")
    screenshot(notebook.page, "lesson-3-wrong-scale")
    edit(notebook, answers, "q9-triton-code", ("held = position < seq_len", "held = position < seq_len + 64"))
    notebook.run("q9-triton")
    assert notebook.shown_text("q9-triton").startswith("✗ paged_online_attention_triton")
    screenshot(notebook.page, "lesson-3-reads-too-far")
    notebook.type("q10b-split-code", answers.stubs["q10b-split-code"])
    notebook.run("q10b-split-code")
    notebook.run("q10b-split")
    assert "is not answered yet" in notebook.shown_text("q10b-split")
    screenshot(notebook.page, "lesson-3-not-begun")
    notebook.close()


def edit(notebook: Notebook, answers: Answers, cell: str, change: tuple[str, str]) -> None:
    """Writes the solution with one thing in it changed, and runs it."""
    right, wrong = change
    text = answers.solutions[cell]
    assert text.count(right) == 1, f"{cell}: expected once: {right}"
    notebook.type(cell, text.replace(right, wrong))
    assert notebook.run(cell).errors == []


def told(notebook: Notebook, answers: Answers, test: str, check: str, mistake: str) -> None:
    """The check fails and names the mistake."""
    notebook.run(test)
    shown = " ".join(notebook.shown_text(test).split())
    assert shown.startswith(f"✗ {check}")
    assert " ".join(answers.message(check, mistake).split()) in shown
