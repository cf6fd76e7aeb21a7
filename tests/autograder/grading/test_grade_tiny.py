"""Grading of submissions that misbehave, with nbgrader and a gradebook as they are, on a lesson without torch."""

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from nbformat import NotebookNode

from autograder.grading import grade
from autograder.grading.table import Row, as_text, write_csv
from autograder.nbgrader_bridge import grades, open_course

LESSON = "01_tiny"
Results = dict[tuple[str, str], Row]


def _grade(**options: Any) -> Results:
    return {(row.learner, row.exercise): row for row in grade.grade_lesson(LESSON, jobs=2, **options)}


def _points(results: Results, learner: str) -> list[float | None]:
    return [results[learner, exercise].points for exercise in ("double", "triple")]


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


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_each_submission_costs_only_its_own_points(tiny_course: Any) -> None:
    submit = tiny_course.submit
    submit("right", why="I say so.")
    submit("wrong", double_code="def double(x):\n    return 4")
    submit("stub", double_code="def double(x):\n    raise NotImplementedError")
    submit("stderr", double_code='def double(x):\n    print("hm", file=sys.stderr)\n    return x + x')
    submit("sleeps", double_code="import time\n\n\ndef double(x):\n    time.sleep(60)")
    stubborn = """def triple(x):
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        pass"""
    submit("stubborn", triple_code=stubborn)
    submit("exits", triple_code="import os\n\nos._exit(0)")
    submit("quits", triple_code="quit()")
    submit("tampers", _tamper)
    # Beside the kernel's own channels: a forged answer on standard output, and a process that outlives the kernel.
    forging = "import os, subprocess\n\nos.write(1, b'{\"ok\": true}\\n')\nsubprocess.Popen(['sleep', '30'])"
    submit("forges", double_code=forging + "\n\n\ndef double(x):\n    os.write(1, b'{}\\n')\n    return 4")
    submit("spies", double_code="def double(x):\n    raise ValueError(In[-1])")
    (submit("not-json") / f"{LESSON}.ipynb").write_text("{")
    results = _grade()

    expected = {
        "right": [2, 3],
        "wrong": [0, 3],
        "stub": [0, 3],
        "stderr": [2, 3],
        "sleeps": [0, 3],
        "stubborn": [2, 0],
        "exits": [2, 0],
        "tampers": [2, 3],
        "spies": [0, 3],
        "forges": [0, 3],
        "not-json": [None, None],
    }
    assert {learner: _points(results, learner) for learner in expected} == expected
    # IPython's quit() ends the kernel after its cell: nobody gets points for what never ran.
    assert results["quits", "double"].points == 2
    assert results["quits", "triple"].points == 0
    assert results["right", "why"].reason == "needs manual grading"
    assert results["wrong", "double"].reason.startswith("AssertionError")
    assert results["stub", "double"].status == "not answered"
    assert "time limit" in results["sleeps", "double"].reason
    assert "kernel was killed: cell triple did not stop after 4 s" in results["stubborn", "triple"].reason
    assert "kernel died in cell triple-code" in results["exits", "triple"].reason
    assert "is not JSON" in results["not-json", "double"].reason
    notes = results["tampers", "double"].notes
    for word in (
        "cell double was missing and was put back",
        "cell double-code said schema_version = 99",
        "cell triple-code said grade_id = 'other'",
        "cell triple-code was of type raw",
        "cell triple said points = 99",
        "cell triple had tags ['skip-execution']",
        "cell triple was edited",
    ):
        assert word in notes
    for learner in ("right", "wrong", "stubborn", "exits", "tampers", "spies"):
        page = (Path("feedback") / learner / LESSON / f"{LESSON}.html").read_text(encoding="utf-8")
        assert "HIDDEN TESTS" not in page
        assert "double(3)" not in page
        assert "triple(7)" not in page
    assert not (Path("feedback") / "not-json").joinpath(LESSON).exists()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_resubmission_is_graded_and_an_earlier_pass_does_not_outlive_it(tiny_course: Any) -> None:
    tiny_course.submit("ada")
    tiny_course.submit("bob", double_code="def double(x):\n    return 4")
    assert _points(_grade(), "bob") == [0, 3]
    paths = {name: Path("autograded") / name / LESSON / f"{LESSON}.ipynb" for name in ("ada", "bob")}
    first = {name: path.stat().st_mtime_ns for name, path in paths.items()}

    tiny_course.submit("bob")
    results = _grade()
    assert _points(results, "bob") == _points(results, "ada") == [2, 3]
    assert paths["ada"].stat().st_mtime_ns == first["ada"]  # unchanged, not graded again
    assert paths["bob"].stat().st_mtime_ns != first["bob"]

    # Graded halfway and killed: nbgrader alone would say "Skipping existing" for ever.
    Path(".autograder/graded", LESSON, "ada.json").unlink()
    assert _points(_grade(), "ada") == [2, 3]
    assert paths["ada"].stat().st_mtime_ns != first["ada"]
    second = paths["bob"].stat().st_mtime_ns
    _grade(force=True)
    assert paths["bob"].stat().st_mtime_ns != second

    (tiny_course.submit("bob") / f"{LESSON}.ipynb").write_text("{")
    results = _grade()
    assert _points(results, "bob") == [None, None]
    assert all(needs for _, needs in grades(open_course(), LESSON, "bob").values())
    assert {points for points, _ in grades(open_course(), LESSON, "bob").values()} == {None}
    assert not paths["bob"].exists()
    assert _points(results, "ada") == [2, 3]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nothing_outlives_the_time_limit_of_a_submission(tiny_course: Any) -> None:
    pid = tiny_course.root / "pid"
    code = f"import os\n\nopen({str(pid)!r}, 'w').write(str(os.getpid()))\nwhile True:\n    pass"
    config = tiny_course.root / "nbgrader_config.py"
    config.write_text(config.read_text() + "c.Execute.timeout = 300\n")
    tiny_course.submit("loops", double_code=code)
    results = _grade(time_limit=15)
    assert _points(results, "loops") == [None, None]
    assert "longer than 15 s" in results["loops", "double"].reason
    kernel = int(pid.read_text())
    assert not psutil.pid_exists(kernel) or psutil.Process(kernel).status() == psutil.STATUS_ZOMBIE


