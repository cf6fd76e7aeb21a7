"""Reads one lesson's text and refuses, with file and line, what nbgrader would let through or fail on later.

A lesson is a jupytext py:percent script. Every cell has a title, which is its id for good: the notebook
cell's id, and nbgrader's grade id where it is graded::

    # %% why-paging [markdown]
    # %% q3-update-code nbgrader={"solution": true}
    # %% q3-update nbgrader={"grade": true, "points": 4}
    # %% q3-explain [markdown] nbgrader={"grade": true, "solution": true, "points": 3}
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jupytext
import nbformat

SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
LONGEST_ID = 64  # nbformat's limit for a cell id
MARKER = re.compile(r"# %%(\s|$)")
REGION = re.compile(r"(BEGIN|END) (SOLUTION|HIDDEN TESTS|MARK SCHEME)")
HIDDEN_SUITE = re.compile(r"""suite\s*=\s*["']hidden["']""")
CHECK = "autograder.check("
NBGRADER_KEYS = {"grade", "solution", "locked", "task", "points", "grade_id"}
# What an author writes, and what jupytext adds about blank lines.
CELL_KEYS = {"title", "tags", "nbgrader", "lines_to_next_cell", "lines_to_end_of_cell_marker", "cell_marker"}

# Where a notebook runs: the kernel named python3 is the environment's own, whatever its version.
NOTEBOOK_METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
}


class LessonError(ValueError):
    """A lesson's text breaks a rule of the authoring format. The message begins with ``file:line:``."""

    def __init__(self, path: Path, line: int, message: str) -> None:
        super().__init__(f"{path}:{line}: {message}")


@dataclass(frozen=True)
class Place:
    """A cell's place in the text: the file as shown, and the lines under its marker, numbered from 1."""

    path: Path
    marker: int
    lines: tuple[tuple[int, str], ...]

    def error(self, message: str, line: int | None = None) -> LessonError:
        return LessonError(self.path, line or self.marker, message)


def read_lesson(path: Path, shown: Path | None = None) -> nbformat.NotebookNode:
    """The instructor's notebook of the lesson at ``path``: solutions, hidden tests, no outputs.

    Args:
        path: a py:percent script.
        shown: how error messages name the file; ``path`` by default.

    Raises:
        LessonError: the text breaks the authoring format.
        FileNotFoundError: there is no such file.
    """
    shown = shown or path
    text = path.read_text(encoding="utf-8")
    parsed = jupytext.reads(text, fmt="py:percent")
    places = list(_places(shown, text))
    if len(parsed.cells) == len(places) + 1 and "title" not in parsed.cells[0].metadata:
        raise LessonError(shown, 1, "text before the first cell: begin with `# %% the-title [markdown]`")
    if len(parsed.cells) != len(places):
        raise LessonError(
            shown,
            1,
            f"{len(places)} lines begin with `# %%`, and {len(parsed.cells)} are cells; is one in a string?",
        )
    taken: dict[str, int] = {}
    notebook = nbformat.v4.new_notebook(metadata=NOTEBOOK_METADATA)
    for cell, place in zip(parsed.cells, places, strict=True):
        notebook.cells.append(_cell(cell, place, taken))
    nbformat.validate(notebook)
    return notebook


def _places(shown: Path, text: str) -> Iterator[Place]:
    lines = list(enumerate(text.split("\n"), start=1))
    starts = [number for number, line in lines if MARKER.match(line)]
    for start, end in zip(starts, [*starts[1:], len(lines) + 1], strict=True):
        yield Place(shown, start, tuple(lines[start : end - 1]))


def _cell(cell: nbformat.NotebookNode, place: Place, taken: dict[str, int]) -> nbformat.NotebookNode:
    """The notebook cell for one parsed cell: same text, its title as id, only the metadata meant."""
    name = _name(cell, place, taken)
    if cell.cell_type not in ("code", "markdown"):
        raise place.error(f"cell {name} is of type {cell.cell_type}; only code and [markdown] cells are used")
    unreadable = cell.metadata.get("incorrectly_encoded_metadata")
    if unreadable:
        raise place.error(f"cell {name}: {unreadable!r} is no metadata; write the type first, then key=JSON")
    unknown = sorted(set(cell.metadata) - CELL_KEYS)
    if unknown:
        raise place.error(f"cell {name}: unknown metadata {unknown[0]!r}; known are nbgrader and tags")
    metadata: dict[str, Any] = {}
    if cell.metadata.get("tags"):
        metadata["tags"] = list(cell.metadata["tags"])
    # With nothing about grading, the regions have no business in the cell either.
    graded = _nbgrader_metadata(cell, place, name) if "nbgrader" in cell.metadata else {}
    _check_regions(place, name, cell.cell_type, graded)
    if graded:
        metadata["nbgrader"] = graded
    make = nbformat.v4.new_code_cell if cell.cell_type == "code" else nbformat.v4.new_markdown_cell
    return make(source=cell.source, id=name, metadata=metadata)


