"""What is handed in may be anything. Each submission is accepted or refused on its own, with a reason."""

import json
import os
from datetime import datetime
from pathlib import Path

import nbformat
import pytest

from autograder.grading.accept import Submission, accept_all

LESSON = "01_x"
NOTEBOOK = nbformat.writes(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 + 1", id="one")]))


def _accept(root: Path, known: set[str] | None = None) -> dict[str, Submission]:
    found = accept_all(root / "submitted", LESSON, root / "clean", datetime.fromisoformat, known or set())
    return {submission.learner: submission for submission in found}


def _hand_in(root: Path, learner: str, text: str | bytes | None = NOTEBOOK) -> Path:
    folder = root / "submitted" / learner / LESSON
    folder.mkdir(parents=True)
    if text is not None:
        data = text if isinstance(text, bytes) else text.encode()
        (folder / f"{LESSON}.ipynb").write_bytes(data)
    return folder


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        (NOTEBOOK[:-40], "is not JSON"),
        (NOTEBOOK.encode() + b"\0", "is not JSON"),
        (b"\xff\xfe\x00", "not a text file"),
        ("[" * 100_000, "is not JSON"),
        ("[1, 2]", "not a notebook"),
        ("{}", "not a notebook"),
        ('{"nbformat": 4}', "not a valid notebook"),
        ('{"nbformat": "4", "cells": []}', "not a valid notebook"),
        ('{"nbformat": 99, "nbformat_minor": 0, "metadata": {}, "cells": []}', "not a valid notebook"),
        ('{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [7]}', "not a valid notebook"),
        ('{"nbformat": 4, "nbformat_minor": 5, "metadata": 3, "cells": []}', "not a valid notebook"),
        (NOTEBOOK.replace('"code"', '"poem"'), "not a valid notebook"),
        (NOTEBOOK.replace('"1 + 1"', "[1]"), "not a valid notebook"),
        (None, "is missing"),
    ],
)
def test_what_is_no_notebook_is_refused(tmp_path: Path, text: str | bytes | None, reason: str) -> None:
    _hand_in(tmp_path, "ada")
    _hand_in(tmp_path, "bob", text)
    found = _accept(tmp_path)
    assert found["bob"].refused is not None
    assert reason in found["bob"].refused
    assert not (tmp_path / "clean" / "bob" / LESSON).exists()
    assert found["ada"].refused is None
    assert (
        nbformat.read(tmp_path / "clean" / "ada" / LESSON / f"{LESSON}.ipynb", 4).cells[0].source == "1 + 1"
    )


def test_links_and_pipes_are_never_followed(tmp_path: Path) -> None:
    secret = tmp_path / "gradebook.db"
    secret.write_text("secret")
    beside = _hand_in(tmp_path, "link-beside")
    (beside / "data.db").symlink_to(secret)
    notebook = _hand_in(tmp_path, "link-notebook", None)
    (notebook / f"{LESSON}.ipynb").symlink_to(secret)
    date = _hand_in(tmp_path, "link-date")
    (date / "timestamp.txt").symlink_to("/dev/zero")
    pipe = _hand_in(tmp_path, "pipe", None)
    os.mkfifo(pipe / f"{LESSON}.ipynb")
    (tmp_path / "submitted" / "link-learner").symlink_to(tmp_path / "submitted" / "link-beside")
    (tmp_path / "submitted" / "link-lesson").mkdir()
    (tmp_path / "submitted" / "link-lesson" / LESSON).symlink_to(beside)
    (tmp_path / "submitted" / "dangling").symlink_to("/nowhere")
    found = _accept(tmp_path)
    refused = {name: submission.refused or "" for name, submission in found.items()}
    assert refused["link-beside"] == refused["link-date"] == ""
    assert "data.db is left out" in found["link-beside"].notes[0]
    assert "holds no date" in found["link-date"].notes[0]
    for name in ("link-notebook", "link-learner", "link-lesson", "dangling"):
        assert "symbolic link" in refused[name], name
    assert "not a regular file" in refused["pipe"]
    kept = [path for path in (tmp_path / "clean").rglob("*") if path.is_file() or path.is_symlink()]
    assert sorted(path.name for path in kept) == [f"{LESSON}.ipynb"] * 2
    assert not any(path.is_symlink() for path in kept)