def test_what_is_wrong_with_the_lesson_is_said_once(
    tiny_course: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert grade.main([LESSON]) == 1
    assert "no submissions" in capsys.readouterr().err
    assert grade.main(["02_unknown"]) == 1
    assert "there is no lesson 02_unknown" in capsys.readouterr().err
    assert grade.main(["--jobs", "0"]) == 2
    assert "--jobs: expected at least 1, got 0" in capsys.readouterr().err
    assert grade.main(["--course-dir", "nowhere"]) == 2
    assert "--course-dir: nowhere is not a folder" in capsys.readouterr().err


def test_the_command_grades_the_sample_class(
    tiny_course: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_course.submit("ada", why="Because.")
    monkeypatch.setattr("autograder.grading.sample_class.make", lambda: tiny_course.root)
    monkeypatch.chdir("/")
    assert grade.main(["--sample-class", "--jobs", "1"]) == 0
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
        "failed" if points is not None else "not graded",
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
    text = as_text([*rows, _row("bob", "a", None, "is not JSON"), _row("bob", "b", None, "is not JSON")], 100)
    assert max(map(len, text.splitlines())) <= 100
    assert [line.split()[1:4] for line in text.splitlines()[1:] if line.startswith(("ada", "bob"))] == [
        ["a", "0", "4"],
        ["all", "–", "8"],
    ]
    assert "not graded: is not JSON" in text


def test_the_bridge_is_the_only_file_that_knows_nbgrader() -> None:
    folder = Path(grade.__file__).parents[1]
    for path in folder.rglob("*.py"):
        if "nbgrader_bridge" not in path.parts:
            text = path.read_text(encoding="utf-8")
            assert "import nbgrader\n" not in text, path
            assert "from nbgrader" not in text, path


def test_nbgraders_plug_ins_do_without_torch() -> None:
    code = "import sys, autograder.nbgrader_bridge; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