def _name(cell: nbformat.NotebookNode, place: Place, taken: dict[str, int]) -> str:
    name = cell.metadata.get("title", "")
    if not name:
        raise place.error("cell without a title: write `# %% its-name`, which is its id for good")
    if not SLUG.fullmatch(name) or len(name) > LONGEST_ID:
        raise place.error(
            f"cell title {name!r} is no id: small letters, digits, single hyphens, at most {LONGEST_ID}"
        )
    if name in taken:
        raise place.error(f"cell title {name} is taken already, in line {taken[name]}")
    taken[name] = place.marker
    return name


def _nbgrader_metadata(cell: nbformat.NotebookNode, place: Place, name: str) -> dict[str, Any]:
    """nbgrader's metadata in full, from the little that an author writes."""
    given = cell.metadata["nbgrader"]
    if not isinstance(given, dict):
        raise place.error(
            f'cell {name}: nbgrader= takes an object such as {{"grade": true, "points": 4}}, not {given!r}'
        )
    unknown = sorted(set(given) - NBGRADER_KEYS - {"schema_version"})
    if unknown:
        raise place.error(
            f"cell {name}: unknown nbgrader key {unknown[0]!r}; known are {', '.join(sorted(NBGRADER_KEYS))}"
        )
    if given.get("grade_id", name) != name:
        raise place.error(f"cell {name}: grade_id {given['grade_id']!r} differs from the title; leave it out")
    for key in ("grade", "solution", "locked", "task"):
        if not isinstance(given.get(key, False), bool):
            raise place.error(f"cell {name}: {key} is true or false, not {given[key]!r}")
    solution, grade, task = given.get("solution", False), given.get("grade", False), given.get("task", False)
    full: dict[str, Any] = {
        "grade": grade,
        "grade_id": name,
        "locked": given.get("locked", not solution),
        "schema_version": 3,
        "solution": solution,
        "task": task,
    }
    if grade or task:
        points = given.get("points")
        if isinstance(points, bool) or not isinstance(points, int | float) or points <= 0:
            raise place.error(f'cell {name} is graded without points: write "points": 4, say, not {points!r}')
        full["points"] = points
    elif "points" in given:
        raise place.error(
            f'cell {name} has points and is not graded: write "grade": true, or leave the points out'
        )
    if cell.cell_type == "markdown" and grade != solution and not task:
        raise place.error(f'cell {name}: an answer in words has "grade": true and "solution": true together')
    return full


def _check_regions(place: Place, name: str, cell_type: str, graded: dict[str, Any]) -> None:
    """Every BEGIN has its END, in a kind of cell where nbgrader looks, and the checks are in place."""
    solution, grade = graded.get("solution", False), graded.get("grade", False)
    is_test = cell_type == "code" and grade and not solution
    open_region: tuple[str, int] | None = None
    seen: set[str] = set()
    visible_check = False
    for number, line in place.lines:
        found = REGION.search(line)
        if not found:
            if HIDDEN_SUITE.search(line) and (open_region is None or open_region[0] != "HIDDEN TESTS"):
                raise place.error(
                    f"cell {name}: the hidden suite outside BEGIN HIDDEN TESTS would be released", number
                )
            visible_check = visible_check or (open_region is None and CHECK in line)
            continue
        edge, kind = found.groups()
        if edge == "BEGIN":
            if open_region:
                raise place.error(
                    f"cell {name}: BEGIN {kind} inside {open_region[0]} of line {open_region[1]}", number
                )
            if kind == "SOLUTION" and not solution:
                raise place.error(
                    f'cell {name}: a solution in a cell without nbgrader={{"solution": true}}', number
                )
            if kind == "HIDDEN TESTS" and not is_test:
                raise place.error(
                    f'cell {name}: hidden tests in a cell that is no test ("grade": true, code, no solution)',
                    number,
                )
            open_region = (kind, number)
            seen.add(kind)
        elif open_region is None or open_region[0] != kind:
            raise place.error(f"cell {name}: END {kind} without its BEGIN", number)
        else:
            open_region = None
    if open_region:
        raise place.error(f"cell {name}: BEGIN {open_region[0]} without its END", open_region[1])
    if solution and "SOLUTION" not in seen:
        raise place.error(
            f"cell {name}: a solution cell without BEGIN SOLUTION ... END SOLUTION: nbgrader would empty it"
        )
    if is_test and not visible_check:
        raise place.error(
            f"cell {name}: a test without a visible {CHECK}...): a learner could not check the answer"
        )
