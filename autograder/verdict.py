"""What a check found: which cases fail, why, and the sentence or two that the learner reads."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from autograder.failure import Problem

_WIDTH = 110
_MAX_LINES = 10


@dataclass(frozen=True)
class Failure:
    """A case that an answer does not pass; the label is empty where the answer could not be run on any case."""

    case_label: str
    problem: Problem


@dataclass(frozen=True)
class Verdict:
    """The result of a check on an answer.

    place: where it was reached, e.g. "CPU, Triton interpreter" or the GPU's name. seed: replays the suite.
    misconception: the name of the known mistake whose output equals the answer's, and its message. exact: whether
    that holds on every case, not just on the first that fails. unanswered: the answer is still the stub. num_required: cases
    that are worth nothing by themselves. required_failed: whether one of them fails.
    """

    check: str
    suite: str
    seed: int
    place: str
    num_cases: int
    failures: tuple[Failure, ...] = ()
    misconception: str | None = None
    misconception_message: str = ""
    exact: bool = False
    unanswered: bool = False
    num_required: int = 0
    required_failed: bool = False

    @property
    def passed(self) -> bool:
        return not self.failures

    @property
    def num_passed(self) -> int:
        return self.num_cases - len(self.failures)

    @property
    def points(self) -> int:
        """With partial credit: a point for each case that passes, and none where a required one fails."""
        return 0 if self.required_failed else self.num_passed - self.num_required

    @property
    def out_of(self) -> int:
        """What `points` can be."""
        return self.num_cases - self.num_required

    def message(self) -> str:
        """At most ten lines for the learner. A hidden suite's message gives no numbers of its cases."""
        if self.unanswered:
            return (
                f"{self.check} is not answered yet: its cell still raises NotImplementedError.\n"
                f'Write your answer, run that cell, then this one. autograder.hint("{self.check}") helps you start.'
            )
        if self.passed:
            return f"✓ {self.check}: all {self.num_cases} {self.suite} cases pass on {self.place}."
        first = self.failures[0]
        lines = [f"✗ {self.check}: {first.problem.headline.rstrip('.')}."]
        if first.case_label:
            share = f"{len(self.failures)} of {self.num_cases} {self.suite} cases fail on {self.place}."
            lines.append(f"  Case: {first.case_label}. {share}")
        if first.problem.detail and self.suite == "visible":
            lines += _wrap(first.problem.detail)
        if self.misconception:
            scope = (
                "This is exactly what you get when"
                if self.exact
                else "On this case, this is what you get when"
            )
            lines += _wrap(f"{scope} {self.misconception_message}")
        lines = lines[: _MAX_LINES - 1]
        lines.append(f'  autograder.hint("{self.check}") gives a hint.')
        return "\n".join(lines)


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent="  ", subsequent_indent="  ")
