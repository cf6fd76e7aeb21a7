"""A small class to try grading on: `autograder grade --sample-class`, and the tests.

tests/submissions/LESSON holds one file for each hand-written learner, in the lessons' own py:percent format, with only
the cells that the learner changed, by title. They are put into the released notebook:

    # %% q2-metadata-code               replaces the cell's text
    # %% q2-metadata delete=true        takes the cell out
    # %% q2-attend nbgrader={...}       changes its nbgrader metadata, as a careless edit would
    # %% my-own-cell                    a cell that the lesson does not have, after the one before it in the file

A folder of the learner's name holds files that are handed in as they are, instead or beside. The other learners of lessons
1 and 2 come from the checks' misconceptions and right variants (`sample_answers`); those of lessons 3 and 4 would be a hundred
more, and `python -m bench.grading.submissions` judges them.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import jupytext
import nbformat

from autograder import registry
from autograder.build import build
from autograder.grading.sample_answers import Sample, samples, text_of
from course.folder import find_root

# Lessons in which every mistake that a check knows is handed in too.
WITH_EVERY_MISTAKE = ("01_warm_up", "02_trace")


def make(
    target: Path | None = None, root: Path | None = None, *, lessons: Sequence[str] | None = None
) -> Path:
    """Makes a course folder with a class's submissions, from scratch, and returns it.

    target: an earlier sample class there is removed; `build/sample_class` by default. root: the course. lessons: those
    that the class hands in; by default every lesson that has kept submissions.
    Raises ValueError when the target is there and is no sample class, or for a cell that a lesson does not have.
    """
    root = find_root(root)
    target = target or root / "build" / "sample_class"
    marker = target / ".sample_class"
    if target.exists():
        if any(target.iterdir()) and not marker.exists():
            raise ValueError(f"target: {target} is there and is no sample class; remove it first")
        shutil.rmtree(target)
    (target / "source").mkdir(parents=True)
    marker.touch()
    shutil.copy(root / "nbgrader_config.py", target)
    for kept in sorted((root / "tests" / "submissions").iterdir()):
        script = root / "source" / f"{kept.name}.py"
        if not script.is_file() or (lessons is not None and kept.name not in lessons):
            continue
        shutil.copy(script, target / "source")
        (release,) = build(target, [kept.name])
        hand_in(release, kept, target / "submitted", generated=kept.name in WITH_EVERY_MISTAKE)
    return target


def hand_in(release: Path, kept: Path, submitted: Path, *, generated: bool = True) -> None:
    """Fills `submitted/<learner>/<lesson>` for the learners in `kept` and, if `generated`, for those made from checks."""
    lesson = release.stem
    learners = sorted({path.stem if path.suffix == ".py" else path.name for path in kept.iterdir()})
    for learner in learners:
        folder = submitted / learner / lesson
        folder.mkdir(parents=True)
        edits = kept / f"{learner}.py"
        if edits.is_file():
            notebook = apply(edits.read_text(encoding="utf-8"), nbformat.read(release, as_version=4))
            nbformat.write(notebook, folder / f"{lesson}.ipynb")
        if (kept / learner).is_dir():
            shutil.copytree(kept / learner, folder, dirs_exist_ok=True)
    if not generated:
        return
    for sample in samples(checked(nbformat.read(release, as_version=4))):
        folder = submitted / sample.learner / lesson
        folder.mkdir(parents=True)
        notebook = answer(sample, nbformat.read(release, as_version=4))
        nbformat.write(notebook, folder / f"{lesson}.ipynb")


def checked(notebook: nbformat.NotebookNode) -> list[str]:
    """Grade ids of a notebook's cells that have a check, in order."""
    known = {registry.get(name).grade_id for name in registry.names()}
    return [cell.id for cell in notebook.cells if cell.id in known]


def answer(sample: Sample, notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The released notebook with a sample's answers in the cells that the lesson means for them."""
    texts: dict[str, list[str]] = {}
    for name, value in sample.parts.items():
        home = re.compile(rf"^(def {name}\(|class {name}\b|{name}\b.*=)", re.MULTILINE)
        cells = [cell for cell in notebook.cells if _is_solution(cell) and home.search(cell.source)]
        if len(cells) != 1:
            raise ValueError(f"{name}: expected one solution cell that defines it, got {len(cells)}")
        texts.setdefault(cells[0].id, []).append(text_of(name, value))
    for cell in notebook.cells:
        if cell.id in texts:
            cell.source = "\n\n\n".join(texts[cell.id])
    return notebook


def _is_solution(cell: nbformat.NotebookNode) -> bool:
    return cell.cell_type == "code" and bool(cell.metadata.get("nbgrader", {}).get("solution"))


def apply(edits: str, notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook as a learner left it who made these edits (py:percent text, see above)."""
    at = 0
    for edit in jupytext.reads(edits, fmt="py:percent").cells:
        title = edit.metadata.get("title")
        if not title:
            continue  # the remark at the top that says what this learner did
        where = next((i for i, cell in enumerate(notebook.cells) if cell.id == title), None)
        if where is None:
            make_cell = (
                nbformat.v4.new_code_cell if edit.cell_type == "code" else nbformat.v4.new_markdown_cell
            )
            notebook.cells.insert(at + 1, make_cell(edit.source, id=title))
            at += 1
            continue
        at = where
        cell = notebook.cells[where]
        if edit.metadata.get("delete"):
            del notebook.cells[where]
            at -= 1
        elif "nbgrader" in edit.metadata:
            cell.metadata.nbgrader.update(edit.metadata["nbgrader"])
        if edit.source:
            cell.source = edit.source
    return notebook
