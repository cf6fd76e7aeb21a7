"""The numbers of gradings that are not finished: one that was killed goes on under its own number.

So the hidden cases of its second half are those of its first, and what was to be judged again is not judged again twice.
"""

from __future__ import annotations

import json
from pathlib import Path

from autograder.grading.journal import Journal, write_whole
from autograder.grading.secret import fresh_grading


class Gradings:
    """The unfinished gradings of a lesson, by what was asked for: --force and --learner are gradings of their own."""

    def __init__(self, course: Path, lesson: str) -> None:
        self._path = Journal(course, lesson).folder / "unfinished"

    def begin(self, asked: str) -> tuple[int, bool]:
        """The number of a grading, and whether it had begun before."""
        numbers = self._read()
        begun = asked in numbers
        if not begun:
            numbers[asked] = fresh_grading()
            self._write(numbers)
        return numbers[asked], begun

    def others(self, asked: str) -> list[str]:
        """What was asked for in the other gradings that are not finished."""
        return sorted(self._read().keys() - {asked})

    def finish(self, asked: str) -> None:
        """The next one like it is a new grading."""
        numbers = self._read()
        numbers.pop(asked, None)
        self._write(numbers)

    def _read(self) -> dict[str, int]:
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _write(self, numbers: dict[str, int]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self._path, json.dumps(numbers) + "\n")
