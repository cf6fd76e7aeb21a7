"""Lesson 2 in JupyterLab with every answer filled in: it runs, and its trees, passages and tables can be read."""

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

LESSON = "02_trace"
TABLES = {"q4-candidates", "q5-candidates", "q7-candidates", "q7-configurations", "q7-environment"}
PASSAGES = {
    "q4-show-llama",
    "q4-show-forward",
    "q5-show-empty",
    "q6-show-forward",
    "q6-show-read",
    "q7-show-cuda",
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    return answers_of(LESSON, tmp_path_factory.mktemp("instructor"))


def test_lesson_2_runs_with_every_answer_and_can_be_read(
    server: Server, lab: Page, answers: Answers, screenshot: Screenshot, course_folder: Path
) -> None:
    notebook = Notebook(lab, server, f"work/{LESSON}/{LESSON}.ipynb")
    run_with_every_answer(notebook, answers)
    for name in sorted(TABLES):
        assert notebook.output(name).locator("table").count() == 1
        screenshot(notebook.page, f"lesson-2-{name}")
    for name in sorted({*PASSAGES, "setup", "q4-trace", "q4-swap", "q6-trace", "q6-forgotten", "self-path"}):
        assert notebook.output(name).inner_text().strip()
        screenshot(notebook.page, f"lesson-2-{name}")
    assert notebook.output("self-draw").locator(".abc-box").count() == 7  # q_path, drawn
    screenshot(notebook.page, "lesson-2-self-draw")
    assert notebook.overflowing() == []
    # As the question goes around: the write looked for in forward.
    right = answers.solutions["q6-paths-code"]
    wrong = right.replace("unified_kv_cache_update", "unified_attention_with_output")
    notebook.type(
        "q6-paths-code", wrong.replace("FlashAttentionImpl.do_kv_cache_update", "FlashAttentionImpl.forward")
    )
    assert notebook.run("q6-paths-code").errors == []
    assert notebook.run("q6-paths").text.startswith("✗ q6_paths: q6_write: FlashAttentionImpl.forward")
    assert answers.message("q6_paths", "forward-writes") in " ".join(notebook.shown_text("q6-paths").split())
    screenshot(notebook.page, "lesson-2-wrong-answer")
    notebook.type("q5-classes-code", answers.stubs["q5-classes-code"])
    notebook.run("q5-classes-code")
    notebook.run("q5-classes")
    assert notebook.shown_text("q5-classes").startswith("✗ q5_classes: this is not answered yet")
    screenshot(notebook.page, "lesson-2-unanswered")
    notebook.close()
