"""Where the course's folder is: the one with nbgrader_config.py, source/ and release/."""

from __future__ import annotations

from pathlib import Path


class CourseNotFound(FileNotFoundError):
    """No course folder at or above the place that was asked for."""


def is_course(folder: Path) -> bool:
    """True where ``folder`` holds nbgrader's configuration and lessons in one of their two forms."""
    return (folder / "nbgrader_config.py").is_file() and any(
        (folder / name).is_dir() for name in ("source", "release")
    )


def find_root(start: Path | None = None) -> Path:
    """The course folder at or above ``start``, or else the checkout that this package runs from.

    Args:
        start: where to begin; the current folder by default. Where it is given, the checkout is not tried.

    Raises:
        CourseNotFound: neither is a course folder.
    """
    begin = (start or Path.cwd()).resolve()
    for folder in (begin, *begin.parents):
        if is_course(folder):
            return folder
    checkout = Path(__file__).resolve().parent.parent
    if start is None and is_course(checkout):
        return checkout
    raise CourseNotFound(
        f"no course folder at or above {begin}: expected nbgrader_config.py beside source/ or release/; "
        "run this command in the folder that you cloned"
    )
