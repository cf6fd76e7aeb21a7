"""Calls an answer and sees what it does, wherever it lives: in this process, or in the judge's worker behind a proxy."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

import kernels
from autograder.failure import AnswerProblem, Problem
from autograder.guard import unchanged
from autograder.judge import observe
from autograder.judge.proxy import CallableProxy
from course.differential.case import Case
from course.differential.compare import Backend


@dataclass(frozen=True)
class Observation:
    """What a call did.

    launches: kernels of the answer's own that ran, by name. borrowed: those of the course that ran. recorded: whether
    every access was (in the interpreter; on a GPU where bytes are counted). loaded, distinct: bytes that kernels
    loaded of key_cache and value_cache, in all and at least once. readers: programs that loaded from key_cache, or that were
    handed it where nothing is recorded. computed_elsewhere: whether the output is the same when the answer's own kernels do
    nothing. trespasses: the first read of a slot that the program's request does not own. copied: bytes of the largest tensor that torch made, or wrote while it read a cache. copies: how,
    in words.
    """

    launches: dict[str, int]
    borrowed: list[str]
    recorded: bool
    loaded: dict[str, int]
    distinct: dict[str, int]
    readers: int
    computed_elsewhere: bool
    trespasses: list[str]
    copied: int
    copies: list[str]


class OutsideMemory(AnswerProblem):
    """A kernel was about to touch memory that is not its tensor's; nothing was touched."""

    def __init__(self, detail: str) -> None:
        self.headline, self.detail = "your kernel goes out of bounds", detail
        super().__init__(Problem(self.headline, detail))


_NOT_COUNTED = "what your kernel loads cannot be counted"
_WHY_NOT_COUNTED = (
    "It is counted in Triton's interpreter, and there your kernel fails, though the GPU runs it: {}"
)
_FIELDS = Observation.__dataclass_fields__


def call(
    function: Callable[..., Any], arguments: dict[str, Any], *, spread: bool = False, count: bool = False
) -> tuple[Any, Observation]:
    """What `function(*arguments.values())` returns, and what it did; as `observe.observed`.

    Raises AnswerProblem when it changes its arguments or cannot be recorded, OutsideMemory (where it is recorded), and what
    it raises itself.
    """
    try:
        with unchanged(**arguments):
            if isinstance(function, CallableProxy):
                result, seen = function._observed(arguments, spread, count)
            else:
                result, seen = observe.observed(function, arguments, spread=spread, count=count)
    except Exception as error:
        if type(error).__name__ == "OutOfBounds":
            raise OutsideMemory(str(error)[:600]) from error
        if type(error).__name__ == "InterpreterError" and not kernels.INTERPRET:
            raise AnswerProblem(Problem(_NOT_COUNTED, _WHY_NOT_COUNTED.format(str(error)[:300]))) from error
        raise
    if type(seen) is not dict or seen.keys() != _FIELDS.keys() or not _is_plain(seen):
        raise AnswerProblem(Problem("your code sent something that is no answer to the judge"))
    return result, Observation(**seen)


def race(
    function: Callable[..., Any],
    rival: Callable[..., Any],
    arguments: dict[str, Any],
    more: list[Any],
    queries: torch.Tensor,
) -> dict[str, Any]:
    """As `observe.raced`; times are floats above 0."""
    run = (
        function._raced if isinstance(function, CallableProxy) else functools.partial(observe.raced, function)
    )
    with unchanged(**arguments):
        seen = run(rival, arguments, more, queries)
    times = [seen.get(name) for name in ("us", "rival_us")] if type(seen) is dict else []
    sound = times and all(
        type(ts) is list and len(ts) == len(queries) and all(type(t) is float and t > 0 for t in ts)
        for ts in times
    )
    if not sound or type(seen.get("outputs")) is not list or len(seen["outputs"]) != len(seen["us"]):
        raise AnswerProblem(Problem("your code sent something that is no answer to the judge"))
    return dict(seen)


def call_with_function(function: Callable[..., Any], source: str, name: str) -> Any:
    """What `function` returns for the function called `name` that `source` defines."""
    if isinstance(function, CallableProxy):
        return function._with_function(source, name)
    return observe.with_function(function, source, name)


def call_with_backend(function: Callable[..., Any], backend: Backend, case: Case | None = None) -> Any:
    """What `function(backend)` returns, or `function(backend, case)`: a value, or a Case.

    In the judge the backend's computation stays here: the worker sends cases, as plain data, and gets tensors.
    Raises AnswerProblem when what comes back as a case is none.
    """
    if not isinstance(function, CallableProxy):
        return function(backend) if case is None else function(backend, case)

    def tell(question: Any) -> list[list[torch.Tensor]]:
        return [list(result) for result in backend(Case.from_plain(question))]

    seen = function._with_backend(tell, None if case is None else case.to_plain())
    if type(seen) is not dict or seen.keys() != {"value", "changed"}:
        raise AnswerProblem(Problem("your code sent something that is no answer to the judge"))
    if seen["changed"]:
        raise AnswerProblem(Problem("your function changes the case that it is given"))
    if case is None or type(seen["value"]) is not dict:
        return seen["value"]
    try:
        return Case.from_plain(seen["value"])
    except ValueError as error:
        raise AnswerProblem(Problem("what your function returns is no case", str(error)[:200])) from None


def _is_plain(seen: dict[str, Any]) -> bool:
    """Whether what a worker sent has the types that it should."""
    counts = ("launches", "loaded", "distinct")
    texts = ("borrowed", "trespasses", "copies")
    return (
        type(seen["recorded"]) is bool
        and type(seen["computed_elsewhere"]) is bool
        and type(seen["copied"]) is int
        and type(seen["readers"]) is int
        and all(type(seen[name]) is dict for name in counts)
        and all(type(k) is str and type(v) is int for name in counts for k, v in seen[name].items())
        and all(type(seen[name]) is list for name in texts)
        and all(type(text) is str for name in texts for text in seen[name])
    )
