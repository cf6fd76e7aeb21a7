"""Takes submissions in: decides which can be graded, and makes a clean copy of those.

nbgrader is never shown what learners handed in, only this copy: it stops the whole batch for one bad date,
and copies what a symbolic link points to. Nothing in the `submitted` folder is changed. A submission that
cannot be graded is set aside with a reason for a person.
"""

import hashlib
import json
import os
import re
import shutil
import stat
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import nbformat
from nbformat.validator import normalize

MAX_BYTES = 100_000_000
# nbgrader submit leaves it, and nbgrader release_feedback finds the learner's folder by it.
SECRET = "submission_secret.txt"
IGNORED = {".ipynb_checkpoints", "__pycache__", ".DS_Store", SECRET}
# nbgrader looks learners up by file patterns and fills their names into its folder structure.
BAD_NAME = re.compile(r"[*?\[\]{}\\,\x00-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True)
class Submission:
    """What a learner handed in for a lesson.

    refused     why it cannot be graded, or None
    notes       what was left out or put right; grading goes on
    digest      changes with what is graded, "" if refused
    """

    learner: str
    refused: str | None = None
    notes: tuple[str, ...] = ()
    digest: str = ""


class Refused(Exception):
    """This submission cannot be graded. The text says why and what to do."""


def accept_all(
    submitted: Path, lesson: str, accepted: Path, parse_timestamp: Callable[[str], datetime], known: set[str]
) -> list[Submission]:
    """Goes through `submitted/<learner>/<lesson>` and fills `accepted/<learner>/<lesson>` with clean copies.

    `known` are learners of the gradebook: one who handed in nothing is listed too. Sorted by learner.
    """
    found = (
        [path for path in submitted.iterdir() if not path.name.startswith(".")] if submitted.is_dir() else []
    )
    submissions = []
    for learner in sorted(known | {path.name for path in found}):
        target = accepted / learner / lesson
        _remove(target)
        try:
            submissions.append(accept(submitted / learner, lesson, target, parse_timestamp))
        except Refused as refusal:
            _remove(target)
            submissions.append(Submission(learner, refused=str(refusal)))
        except OSError as error:
            _remove(target)
            submissions.append(Submission(learner, refused=f"cannot be read: {error.strerror or error}"))
    return submissions


def accept(folder: Path, lesson: str, target: Path, parse_timestamp: Callable[[str], datetime]) -> Submission:
    """Copies one learner's notebook and timestamp to `target`. Raises Refused or OSError."""
    learner = folder.name
    if BAD_NAME.search(learner):
        raise Refused(
            f"the learner's folder name {_shown(learner)} holds a character that nbgrader cannot take; rename it"
        )
    for path, what in ((folder, "the learner's folder"), (folder / lesson, "the lesson's folder")):
        if path.is_symlink():
            raise Refused(f"{what} is a symbolic link; hand in a folder")
        if not path.exists():
            raise Refused(f"nothing was handed in for {lesson}")
        if not path.is_dir():
            raise Refused(f"{what} is not a folder")
    name = f"{lesson}.ipynb"
    entries = sorted(entry.name for entry in (folder / lesson).iterdir() if entry.name not in IGNORED)
    if name not in entries:
        others = ", ".join(_shown(entry) for entry in entries if entry.endswith(".ipynb"))
        guess = f"; there is {others}: rename it if that is the answer" if others else ""
        raise Refused(f"{name} is missing{guess}")

    text = _read_text(folder / lesson / name)
    notebook = _parse(text, name)
    notes = [
        f"{_shown(entry)} is left out: only {name} is graded"
        for entry in entries
        if entry not in (name, "timestamp.txt")
    ]
    target.mkdir(parents=True)
    clean = nbformat.writes(notebook)
    (target / name).write_text(clean, encoding="utf-8")
    digest = hashlib.sha256(clean.encode())
    if "timestamp.txt" in entries:
        try:
            moment = parse_timestamp(_read_text(folder / lesson / "timestamp.txt"))
            (target / "timestamp.txt").write_text(f"{moment.isoformat(sep=' ')} UTC\n", encoding="utf-8")
            digest.update(moment.isoformat().encode())
        except Exception:  # the date's parser raises many kinds, and none of them may cost a grade
            notes.append("timestamp.txt holds no date: the time of submission is unknown")
    with suppress(OSError, Refused):  # absent where it was not handed in through the exchange
        (target / SECRET).write_text(_read_text(folder / lesson / SECRET)[:1000], encoding="utf-8")
    return Submission(learner, notes=tuple(notes), digest=digest.hexdigest())


def _read_text(path: Path) -> str:
    """The text of a regular file of reasonable size. A link, a pipe or a device is never opened."""
    kind = path.lstat()
    if not stat.S_ISREG(kind.st_mode):
        what = "a symbolic link" if stat.S_ISLNK(kind.st_mode) else "not a regular file"
        raise Refused(f"{path.name} is {what}; hand in the file itself")
    if kind.st_size > MAX_BYTES:
        raise Refused(
            f"{path.name} has {kind.st_size / 1e6:.0f} MB; at most {MAX_BYTES / 1e6:.0f} MB are graded"
        )
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
        data = file.read(MAX_BYTES)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Refused(f"{path.name} is not a text file (UTF-8 ends at byte {error.start})") from None


def _parse(text: str, name: str) -> nbformat.NotebookNode:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Refused(f"{name} is not JSON: {error}. Open and save it in JupyterLab again") from None
    if not isinstance(content, dict) or "nbformat" not in content:
        raise Refused(f"{name} is JSON but not a notebook")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            notebook = nbformat.reads(text, as_version=4)
            _, notebook = normalize(notebook)  # missing and repeated cell ids
            nbformat.validate(notebook)
    except Exception as error:  # whatever a forged structure does to the reader costs this submission only
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise Refused(f"{name} is not a valid notebook: {first[:200]}") from None
    return notebook


def _shown(name: str) -> str:
    return name if name.isprintable() else ascii(name)


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
