"""Four faults of nbgrader 0.9.6 that no setting reaches, because they come before any plug-in has a say.

`nbgrader_config.py` calls `mend_nbgrader`; the tests show the faults in nbgrader as it comes.
"""

from __future__ import annotations

import os
import stat
from datetime import datetime
from pathlib import Path

import nbformat
import nbgrader.converters.base
from nbgrader.api import Gradebook, MissingEntry
from nbgrader.apps import NbGraderAPI
from nbgrader.converters import Autograde
from nbgrader.coursedir import CourseDirectory
from nbgrader.utils import rmtree

from autograder.nbgrader_bridge.course import parse_timestamp, withhold_in
from autograder.nbgrader_bridge.save import SAVED

_all_files = nbgrader.converters.base.find_all_files
_stock_init_destination = Autograde.init_destination
_stock_init_assignment = Autograde.init_assignment


def mend_nbgrader() -> None:
    """Mends these four. May be called twice.

    A date that cannot be read: formgrader's page of the whole class fails on it, and autograding calls a method that does
    not exist. Links beside a notebook: what they point to (the gradebook, say) is copied, and handed back as feedback. An
    autograding that was killed: the next one takes the submission in hand for done, and nobody ever grades it. A submission
    without a notebook of the lesson: the points of the one before it stay.
    """
    CourseDirectory.get_existing_timestamp = _existing_timestamp
    NbGraderAPI.get_submitted_timestamp = _submitted_timestamp
    nbgrader.converters.base.find_all_files = _regular_files
    Autograde.init_destination = _init_destination
    Autograde.init_assignment = _init_assignment


def _existing_timestamp(self: CourseDirectory, dest_path: str) -> datetime | None:
    moment, problem = read_timestamp(Path(dest_path) / "timestamp.txt")
    if problem:
        self.log.warning("%s is left aside: %s", Path(dest_path) / "timestamp.txt", problem)
    return moment


def _submitted_timestamp(self: NbGraderAPI, assignment_id: str, student_id: str) -> datetime | None:
    course = self.coursedir
    folder = course.format_path(course.submitted_directory, student_id, assignment_id)
    return read_timestamp(Path(folder) / "timestamp.txt")[0]


def _regular_files(path: str, exclude: list[str] | None = None) -> list[str]:
    return [name for name in _all_files(path, exclude) if stat.S_ISREG(os.lstat(name).st_mode)]


def _init_destination(self: Autograde, assignment_id: str, student_id: str) -> bool:
    folder = Path(self._format_dest(assignment_id, student_id))
    names = [Path(notebook).name for notebook in self.notebooks]
    if folder.exists() and not any(_is_saved(folder / name) for name in names):
        self.log.warning("%s was not finished: it is graded again", folder)
        rmtree(str(folder))
    wanted: bool = _stock_init_destination(self, assignment_id, student_id)
    return wanted


def _init_assignment(self: Autograde, assignment_id: str, student_id: str) -> None:
    try:
        _stock_init_assignment(self, assignment_id, student_id)
    except Exception:
        with Gradebook(self.coursedir.db_url) as gradebook:
            for notebook in _notebooks_of(gradebook, assignment_id):
                withhold_in(gradebook, assignment_id, notebook, student_id)
        raise


def _notebooks_of(gradebook: Gradebook, assignment_id: str) -> list[str]:
    try:
        return [notebook.name for notebook in gradebook.find_assignment(assignment_id).notebooks]
    except MissingEntry:
        return []


def _is_saved(path: Path) -> bool:
    try:
        return SAVED in nbformat.read(path, as_version=4).metadata
    except Exception:  # half a file is none
        return False


def read_timestamp(path: Path) -> tuple[datetime | None, str]:
    """The date in a timestamp.txt, or None and why there is none. Opens regular files only, and reads little of them."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None, ""
    except OSError as error:
        return None, error.strerror or str(error)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None, "it is not a regular file"
        data = file.read(200)
    try:
        return parse_timestamp(data.decode()), ""
    except Exception as error:  # the date's parser raises many kinds
        return None, f"it holds no date ({error})"
