"""Runs an answer through a check's cases and finds out which known mistake it makes."""

from __future__ import annotations

import linecache
import traceback
from dataclasses import dataclass, replace
from pathlib import Path

import torch

import kernels
from autograder.failure import AnswerProblem, Problem
from autograder.registry import Answer, Check, Output
from autograder.suite import Case, Suite
from autograder.verdict import Failure, Verdict

# Frames of these are not the learner's.
_OUR_FOLDERS = (Path(__file__).parent, Path(kernels.__file__).parent)


@dataclass(frozen=True)
class _Outcome:
    """What came of running an answer on a case: its output, or the problem that stood in its way.

    obstacle: tells one such problem from another, without line numbers.
    """

    output: Output | None = None
    problem: Problem | None = None
    obstacle: str = ""
    not_implemented: bool = False


def examine(check: Check, answer: Answer, suite: Suite) -> Verdict:
    """The verdict on `answer`. Never raises because of what the answer does, short of ending the process."""
    place = _place()
    refusal = check.validate(answer)
    if refusal is not None:
        failure = Failure("", Problem(refusal))
        return Verdict(check.name, suite.name, suite.seed, place, num_cases=1, failures=(failure,))
    verdict = _examine_one(check, answer, suite, place)
    if not verdict.passed:
        for other in check.fallbacks(answer):
            second = _examine_one(check, other, suite, place)
            if second.passed:
                return second
    return verdict


def _examine_one(check: Check, answer: Answer, suite: Suite, place: str) -> Verdict:
    cases = check.cases(suite)
    outcomes = [_run(check, answer, case) for case in cases]
    problems = [_problem(check, case, outcome) for case, outcome in zip(cases, outcomes, strict=True)]
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
    found = _diagnose(check, cases, outcomes, failing[0])
    if found is None:
        return verdict
    name, message, exact = found
    return replace(verdict, misconception=name, misconception_message=message, exact=exact)


def _run(check: Check, answer: Answer, case: Case) -> _Outcome:
    try:
        return _Outcome(output=check.run(answer, case))
    except AnswerProblem as error:
        return _Outcome(problem=error.problem, obstacle=f"{error.problem.headline}: {error.problem.detail}")
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too: an answer that calls exit() is a wrong answer
        problem = _raised(error)
        not_implemented = isinstance(error, NotImplementedError)
        return _Outcome(problem=problem, obstacle=problem.headline, not_implemented=not_implemented)


def _problem(check: Check, case: Case, outcome: _Outcome) -> Problem | None:
    return outcome.problem if outcome.output is None else check.inspect(outcome.output, case)


def _diagnose(
    check: Check, cases: list[Case], outcomes: list[_Outcome], first: int
) -> tuple[str, str, bool] | None:
    """The misconception with the same outcome on every case, else the one with that of the first failing case.

    An output of nothing but NaN is no likeness: too many mistakes end there.
    """
    others = [i for i in range(len(cases)) if i != first]
    partly = None
    for misconception in check.misconceptions:
        wrong = check.complete(misconception.parts)
        if not _same(check, wrong, cases[first], outcomes[first]):
            continue
        if all(_same(check, wrong, cases[i], outcomes[i]) for i in others):
            return misconception.name, misconception.message, True
        if not _is_nan(outcomes[first].output):
            partly = partly or (misconception.name, misconception.message, False)
    return partly


def _same(check: Check, wrong: Answer, case: Case, outcome: _Outcome) -> bool:
    other = _run(check, wrong, case)
    if outcome.output is None or other.output is None:
        return bool(outcome.obstacle) and outcome.obstacle == other.obstacle
    return check.same(outcome.output, other.output, case)


def _is_nan(output: Output | None) -> bool:
    """Whether all numbers of an output are NaN."""
    tensors = [value for value in (output or {}).values() if isinstance(value, torch.Tensor)]
    return bool(tensors) and all(bool(tensor.isnan().all()) for tensor in tensors)


def _raised(error: BaseException) -> Problem:
    text = str(error).strip().splitlines()
    headline = f"your code raised {type(error).__name__}" + (f": {text[0][:200]}" if text else "")
    return Problem(headline.rstrip("."), _line_of(error))


def _line_of(error: BaseException) -> str:
    """The last line of the learner's own code that the error passed through."""
    elsewhere = getattr(error, "line_in_answer", None)  # the judge's worker found it, in its own process
    if type(elsewhere) is str:
        return elsewhere
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if "site-packages" in path.parts or any(folder in path.parents for folder in _OUR_FOLDERS):
            continue
        source = (frame.line or linecache.getline(frame.filename, frame.lineno or 0)).strip()
        if source:
            return f"in {frame.name}, line {frame.lineno}: {source}"
    return ""


def _place() -> str:
    from kernels import runtime

    return runtime.describe()
