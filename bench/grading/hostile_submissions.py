"""Hostile and unlucky submissions of lesson 1, from tests/submissions/hostile: shared by the tests and `bench.grading.hostile`.

Each file changes cells of a right submission, in the format of `autograder.grading.sample_class`, with three more things: a
cell's tags are taken over, the line `# <the right answer>` stands for the solution's text, and `<null>` for a null byte. Three
lines at its top say what it does, its number in the catalogue of attacks, and the tests whose points it must lose.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import jupytext
import nbformat
from nbformat import NotebookNode

from autograder.grading.sample_class import apply
from autograder.judge.rebuild import HIDDEN
from autograder.lesson import read_lesson

ROOT = Path(__file__).resolve().parents[2]
LESSON = "01_warm_up"
FOLDER = ROOT / "tests" / "submissions" / "hostile"
_HEADER = re.compile(r"# (?P<what>.+)\n# catalogue: (?P<numbers>[\d, ]+)\n# lost: (?P<lost>.+)\n")
_SOLUTION_MARKS = re.compile(r"^\s*### (BEGIN|END) SOLUTION\n", re.M)


@dataclass(frozen=True)
class Attack:
    """What one file says. lost: grade ids whose points are not earned; all others are."""

    name: str
    what: str
    catalogue: tuple[int, ...]
    lost: frozenset[str]
    edits: str


def attacks() -> list[Attack]:
    """All of them, in the catalogue's order."""
    found = [_read(path) for path in FOLDER.glob("*.py")]
    return sorted(found, key=lambda attack: (attack.catalogue, attack.name))


def _read(path: Path) -> Attack:
    text = path.read_text(encoding="utf-8")
    header = _HEADER.match(text)
    if header is None:
        raise ValueError(
            f"{path.name}: expected three lines: what it does, its catalogue numbers, what is lost"
        )
    lost = frozenset() if header["lost"] == "nothing" else frozenset(header["lost"].split(", "))
    if unknown := lost - points().keys():
        raise ValueError(f"{path.name}: lost: there is no test {', '.join(sorted(unknown))}")
    numbers = tuple(int(number) for number in header["numbers"].split(", "))
    return Attack(path.stem, header["what"], numbers, lost, text[header.end() :])


@cache
def lesson() -> NotebookNode:
    """The instructor's notebook."""
    return read_lesson(ROOT / "source" / f"{LESSON}.py")


@cache
def points() -> dict[str, float]:
    """Grade id -> points of each test cell."""
    graded = [cell for cell in lesson().cells if cell.cell_type == "code" and "nbgrader" in cell.metadata]
    return {cell.id: cell.metadata.nbgrader["points"] for cell in graded if cell.metadata.nbgrader["grade"]}


def expected(attack: Attack) -> dict[str, float]:
    """Grade id -> the points that are earned honestly."""
    return {name: 0 if name in attack.lost else value for name, value in points().items()}


def right_submission() -> NotebookNode:
    """The released notebook with the right answers filled in."""
    notebook = nbformat.from_dict(lesson())
    for cell in notebook.cells:
        cell.source = _SOLUTION_MARKS.sub("", HIDDEN.sub("", cell.source)).rstrip("\n")
    return notebook


def submission(attack: Attack) -> NotebookNode:
    """The notebook that is handed in."""
    right = {cell.id: cell.source for cell in right_submission().cells}
    notebook = apply(attack.edits, right_submission())
    for cell in notebook.cells:
        cell.source = cell.source.replace("# <the right answer>", right.get(cell.id, "")).replace(
            "<null>", "\0"
        )
    tags = {
        edit.metadata.get("title"): edit.metadata.get("tags")
        for edit in jupytext.reads(attack.edits, fmt="py:percent").cells
    }
    for cell in notebook.cells:
        if tags.get(cell.id):
            cell.metadata.tags = tags[cell.id]
    return notebook
