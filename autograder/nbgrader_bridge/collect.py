"""Collecting from the exchange, a folder that every learner can write to: nothing in it may stop the rest of the class."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from nbgrader.exchange.default import ExchangeCollect
from traitlets import Integer

from autograder.grading.accept import BAD_NAME
from autograder.nbgrader_bridge.course import parse_timestamp

SET_ASIDE = Path(".autograder") / "set_aside"  # in the course's root


class SetAside(Exception):
    """An inbound folder is no submission. The text says why."""


class CollectSafely(ExchangeCollect):
    """`ExchangeFactory.collect`: nbgrader's collect for a class in which somebody tries things.

    An inbound folder with a bad name or date, without the lesson's notebook, or with a link, a pipe or a device in it is set
    aside: it stays where it is, the log and `.autograder/set_aside/LESSON.txt` say why, and the learner's submission before
    it is collected.

    A submission's time is the one that the file system gives: the last change of anything in its folder. The date in the
    folder's name and in timestamp.txt is the learner's own word, and counts only where it differs by no more than `delay`.

    Where learners have accounts of their own, nobody can hand in for another: the folder has to belong to the learner, or to
    whoever collects.
    """

    delay = Integer(
        600,
        allow_none=True,
        help="Seconds that handing in may take. None: believe the learners' dates, for an exchange that was copied.",
    ).tag(config=True)

    def init_src(self) -> None:
        self.set_aside: list[str] = []
        self.src_records: list[dict[str, Any]]
        super().init_src()
        self.src_records = [record for record in self.src_records if record["username"]]

    def _path_to_record(self, path: str) -> dict[str, Any]:
        folder = Path(path)
        try:
            return self._record(folder)
        except (SetAside, OSError) as error:
            self._put_aside(folder.name, error)
            # nbgrader wants a record for each folder; these share a learner without a name and are dropped.
            return {"username": "", "filename": folder.name, "timestamp": datetime.min}

    def _record(self, folder: Path) -> dict[str, Any]:
        parts = folder.name.rsplit("+", 3)
        # A learner's name may hold a "+"; a folder from before there was a random word at the end has no fourth part.
        if len(parts) == 4 and parts[1] != self.coursedir.assignment_id:
            parts = folder.name.rsplit("+", 2)
        if len(parts) < 3 or parts[1] != self.coursedir.assignment_id:
            raise SetAside("its name is not LEARNER+LESSON+TIME+WORD")
        learner = parts[0]
        if not learner or learner.startswith(".") or BAD_NAME.search(learner) or set(learner) & set('<>&"'):
            raise SetAside("the learner's name in it is none")
        try:
            claimed = parse_timestamp(parts[2])
        except Exception:  # the date's parser raises many kinds
            raise SetAside("the date in its name is none") from None
        self._check_account(folder, learner)
        changed = self._examine(folder)
        moment = claimed
        if self.delay is not None and abs(changed - claimed) > timedelta(seconds=self.delay):
            self.log.warning(
                "%s says %s and was changed at %s UTC, which counts", folder.name, parts[2], changed
            )
            moment = changed
        return {"username": learner, "filename": folder.name, "timestamp": moment}

    def _check_account(self, folder: Path, learner: str) -> None:
        """Raises SetAside for a folder in the name of another account; nbgrader itself only warns of it."""
        if not self.check_owner:
            return
        try:
            account = pwd.getpwnam(learner).pw_uid
        except KeyError:  # learners are no accounts here, on a JupyterHub of containers, say
            return
        owner = folder.lstat().st_uid
        if owner not in (account, os.getuid()):
            raise SetAside(f"it belongs to user number {owner}, not to {learner}")

    def _examine(self, folder: Path) -> datetime:
        """When anything in the folder was changed last, by the file system's clock. Raises SetAside, OSError."""
        if folder.is_symlink() or not folder.is_dir():
            raise SetAside("it is not a folder")
        times, size = [folder.stat().st_ctime], 0
        for _, folders, files, descriptor in os.fwalk(folder, onerror=_raise):
            for name in [*folders, *files]:
                found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                times.append(found.st_ctime)
                size += found.st_size
                if stat.S_ISLNK(found.st_mode):
                    raise SetAside(f"{name} is a symbolic link")
                if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
                    raise SetAside(f"{name} is not a regular file")
                os.close(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=descriptor))
        if size > 1000 * self.coursedir.max_dir_size:
            raise SetAside(
                f"it has {size / 1e6:.0f} MB, more than nbgrader takes (CourseDirectory.max_dir_size)"
            )
        notebook = f"{self.coursedir.assignment_id}.ipynb"
        if not (folder / notebook).exists():
            raise SetAside(f"{notebook} is missing")
        return datetime.fromtimestamp(max(times), UTC).replace(tzinfo=None)

    def do_copy(self, src: str, dest: str, log: Any = None) -> None:
        """Copies a submission; one that was changed into something else since it was looked at is set aside."""
        record = next(each for each in self.src_records if each["filename"] == Path(src).name)
        with tempfile.TemporaryDirectory() as folder:
            try:
                copy_regular(Path(src), Path(folder) / "copy", 1000 * self.coursedir.max_dir_size)
                super().do_copy(str(Path(folder) / "copy"), dest)
                written = Path(dest) / "timestamp.txt"
                written.write_text(f"{record['timestamp']:%Y-%m-%d %H:%M:%S.%f} UTC", encoding="utf-8")
            except (SetAside, OSError, RuntimeError, shutil.Error) as error:
                shutil.rmtree(dest, ignore_errors=True)
                self._put_aside(record["filename"], error)

    def copy_files(self) -> None:
        super().copy_files()
        report = Path(self.coursedir.root) / SET_ASIDE / f"{self.coursedir.assignment_id}.txt"
        report.unlink(missing_ok=True)
        if self.set_aside:
            report.parent.mkdir(parents=True, exist_ok=True)
            report.write_text("".join(f"{line}\n" for line in self.set_aside), encoding="utf-8")
            self.log.warning(
                "%d inbound folders were set aside, the rest was collected; %s says why",
                len(self.set_aside),
                report,
            )

    def _put_aside(self, name: str, why: Exception) -> None:
        shown = name if name.isprintable() else ascii(name)
        reason = (why.strerror or str(why)) if isinstance(why, OSError) else str(why)
        self.set_aside.append(f"{shown}: {reason}")
        self.log.warning("set aside: %s", self.set_aside[-1])


def copy_regular(source: Path, target: Path, most: int) -> None:
    """Copies a folder's regular files, reading at most `most` bytes.

    Raises SetAside for anything else in it, also where that took a file's place a moment ago: nothing is opened by a path
    that a learner can bend.
    """
    for path, folders, files, descriptor in os.fwalk(source, onerror=_raise):
        here = target / Path(path).relative_to(source)
        here.mkdir(parents=True)
        for name in folders:
            if stat.S_ISLNK(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode):
                raise SetAside(f"{name} is a symbolic link")
        for name in files:
            opened = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=descriptor)
            with os.fdopen(opened, "rb") as file:
                if not stat.S_ISREG(os.fstat(opened).st_mode):
                    raise SetAside(f"{name} is not a regular file")
                data = file.read(most + 1)
            most -= len(data)
            if most < 0:
                raise SetAside("it grew while it was copied")
            (here / name).write_bytes(data)


def _raise(error: OSError) -> None:
    raise error
