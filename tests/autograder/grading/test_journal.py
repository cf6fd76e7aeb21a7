"""The journal, the numbers of unfinished gradings, and what is judged again: rules that a killed grading relies on."""

import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from autograder.grading.gradings import Gradings
from autograder.grading.journal import Entry, Journal, submission_key, write_whole
from autograder.grading.judging import outstanding, usable
from autograder.grading.secret import SIZE, hidden_seed, read_or_make
from autograder.judge.judgement import CheckResult, Judgement
from autograder.judge.rebuild import Cell, Rebuilt

SUBMITTED = json.dumps(
    {
        "cells": [
            {
                "id": "a-code",
                "cell_type": "code",
                "source": ["x = 1"],
                "outputs": [{"text": "secret " * 1000}],
                "metadata": {"nbgrader": {"grade_id": "a-code", "points": 99}, "tags": ["t"]},
            },
            "no cell",
        ],
        "metadata": {"who": "ada"},
        "nbformat": 4,
    }
).encode()


def _entry(key: str = "k", grading: int = 7, **points: float | None) -> Entry:
    checks = {
        name: CheckResult(got, 2.0, "passed" if got else "infrastructure", "why", None, 0.25)
        for name, got in points.items()
    }
    judgement = Judgement(None, checks, notes=("a note",), cells={"a-code": ("printed", "error")})
    return Entry(key, "01_x", grading, "CPU", "bubblewrap", "2026-01-01T00:00:00+00:00", judgement)


def test_an_entry_and_its_submission_are_kept(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "01_x")
    entry = replace(_entry(a=2.0, b=None), earlier={"a": 3})
    journal.write(entry, SUBMITTED)
    assert journal.read("k") == entry
    assert list(journal.entries()) == [entry]
    assert not entry.is_final
    assert (entry.grading_of("a"), entry.grading_of("b")) == (3, 7)
    kept = json.loads(journal.submission("k").read_text())
    assert [cell["source"] for cell in kept["cells"]] == [["x = 1"]]
    assert kept["cells"][0]["metadata"] == {"nbgrader": {"grade_id": "a-code"}}
    assert "secret" not in journal.submission("k").read_text()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 99}', '{"schema": 1, "key": "k"}'])
def test_a_file_that_is_no_entry_is_none(tmp_path: Path, text: str) -> None:
    journal = Journal(tmp_path, "01_x")
    journal.folder.mkdir(parents=True)
    journal.path("k").write_text(text)
    assert journal.read("k") is None
    assert list(journal.entries()) == []


def test_a_file_is_never_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_whole(path, "old")

    def fail(descriptor: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("autograder.grading.journal.os.fsync", fail)
    with pytest.raises(OSError, match="no space left"):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_key_is_of_all_that_runs() -> None:
    cells = (Cell("a-code", "x = 1"), Cell("a", "assert x", 2.0))
    key = submission_key(Rebuilt(cells, ()))
    assert key == submission_key(Rebuilt(tuple(cells), ()))
    others = [
        Rebuilt((Cell("a-code", "x = 2"), cells[1]), ()),
        Rebuilt((cells[0], Cell("a", "assert x", 3.0)), ()),
        Rebuilt((cells[0], Cell("a", "assert x == 1", 2.0)), ()),
        Rebuilt(cells[::-1], ()),
        Rebuilt(cells, ("cell b is missing",)),
    ]
    assert len({key, *map(submission_key, others)}) == 6


def test_what_is_judged_again() -> None:
    nothing, both = frozenset[str](), frozenset({"a", "b"})
    known = _entry(grading=7, a=2.0, b=None)
    # Another grading: what is asked for, and what the machine prevented.
    assert outstanding(known, 8, nothing) == {"b"}
    assert outstanding(known, 8, frozenset({"a"})) == both
    assert outstanding(_entry(grading=7, a=2.0, b=1.0), 8, nothing) == nothing
    assert outstanding(_entry(grading=7, a=2.0, b=1.0), 8, frozenset({"b"})) == {"b"}
    # The same grading, gone on with: nothing that it has judged; nbgrader's import does not try again what it could not.
    assert outstanding(known, 7, nothing) == nothing
    assert outstanding(known, 7, both) == {"b"}
    assert outstanding(replace(known, earlier={"a": 3}), 7, both) == both


def test_a_verdict_that_could_be_forged_counts_only_when_told() -> None:
    entry = replace(_entry(a=2.0), sandbox="none")
    assert usable(entry, unsafe=False) is None
    assert usable(entry, unsafe=True) is entry
    assert usable(_entry(a=2.0), unsafe=False) is not None
    assert usable(None, unsafe=True) is None


def test_an_unfinished_grading_keeps_its_number(tmp_path: Path) -> None:
    gradings = Gradings(tmp_path, "01_x")
    number, begun = gradings.begin("all")
    assert not begun
    assert Gradings(tmp_path, "01_x").begin("all") == (number, True)
    other, begun = gradings.begin("ada again")
    assert (begun, other != number) == (False, True)
    assert gradings.others("all") == ["ada again"]
    gradings.finish("all")
    assert gradings.begin("ada again") == (other, True)
    fresh, begun = gradings.begin("all")
    assert not begun
    assert fresh != number


def test_the_secret_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / ".autograder" / "secret"
    secret = read_or_make(path)
    assert len(secret) == SIZE
    assert read_or_make(path) == secret
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    read_or_make(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["secret"]
    seeds = {hidden_seed(secret, lesson, number) for lesson in ("01_x", "02_y") for number in (1, 2)}
    assert len(seeds | {hidden_seed(bytes(SIZE), "01_x", 1)}) == 5
    assert hidden_seed(secret, "01_x", 1) == hidden_seed(secret, "01_x", 1)
    path.write_text("no secret")
    with pytest.raises(ValueError, match="expected the instructor's secret, 64 hexadecimal digits"):
        read_or_make(path)
