"""One submission's verdict, from the journal where it is there, else judged now and written to the journal.

All ways to a grade end here: `autograder grade`'s processes, a Dask cluster's tasks and `nbgrader autograde`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from nbformat import NotebookNode

from autograder.grading.journal import Entry, Journal, submission_key
from autograder.grading.secret import hidden_seed, read_or_make
from autograder.judge.rebuild import rebuild
from autograder.judge.sandbox import Limits

if TYPE_CHECKING:
    from autograder.judge.judge import Judge

SECRET = Path(".autograder") / "secret"  # in the course's root


@dataclass
class Judging:
    """Judges submissions of one lesson into its journal, one after the other.

    The judge, its sandbox and a warm parent are made for the first submission that needs them; until then torch is not
    loaded either. grading: the public number of the grading that new verdicts fall in. seed: of its hidden cases, where the
    instructor's secret is on another machine.
    """

    course: Path
    lesson: str
    notebook: NotebookNode
    grading: int
    unsafe: bool = False
    limits: Limits | None = None
    seed: int | None = None
    _judge: Judge | None = None

    def __post_init__(self) -> None:
        self.journal = Journal(self.course, self.lesson)

    def verdict(self, submitted: bytes, *, force: bool = False, only: frozenset[str] | None = None) -> Entry:
        """The verdict on a submission, the bytes of its notebook file.

        force: judge it again though the journal has it. only: judge the tests with these grade ids again, and keep what the
        journal has of the others. `outstanding` says what that means for a test. An earlier result outlives a failure of
        the machine. Raises `autograder.judge.rebuild.Unreadable` where it is no notebook, SandboxUnavailable, SandboxLost.
        """
        key = submission_key(rebuild(self.notebook, submitted))
        known = usable(self.journal.read(key), unsafe=self.unsafe)
        tests = None
        if known is not None:
            asked = frozenset(known.judgement.checks) if force and only is None else only or frozenset()
            tests = outstanding(known, self.grading, asked)
            if not tests:
                return known
        judge = self._open()
        judgement = judge.judge(submitted, only=tests)
        earlier: dict[str, int] = {}
        if known is not None:
            checks = dict(known.judgement.checks)
            for name, result in checks.items():
                new = judgement.checks.get(name)
                if new is not None and (new.points is not None or result.points is None):
                    checks[name] = new
                elif known.grading_of(name) != self.grading:
                    earlier[name] = known.grading_of(name)
            judgement = replace(judgement, checks=checks)
        from kernels import runtime

        entry = Entry(
            key,
            self.lesson,
            self.grading,
            runtime.describe(),
            judge.sandbox_name,
            datetime.now(UTC).isoformat(timespec="seconds"),
            judgement,
            earlier,
        )
        self.journal.write(entry, submitted)
        return entry

    def _open(self) -> Judge:
        if self._judge is None:
            from autograder.judge.judge import Judge

            seed = self.seed
            if seed is None:
                seed = hidden_seed(read_or_make(self.course / SECRET), self.lesson, self.grading)
            self._judge = Judge(self.notebook, self.limits, seed=seed, unsafe=self.unsafe)
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


def usable(entry: Entry | None, *, unsafe: bool) -> Entry | None:
    """The entry, unless the learner's code could have forged it: a verdict without a sandbox counts with --unsafe only."""
    return None if entry is not None and entry.sandbox == "none" and not unsafe else entry


def outstanding(known: Entry, grading: int, asked: frozenset[str]) -> frozenset[str]:
    """The tests of a known verdict that are to be judged in this grading: those asked for, and those without points.

    What has points from this very grading is not judged in it once more, so one that was killed goes on where it was; and
    what the machine prevented in it is tried again only when it is asked for.
    """
    return frozenset(
        name
        for name, result in known.judgement.checks.items()
        if (name in asked and (result.points is None or known.grading_of(name) != grading))
        or (result.points is None and known.grading_of(name) != grading)
    )
