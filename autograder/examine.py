"""Runs an answer through a check's cases and finds out which known mistake it makes."""

from __future__ import annotations

from dataclasses import replace

import torch

from autograder import cuda_fault
from autograder.failure import Problem
from autograder.known_mistakes import KnownMistakes
from autograder.outcome import Outcome, outcome_of, problem_of
from autograder.registry import Answer, Check, Misconception, Output
from autograder.suite import Case, Suite
from autograder.verdict import Failure, Verdict

_MISTAKES = KnownMistakes()
_EARLIER = "something that ran before broke the GPU's state"


def examine(check: Check, answer: Answer, suite: Suite, mistakes: KnownMistakes = _MISTAKES) -> Verdict:
    """The verdict on `answer`. Never raises because of what the answer does, short of ending the process.

    mistakes: runs the check's misconceptions, to find the one that the answer makes.
    """
    if not cuda_fault.usable():
        return _refused(check, suite, "a GPU", Problem(f"{_EARLIER}. {cuda_fault.LOST}"))
    place = _place()
    refusal = check.validate(answer)
    if refusal is not None:
        return _refused(check, suite, place, Problem(refusal))
    verdict = _examine_one(check, answer, suite, place, mistakes)
    if not verdict.passed and cuda_fault.usable():
        for other in check.fallbacks(answer):
            second = _examine_one(check, other, suite, place, mistakes)
            if second.passed:
                return second
    return verdict


def _refused(check: Check, suite: Suite, place: str, problem: Problem) -> Verdict:
    """The verdict where no case can be held against the truth."""
    return Verdict(check.name, suite.name, suite.seed, place, num_cases=1, failures=(Failure("", problem),))


def _examine_one(check: Check, answer: Answer, suite: Suite, place: str, mistakes: KnownMistakes) -> Verdict:
    cases = check.cases(suite)
    outcomes: list[Outcome] = []
    for case in cases:
        outcomes.append(outcome_of(check, answer, case))
        if outcomes[-1].gpu_lost:
            return _lost(check, suite, place, cases, outcomes, mistakes)
    problems = [problem_of(check, case, outcome) for case, outcome in zip(cases, outcomes, strict=True)]
    failing = [i for i, problem in enumerate(problems) if problem is not None]
    failures = tuple(Failure(case.label, p) for case, p in zip(cases, problems, strict=True) if p is not None)
    verdict = Verdict(
        check.name,
        suite.name,
        suite.seed,
        place,
        len(cases),
        failures,
        num_required=sum(case.required for case in cases),
        required_failed=any(cases[i].required for i in failing),
    )
    if not failing:
        return verdict
    if all(outcome.not_implemented for outcome in outcomes):
        return replace(verdict, unanswered=True)
    others = [i for i in range(len(cases)) if i != failing[0]]
    return _with_name(verdict, _diagnose(check, suite, cases, outcomes, failing[0], others, mistakes))


def _lost(
    check: Check,
    suite: Suite,
    place: str,
    cases: list[Case],
    outcomes: list[Outcome],
    mistakes: KnownMistakes,
) -> Verdict:
    """The verdict where the last outcome is that the GPU is lost: no other case, and no other output, can be looked at."""
    last = len(outcomes) - 1
    problem = outcomes[last].problem
    assert problem is not None
    detail = f"In the case: {cases[last].label}. {problem.detail}".rstrip()
    told = Problem(f"{problem.headline}. {cuda_fault.LOST}", detail)
    found = _diagnose(check, suite, cases, outcomes, last, None, mistakes)
    return _with_name(_refused(check, suite, place, told), found)


def _with_name(verdict: Verdict, found: tuple[str, str, bool] | None) -> Verdict:
    if found is None:
        return verdict
    name, message, exact = found
    return replace(verdict, misconception=name, misconception_message=message, exact=exact)


def _diagnose(
    check: Check,
    suite: Suite,
    cases: list[Case],
    outcomes: list[Outcome],
    first: int,
    others: list[int] | None,
    mistakes: KnownMistakes,
) -> tuple[str, str, bool] | None:
    """The misconception with the same outcome on every case, else the one with that of the first failing case.

    An output of nothing but NaN is no likeness: too many mistakes end there. others: the other cases, None where they
    cannot be looked at.
    """

    def same(mistake: Misconception, index: int) -> bool:
        other = mistakes.outcome(check, mistake, suite, cases, index)
        return _same(check, cases[index], outcomes[index], other)

    partly = None
    for mistake in check.misconceptions:
        if not same(mistake, first):
            continue
        if others is not None and all(same(mistake, i) for i in others):
            return mistake.name, mistake.message, True
        if not _is_nan(outcomes[first].output):
            partly = partly or (mistake.name, mistake.message, False)
    return partly


def _same(check: Check, case: Case, outcome: Outcome, other: Outcome) -> bool:
    if outcome.output is None or other.output is None:
        return bool(outcome.obstacle) and outcome.obstacle == other.obstacle
    return check.same(outcome.output, other.output, case)


def _is_nan(output: Output | None) -> bool:
    """Whether all numbers of an output are NaN."""
    tensors = [value for value in (output or {}).values() if isinstance(value, torch.Tensor)]
    return bool(tensors) and all(bool(tensor.isnan().all()) for tensor in tensors)


def _place() -> str:
    from kernels import runtime

    return runtime.describe()
