"""The notebook that is graded: the instructor's cells in the instructor's order, with the learner's text where it belongs.

Of what was handed in, only texts are used. Metadata, tags, cell types, outputs and execution counts have no say, except that a
cell's id or grade id says which cell it is. What was changed where nobody has a reason to is noted for a person.
"""

from __future__ import annotations

import ast
import json
import re
from dataclasses import dataclass
from typing import Any

from nbformat import NotebookNode

MAX_BYTES = 50_000_000
MAX_CELLS = 2000
# A region of hidden tests, and what stands in it.
HIDDEN = re.compile(
    r"^[^\n]*### BEGIN HIDDEN TESTS[^\n]*\n(.*?)^[^\n]*### END HIDDEN TESTS[^\n]*(?:\n|\Z)", re.S | re.M
)
_KERNEL = re.compile(r"^\s*@(triton|gluon)\.jit\b", re.M)


class Unreadable(ValueError):
    """What was handed in is no notebook. The text says what is wrong."""


@dataclass(frozen=True)
class Cell:
    """A code cell to run: in the worker, or, with `points`, as a test on the judge's side.

    untouched: the instructor's text, as it was given out.
    """

    name: str
    source: str
    points: float | None = None
    untouched: bool = False

    @property
    def is_test(self) -> bool:
        return self.points is not None


@dataclass(frozen=True)
class Rebuilt:
    """The cells to run, in order, and what was missing or changed in the submission, in words.

    tampered: those of the notes that tell of cells that a learner has no reason to change.
    """

    cells: tuple[Cell, ...]
    notes: tuple[str, ...]
    tampered: tuple[str, ...] = ()


def rebuild(lesson: NotebookNode, submitted: bytes) -> Rebuilt:
    """The cells of `lesson` (the instructor's notebook) with the learner's texts out of the notebook file `submitted`.

    A learner's text counts in solution cells, in cells that nbgrader does not lock, and in cells of their own, which run
    after the cell that they stand behind. Raises Unreadable.
    """
    known = {cell["id"]: cell for cell in lesson.cells}
    texts: dict[str, str] = {}
    own: dict[str | None, list[str]] = {}
    notes: list[str] = []
    tampered = []
    behind: str | None = None
    for names, source, is_code, metadata in _submitted_cells(submitted):
        name = next((name for name in names if name in known), None)
        if name is not None:
            if name in texts and known[name].cell_type == "code" and not is_locked(known[name]):
                notes.append(f"cell {name} is there more than once; the last one counts")
            if is_locked(known[name]) and _words(source) not in _given_out(known[name]):
                tampered.append(f"cell {name} was changed; the instructor's text counts")
            if _is_another_kind(metadata, known[name]):
                tampered.append(f"cell {name} said that it is another kind of cell; it is what it was")
            texts[name] = source
            behind = name
        elif is_code and source.strip():
            own.setdefault(behind, []).append(source)
    cells = [Cell(f"own-{i}", source) for i, source in enumerate(own.get(None, []), start=1)]
    for name, cell in known.items():
        if cell.cell_type == "code":
            made = _cell(name, cell, texts.get(name), notes)
            cells += [made] if made is not None else []
        cells += [Cell(f"{name}-own-{i}", source) for i, source in enumerate(own.get(name, []), start=1)]
    tampered += [
        f"cell {name} was deleted; it counts all the same"
        for name, cell in known.items()
        if is_locked(cell) and name not in texts
    ]
    tampered = list(dict.fromkeys(tampered))
    return Rebuilt(tuple(cells), (*notes, *tampered), tuple(tampered))


def _cell(name: str, cell: NotebookNode, text: str | None, notes: list[str]) -> Cell | None:
    meta = cell.metadata.get("nbgrader", {})
    if meta.get("grade") and not meta.get("solution"):
        return Cell(name, cell.source, float(meta["points"]))
    if is_locked(cell):
        return Cell(name, cell.source, untouched=True)
    if text is not None:
        return Cell(name, text, untouched=text == cell.source and not meta.get("solution"))
    if meta.get("solution"):
        notes.append(f"cell {name} is missing")
        return None
    return Cell(name, cell.source, untouched=True)


