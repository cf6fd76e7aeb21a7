"""What comes of running an answer on a case."""

from __future__ import annotations

import linecache
import traceback
from dataclasses import dataclass, replace
from pathlib import Path

import torch

import kernels
from autograder import cuda_fault
from autograder.failure import AnswerProblem, Problem
from autograder.registry import Answer, Check, Output
from autograder.suite import Case

# Frames of these are not the learner's.
_OUR_FOLDERS = (Path(__file__).parent, Path(kernels.__file__).parent)


@dataclass(frozen=True)
class Outcome:
    """An answer's output on a case, or the problem that stood in its way.

    obstacle: tells one such problem from another, without line numbers. gpu_lost: whether this process's state on the GPU is
    broken since. Of an outcome with nothing in it, nothing is known.
    """

    output: Output | None = None
    problem: Problem | None = None
    obstacle: str = ""
    not_implemented: bool = False
    gpu_lost: bool = False

    def compact(self) -> Outcome:
        """The same, holding no memory but its tensors' own: an output may be a piece of a cache."""
        if self.output is None:
            return self
        output = {n: v.clone() if type(v) is torch.Tensor else v for n, v in self.output.items()}
        return replace(self, output=output)


def problem_of(check: Check, case: Case, outcome: Outcome) -> Problem | None:
    """What is wrong with it, or None."""
    return outcome.problem if outcome.output is None else check.inspect(outcome.output, case)


def outcome_of(check: Check, answer: Answer, case: Case) -> Outcome:
    """Never raises because of what the answer does, short of ending the process."""
    try:
        output = check.run(answer, case)
        cuda_fault.settle()
        return Outcome(output=output)
    except AnswerProblem as error:
        stated = filter(None, (error.problem.headline, error.problem.detail))
        outcome = Outcome(problem=error.problem, obstacle=": ".join(stated))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too: an answer that calls exit() is a wrong answer
        problem = _raised(error)
        not_implemented = isinstance(error, NotImplementedError)
        outcome = Outcome(problem=problem, obstacle=problem.headline, not_implemented=not_implemented)
    return outcome if cuda_fault.usable() else replace(outcome, gpu_lost=True)


def _raised(error: BaseException) -> Problem:
    broken = cuda_fault.sentence_about(error)
    if broken is not None:
        return Problem(broken, _line_of(error))
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
