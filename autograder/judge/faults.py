"""Faults: what learner's code did that ended its worker, and how the learner is told."""

from __future__ import annotations

import signal

from autograder import cuda_fault
from autograder.failure import AnswerProblem, Problem
from autograder.judge.judgement import CRASHED, MEMORY, TIMEOUT
from autograder.judge.limits import Limits


class Fault(AnswerProblem):
    """Learner's code ran into a limit or ended its process. `kind` is TIMEOUT, CRASHED or MEMORY."""

    def __init__(self, kind: str, sentence: str) -> None:
        super().__init__(Problem(sentence))
        self.kind = kind


def gone() -> Fault:
    return Fault(CRASHED, "the object is gone with the worker that held it")


def no_answer() -> Fault:
    return Fault(CRASHED, "your code sent something that is no answer to the judge")


def used_up(limits: Limits) -> Fault:
    return Fault(TIMEOUT, f"the submission has used up its {limits.total:g} s")


def too_much_memory(limits: Limits) -> Fault:
    return Fault(MEMORY, f"your code needs more memory than there is ({_size(limits.memory)})")


def behind_exception(bases: list[str], message: str, limits: Limits) -> Fault | None:
    """The fault behind an exception of learner's code after which its worker is no good any more; None for another.

    bases: the names of the exception's classes.
    """
    if "OutOfMemoryError" in bases and "CUDA" in message:
        return Fault(MEMORY, "your code needs more of the GPU's memory than there is for it")
    if {"MemoryError", "OutOfMemoryError"} & set(bases) or "can't allocate memory" in message:
        return too_much_memory(limits)
    broken = cuda_fault.sentence(bases, message)
    return None if broken is None else Fault(CRASHED, broken)


def of_status(status: int | None) -> Fault:
    """The fault of a worker that ended by itself. status: as a shell counts; None when it was alive."""
    if status is None:
        return Fault(CRASHED, "your code closed the connection to the judge")
    if status == 128 + signal.SIGKILL:
        return Fault(MEMORY, "your code's process was killed, most likely for the memory that it used")
    if status > 128:
        try:
            name = signal.strsignal(status - 128)
        except ValueError:
            name = f"signal {status - 128}"
        return Fault(CRASHED, f"your code's process crashed ({name})")
    return Fault(CRASHED, f"your code ended its process (exit status {status})")


def _size(count: int) -> str:
    return f"{count / 2**30:g} GiB" if count >= 2**30 else f"{count / 2**20:g} MiB"
