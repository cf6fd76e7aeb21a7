"""One judge for many submissions: nbgrader grades them one after the other, and a sandbox takes seconds to start.

A grading, with its number and its hidden cases, lasts as long as verdicts are asked for; after a pause the judge is closed,
and the next verdict begins another grading.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat

from autograder.lesson import read_lesson

if TYPE_CHECKING:  # they bring torch, which nbgrader's other commands do without
    from autograder.grading.journal import Entry
    from autograder.grading.judging import Judging

PAUSE = 60.0  # seconds
GRADING_VARIABLE, UNSAFE_VARIABLE = "AUTOGRADER_GRADING", "AUTOGRADER_UNSAFE"


@dataclass
class _Kept:
    """What the judge was made for, the judge, and the clock that closes it."""

    made_for: tuple[object, ...]
    judging: Judging
    clock: threading.Timer


_lock = threading.RLock()
_kept: _Kept | None = None


def lesson_file(source: Path, lesson: str) -> Path:
    """The instructor's text of a lesson: a script, or the notebook where there is no script."""
    script = source / f"{lesson}.py"
    return script if script.exists() else source / lesson / f"{lesson}.ipynb"


def read_instructors(path: Path) -> nbformat.NotebookNode:
    """The instructor's notebook from the file that `lesson_file` names; not to be changed, because it is kept.

    Raises LessonError, OSError, or nbformat's errors.
    """
    state = path.stat()
    return _read(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=1)
def _read(path: Path, changed: int, size: int) -> nbformat.NotebookNode:
    return read_lesson(path) if path.suffix == ".py" else nbformat.read(path, as_version=4)


def with_judging(course: Path, source: Path, lesson: str, use: Callable[[Judging], Entry]) -> Entry:
    """Calls `use` with the lesson's `Judging`, made now or kept from the last submission."""
    global _kept
    with _lock:
        path = lesson_file(source, lesson)
        state = path.stat()
        grading, unsafe = os.environ.get(GRADING_VARIABLE), os.environ.get(UNSAFE_VARIABLE) == "1"
        # The sandbox ends with the thread that made it.
        made_for = (course, path, state.st_mtime_ns, state.st_size, grading, unsafe, threading.get_ident())
        if _kept is None or _kept.made_for != made_for:
            close()
            _kept = _Kept(made_for, _make(course, lesson, path, grading, unsafe), threading.Timer(0, close))
        try:
            return use(_kept.judging)
        finally:
            if _kept is not None:
                _kept.clock.cancel()
                _kept.clock = threading.Timer(PAUSE, _close_after_pause, [_kept])
                _kept.clock.daemon = True
                _kept.clock.start()


def _make(course: Path, lesson: str, path: Path, grading: str | None, unsafe: bool) -> Judging:
    from autograder.grading.judging import Judging
    from autograder.grading.secret import fresh_grading

    if grading is not None and not grading.isdigit():
        raise ValueError(f"{GRADING_VARIABLE}: expected a whole number, got {grading!r}")
    number = fresh_grading() if grading is None else int(grading)
    return Judging(course, lesson, read_instructors(path), number, unsafe)


def _close_after_pause(kept: _Kept) -> None:
    # While it is busy there is no pause, and a new clock is set afterwards.
    if _lock.acquire(blocking=False):
        try:
            if _kept is kept and kept.clock is threading.current_thread():
                close()
        finally:
            _lock.release()


@atexit.register
def close() -> None:
    """Ends the judge that is kept, if there is one."""
    global _kept
    with _lock:
        kept, _kept = _kept, None
        if kept is not None:
            kept.clock.cancel()
            with suppress(OSError):
                kept.judging.close()
