"""Grading of submissions that misbehave, with the judge, nbgrader and a gradebook as they are, on a lesson without torch."""

import csv
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from nbformat import NotebookNode

from autograder import cli, nbgrader_bridge
from autograder.grading import grade
from autograder.grading.grade import Options
from autograder.grading.journal import Entry, Journal
from autograder.grading.judging import SECRET
from autograder.grading.table import Row, as_text, write_csv
from autograder.judge.sandbox import why_unavailable
from autograder.nbgrader_bridge import grades, open_course

LESSON = "01_tiny"
Results = dict[tuple[str, str], Row]

needs_sandbox = pytest.mark.skipif(why_unavailable() is not None, reason=f"no sandbox: {why_unavailable()}")


def _grade(**options: Any) -> Results:
    """With one process to judge and one for nbgrader, where a test does not ask for more: starting each takes seconds."""
    asked = Options(**{"jobs": 1, **options})
    return {(row.learner, row.exercise): row for row in grade.grade_lesson(LESSON, asked)}


def _points(results: Results, learner: str) -> list[float | None]:
    return [results[learner, exercise].points for exercise in ("double", "triple")]


def _entries() -> list[Entry]:
    return list(Journal(Path.cwd(), LESSON).entries())


def _tamper(notebook: NotebookNode) -> None:
    """Deletes a test, copies an answer, renames, re-types, tags and edits cells, and asks for 99 points."""
    cells = {cell.id: cell for cell in notebook.cells}
    notebook.cells.remove(cells["double"])
    cells["double-code"].metadata.nbgrader.schema_version = 99
    cells["triple-code"].metadata.nbgrader = NotebookNode(grade_id="other", solution="yes", points=[1])
    cells["triple-code"].cell_type = "raw"
    del cells["triple-code"]["outputs"], cells["triple-code"]["execution_count"]
    cells["triple"].metadata.nbgrader.points = 99
    cells["triple"].metadata.tags = ["skip-execution"]
    cells["triple"].source = "pass"
    notebook.metadata["autograder_repairs"] = "none at all"


@needs_sandbox
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_each_submission_costs_only_its_own_points(tiny_course: Any) -> None:
    submit = tiny_course.submit
    submit("right", why="I say so.")
    submit("wrong", double_code="def double(x):\n    return 4")
    submit("stub", double_code="def double(x):\n    raise NotImplementedError")
    submit("stderr", double_code='def double(x):\n    print("hm", file=sys.stderr)\n    return x + x')
    submit("fails", triple_code="triple = 1 / 0")
    submit("exits", triple_code="import os\n\nos._exit(0)")
    submit("quits", triple_code="quit()")
    submit("tampers", _tamper)
    # A forged answer on standard output, and a process that outlives the worker.
    forging = "import os, subprocess\n\nos.write(1, b'{\"ok\": true}\\n')\nsubprocess.Popen(['sleep', '30'])"
    submit("forges", double_code=forging + "\n\n\ndef double(x):\n    os.write(1, b'{}\\n')\n    return 4")
    submit("spies", double_code="def double(x):\n    raise ValueError(In[-1])")
    (submit("not-json") / f"{LESSON}.ipynb").write_text("{")
    out = tiny_course.root / "results" / "out.json"
    results = _grade(out=out, jobs=2)

    expected = {
        "right": [2, 3],
        "wrong": [0, 3],
        "stub": [0, 3],
        "stderr": [2, 3],
        "fails": [2, 0],
        "exits": [2, 0],
        "quits": [2, 0],
        "tampers": [2, 3],
        "spies": [0, 3],
        "forges": [0, 3],
        "not-json": [None, None],
    }
    assert {learner: _points(results, learner) for learner in expected} == expected
    assert results["right", "why"].reason == "needs manual grading"
    assert results["right", "double"].status == "passed"
    assert results["wrong", "double"].status == "wrong"
    assert (results["stub", "double"].status, results["stub", "double"].reason) == (
        "missing",
        "not answered (stub)",
    )
    assert results["exits", "triple"].status == "crashed"
    assert "ended its process" in results["exits", "triple"].reason
    assert "its cell triple-code failed with ZeroDivisionError" in results["fails", "triple"].reason
    assert results["not-json", "double"].status == "refused"
    assert results["not-json", "double"].reason.startswith("not graded: 01_tiny.ipynb is not JSON")
    notes = results["tampers", "double"].notes
    for word in (
        "cell double was missing and was put back",
        "cell double-code said schema_version = 99",
        "cell triple-code said grade_id = 'other'",
        "cell triple-code was of type raw",
        "cell triple said points = 99",
        "cell triple was edited",
    ):
        assert word in notes
    for learner in ("right", "wrong", "exits", "tampers", "spies"):
        page = (Path("feedback") / learner / LESSON / f"{LESSON}.html").read_text(encoding="utf-8")
        assert "HIDDEN TESTS" not in page
        assert "double(3)" not in page
        assert "triple(7)" not in page
    assert not (Path("feedback") / "not-json").joinpath(LESSON).exists()

    found = json.loads(out.read_text())
    assert (found["lesson"], found["sandbox"]) == (LESSON, "bubblewrap")
    assert found["submissions"].keys() == expected.keys()
    for learner, points in expected.items():
        checks = found["submissions"][learner]["checks"]
        assert [checks[name]["points"] for name in ("double", "triple")] == points
        assert [checks[name]["max_points"] for name in ("double", "triple")] == [2, 3]
        assert checks.keys() == {"double", "triple"}
        score = None if None in points else sum(points)
        assert (found["submissions"][learner]["score"], found["submissions"][learner]["max_score"]) == (
            score,
            5,
        )
    assert {check["status"] for check in found["submissions"]["not-json"]["checks"].values()} == {"refused"}
    assert "is not JSON" in found["submissions"]["not-json"]["refused"]


