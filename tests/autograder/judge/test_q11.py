"""Question 11 through the judge: a plan and a conclusion arrive as plain data, and the plan is run again on this side."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

from autograder import registry
from autograder.grading.sample_answers import Sample
from autograder.grading.sample_class import answer
from autograder.judge.judge import Judge, Judgement
from autograder.judge.judgement import CheckResult
from autograder.judge.sandbox import Limits, why_unavailable
from autograder.lesson import read_lesson
from autograder.misconceptions.q11_conclusion import TRUTH

LESSON = read_lesson(Path(__file__).resolve().parents[3] / "source" / "04_design.py")
PLAN, CONCLUSION = registry.get("q11_plan"), registry.get("q11_conclusion")
SHOWN = {"predict-effect", "q11-run", "q11-setup"}


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    """Of question 11's answers and tests, and of the cell that runs the plan for the conclusion after it."""
    if (reason := why_unavailable()) is not None:
        pytest.skip(reason)
    lesson = nbformat.from_dict(LESSON)
    lesson.cells = [
        cell
        for cell in lesson.cells
        if cell.id in SHOWN or (cell.id.startswith("q11-") and "nbgrader" in cell.metadata)
    ]
    setup = next(cell for cell in LESSON.cells if cell.id == "setup")
    lesson.cells.insert(0, nbformat.from_dict(setup))
    with Judge(lesson, Limits(memory=2 * 2**30, call=20, cell=60), seed=7) as made:
        yield made


def hand_in(judge: Judge, notebook: nbformat.NotebookNode, only: str = "") -> Judgement:
    kept = {cell.id for cell in judge._lesson.cells}
    notebook.cells = [cell for cell in notebook.cells if cell.id in kept]
    return judge.judge(nbformat.writes(notebook).encode(), only=frozenset({only}) if only else None)


def verdict(judge: Judge, parts: Any, grade_id: str) -> CheckResult:
    """On one test of a submission with these answers, in which nothing else runs."""
    notebook = answer(Sample("x", {**TRUTH, **parts}), nbformat.from_dict(LESSON))
    next(cell for cell in notebook.cells if cell.id == "q11-run").source = ""
    return hand_in(judge, notebook, grade_id).checks[grade_id]


def points(judged: Judgement) -> tuple[float, float]:
    return judged.checks["q11-plan"].points, judged.checks["q11-conclusion"].points


def test_the_solution_gets_every_point_from_its_own_run(judge: Judge) -> None:
    """The learner's side runs the plan in the sandbox and concludes from that; this side runs it again."""
    judged = hand_in(judge, nbformat.from_dict(LESSON))
    assert points(judged) == (8, 8), judged.checks["q11-conclusion"].message
    assert {name: error for name, (_, error) in judged.cells.items() if error} == {}
    assert judged.flags == ()


def test_right_answers_by_other_roads_get_every_point(judge: Judge) -> None:
    for variant in PLAN.right_variants:
        assert verdict(judge, variant.parts, "q11-plan").points == 8, variant.name
    for variant in CONCLUSION.right_variants:
        result = verdict(judge, variant.parts, "q11-conclusion")
        assert result.points == 8, (variant.name, result.message)


@pytest.mark.parametrize("which", [PLAN, CONCLUSION], ids=lambda check: check.name)
def test_each_mistake_keeps_its_name(judge: Judge, which: registry.Check) -> None:
    for mistake in which.misconceptions:
        result = verdict(judge, mistake.parts, which.grade_id)
        assert result.misconception == mistake.name, result.message
        assert result.points == (7 if which is PLAN else 0), mistake.name


def test_a_result_made_up_in_the_sandbox_changes_nothing(judge: Judge) -> None:
    """Whatever the learner's harness says, the plan is run on this side, with its own."""
    notebook = nbformat.from_dict(LESSON)
    cells = {cell.id: cell for cell in notebook.cells}
    cells["q11-run"].source = (
        "from course.serving import running\n"
        "running.serve = running.run = serving.run = lambda *given, **more: None\n"
        "q11_plan['hypothesis']['factor'] = 1.9\n"
        "q11_plan['refuted_if']['ratio_below'] = 0.9\n"
    )
    cells["q11-conclusion-code"].source = (
        "q11_conclusion = {'verdict': 'supported', 'better': 'ours', 'effect': 7.0, 'interval': (6.9, 7.1),\n"
        "    'figures': {'ours': 20.0, 'vLLM Triton': 140.0},\n"
        "    'scope': {'workloads': ['long prompts'], 'source': 'replay', 'gpu': 'H200'}}\n"
    )
    judged = hand_in(judge, notebook)
    assert judged.checks["q11-conclusion"].points == 0
    assert "says more than the run shows" in judged.checks["q11-conclusion"].message


def test_what_is_no_plain_data_and_what_is_missing_says_so(judge: Judge) -> None:
    notebook = nbformat.from_dict(LESSON)
    cells = {cell.id: cell for cell in notebook.cells}
    cells["q11-plan-code"].source = "class Agrees(dict):\n    pass\nq11_plan = Agrees(hypothesis=1)"
    cells["q11-run"].source = ""
    cells["q11-conclusion-code"].source = "q11_conclusion = {}"
    judged = hand_in(judge, notebook)
    assert points(judged) == (0, 0)
    assert "q11_plan: expected a dict" in judged.checks["q11-plan"].message
    assert "not answered yet: fill in q11_conclusion" in judged.checks["q11-conclusion"].message
