"""source/NN_name.py -> instructor's notebook -> release, on a small course of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from autograder import build as builder
from autograder.lesson import LessonError

REPOSITORY = Path(__file__).resolve().parents[2]

LESSON = '''\
# %% why [markdown]
# # Sample

# %% q1-code nbgrader={"solution": true}
def twice(x):
    """Twice x."""
    ### BEGIN SOLUTION
    return 2 * x
    ### END SOLUTION

# %% q1-test nbgrader={"grade": true, "points": 4}
autograder.check("twice", twice)
### BEGIN HIDDEN TESTS
autograder.check("twice", twice, suite="hidden")
### END HIDDEN TESTS

# %% q1-explain [markdown] nbgrader={"grade": true, "solution": true, "points": 3}
# Why?
#
# ### BEGIN SOLUTION
# The model answer.
# ### END SOLUTION
'''


def make_course(folder: Path) -> Path:
    """A course folder with one lesson and the repository's own nbgrader configuration."""
    (folder / "source").mkdir(parents=True)
    shutil.copy(REPOSITORY / "nbgrader_config.py", folder)
    (folder / "source" / "01_sample.py").write_text(LESSON)
    return folder


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A course with its release built once; tests that change it take a copy."""
    root = make_course(tmp_path_factory.mktemp("course with a space"))
    builder.build(root)
    return root


@pytest.fixture
def copy(course: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(course, tmp_path / "copy"))


def released(root: Path) -> bytes:
    return (root / "release" / "01_sample" / "01_sample.ipynb").read_bytes()


def test_release_has_stubs_and_neither_solution_nor_hidden_test(course: Path) -> None:
    notebook = nbformat.reads(released(course).decode(), as_version=4)
    cells = {cell.id: cell for cell in notebook.cells}
    assert list(cells) == ["why", "q1-code", "q1-test", "q1-explain"]
    assert cells["q1-code"].source.splitlines() == [
        "def twice(x):",
        '    """Twice x."""',
        '    raise NotImplementedError("Your code here. Then delete this line.")',
    ]
    assert cells["q1-test"].source == 'autograder.check("twice", twice)'
    assert cells["q1-explain"].source == "Why?\n\n*Your answer here. Then delete this line.*"
    for word in (b"SOLUTION", b"HIDDEN", b"hidden", b"2 * x", b"model answer"):
        assert word not in released(course)


def test_locked_cells_cannot_be_edited_and_answers_cannot_be_deleted(course: Path) -> None:
    cells = {cell.id: cell for cell in nbformat.reads(released(course).decode(), as_version=4).cells}
    assert cells["q1-test"].metadata["editable"] is False
    assert cells["q1-test"].metadata["deletable"] is False
    assert cells["q1-code"].metadata["deletable"] is False
    assert cells["q1-code"].metadata.get("editable", True) is True


def test_a_rebuild_has_the_same_bytes(
    course: Path, copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another folder to build in and to write to, a stray gradebook and a configuration of the user's own change nothing."""
    (copy / "gradebook.db").write_text("not a database")
    own = tmp_path / "jupyter"
    own.mkdir()
    (own / "nbgrader_config.py").write_text("c.ClearHiddenTests.begin_test_delimeter = 'NEVER'\n")
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(own))
    before = released(course)
    [elsewhere] = builder.build(copy, ["01_sample"], tmp_path / "elsewhere")
    assert elsewhere == tmp_path / "elsewhere" / "01_sample" / "01_sample.ipynb"
    assert elsewhere.read_bytes() == before
    assert (copy / "gradebook.db").read_text() == "not a database"


def test_stock_nbgrader_gives_the_same_bytes(course: Path, copy: Path) -> None:
    shutil.rmtree(copy / "release")
    environment = dict(os.environ, PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    command = [sys.executable, "-m", "nbgrader", "generate_assignment", "01_sample"]
    ran = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert (copy / "gradebook.db").is_file()
    assert released(copy) == released(course)


def test_check_tells_a_stale_release(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert builder.main(["--check", "--root", str(copy)]) == 0
    text = copy / "source" / "01_sample.py"
    text.write_text(text.read_text().replace("Twice x.", "Two times x."))
    orphan = copy / "release" / "02_gone" / "02_gone.ipynb"
    orphan.parent.mkdir()
    orphan.write_text("{}")
    assert builder.main(["--check", "--root", str(copy)]) == 1
    said = capsys.readouterr().err
    assert "release/01_sample/01_sample.ipynb differs" in said
    assert "release/02_gone/02_gone.ipynb comes from no lesson" in said
    assert "make release" in said


def test_a_bad_lesson_stops_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_course(tmp_path / "course")
    (root / "source" / "02_bad.py").write_text("# %% a\n1\n# %% a\n2\n")
    assert builder.main(["--root", str(root)]) == 1
    assert capsys.readouterr().err == "source/02_bad.py:3: cell title a is taken already, in line 1\n"
    assert not (root / "release").exists()
    assert not (root / "source" / "01_sample").exists()


def test_an_unknown_lesson_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert builder.main(["09_none", "--root", str(make_course(tmp_path / "course"))]) == 1
    assert "unknown lesson '09_none': source/ has 01_sample" in capsys.readouterr().err


def test_no_course_here_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert builder.main(["--root", str(tmp_path)]) == 1
    assert "no course folder at or above" in capsys.readouterr().err


def test_a_text_beside_the_notebook_would_be_released_and_is_refused(tmp_path: Path) -> None:
    root = make_course(tmp_path / "course")
    stray = root / "source" / "01_sample" / "01_sample.py"
    stray.parent.mkdir()
    stray.write_text(LESSON)
    with pytest.raises(LessonError, match="nbgrader would release this file"):
        builder.build(root)


def test_what_nbgrader_refuses_is_handed_on(tmp_path: Path) -> None:
    root = make_course(tmp_path / "course")
    (root / "nbgrader_config.py").write_text("c.ClearSolutions.code_stub = {'R': 'stop()'}\n")
    with pytest.raises(builder.BuildError, match=r"has not been specified in"):
        builder.build(root)
