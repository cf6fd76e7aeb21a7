"""nbgrader's own commands, as its users know them, in a fresh course folder with the repository's configuration."""

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import nbformat
import pytest

from autograder.build import write_instructor_notebook
from autograder.grading.sample_class import apply, hand_in
from autograder.judge import sandbox
from autograder.nbgrader_bridge import grades, make_gradebook, open_course

ROOT = Path(__file__).resolve().parents[2]
LESSON = "01_warm_up"
LEARNER = "edits-the-tests"  # what all of them get, test_grade.py sees

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def _nbgrader(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nbgrader", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


def _schema(path: Path) -> list[list[object]]:
    """A gradebook's tables, and its version, by which nbgrader knows how to upgrade it."""
    with closing(sqlite3.connect(path)) as database:
        tables = "SELECT name, sql FROM sqlite_master ORDER BY name"
        return [list(database.execute(query)) for query in (tables, "SELECT * FROM alembic_version")]


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A course folder as an instructor would have it after `autograder build`: no gradebook, no release yet."""
    folder = tmp_path_factory.mktemp("course")
    (folder / "source").mkdir()
    for name in ("nbgrader_config.py", f"source/{LESSON}.py"):
        (folder / name).write_bytes((ROOT / name).read_bytes())
    write_instructor_notebook(folder, LESSON)
    return folder


@pytest.mark.skipif(sandbox.why_unavailable() is not None, reason=str(sandbox.why_unavailable()))
def test_release_autograde_and_feedback(course: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = _nbgrader("generate_assignment", LESSON, cwd=course)
    assert ran.returncode == 0, ran.stderr
    monkeypatch.chdir(course)
    stock = _schema(Path("gradebook.db").rename("stock.db"))
    make_gradebook(open_course())
    assert _schema(Path("gradebook.db")) == stock
    Path("stock.db").rename("gradebook.db")
    made = course / "release" / LESSON / f"{LESSON}.ipynb"
    text = made.read_text(encoding="utf-8")
    assert "NotImplementedError" in text
    assert "BEGIN SOLUTION" not in text
    assert "HIDDEN" not in text

    kept = course / "kept"
    kept.mkdir()
    text = (ROOT / "tests" / "submissions" / LESSON / f"{LEARNER}.py").read_text(encoding="utf-8")
    (kept / f"{LEARNER}.py").write_text(text, encoding="utf-8")
    hand_in(made, kept, course / "submitted", generated=False)
    ran = _nbgrader("autograde", LESSON, cwd=course)
    assert ran.returncode == 0, ran.stderr
    ran = _nbgrader("generate_feedback", LESSON, cwd=course)
    assert ran.returncode == 0, ran.stderr
    points = {name: got for name, (got, _) in grades(open_course(), LESSON, LEARNER).items()}
    autograded = {name: got for name, got in points.items() if "explain" not in name}
    assert autograded == {"q1-verdicts": 8, "q2-metadata": 5, "q2-attend": 3, "q3-update": 6, "q3-merge": 4}
    page = (course / "feedback" / LEARNER / LESSON / f"{LESSON}.html").read_text(encoding="utf-8")
    assert "HIDDEN TESTS" not in page
    ran = _nbgrader("export", "--to", "grades-of-nbgrader.csv", cwd=course)
    assert ran.returncode == 0, ran.stderr
    assert "26.0" in (course / "grades-of-nbgrader.csv").read_text()


def test_validate_in_the_repository_itself(tmp_path: Path) -> None:
    """The learner's Validate button: the one stub that is left fails with our own words, right answers pass."""
    release = nbformat.read(ROOT / "release" / LESSON / f"{LESSON}.ipynb", as_version=4)
    stub = {cell.id: cell.source for cell in release.cells}["q3-merge-code"]
    edits = (ROOT / "tests" / "submissions" / LESSON / "all-right.py").read_text(encoding="utf-8")
    answered = apply(edits, release)
    next(cell for cell in answered.cells if cell.id == "q3-merge-code").source = stub
    path = tmp_path / f"{LESSON}.ipynb"
    nbformat.write(answered, path)
    ran = _nbgrader("validate", str(path), cwd=ROOT)
    assert "VALIDATION FAILED ON 1 CELL(S)" in ran.stdout, ran.stdout + ran.stderr
    assert "merge_states is not answered yet" in ran.stdout
