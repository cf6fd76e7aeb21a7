"""What the learner is told of a worker that ended, and which exceptions end one."""

import signal

import pytest

from autograder.judge import faults
from autograder.judge.judgement import CRASHED, MEMORY
from autograder.judge.limits import Limits

LIMITS = Limits()


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (None, CRASHED, "closed the connection"),
        (0, CRASHED, "exit status 0"),
        (3, CRASHED, "exit status 3"),
        (128 + signal.SIGKILL, MEMORY, "killed, most likely for the memory"),
        (128 + signal.SIGSEGV, CRASHED, "Segmentation fault"),
        (128 + 120, CRASHED, "signal 120"),
    ],
)
def test_a_worker_that_ended_by_itself(status: int | None, kind: str, words: str) -> None:
    fault = faults.of_status(status)
    assert fault.kind == kind
    assert words in fault.problem.headline


@pytest.mark.parametrize(
    ("bases", "message", "kind", "words"),
    [
        (["OutOfMemoryError", "RuntimeError"], "CUDA out of memory", MEMORY, "the GPU's memory"),
        (["MemoryError"], "", MEMORY, "more memory than there is"),
        (["RuntimeError"], "DefaultCPUAllocator: can't allocate memory", MEMORY, "more memory than there is"),
        (["AcceleratorError"], "CUDA error: an illegal memory access was encountered", CRASHED, ""),
    ],
)
def test_exceptions_after_which_a_worker_is_no_good(
    bases: list[str], message: str, kind: str, words: str
) -> None:
    fault = faults.behind_exception(bases, message, LIMITS)
    assert fault is not None
    assert fault.kind == kind
    assert words in fault.problem.headline


def test_other_exceptions_are_the_answers_own() -> None:
    assert faults.behind_exception(["ValueError"], "CUDA is a word", LIMITS) is None
