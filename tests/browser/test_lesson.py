"""Lesson 1 in JupyterLab, as a learner goes through it: open, run, answer wrongly, answer rightly, run everything."""

from __future__ import annotations

import pytest

from autograder import registry
from tests.browser.answers import Answers
from tests.browser.conftest import Screenshot
from tests.browser.jupyterlab import Notebook

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

FIRST_EXERCISE = "q1-verdicts-code"
TABLES = {"q1-worked-table", "q1-worked-reveal", "q1-deployments", "q1-tables"}
FIGURES = {"waste", "pool-moments", "q2-picture", "q2-layout", "states-by-definition"}
VIEWS = {"explorer": "Block table", "q2-show": "Your metadata"}


def plain(text: str) -> str:
    """Text without its line breaks, which depend on where a message is wrapped."""
    return " ".join(text.split())


def test_the_given_cells_run_and_show_their_tables_and_figures(
    lesson: Notebook, screenshot: Screenshot
) -> None:
    given = lesson.ids()[: lesson.ids().index(FIRST_EXERCISE)]
    shown = {name: lesson.outputs(name) for name in given}
    assert {name: output.errors for name, output in shown.items() if output.errors} == {}
    assert [name for name in lesson.overflowing() if name in given] == []
    assert "Triton kernels run on:" in shown["setup"].text
    assert "".join(output.warnings for output in shown.values()) == ""
    figures = sorted(FIGURES & set(given))
    assert figures == ["pool-moments", "waste"]
    for name in figures:
        assert lesson.faults_of_images(name) == []
        screenshot(lesson.page, f"figure-{name}")
    for name in sorted(TABLES):
        assert lesson.output(name).locator("table").count() == 1
        screenshot(lesson.page, f"table-{name}")


def test_an_unanswered_exercise_says_so_in_two_lines(
    lesson: Notebook, answers: Answers, screenshot: Screenshot
) -> None:
    lesson.fill_in({"q2-metadata-code": answers.stubs["q2-metadata-code"]})
    lesson.run("q2-metadata-code")
    lesson.run("q2-metadata")
    lines = lesson.shown_text("q2-metadata").splitlines()
    screenshot(lesson.page, "unanswered")
    assert len(lines) == 2
    assert lines[0].startswith("build_metadata is not answered yet")


def test_a_wrong_answer_is_told_its_mistake_in_ten_lines(
    lesson: Notebook, answers: Answers, screenshot: Screenshot
) -> None:
    lesson.type("q2-metadata-code", answers.logical_block_as_physical())
    assert lesson.run("q2-metadata-code").errors == []
    output = lesson.run("q2-metadata")
    text = lesson.shown_text("q2-metadata")
    screenshot(lesson.page, "wrong-answer")
    assert len(output.errors) == 1
    assert text.startswith("✗ build_metadata: slot_mapping has wrong values.")
    assert answers.message("build_metadata", "logical-block-as-physical") in plain(text)
    assert len(text.splitlines()) <= 10
    assert "Traceback" not in text
    assert lesson.overflowing() == []


def test_a_right_answer_passes(lesson: Notebook, answers: Answers, screenshot: Screenshot) -> None:
    lesson.type("q2-metadata-code", answers.solutions["q2-metadata-code"])
    assert lesson.run("q2-metadata-code").errors == []
    output = lesson.run("q2-metadata")
    text = lesson.shown_text("q2-metadata")
    screenshot(lesson.page, "right-answer")
    assert output.errors == []
    assert text.startswith("✓ build_metadata: all ")


def test_hints_come_one_after_the_other(lesson: Notebook, screenshot: Screenshot) -> None:
    hints = registry.get("merge_states").hints
    cell = lesson.insert_below("q3-merge", 'autograder.hint("merge_states")')
    try:
        for stage, hint in enumerate(hints[:2], start=1):
            output = lesson.run(cell)
            assert output.errors == []
            assert f"Hint {stage} of {len(hints)}" in output.text
            assert plain(hint) in plain(output.text)
        lesson.output(cell)
        screenshot(lesson.page, "hint")
    finally:
        lesson.delete(cell)


def test_with_every_answer_filled_in_everything_runs(
    lesson: Notebook, answers: Answers, screenshot: Screenshot
) -> None:
    lesson.fill_in(answers.solutions)
    lesson.restart_and_run_all()
    shown = {name: lesson.outputs(name) for name in lesson.ids()}
    assert {name: output.errors for name, output in shown.items() if output.errors} == {}
    assert "".join(output.warnings for output in shown.values()) == ""
    checks = [name for name in answers.checks if shown[name].text.startswith("✓")]
    assert checks == answers.checks
    for name in sorted(FIGURES):
        assert lesson.faults_of_images(name) == []
        screenshot(lesson.page, f"figure-{name}")
    for name, heading in VIEWS.items():
        lesson.output(name).get_by_role("heading", name=heading).wait_for()
        screenshot(lesson.page, f"view-{name}")
    assert "No breach of the contract" in lesson.shown_text("q2-show")
    assert lesson.overflowing() == []
    for name in answers.checks:
        lesson.output(name)
        screenshot(lesson.page, f"passed-{name}")
