"""What is to be judged, and what came of it: plain data, for the processes of this machine and for a cluster's."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import nbformat

from autograder.grading.journal import Entry
from autograder.grading.judging import Judging
from autograder.judge.sandbox import Limits

TIME_LIMIT = 600.0


@dataclass(frozen=True)
class Setting:
    """What whoever judges has to know of a grading.

    course: the course's root, with the instructor's notebook in `source/LESSON/LESSON.ipynb`. grading: its public number.
    unsafe: grade without a sandbox where none can be made. time_limit: seconds that one submission's code may run.
    """

    course: Path
    lesson: str
    grading: int
    unsafe: bool = False
    time_limit: float = TIME_LIMIT


@dataclass(frozen=True)
class Job:
    """A submission to be judged.

    key: of the journal. submitted: the notebook file. only: the tests to judge where the journal has a verdict on it.
    """

    key: str
    submitted: Path
    only: frozenset[str] | None = None


@dataclass(frozen=True)
class Done:
    """What came of a job. entry: the journal's, None where there is none. failure: why not all of it was judged, or ""."""

    job: Job
    entry: Entry | None
    failure: str = ""


def instructors_notebook(course: Path, lesson: str) -> Path:
    """The notebook with solutions and hidden tests, made from `source/LESSON.py` or written by hand."""
    return course / "source" / lesson / f"{lesson}.ipynb"


def open_judging(setting: Setting) -> Judging:
    """The `Judging` of a grading. The thread that first asks it for a verdict must stay: the sandbox ends with it."""
    notebook = nbformat.read(instructors_notebook(setting.course, setting.lesson), as_version=4)
    limits = replace(Limits(), total=setting.time_limit)
    return Judging(
        setting.course, setting.lesson, notebook, setting.grading, unsafe=setting.unsafe, limits=limits
    )
