"""`course start` and where it looks for the course."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from course import cli
from course.folder import CourseNotFound, find_root
from course.start import resolve, start


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("01_warm_up", "02_trace"):
        folder = tmp_path / "release" / name
        folder.mkdir(parents=True)
        (folder / f"{name}.ipynb").write_text(f"released {name}")
    (tmp_path / "nbgrader_config.py").write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_lessons_are_copied_and_writable(root: Path) -> None:
    (root / "release" / "01_warm_up" / "01_warm_up.ipynb").chmod(0o444)
    assert cli.main(["start"]) == 0
    copy = root / "work" / "01_warm_up" / "01_warm_up.ipynb"
    assert copy.read_text() == "released 01_warm_up"
    assert copy.stat().st_mode & stat.S_IWUSR
    assert (root / "work" / "02_trace" / "02_trace.ipynb").is_file()


def test_a_learners_file_is_never_overwritten(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start(root, ["1"])
    mine = root / "work" / "01_warm_up" / "01_warm_up.ipynb"
    mine.write_text("mine")
    (root / "release" / "01_warm_up" / "data.csv").write_text("1")
    assert cli.main(["start", "01"]) == 0
    assert mine.read_text() == "mine"
    assert (mine.parent / "data.csv").read_text() == "1"
    assert "left as they are: 01_warm_up.ipynb" in capsys.readouterr().out
    assert cli.main(["start"]) == 0
    assert "01_warm_up: yours, left as it is" in capsys.readouterr().out


def test_checkpoints_are_not_copied(root: Path) -> None:
    left = root / "release" / "01_warm_up" / ".ipynb_checkpoints"
    left.mkdir()
    (left / "01_warm_up-checkpoint.ipynb").write_text("old")
    start(root)
    assert not (root / "work" / "01_warm_up" / ".ipynb_checkpoints").exists()


def test_the_path_to_open_is_relative_and_nothing_is_copied(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["start", "--print-path", "2"]) == 0
    assert capsys.readouterr().out == "work/02_trace/02_trace.ipynb\n"
    assert not (root / "work").exists()


def test_lessons_go_by_name_or_number(root: Path) -> None:
    assert resolve(root, ["2", "01_warm_up"]) == ["02_trace", "01_warm_up"]


@pytest.mark.parametrize("text", ["9", "warm", "01_warm", ""])
def test_an_unknown_lesson_is_named(root: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["start", text]) == 1
    assert f"unknown lesson {text!r}: there are 01_warm_up, 02_trace" in capsys.readouterr().err


def test_no_release_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="make release"):
        resolve(tmp_path, [])


def test_the_course_is_found_from_inside(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root / "release" / "01_warm_up")
    assert find_root() == root
    assert find_root(root / "release") == root


def test_elsewhere_the_checkout_is_taken_and_a_given_folder_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert (find_root() / "course" / "folder.py").is_file()
    with pytest.raises(CourseNotFound, match="no course folder at or above"):
        find_root(tmp_path)


def test_no_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main([])
    assert caught.value.code == 2
    assert "COMMAND" in capsys.readouterr().err
