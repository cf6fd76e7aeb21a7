"""A check whose mistakes do harm to their process, for another process to find by `find`."""

import os
import secrets
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from autograder.failure import Problem, UnknownCheck
from autograder.registry import Check, Misconception, Output
from autograder.suite import Case, Suite

ILLEGAL = "CUDA error: an illegal memory access was encountered"
FULL = 99  # the seed of a suite for which a GPU has no memory
FIND = "tests.autograder.harmful_check:get"


def _exits() -> Output:
    os._exit(3)


def _crashes() -> Output:
    os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(60)
    raise AssertionError


def _hangs() -> Output:
    signal.pause()
    raise AssertionError


def _breaks_the_gpu() -> Output:
    raise torch.AcceleratorError(f"{ILLEGAL}\nSearch for it in CUDA's documentation.")


def _draws() -> Output:
    """Another number each time that it runs."""
    return {"number": secrets.randbits(60)}


def _is_one_off() -> Output:
    print("a mistake's own words", flush=True)
    print("and a driver's", file=sys.__stdout__, flush=True)
    return {"number": 2}


def _cases(suite: Suite) -> list[Case]:
    if suite.seed == FULL:
        raise torch.OutOfMemoryError("CUDA out of memory.")
    return [Case("the first case", {}), Case("the second case", {})]


def _run(answer: Any, case: Case) -> Output:
    output: Output = answer["number"]()
    return output


def _inspect(output: Output, case: Case) -> Problem | None:
    return None if output["number"] == 1 else Problem("the number is wrong")


def _mistake(name: str, function: Callable[[], Output]) -> Misconception:
    return Misconception(name, f"it {name}.", {"number": function})


CHECK = Check(
    name="harmful",
    grade_id="harmful",
    parts=("number",),
    cases=_cases,
    run=_run,
    inspect=_inspect,
    solution={"number": lambda: {"number": 1}},
    misconceptions=(
        _mistake("exits", _exits),
        _mistake("crashes", _crashes),
        _mistake("hangs", _hangs),
        _mistake("breaks the GPU", _breaks_the_gpu),
        _mistake("draws", _draws),
        _mistake("is one off", _is_one_off),
    ),
    right_variants=(),
    hints=(),
)


def get(name: str) -> Check:
    if name != CHECK.name:
        raise UnknownCheck(name)
    return CHECK
