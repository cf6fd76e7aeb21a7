"""The sample class of lesson 1, graded for real: the judge in its sandbox, nbgrader, a gradebook, feedback."""

import csv
import functools
import html
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from autograder import registry
from autograder.grading.sample_answers import Sample, samples
from autograder.grading.sample_class import checked, make
from autograder.judge.rebuild import HIDDEN
from autograder.judge.sandbox import why_unavailable
from autograder.registry import Check
from tests.autograder.points import points_of

ROOT = Path(__file__).resolve().parents[3]
LESSON = "01_warm_up"
EXPECTED = Path(__file__).with_name("expected_01_warm_up.csv")
Table = dict[tuple[str, str], dict[str, str]]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.xdist_group("sample_class"),  # one class for all of these tests
    pytest.mark.skipif(why_unavailable() is not None, reason=f"no sandbox: {why_unavailable()}"),
]


@pytest.fixture(scope="session")
def course(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The graded sample class."""
    base = tmp_path_factory.mktemp("graded")
    target = base / "sample_class"
    make(target, ROOT, lessons=[LESSON])
    chosen = {sample.learner for sample in _samples()}
    for sample in samples([check.grade_id for check in _checks()]):
        if sample.learner not in chosen:
            shutil.rmtree(target / "submitted" / sample.learner)
    # Half of the cores: two processes of tests share them, and each of these starts a judge and an nbgrader.
    jobs = str(max(1, min(len(os.sched_getaffinity(0)) // 2, 12)))
    command = [
        sys.executable,
        "-m",
        "autograder.cli",
        "grade",
        LESSON,
        "--jobs",
        jobs,
        "--course-dir",
        target,
    ]
    # pytest-xdist's workers have COLUMNS=80; a pipe without it gets the wide table.
    wide = {**os.environ, "COLUMNS": "160"}
    ran = subprocess.run(command, capture_output=True, text=True, cwd=base, env=wide)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (target / "said.txt").write_text(ran.stdout, encoding="utf-8")
    return target


@pytest.fixture(scope="session")
def table(course: Path) -> Table:
    with (course / "grades.csv").open(encoding="utf-8", newline="") as file:
        return {(row["learner"], row["exercise"]): row for row in csv.DictReader(file)}


def _expected() -> list[dict[str, str]]:
    with EXPECTED.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@functools.cache
def _samples() -> tuple[Sample, ...]:
    """Some of those made from checks: what the judge says to each of them, its own test knows (test_judge.py)."""
    made = samples([check.grade_id for check in _checks()])
    right, mistaken = [[s for s in made if bool(s.mistakes) == wrong] for wrong in (False, True)]
    return (right[0], mistaken[0])


@functools.cache
def _checks() -> tuple[Check, ...]:
    """The lesson's own checks."""
    grade_ids = {row["exercise"] for row in _expected()}
    found = map(registry.get, registry.names())
    return tuple(check for check in found if check.grade_id in grade_ids)


def test_everyone_is_in_the_table(course: Path, table: Table) -> None:
    learners = {learner for learner, _ in table}
    assert learners == {path.name for path in (course / "submitted").iterdir()}
    assert learners == {row["learner"] for row in _expected()} | {sample.learner for sample in _samples()}
    assert len(table) == 8 * len(learners)


def test_hand_written_submissions_get_the_points_that_are_kept(table: Table) -> None:
    columns = ("learner", "exercise", "points", "status", "misconception")
    wanted = [tuple(row[column] for column in columns) for row in _expected()]
    got = [tuple(table[row["learner"], row["exercise"]][column] for column in columns) for row in _expected()]
    assert got == wanted


def test_samples_get_what_the_judge_says_and_a_mistake_is_named(table: Table) -> None:
    for sample in _samples():
        for check in _checks():
            row = table[sample.learner, check.grade_id]
            mistake = sample.mistakes.get(check.grade_id, "")
            assert row["misconception"] == mistake, row
            assert float(row["points"]) == points_of(sample, check, float(row["max_points"])), row
            assert (row["status"] == "passed") == (not mistake)
            assert not mistake or "what you get when" in row["reason"]


def test_no_verdict_is_never_a_zero(table: Table) -> None:
    reasons = {learner: row["reason"] for (learner, _), row in table.items() if row["status"] == "refused"}
    assert {learner: bool(reason) for learner, reason in reasons.items()} == dict.fromkeys(
        ["no-notebook", "not-a-notebook", "not-json", "renamed"], True
    )
    assert "is not JSON" in reasons["not-json"]
    assert "01_warm_up.ipynb is missing" in reasons["no-notebook"]
    assert "there is 01_warm_up (1) final.ipynb" in reasons["renamed"]
    for row in table.values():
        assert (row["points"] == "") == (
            row["status"] == "refused" or row["reason"] == "needs manual grading"
        )


def test_reasons_say_what_happened(table: Table) -> None:
    def reason(learner: str, exercise: str) -> str:
        return table[learner, exercise]["reason"]

    assert reason("empty", "q2-metadata") == "not answered (stub)"
    assert reason("empty", "q2-explain") == "not answered"
    assert reason("all-right", "q3-explain") == "needs manual grading"
    assert "ended its process (exit status 1) (in q3-update-code)" in reason("crashes", "q3-merge")
    assert reason("dies-in-the-check", "q2-metadata").startswith("your code's process crashed")
    assert "its cell q2-metadata-code failed with SyntaxError" in reason("typo", "q2-attend")
    assert "changes its input `num_new_tokens`" in reason("mutates", "q2-metadata")
    assert "NaN" in reason("nan", "q3-update")
    assert "got a list" in reason("wrong-types", "q1-verdicts")
    notes = table["edits-the-tests", "q3-merge"]["notes"]
    for word in ("cell q2-metadata was missing", "points = 100", "schema_version = 99", "'q3-merge-2'"):
        assert word in notes
    notes = table["extra-files", "q3-merge"]["notes"]
    assert "torch.py is left out" in notes
    assert "holds no date" in notes


def test_the_terminal_shows_the_same(course: Path, table: Table) -> None:
    said = (course / "said.txt").read_text(encoding="utf-8")
    for (learner, _), row in table.items():
        assert re.search(rf"^{re.escape(learner)} ", said, re.MULTILINE)
        assert not row["misconception"] or row["misconception"] in said
    assert "not graded: 01_warm_up.ipynb is not JSON" in said


def test_feedback_has_the_message_and_nothing_that_is_secret(course: Path, table: Table) -> None:
    instructor = nbformat.read(course / "source" / LESSON / f"{LESSON}.ipynb", as_version=4)
    hidden = {
        line.strip()
        for cell in instructor.cells
        for body in HIDDEN.findall(cell.source)
        for line in body.splitlines()
    }
    assert len(hidden) == 5
    solutions = _secret_lines(instructor)
    assert len(solutions) > 30
    graded = {learner for (learner, _), row in table.items() if row["status"] != "refused"}
    for learner in graded:
        page = course / "feedback" / learner / LESSON / f"{LESSON}.html"
        text = html.unescape(re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8")))
        squeezed = re.sub(r"\s+", " ", text)
        assert "HIDDEN TESTS" not in text, learner
        assert "SOLUTION" not in text, learner
        assert not [line for line in hidden if line in squeezed], learner
        own = nbformat.read(course / "autograded" / learner / LESSON / f"{LESSON}.ipynb", as_version=4)
        # What a learner wrote and we wrote too is no secret, nor is what the lesson's other cells say.
        written = re.sub(r"\s+", " ", "\n".join(cell.source for cell in own.cells))
        assert not [line for line in solutions if line in squeezed and line not in written], learner
        for cell in own.cells:
            for output in cell.get("outputs", []):
                if output["output_type"] == "error" and output["ename"] == "wrong":
                    headline = output["evalue"].splitlines()[0].strip()
                    assert re.sub(r"\s+", " ", headline) in squeezed, (learner, headline)
    no_verdict = {learner for learner, _ in table} - graded
    assert not [learner for learner in no_verdict if (course / "feedback" / learner / LESSON).exists()]


def _secret_lines(instructor: nbformat.NotebookNode) -> set[str]:
    """Lines of the instructor's solutions and model answers that are long enough to be told from chance."""
    region = re.compile(r"### BEGIN SOLUTION\n(.*?)### END SOLUTION", re.DOTALL)
    bodies = [body for cell in instructor.cells for body in region.findall(cell.source)]
    lines = {re.sub(r"\s+", " ", line.strip()) for body in bodies for line in body.splitlines()}
    return {line for line in lines if len(line) > 40}


def test_nothing_was_handed_in_twice_or_changed(course: Path) -> None:
    """Grading reads `submitted` and leaves it as it is."""
    folder = course / "submitted" / "extra-files" / LESSON
    assert sorted(path.name for path in folder.iterdir()) == ["01_warm_up.ipynb", "timestamp.txt", "torch.py"]
    assert (
        (course / "submitted" / "not-json" / LESSON / f"{LESSON}.ipynb")
        .read_text()
        .startswith('{"cells": [,')
    )


def test_grade_ids_of_the_lesson_are_those_of_the_checks(course: Path) -> None:
    release = nbformat.read(course / "release" / LESSON / f"{LESSON}.ipynb", as_version=4)
    assert checked(release) == [check.grade_id for check in _checks()]