def _given_out(cell: NotebookNode) -> tuple[list[str], list[str]]:
    """The words of a locked cell as learners have it, and as the instructor does."""
    return _words(HIDDEN.sub("", cell.source)), _words(cell.source)


def _words(source: str) -> list[str]:
    return source.split()


def kernel_tests(lesson: NotebookNode) -> frozenset[str]:
    """The tests of exercises that ask for a Triton kernel: the solution before them defines one."""
    found, asks = set(), False
    for cell in lesson.cells:
        meta = cell.metadata.get("nbgrader", {})
        if cell.cell_type != "code":
            continue
        if meta.get("solution"):
            asks = _KERNEL.search(cell.source) is not None
        elif meta.get("grade") and asks:
            found.add(cell["id"])
    return frozenset(found)


def is_locked(cell: NotebookNode) -> bool:
    """Whether the instructor's text counts and not the learner's."""
    meta = cell.metadata.get("nbgrader", {})
    return bool(meta) and not meta.get("solution") and bool(meta.get("locked") or meta.get("grade"))


def trusted_imports(lesson: NotebookNode) -> dict[str, str]:
    """Name -> import statement, for the imports in the instructor's own cells: what a test means by `torch`.

    The judge runs these statements itself, so that a learner's `torch` is not asked whether two tensors are equal.
    """
    found: dict[str, str] = {}
    for cell in lesson.cells:
        meta = cell.metadata.get("nbgrader", {})
        if cell.cell_type != "code" or not (meta.get("locked") or meta.get("grade")) or meta.get("solution"):
            continue
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    found[alias.asname or alias.name.split(".")[0]] = ast.unparse(ast.Import([alias]))
            elif isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    statement = ast.ImportFrom(node.module, [alias], 0)
                    found[alias.asname or alias.name] = ast.unparse(statement)
    return found


def _is_another_kind(metadata: dict[str, Any], cell: NotebookNode) -> bool:
    """Whether metadata of a submitted cell would make it no test, or a test that is skipped, elsewhere."""
    said, meant = metadata.get("nbgrader"), cell.metadata.get("nbgrader", {})
    changed = isinstance(said, dict) and any(
        key in said and said[key] != meant.get(key) for key in ("grade", "solution", "locked")
    )
    tags = metadata.get("tags")
    return changed or (isinstance(tags, list) and "skip-execution" in tags)


def _submitted_cells(data: bytes) -> list[tuple[list[str], str, bool, dict[str, Any]]]:
    """(what it may be called, source, whether it says to be code, metadata) of each cell."""
    if len(data) > MAX_BYTES:
        raise Unreadable(f"the notebook has {len(data)} bytes; at most {MAX_BYTES} are read")
    try:
        notebook = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"the notebook is not JSON: {error}") from error
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    if not isinstance(cells, list):
        raise Unreadable("the notebook has no list of cells")
    if len(cells) > MAX_CELLS:
        raise Unreadable(f"the notebook has {len(cells)} cells; at most {MAX_CELLS} are read")
    found = []
    for cell in cells:
        if not isinstance(cell, dict):
            continue
        source = cell.get("source", "")
        if isinstance(source, list) and all(isinstance(line, str) for line in source):
            source = "".join(source)
        if isinstance(source, str):
            metadata = cell.get("metadata")
            known = metadata if isinstance(metadata, dict) else {}
            found.append((_names(cell), source, cell.get("cell_type") == "code", known))
    return found


def _names(cell: dict[str, Any]) -> list[str]:
    """The cell's grade id and its id, which are the same word unless somebody changed one of them."""
    metadata = cell.get("metadata")
    nbgrader = metadata.get("nbgrader") if isinstance(metadata, dict) else None
    grade_id = nbgrader.get("grade_id") if isinstance(nbgrader, dict) else None
    return [name for name in (grade_id, cell.get("id")) if isinstance(name, str)]
