"""One submission's verdict, from the journal where it is there, else judged now and written to the journal.

All ways to a grade end here: `autograder grade`'s processes, a Dask cluster's tasks and `nbgrader autograde`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from nbformat import NotebookNode

from autograder.grading.journal import Entry, Journal, submission_key
from autograder.grading.secret import hidden_seed, read_or_make
from autograder.judge.judge import Judge
from autograder.judge.rebuild import rebuild
from kernels import runtime

SECRET = Path(".autograder") / "secret"  # in the course's root


@dataclass
class Judging:
    """Judges submissions of one lesson into its journal, one after the other.

    The judge, its sandbox and a warm parent are made for the first submission that needs them.
    """

    course: Path
    lesson: str
    notebook: NotebookNode
    grading: int
    unsafe: bool = False
    _judge: Judge | None = None

    def __post_init__(self) -> None:
        self.journal = Journal(self.course, self.lesson)

    def verdict(self, submitted: bytes, *, force: bool = False, only: frozenset[str] | None = None) -> Entry:
        """The verdict on a submission, the bytes of its notebook file.

        force: judge it again though the journal has it. only: judge just the tests with these grade ids again, and keep
        what the journal has of the others. Raises `autograder.judge.rebuild.Unreadable` where it is no notebook,
        SandboxUnavailable, SandboxLost.
        """
        key = submission_key(rebuild(self.notebook, submitted))
        known = self.journal.read(key)
        if known is not None and known.sandbox == "none" and not self.unsafe:
            known = None  # a verdict that the learner's code could have forged
        if known is not None and known.is_final and not force and only is None:
            return known
        judge = self._open()
        judgement = judge.judge(submitted, only=only if known is not None else None)
        if known is not None and only is not None:
            checks = {**known.judgement.checks, **judgement.checks}
            judgement = replace(judgement, checks=checks)
        entry = Entry(
            key,
            self.lesson,
            self.grading,
            runtime.describe(),
            judge.sandbox_name,
            datetime.now(UTC).isoformat(timespec="seconds"),
            judgement,
        )
        self.journal.write(entry)
        return entry

    def _open(self) -> Judge:
        if self._judge is None:
            seed = hidden_seed(read_or_make(self.course / SECRET), self.lesson, self.grading)
            self._judge = Judge(self.notebook, seed=seed, unsafe=self.unsafe)
        return self._judge

    def close(self) -> None:
        if self._judge is not None:
            self._judge.close()
            self._judge = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
