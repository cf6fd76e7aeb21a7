"""Workers without a sandbox, for a machine where none can be made and an instructor who says --unsafe.

The same zygote, worker and wire: a learner's code still shares no process with the tests, has the same limits, and is ended
before a verdict is written. But it can read and write what the instructor can: it can look for the tests, and attack the judge.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from autograder.judge.bubblewrap import HERE, MODULES, PACKAGES, environment, folder_of
from course.vllm import source as vllm_source


class Folder:
    """A temporary folder with what a sandbox holds in `/course`, and a scratch folder for each worker."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="judge-"))
        self.course = self.path / "course"
        for module, name in MODULES.items():
            place = self.course / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(HERE / module, place)
        for package in PACKAGES:
            (self.course / package).symlink_to(folder_of(package), target_is_directory=True)

    def scratch(self) -> Path:
        return Path(tempfile.mkdtemp(prefix="worker-", dir=self.path))

    def environment(self, threads: int) -> dict[str, str]:
        """The same as in a sandbox, with this folder in place of its own."""
        values = {**environment(threads), "PYTHONPATH": str(self.course)}
        values[vllm_source.CACHE_VARIABLE] = str(vllm_source.cache_folder())
        return {**values, **dict.fromkeys(("HOME", "TMPDIR", "MPLCONFIGDIR"), str(self.path))}

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def command(descriptor: int, preload: Sequence[str]) -> list[str]:
    """The command line of a zygote that is spoken to over `descriptor`."""
    line = [sys.executable, "-P", "-s", "-m", "autograder.judge.zygote", str(descriptor), *preload]
    return [*line, "--hide", "--plain"]