@pytest.mark.parametrize(
    "name",
    ["star*", "what?", "[a-z]", "{student_id}", "a,b", "new\nline", b"\xff".decode(errors="surrogateescape")],
)
def test_names_that_nbgrader_would_take_for_patterns_are_refused(tmp_path: Path, name: str) -> None:
    _hand_in(tmp_path, name)
    _hand_in(tmp_path, "Zoë O'Neil-李")
    found = _accept(tmp_path)
    assert "nbgrader cannot take" in (found[name].refused or "")
    assert (found[name].refused or "").isprintable()
    assert found["Zoë O'Neil-李"].refused is None


def test_dates(tmp_path: Path) -> None:
    (_hand_in(tmp_path, "good") / "timestamp.txt").write_text("2026-11-20 12:00:00")
    for i, text in enumerate(["", "yesterday", "2026-13-45", "9" * 400, "0000-00-00", "\0"]):
        (_hand_in(tmp_path, f"bad-{i}") / "timestamp.txt").write_text(text)
    (_hand_in(tmp_path, "folder") / "timestamp.txt").mkdir()
    found = _accept(tmp_path)
    assert all(submission.refused is None for submission in found.values())
    assert found.pop("good").notes == ()
    assert (tmp_path / "clean" / "good" / LESSON / "timestamp.txt").read_text() == "2026-11-20 12:00:00 UTC\n"
    for learner, submission in found.items():
        assert "time of submission is unknown" in submission.notes[0]
        assert not (tmp_path / "clean" / learner / LESSON / "timestamp.txt").exists()


def test_files_beside_the_notebook_are_left_out(tmp_path: Path) -> None:
    folder = _hand_in(tmp_path, "ada")
    (folder / "torch.py").write_text("raise ImportError")
    (folder / "kernels").mkdir()
    (folder / ".ipynb_checkpoints").mkdir()
    (submission,) = _accept(tmp_path).values()
    assert [note.split()[0] for note in submission.notes] == ["kernels", "torch.py"]
    assert [path.name for path in (tmp_path / "clean" / "ada" / LESSON).iterdir()] == [f"{LESSON}.ipynb"]


def test_everybody_is_listed_also_who_handed_in_nothing(tmp_path: Path) -> None:
    _hand_in(tmp_path, "ada")
    (tmp_path / "submitted" / "bob").mkdir()
    (tmp_path / "submitted" / "notes.txt").write_text("a file where a learner is expected")
    (tmp_path / "submitted" / ".DS_Store").write_text("")
    found = _accept(tmp_path, known={"carl"})
    assert list(found) == ["ada", "bob", "carl", "notes.txt"]
    for learner in ("bob", "carl"):
        assert found[learner].refused == f"nothing was handed in for {LESSON}"
    assert _accept(tmp_path / "nowhere") == {}


def test_a_renamed_notebook_is_pointed_at(tmp_path: Path) -> None:
    folder = _hand_in(tmp_path, "ada", None)
    (folder / "final.ipynb").write_text(NOTEBOOK)
    (submission,) = _accept(tmp_path).values()
    assert "there is final.ipynb" in (submission.refused or "")


def test_a_resubmission_changes_the_digest_and_replaces_the_copy(tmp_path: Path) -> None:
    folder = _hand_in(tmp_path, "ada")
    first = _accept(tmp_path)["ada"].digest
    assert _accept(tmp_path)["ada"].digest == first
    changed = json.loads(NOTEBOOK)
    changed["cells"][0]["source"] = "2 + 2"
    (folder / f"{LESSON}.ipynb").write_text(json.dumps(changed))
    assert _accept(tmp_path)["ada"].digest != first
    (folder / f"{LESSON}.ipynb").write_text("{")
    assert _accept(tmp_path)["ada"].refused
    assert not (tmp_path / "clean" / "ada" / LESSON).exists()
