"""Lesson handed out, handed in, collected, graded, handed back: nbgrader's exchange, from both sides."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from autograder.grading import grade

ROOT = Path(__file__).resolve().parents[3]
LESSON = "01_tiny"


def _nbgrader(*arguments: str, cwd: Path) -> None:
    environment = {**os.environ, "JUPYTER_DATA_DIR": str(cwd / "data")}
    command = [sys.executable, "-m", "nbgrader", *arguments]
    ran = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.slow
def test_a_lesson_goes_out_and_comes_back_graded(
    tiny_course: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NBGRADER_EXCHANGE", str(tmp_path / "exchange"))
    learner = tmp_path / "learner"
    learner.mkdir()
    (learner / "nbgrader_config.py").write_bytes((ROOT / "nbgrader_config.py").read_bytes())

    _nbgrader("generate_assignment", LESSON, cwd=tmp_path)
    _nbgrader("release_assignment", LESSON, cwd=tmp_path)
    _nbgrader("fetch_assignment", LESSON, cwd=learner)
    notebook = learner / LESSON / f"{LESSON}.ipynb"
    text = notebook.read_text(encoding="utf-8")
    stub = 'raise NotImplementedError(\\"Your code here. Then delete this line.\\")'
    assert text.count(stub) == 2
    notebook.write_text(text.replace(stub, "return x + x", 1), encoding="utf-8")
    _nbgrader("submit", LESSON, cwd=learner)

    _nbgrader("collect", LESSON, cwd=tmp_path)
    (handed_in,) = (tmp_path / "submitted").iterdir()
    rows = {row.exercise: row for row in grade.grade_lesson(LESSON, jobs=1)}
    assert {row.learner for row in rows.values()} == {handed_in.name}
    assert not any(row.reason and row.points is None for row in rows.values()), rows
    assert (rows["double"].points, rows["triple"].points) == (2, 0)

    _nbgrader("release_feedback", LESSON, cwd=tmp_path)
    _nbgrader("fetch_feedback", LESSON, cwd=learner)
    (page,) = learner.rglob("feedback/**/*.html")
    assert "NotImplementedError" in page.read_text(encoding="utf-8")
