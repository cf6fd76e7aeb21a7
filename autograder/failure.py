"""What a learner sees when an answer is wrong: a message for a person, not two hundred lines of traceback."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with an answer.

    `headline` says what kind of thing is wrong and may always be shown. `detail` holds places and numbers of the
    case and is kept out of the hidden suite's feedback.
    """

    headline: str
    detail: str = ""


class AnswerProblem(Exception):
    """Raised inside a check's `run` when the answer breaks a rule that its output does not show."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.headline)
        self.problem = problem


class _ShortTraceback:
    """IPython asks an exception for `_render_traceback_`; ours is the message and nothing else."""

    def _render_traceback_(self) -> list[str]:
        return str(self).splitlines()


class CheckFailed(_ShortTraceback, AssertionError):
    """An answer did not pass its check. The text is at most ten lines long and written for the learner."""


class UnknownCheck(_ShortTraceback, ValueError):
    """`check` or `hint` was called with a name that no exercise has."""
