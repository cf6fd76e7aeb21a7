"""Lesson 2 through the judge: sets and lists travel, each mistake keeps its message, right answers get every point."""

from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

from autograder import registry
from autograder.grading.sample_answers import samples
from autograder.grading.sample_class import answer, apply, checked
from autograder.judge.judge import Judge, Judgement
from autograder.judge.sandbox import Limits, why_unavailable
from autograder.lesson import read_lesson
from autograder.suite import open_suite
from course.candidates import STATIONS
from course.widgets.call_path.model import CallDrawing

ROOT = Path(__file__).resolve().parents[3]
LESSON = read_lesson(ROOT / "source" / "02_trace.py")
RELEASE = ROOT / "release" / "02_trace" / "02_trace.ipynb"
GRADE_IDS = ["q4-forward", "q5-classes", "q6-paths", "q7-selector", "self-path"]
POINTS = {"q4-forward": 3, "q5-classes": 6, "q6-paths": 4, "q7-selector": 12, "self-path": 7}


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    """Of the answer cells and the tests alone: what the lesson shows between them, another test runs."""
    if (reason := why_unavailable()) is not None:
        pytest.skip(reason)
    lesson = nbformat.from_dict(LESSON)
    lesson.cells = [cell for cell in lesson.cells if cell.id == "setup" or "nbgrader" in cell.metadata]
    with Judge(lesson, Limits(memory=2 * 2**30, call=10), seed=7) as made:
        yield made


def hand_in(judge: Judge, notebook: nbformat.NotebookNode) -> Judgement:
    kept = {cell.id for cell in judge._lesson.cells}
    notebook.cells = [cell for cell in notebook.cells if cell.id in kept]
    return judge.judge(nbformat.writes(notebook).encode())


def kept(judge: Judge, name: str) -> Judgement:
    """What becomes of a submission that is kept in tests/submissions."""
    edits = (ROOT / "tests" / "submissions" / "02_trace" / f"{name}.py").read_text(encoding="utf-8")
    return hand_in(judge, apply(edits, nbformat.read(RELEASE, as_version=4)))


def test_the_points_of_a_cell_are_its_checks_cases() -> None:
    cells = {cell.id: cell.metadata.nbgrader["points"] for cell in LESSON.cells if cell.id in GRADE_IDS}
    assert (
        cells == POINTS == {name: len(registry.get(name).cases(open_suite("visible"))) for name in GRADE_IDS}
    )
    assert checked(LESSON) == GRADE_IDS


def test_the_whole_lesson_runs_in_a_worker_and_looks_suspicious_to_nobody() -> None:
    """With all that it shows between the answers: traces, passages, tables."""
    if (reason := why_unavailable()) is not None:
        pytest.skip(reason)
    with Judge(LESSON, Limits(memory=2 * 2**30, call=10), seed=7) as whole:
        judged = whole.judge(nbformat.writes(LESSON).encode())
    assert judged.score == sum(POINTS.values())
    assert {name: error for name, (_, error) in judged.cells.items() if error} == {}
    assert judged.workers_started == 1
    assert judged.flags == ()


def test_right_answers_get_every_point_and_each_mistake_its_name(judge: Judge) -> None:
    named: set[tuple[str, str]] = set()
    for sample in samples(GRADE_IDS):
        judged = hand_in(judge, answer(sample, nbformat.from_dict(LESSON)))
        found = {name: result.misconception for name, result in judged.checks.items() if result.misconception}
        assert found == sample.mistakes, sample.learner
        named |= set(found.items())
        for name, result in judged.checks.items():
            right = name not in sample.mistakes
            assert (result.points == POINTS[name]) == right, (sample.learner, name, result.message)
            assert (result.status == "passed") == right
            assert right or "what you get when" in result.message
    assert named == {(i, m.name) for i in GRADE_IDS for m in registry.get(i).misconceptions}


def test_kept_submissions_get_their_points(judge: Judge) -> None:
    assert kept(judge, "by-other-roads").score == sum(POINTS.values())
    points = {name: result.points for name, result in kept(judge, "as-the-sheet-says").checks.items()}
    assert points == {"q4-forward": 3, "q5-classes": 0, "q6-paths": 3, "q7-selector": 0, "self-path": 0}


def test_what_is_of_the_wrong_kind_is_told_what_is_expected(judge: Judge) -> None:
    judged = kept(judge, "wrong-kinds")
    assert judged.score == 0
    said = {name: result.message for name, result in judged.checks.items()}
    assert "q4_passed: expected a set of words from the list of candidates, got a str" in said["q4-forward"]
    assert "q5_roles: expected a dict from class to its methods, got a list" in said["q5-classes"]
    assert "q6_write: expected a list of names in vLLM's source" in said["q6-paths"]
    assert "q7_inputs: expected a set of words from the list of candidates, got a dict" in said["q7-selector"]
    assert "q_path: expected a list of edges (caller, callee)" in said["self-path"]
    assert {result.status for result in judged.checks.values()} == {"wrong"}


def test_the_untouched_notebook_is_missing_everywhere(judge: Judge) -> None:
    judged = kept(judge, "empty")
    assert judged.score == 0
    assert {result.status for result in judged.checks.values()} == {"missing"}
    for result in judged.checks.values():
        assert "not answered yet" in result.message


def test_a_drawing_counts_as_the_text_that_the_view_gives_and_not_as_itself(judge: Judge) -> None:
    drawing = CallDrawing(STATIONS, registry.get("self_path").solution["q_path"])
    itself = "from course import candidates, widgets\nq_path = widgets.CallPath(candidates.STATIONS).edges"
    for text, points, part in ((drawing.code(), 7, "all 7"), (itself, 0, "Write the edges down")):
        notebook = nbformat.read(RELEASE, as_version=4)
        next(cell for cell in notebook.cells if cell.id == "self-path-code").source = text
        result = hand_in(judge, notebook).checks["self-path"]
        assert (result.points, part in result.message) == (points, True), result.message
