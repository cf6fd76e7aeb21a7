"""What known mistakes come to on a case: found out where it does no harm, and not twice."""

from __future__ import annotations

import pkgutil

import torch

from autograder import cuda_fault
from autograder.failure import UnknownCheck
from autograder.mistake_process import MistakeProcess, Question
from autograder.outcome import Outcome, outcome_of
from autograder.registry import Check, Misconception
from autograder.suite import Case, Suite

MAX_REMEMBERED = 10_000  # of 10 kB at most, so far
SECONDS = 60.0


class KnownMistakes:
    """Runs a check's misconceptions: here, or, once this process uses a GPU, in one of its own."""

    def __init__(
        self,
        *,
        elsewhere: bool | None = None,
        cases_are_kept: bool = False,
        find: str = "autograder.registry:get",
        seconds: float = SECONDS,
    ) -> None:
        """elsewhere: always in a process of its own, or never; by default where this process uses a GPU.

        cases_are_kept: no answer can write into a case, as in the judge, so that what ran here is remembered too.
        find: "module:function", which gives a check by its name in any process. seconds: for a mistake that runs elsewhere.
        """
        self._elsewhere, self._cases_are_kept, self._find = elsewhere, cases_are_kept, find
        self._known: dict[Question, Outcome] = {}
        self.process = MistakeProcess(seconds)
        self.repeated = 0

    def outcome(
        self, check: Check, mistake: Misconception, suite: Suite, cases: list[Case], index: int
    ) -> Outcome:
        """What the mistake comes to on cases[index], the cases that `check` draws of `suite`."""
        question = Question(self._find, check.name, suite.name, suite.seed, mistake.name, index)
        registered = self._is_registered(check, mistake)
        if registered and question in self._known:
            self.repeated += 1
            return self._known[question]
        away = torch.cuda.is_initialized() if self._elsewhere is None else self._elsewhere
        if away and registered:
            outcome = self.process.ask(question)
            if outcome is None:
                return Outcome()
        elif cuda_fault.usable():
            outcome = outcome_of(check, check.complete(mistake.parts), cases[index])
            if not (registered and self._cases_are_kept):
                return outcome
        else:
            return Outcome()  # here anything fails in the same way, and nothing is like anything
        if len(self._known) >= MAX_REMEMBERED:
            self._known.clear()
        self._known[question] = outcome.compact()
        return outcome

    def close(self) -> None:
        self.process.close()

    def _is_registered(self, check: Check, mistake: Misconception) -> bool:
        """Whether another process finds this very check and mistake by their names."""
        try:
            found: Check = pkgutil.resolve_name(self._find)(check.name)
        except UnknownCheck:
            return False
        return found.cases is check.cases and any(mistake is each for each in found.misconceptions)
