"""Names of vLLM 0.22.1 as learners type them, and the definition that each of them means.

One definition has many right names: "module:qualname" with the module cut short on the left, a path in the module's
place, a dot for the colon, "file:line" of its `def` or its decorator, `torch.ops.` before an operator, the module that
imports it for the one that defines it. `course.vllm.index` reads most of them; what means nothing, or several things,
is told what was meant instead.
"""

from __future__ import annotations

import difflib
import functools
import re

from autograder.checks.plain_answers import refuse, text
from course.vllm import index as vllm_index
from course.vllm.symbols import Symbol, symbols

EXPECTED = 'a name in vLLM\'s source, "module:qualname"'
_OPERATOR = re.compile(r"^torch\.ops\.\w+\.")
_PLACE = re.compile(r"^[\w./-]*\w\.py:(\d+)(?:[-–]\d+)?$")
_OWN = re.compile(r"^(\./)?(kernels|course)[./:]")


def definition(part: str, value: object) -> Symbol:
    """The definition that a learner's text names. Raises AnswerProblem for what names none, or several."""
    given = text(part, value, EXPECTED).removesuffix("()").strip()
    if is_own(given):
        raise refuse(f"{part}: {given} is the course's own code; asked is the same role in vLLM's source")
    if place := _PLACE.match(given):
        return _at(part, given, int(place[1]))
    found = {symbol.name: symbol for symbol in fitting(given)}
    if not found:
        raise refuse(f"{part}: there is no {given[:80]!r} in vLLM's attention code{_guess(given)}")
    if len(found) > 1:
        one, *others = sorted(found)
        more = f"{len(others)} more" if len(others) > 1 else others[0]
        raise refuse(
            f"{part}: {given!r} fits {one} and {more}; write the class, or the module, before it as well"
        )
    return next(iter(found.values()))


def is_own(given: str) -> bool:
    """Whether a name is one of the course's own packages."""
    return _OWN.match(given) is not None


def is_place(given: str) -> bool:
    """Whether a name is a place, "path:line"."""
    return _PLACE.match(given.strip()) is not None


@functools.lru_cache(maxsize=2000)
def fitting(given: str) -> tuple[Symbol, ...]:
    """Every definition that a name fits."""
    return tuple(vllm_index.find(_OPERATOR.sub("", given.strip())))


@functools.lru_cache(maxsize=2000)
def calls(caller: str, callee: str) -> bool:
    """Whether one definition calls another by vLLM's syntax tree; both as "module:qualname"."""
    return vllm_index.broken_step([caller, callee]) is None


def _at(part: str, place: str, line: int) -> Symbol:
    """The definition that begins at "path:line"; a line inside of one, or of none, is told so."""
    end = place.rpartition(":")[0].removeprefix("./")
    paths = [path for path in vllm_index.files() if f"/{path}".endswith(f"/{end}")]
    if not paths:
        raise refuse(f"{part}: there is no file {end} in vLLM's attention code")
    for path in paths:  # a file's name may be there twice; mostly only one of them fits
        symbol = vllm_index.at(f"{path}:{line}")
        if symbol is not None and symbol.start <= line <= symbol.first:
            return symbol
    said = vllm_index.describe(f"{paths[-1]}:{line}")
    raise refuse(f"{part}: {said}; write a name, or the line where the definition begins")


def _guess(given: str) -> str:
    last = re.split(r"[.:/]", given)[-1]
    known = {symbol.qualname.rpartition(".")[2]: symbol.qualname for symbol in symbols()}
    near = difflib.get_close_matches(last, known, n=1, cutoff=0.75)
    return f"; did you mean {known[near[0]]}?" if near else ""
