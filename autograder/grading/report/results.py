"""What is known of a graded class: the journal's verdicts, the gradebook's hand-given points, and who handed in what.

Nothing is written. The journal is keyed by content, so each learner's verdict is found by the key of the clean copy that
grading made of their notebook.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
from nbformat import NotebookNode

from autograder import nbgrader_bridge as bridge
from autograder.grading.accept import Submission, accept_all
from autograder.grading.jobs import instructors_notebook
from autograder.grading.journal import Entry, Journal, submission_key
from autograder.judge.judgement import CheckResult
from autograder.judge.rebuild import Unreadable, rebuild

ACCEPTED = Path(".autograder") / "submitted"  # the clean copies, in the course's root


class ReportError(Exception):
    """There is nothing to report on. The text says what to do."""


@dataclass(frozen=True)
class Exercise:
    """A graded cell. `by_hand`: an instructor gives the points, in Formgrader."""

    name: str
    max_points: float
    by_hand: bool


@dataclass(frozen=True)
class Learner:
    """One learner and the lesson.

    handed_in: whether there is anything. refused: why it cannot be graded, or "". newer: there is a submission that grading
    has not seen. entry: the verdict, or None. scores: grade id -> (nbgrader's own points, a person's), None where there are
    none. seconds_late: 0 in time. repairs: what nbgrader's run put right in the notebook. texts: solution cell -> text.
    """

    name: str
    handed_in: bool = True
    refused: str = ""
    newer: bool = False
    entry: Entry | None = None
    scores: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)
    seconds_late: float = 0.0
    repairs: tuple[str, ...] = ()
    texts: Mapping[str, str] = field(default_factory=dict)

    @property
    def checks(self) -> Mapping[str, CheckResult]:
        """Grade id -> result of the judged exercises; empty without a verdict."""
        return self.entry.judgement.checks if self.entry is not None else {}

    def points(self, exercise: Exercise) -> float | None:
        """A person's points before the judge's; None where there are none yet."""
        auto, manual = self.scores.get(exercise.name, (None, None))
        if manual is not None:
            return manual
        if exercise.by_hand:
            return auto  # 0 where nothing was written
        result = self.checks.get(exercise.name)
        return None if result is None else result.points


@dataclass(frozen=True)
class ClassResults:
    """A lesson, its exercises in order, and the learners by name. notebook: the instructor's."""

    lesson: str
    notebook: NotebookNode
    exercises: tuple[Exercise, ...]
    learners: tuple[Learner, ...]


def gather(course: Path, lesson: str, submissions: Path | None = None) -> ClassResults:
    """All that is known of a lesson's submissions in the course, which is the working directory.

    submissions: where they were handed in, if not in nbgrader's own folder. Raises ReportError.
    """
    notebook = instructor_notebook(course, lesson)
    exercises = exercises_of(notebook)
    if not exercises:
        raise ReportError(f"{lesson} has no graded cell.")
    api = bridge.open_course()
    folders = bridge.directories(api)
    submitted = submissions or folders["submitted"]
    accepted = course / ACCEPTED
    graded = {path.parent.name for path in accepted.glob(f"*/{lesson}")}
    scores, late = bridge.scores(api, lesson), bridge.seconds_late(api, lesson)
    journal = Journal(course, lesson)
    learners = []
    with TemporaryDirectory() as folder:
        now = Path(folder)
        known = bridge.roster(api) | graded
        for submission in accept_all(submitted, lesson, now, bridge.parse_timestamp, known):
            learners.append(
                Learner(
                    submission.learner,
                    scores=scores.get(submission.learner, {}),
                    seconds_late=late.get(submission.learner, 0.0),
                    repairs=tuple(bridge.repairs(course, lesson, submission.learner)),
                    **_handed_in(submission, submitted, accepted, now, notebook, journal),
                )
            )
    if not any(learner.handed_in for learner in learners):
        raise ReportError(f"nobody has handed in {lesson}: {submitted} holds no submission.")
    return ClassResults(lesson, notebook, exercises, tuple(learners))


def instructor_notebook(course: Path, lesson: str) -> NotebookNode:
    """The lesson with its solutions and hidden tests, as it was graded last. Raises ReportError."""
    path = instructors_notebook(course, lesson)
    if not path.exists():
        raise ReportError(f"there is no graded lesson {lesson}: `autograder grade {lesson}` makes {path}.")
    return nbformat.read(path, as_version=4)


def exercises_of(notebook: NotebookNode) -> tuple[Exercise, ...]:
    """The graded cells of the instructor's notebook, in order."""
    found = []
    for cell in notebook.cells:
        meta = cell.metadata.get("nbgrader", {})
        if meta.get("grade") or meta.get("task"):
            by_hand = bool(meta.get("solution") or meta.get("task")) or cell.cell_type != "code"
            found.append(Exercise(cell["id"], float(meta["points"]), by_hand))
    return tuple(found)


def _handed_in(
    submission: Submission,
    submitted: Path,
    accepted: Path,
    now: Path,
    notebook: NotebookNode,
    journal: Journal,
) -> dict[str, Any]:
    """The parts of a `Learner` that depend on the notebook that was handed in."""
    lesson = journal.folder.name
    place = Path(submission.learner) / lesson / f"{lesson}.ipynb"
    there = (submitted / submission.learner / lesson).exists() or (
        submitted / submission.learner
    ).is_symlink()
    current = None if submission.refused is not None else (now / place).read_bytes()
    graded = (accepted / place).read_bytes() if (accepted / place).is_file() else None
    data = graded or current
    if data is None:
        return {"handed_in": there, "refused": submission.refused if there else ""}
    found: dict[str, Any] = {"newer": graded is not None and there and current != graded}
    try:
        key = submission_key(rebuild(notebook, data))
    except Unreadable as error:
        return {**found, "refused": str(error)}
    return {**found, "entry": journal.read(key), "texts": _texts(data, notebook)}


def _texts(data: bytes, notebook: NotebookNode) -> dict[str, str]:
    """What a learner wrote in the lesson's solution cells, by cell; of several copies the last."""
    wanted = {c["id"] for c in notebook.cells if c.metadata.get("nbgrader", {}).get("solution")}
    texts = {}
    for cell in nbformat.reads(data.decode(), as_version=4).cells:
        meta = cell.metadata.get("nbgrader")
        for name in (meta.get("grade_id") if isinstance(meta, dict) else None, cell.get("id")):
            if isinstance(name, str) and name in wanted:
                texts[name] = cell.source
                break
    return texts
