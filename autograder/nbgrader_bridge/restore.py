"""The notebook that formgrader and feedback show: the assignment's cells, with the learner's text where it belongs."""

from typing import Any

from nbformat.notebooknode import NotebookNode
from nbgrader.api import Gradebook
from nbgrader.preprocessors import NbGraderPreprocessor

from autograder.judge.rebuild import HIDDEN
from autograder.nbgrader_bridge.pages import as_text

Resources = dict[str, Any]

SCHEMA_VERSION = 3
REPAIRS = "autograder_repairs"  # notebook metadata: what RestoreCells had to put right


class RestoreCells(NbGraderPreprocessor):
    """Gives every cell of the assignment its nbgrader metadata, its type and, where it was deleted, its place back.

    First in `Autograde.sanitize_preprocessors`. nbgrader itself refuses the whole submission for a changed
    flag, and the whole batch for a wrong schema version. A cell is known by its grade id or, where that was
    changed, by its cell id, which is the same word. What had to be put right is listed in the notebook's
    metadata under `autograder_repairs`.
    """

    def preprocess(self, nb: NotebookNode, resources: Resources) -> tuple[NotebookNode, Resources]:
        info = resources["nbgrader"]
        with Gradebook(info["db_url"]) as gradebook:
            known = _known_cells(gradebook, info["assignment"], info["notebook"])
        repairs: list[str] = []
        names = [_name_of(cell, known) for cell in nb.cells]
        present = {name: cell for name, cell in zip(names, nb.cells, strict=True) if name is not None}
        for name, cell in zip(names, nb.cells, strict=True):
            if name is not None and present[name] is cell:
                repairs += _restore(cell, name, known[name])
                continue
            if name is not None:
                repairs.append(f"cell {name} is there more than once; the last one counts")
            elif "nbgrader" in cell.metadata:
                repairs.append("a cell with nbgrader metadata of no known cell is graded as an ordinary one")
            for key in ("nbgrader", "tags"):
                cell.metadata.pop(key, None)
            if cell.cell_type == "raw":
                as_text(cell)
        previous: str | None = None
        for name, spec in known.items():
            if name not in present:
                cell = _new_cell(name, spec)
                # Cells are compared by identity: copies are equal.
                at = 0 if previous is None else _index(nb.cells, present[previous]) + 1
                nb.cells.insert(at, cell)
                present[name] = cell
                repairs.append(f"cell {name} was missing and was put back")
            previous = name
        nb.metadata[REPAIRS] = list(dict.fromkeys(repairs))
        for line in nb.metadata[REPAIRS]:
            self.log.warning("%s", line)
        return nb, resources


def _known_cells(gradebook: Gradebook, assignment: str, notebook: str) -> dict[str, dict[str, Any]]:
    """Name -> source, cell_type and nbgrader metadata of each cell of the gradebook's notebook, in its order."""
    entry = gradebook.find_notebook(notebook, assignment)
    points = {cell.name: float(cell.max_score) for cell in [*entry.grade_cells, *entry.task_cells]}
    grades = {cell.name for cell in entry.grade_cells}
    solutions = {cell.name for cell in entry.solution_cells}
    tasks = {cell.name for cell in entry.task_cells}
    known = {}
    for cell in entry.source_cells:
        meta: dict[str, Any] = {
            "grade_id": cell.name,
            "grade": cell.name in grades,
            "solution": cell.name in solutions,
            "task": cell.name in tasks,
            "locked": bool(cell.locked),
            "cell_type": str(cell.cell_type),
            "checksum": cell.checksum,
            "schema_version": SCHEMA_VERSION,
        }
        if cell.name in points:
            meta["points"] = points[cell.name]
        known[cell.name] = {"source": cell.source, "cell_type": str(cell.cell_type), "meta": meta}
    return known


def _name_of(cell: NotebookNode, known: dict[str, Any]) -> str | None:
    meta = cell.metadata.get("nbgrader")
    for name in (meta.get("grade_id") if isinstance(meta, dict) else None, cell.get("id")):
        if isinstance(name, str) and name in known:
            return name
    return None


def _restore(cell: NotebookNode, name: str, spec: dict[str, Any]) -> list[str]:
    """Overwrites a cell's type and metadata with the assignment's. Returns what was different, in words."""
    repairs = []
    meta = cell.metadata.get("nbgrader")
    meta = meta if isinstance(meta, dict) else {}
    if cell.cell_type != spec["cell_type"]:
        repairs.append(f"cell {name} was of type {cell.cell_type}, not {spec['cell_type']}")
        cell.cell_type = spec["cell_type"]
        if cell.cell_type == "code":
            cell.setdefault("outputs", [])
            cell.setdefault("execution_count", None)
            cell.pop("attachments", None)
        else:
            cell.pop("outputs", None)
            cell.pop("execution_count", None)
    for key in ("grade_id", "grade", "solution", "task", "locked", "points", "schema_version"):
        if key in spec["meta"] and meta.get(key, False) != spec["meta"][key]:
            repairs.append(f"cell {name} said {key} = {meta.get(key)!r}, not {spec['meta'][key]!r}")
    if spec["meta"]["locked"]:
        if cell.source.rstrip() not in (spec["source"].rstrip(), HIDDEN.sub("", spec["source"]).rstrip()):
            repairs.append(f"cell {name} was edited; the assignment's own text is used")
        cell.source = spec["source"]
    if cell.metadata.get("tags"):  # nbgrader itself would leave out a test that is tagged skip-execution
        repairs.append(f"cell {name} had tags {cell.metadata['tags']!r}")
    cell.metadata = NotebookNode({"nbgrader": NotebookNode(spec["meta"])})
    return repairs


def _new_cell(name: str, spec: dict[str, Any]) -> NotebookNode:
    cell = NotebookNode(id=name, cell_type=spec["cell_type"], source=spec["source"])
    cell.metadata = NotebookNode({"nbgrader": NotebookNode(spec["meta"])})
    if cell.cell_type == "code":
        cell.update(outputs=[], execution_count=None)
    return cell


def _index(cells: list[NotebookNode], wanted: NotebookNode) -> int:
    return next(i for i, cell in enumerate(cells) if cell is wanted)