@needs_sandbox
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_resubmission_is_graded_and_an_earlier_pass_does_not_outlive_it(
    tiny_course: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_course.submit("ada")
    tiny_course.submit("bob", double_code="def double(x):\n    return 4")
    assert _points(_grade(), "bob") == [0, 3]
    paths = {name: Path("autograded") / name / LESSON / f"{LESSON}.ipynb" for name in ("ada", "bob")}
    first = {name: path.stat().st_mtime_ns for name, path in paths.items()}

    tiny_course.submit("bob")
    results = _grade()
    assert _points(results, "bob") == _points(results, "ada") == [2, 3]
    assert len(_entries()) == 2  # what bob hands in now is what ada did: it was judged before
    assert paths["ada"].stat().st_mtime_ns == first["ada"]  # unchanged, not taken in again
    assert paths["bob"].stat().st_mtime_ns != first["bob"]
    # Nothing changes silently.
    assert [results["bob", name].was for name in ("double", "triple")] == [0, None]
    assert "was 0" in capsys.readouterr().out

    # Taken in halfway and killed: nbgrader alone would say "Skipping existing" for ever.
    Path(".autograder/graded", LESSON, "ada.json").unlink()
    results = _grade()
    assert _points(results, "ada") == [2, 3]
    assert results["bob", "double"].was is None
    assert paths["ada"].stat().st_mtime_ns != first["ada"]

    (tiny_course.submit("bob") / f"{LESSON}.ipynb").write_text("{")
    results = _grade()
    assert _points(results, "bob") == [None, None]
    assert results["bob", "double"].was == 2
    assert all(needs for _, needs in grades(open_course(), LESSON, "bob").values())
    assert {points for points, _ in grades(open_course(), LESSON, "bob").values()} == {None}
    assert not paths["bob"].exists()
    assert _points(results, "ada") == [2, 3]


@needs_sandbox
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_regrade_on_demand_says_what_it_changes_and_keeps_a_persons_points(
    tiny_course: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_course.submit("ada")
    tiny_course.submit("bob", double_code="def double(x):\n    return x * 2")
    _grade(feedback=False)
    assert not Path("feedback").exists()
    journal = Journal(Path.cwd(), LESSON)
    before = {entry.key: entry for entry in _entries()}
    assert len(before) == 2
    # A verdict that was wrong, as if the hidden cases had been.
    for entry in before.values():
        checks = {
            name: replace(result, points=0.0, status="wrong")
            for name, result in entry.judgement.checks.items()
        }
        wrong = replace(entry, judgement=replace(entry.judgement, checks=checks))
        journal.write(wrong, journal.submission(entry.key).read_bytes())
    results = _grade(feedback=False)
    assert [_points(results, name) for name in ("ada", "bob")] == [[0, 0], [0, 0]]
    with open_course().gradebook as gradebook:
        gradebook.find_grade("double", LESSON, LESSON, "ada").manual_score = 1.5
        gradebook.db.commit()

    # One exercise of one learner: the other exercise's points and hidden cases stay those of the first grading.
    results = _grade(learners=("bob",), exercises=("double",), feedback=False)
    assert {learner for learner, _ in results} == {"bob"}
    assert _points(results, "bob") == [2, 0]
    assert [results["bob", name].was for name in ("double", "triple")] == [0, None]
    (again,) = [entry for entry in _entries() if entry.earlier]
    assert dict(again.earlier) == {"triple": before[again.key].grading}
    assert again.grading_of("double") not in {entry.grading for entry in before.values()}
    # The others' lines are still in the table.
    with Path("grades.csv").open(newline="") as file:
        lines = {(line["learner"], line["exercise"]): line for line in csv.DictReader(file)}
    assert (lines["bob", "double"]["points"], lines["bob", "double"]["was"]) == ("2", "0")
    assert lines["ada", "triple"]["points"] == "0"

    results = _grade(force=True, feedback=False)
    assert results["ada", "double"].points == 1.5
    assert results["ada", "double"].reason == "graded by hand; the judge gives 2"
    assert (results["ada", "triple"].points, results["ada", "triple"].was) == (3, 0)
    assert _points(results, "bob") == [2, 3]
    (number,) = {entry.grading for entry in _entries()}
    assert number not in {entry.grading for entry in before.values()}

    # The verdict can be had again, from the same hidden cases; a forged one is found out.
    capsys.readouterr()
    assert cli.main(["replay", "ada", LESSON]) == 0
    assert "The verdict is the same." in capsys.readouterr().out
    forged = next(iter(_entries()))
    checks = {**forged.judgement.checks, "double": replace(forged.judgement.checks["double"], points=0.5)}
    path = journal.path(forged.key)
    journal.write(replace(forged, judgement=replace(forged.judgement, checks=checks)), path.read_bytes())
    assert cli.main(["replay", str(path)]) == 1
    said = capsys.readouterr().out
    assert "double: DIFFERENT, 2 of 2, passed" in said
    assert "triple: the same, 3 of 3, passed" in said
    assert cli.main(["replay", "nobody", LESSON]) == 2
    assert "nobody has no accepted submission" in capsys.readouterr().err


@needs_sandbox
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_folder_of_submissions_is_graded_without_nbgrader(tiny_course: Any, tmp_path: Path) -> None:
    tiny_course.submit("ada")
    tiny_course.submit("bob")
    other = tmp_path / "handed in"
    os.rename(tiny_course.root / "submitted", other)
    tiny_course.submit("cyn")
    out = tmp_path / "out.json"
    arguments = ["grade", LESSON, "--submissions", str(other), "--out", str(out), "--no-gradebook"]
    assert cli.main(arguments) == 0
    found = json.loads(out.read_text())
    assert {name: learner["score"] for name, learner in found["submissions"].items()} == {"ada": 5, "bob": 5}
    assert not Path("gradebook.db").exists()
    assert not Path("autograded").exists()


@needs_sandbox
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_time_limit_is_of_a_submission(tiny_course: Any) -> None:
    tiny_course.submit("loops", double_code="def double(x):\n    while True:\n        pass")
    results = _grade(time_limit=1.0, into_gradebook=False)
    assert _points(results, "loops") == [0, 0]
    assert results["loops", "double"].status == "timeout"
    assert "has used up its 1 s" in results["loops", "double"].reason


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_without_a_sandbox_grading_refuses_unless_told(tiny_course: Any) -> None:
    tiny_course.submit("ada")
    command = [sys.executable, "-m", "autograder.cli", "grade", LESSON, "--no-gradebook", "--out", "out.json"]
    no_bubblewrap = {**os.environ, "PATH": str(Path(sys.executable).parent)}
    refused = subprocess.run(command, capture_output=True, text=True, env=no_bubblewrap)
    assert refused.returncode == 1
    assert "bwrap is not installed" in refused.stderr
    assert "--unsafe grades without isolation" in refused.stderr
    assert not list(_entries())
    told = subprocess.run([*command, "--unsafe"], capture_output=True, text=True, env=no_bubblewrap)
    assert told.returncode == 0, told.stderr
    assert "judged without isolation (--unsafe)" in told.stdout
    found = json.loads(Path("out.json").read_text())
    assert found["sandbox"] == "none"
    assert found["submissions"]["ada"]["score"] == 5
    (forgeable,) = _entries()
    # What could have been forged is judged again as soon as it can be done in a sandbox.
    if why_unavailable() is None:
        _grade(into_gradebook=False)
        (entry,) = _entries()
        assert (entry.key, entry.sandbox) == (forgeable.key, "bubblewrap")
        assert entry.grading != forgeable.grading


def test_without_this_courses_configuration_nothing_is_run(tiny_course: Any) -> None:
    """nbgrader alone would execute the notebook, as the instructor."""
    traced = tiny_course.root / "ran"
    tiny_course.submit("ada", double_code=f"open({str(traced)!r}, 'w')")
    (tiny_course.root / "nbgrader_config.py").unlink()
    with pytest.raises(
        grade.GradingError, match=r"^--course-dir: .* has no nbgrader_config\.py of this course"
    ):
        _grade()
    assert not traced.exists()
    assert not (tiny_course.root / "gradebook.db").exists()


def test_a_damaged_secret_is_no_fault_of_the_machine(tiny_course: Any) -> None:
    tiny_course.submit("ada")
    secret = tiny_course.root / SECRET
    secret.parent.mkdir(exist_ok=True)
    secret.write_text("not a secret")
    with pytest.raises(grade.GradingError, match="secret"):
        _grade(into_gradebook=False, unsafe=True)
    assert not _entries()


def test_what_collecting_set_aside_is_recalled(tiny_course: Any, capsys: pytest.CaptureFixture[str]) -> None:
    aside = tiny_course.root / nbgrader_bridge.SET_ASIDE / f"{LESSON}.txt"
    aside.parent.mkdir(parents=True)
    aside.write_text("bob+01_tiny+...: its notebook is called Untitled.ipynb\n")
    tiny_course.submit("ada")
    _grade(into_gradebook=False, unsafe=True)
    assert str(aside) in capsys.readouterr().err


def test_what_is_wrong_with_the_lesson_is_said_once(
    tiny_course: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["grade", LESSON]) == 1
    assert "no submissions" in capsys.readouterr().err
    assert cli.main(["grade", "02_unknown"]) == 1
    assert "LESSON: expected one of 01_tiny, got 02_unknown" in capsys.readouterr().err
    assert cli.main(["grade", "--jobs", "0"]) == 2
    assert "--jobs: expected at least 1, got 0" in capsys.readouterr().err
    assert cli.main(["grade", "--course-dir", "nowhere"]) == 2
    assert "--course-dir: nowhere is not a folder" in capsys.readouterr().err
    assert cli.main(["grade", LESSON, "--submissions", "nowhere"]) == 2
    assert "--submissions: nowhere is not a folder" in capsys.readouterr().err
    assert cli.main(["grade", LESSON, "02_x", "--out", "x.json"]) == 2
    assert "--out: expected one LESSON, got 01_tiny, 02_x" in capsys.readouterr().err
    tiny_course.submit("ada")
    assert cli.main(["grade", LESSON, "--exercise", "why", "--no-gradebook"]) == 1
    assert "--exercise: expected one of double, triple, got why" in capsys.readouterr().err
    assert cli.main(["grade", LESSON, "--learner", "eve", "--no-gradebook"]) == 1
    assert "--learner: expected a learner in" in capsys.readouterr().err


@needs_sandbox
def test_the_command_grades_the_sample_class(
    tiny_course: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_course.submit("ada", why="Because.")
    monkeypatch.setattr("autograder.grading.sample_class.make", lambda: tiny_course.root)
    monkeypatch.chdir("/")
    assert cli.main(["grade", "--sample-class", "--jobs", "1"]) == 0
    assert "ada      double" in capsys.readouterr().out
    with (tiny_course.root / "grades.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["exercise"], line["points"]) for line in lines] == [
        ("double", "2"),
        ("triple", "3"),
        ("why", ""),
    ]


def _row(learner: str, exercise: str, points: float | None, reason: str, lesson: str = "01_x") -> Row:
    return Row(
        lesson,
        learner,
        exercise,
        points,
        4.0,
        "wrong" if points is not None else "refused",
        "",
        reason,
        "",
    )


def test_the_csv_keeps_other_lessons_and_holds_no_formula(tmp_path: Path) -> None:
    path = tmp_path / "grades.csv"
    write_csv([_row("ada", "a", 1.0, "first"), _row("ada", "b", 1.0, "other", "02_y")], path)
    write_csv([_row("ada", "a", 2.5, '=HYPERLINK("x")'), _row("bob", "a", None, "two\nlines")], path)
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    kept = [(line["lesson"], line["learner"], line["points"], line["reason"]) for line in lines]
    assert kept == [
        ("02_y", "ada", "1", "other"),
        ("01_x", "ada", "2.5", '\'=HYPERLINK("x")'),
        ("01_x", "bob", "", "two\nlines"),
    ]


def test_the_table_tells_no_verdict_from_no_points() -> None:
    rows = [_row("ada", "a", 0.0, "wrong " * 40), _row("ada", "b", None, "needs manual grading")]
    text = as_text([*rows, *(_row("bob", name, None, "not graded: is not JSON") for name in "ab")], 100)
    assert max(map(len, text.splitlines())) <= 100
    assert [line.split()[1:4] for line in text.splitlines()[1:] if line.startswith(("ada", "bob"))] == [
        ["a", "0", "4"],
        ["all", "–", "8"],
    ]
    assert "not graded: is not JSON" in text


def test_the_bridge_is_the_only_package_that_knows_nbgrader() -> None:
    bridge = Path(nbgrader_bridge.__file__).parent
    for path in bridge.parent.rglob("*.py"):
        if not path.is_relative_to(bridge):
            text = path.read_text(encoding="utf-8")
            assert "import nbgrader\n" not in text, path
            assert "from nbgrader" not in text, path
