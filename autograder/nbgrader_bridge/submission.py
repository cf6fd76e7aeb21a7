"""From the file that a learner handed in to a verdict in the journal, before nbgrader has looked at anything in it."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import nbformat
from nbconvert.exporters import NotebookExporter
from nbformat.notebooknode import NotebookNode
from nbgrader.api import Gradebook
from nbgrader.preprocessors import NbGraderPreprocessor

from autograder.grading.accept import Refused, accept
from autograder.lesson import LessonError
from autograder.nbgrader_bridge import warm
from autograder.nbgrader_bridge.course import parse_timestamp, withhold_in

Resources = dict[str, Any]

MARK = "autograder"  # metadata: of a notebook the journal's key, of a cell its name at the judge, of an output what it is


class SubmissionError(Exception):
    """This submission gets no verdict now. The text says why, and what to do."""


class SubmissionExporter(NotebookExporter):
    """`Autograde.exporter_class`: opens a submission as `autograder grade` does, never a link, a pipe or a device.

    Whatever goes wrong from here on, the gradebook keeps no score of an earlier submission: that one was not this one.
    """

    def from_filename(
        self, filename: str, resources: Resources | None = None, **kw: Any
    ) -> tuple[NotebookNode, Resources]:
        assert resources is not None
        assert self.parent is not None
        info, path = resources["nbgrader"], Path(filename)
        try:
            # Links are not followed to find out where it lies.
            submitted = os.path.abspath(_folder(self.parent.coursedir, "submitted"))
            if not Path(os.path.abspath(path)).is_relative_to(submitted):
                return super().from_filename(filename, resources, **kw)
            with tempfile.TemporaryDirectory() as folder:
                clean = Path(folder) / "clean"
                try:
                    accepted = accept(path.parent.parent, info["assignment"], clean, parse_timestamp)
                except Refused as refusal:
                    raise SubmissionError(f"{info['student']}: {refusal}") from None
                for note in accepted.notes:
                    self.log.warning("%s: %s", info["student"], note)
                data = (clean / path.name).read_bytes()
            resources["metadata"] = {"name": path.stem, "path": str(path.parent)}
            info["submitted"] = data
            return self.from_notebook_node(nbformat.reads(data.decode(), as_version=4), resources, **kw)
        except Exception:
            with Gradebook(info["db_url"]) as gradebook:
                withhold_in(gradebook, info["assignment"], info["notebook"], info["student"])
            raise


class JudgeSubmission(NbGraderPreprocessor):
    """First in `Autograde.sanitize_preprocessors`: gets the verdict on the submission, as it was handed in.

    The verdict is in the journal. What the notebook takes along is its key there and each cell's name at the judge, in place
    of all metadata that a learner can write, but for nbgrader's and tags: RestoreCells puts those right.
    """

    def preprocess(self, nb: NotebookNode, resources: Resources) -> tuple[NotebookNode, Resources]:
        info = resources["nbgrader"]
        course, lesson = course_of(self), info["notebook"]
        source = _folder(course, "source")
        try:
            lessons_cells = warm.read_instructors(warm.lesson_file(source, lesson)).cells
        except FileNotFoundError as error:
            raise SubmissionError(
                f"{error.filename} is missing: without the lesson nothing can be judged"
            ) from None
        except LessonError as error:
            raise SubmissionError(str(error)) from None
        with Gradebook(info["db_url"]) as gradebook:
            _same_tests(lessons_cells, gradebook.find_notebook(lesson, info["assignment"]))
        key = self._verdict(Path(course.root), source, lesson, info.pop("submitted"))
        names = _names_at_the_judge(nb, {cell["id"] for cell in lessons_cells})
        for cell, name in zip(nb.cells, names, strict=True):
            meta = {key: cell.metadata[key] for key in ("nbgrader", "tags") if key in cell.metadata}
            cell.metadata = NotebookNode(meta if name is None else {**meta, MARK: name})
        nb.metadata = NotebookNode({MARK: key})
        return nb, resources

    def _verdict(self, course: Path, source: Path, lesson: str, submitted: bytes) -> str:
        from autograder.judge.rebuild import Unreadable
        from autograder.judge.sandbox import SandboxLost, SandboxUnavailable

        try:
            entry = warm.with_judging(course, source, lesson, lambda judging: judging.verdict(submitted))
        except Unreadable as error:
            raise SubmissionError(str(error)) from None
        except SandboxUnavailable as error:
            raise SubmissionError(
                f"{error} Install what is missing, or set {warm.UNSAFE_VARIABLE}=1 to run learners' code as your own user."
            ) from None
        except SandboxLost as error:
            raise SubmissionError(f"the sandbox broke down, so there is no verdict: {error}") from None
        if entry.judgement.refused:
            raise SubmissionError(entry.judgement.refused)
        return entry.key


def course_of(preprocessor: NbGraderPreprocessor) -> Any:
    """nbgrader's CourseDirectory of the conversion that a preprocessor works in."""
    return preprocessor.parent.parent.coursedir


def _folder(course: Any, step: str) -> Path:
    return Path(course.root) / getattr(course, f"{step}_directory")


def _same_tests(lessons_cells: list[NotebookNode], notebook: Any) -> None:
    """Raises SubmissionError where the gradebook was filled from another text of the lesson."""
    solutions = {cell.name for cell in notebook.solution_cells}
    known = {cell.name: float(cell.max_score) for cell in notebook.grade_cells if cell.name not in solutions}
    judged = {}
    for cell in lessons_cells:
        meta = cell.metadata.get("nbgrader", {})
        if meta.get("grade") and not meta.get("solution"):
            judged[cell["id"]] = float(meta["points"])
    if known != judged:
        changed = sorted(name for name in known | judged if known.get(name) != judged.get(name))
        raise SubmissionError(
            f"the lesson's tests differ from the gradebook's ({', '.join(changed)}): the lesson was changed after "
            f"`nbgrader generate_assignment {notebook.name}`; run that again with --force"
        )


def _names_at_the_judge(nb: NotebookNode, known: set[str]) -> list[str | None]:
    """How `autograder.judge.rebuild` calls each cell of a submission; None for what it does not run."""
    names: list[str | None] = []
    behind = ""
    own: Counter[str] = Counter()
    for cell in nb.cells:
        meta = cell.metadata.get("nbgrader")
        candidates = (meta.get("grade_id") if isinstance(meta, dict) else None, cell.get("id"))
        name = next((name for name in candidates if isinstance(name, str) and name in known), None)
        if name is not None:
            behind = f"{name}-"
        elif cell.cell_type == "code" and cell.source.strip():
            own[behind] += 1
            name = f"{behind}own-{own[behind]}"
        names.append(name)
    return names
