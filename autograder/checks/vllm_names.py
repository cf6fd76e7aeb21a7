"""Names of vLLM 0.22.1 as learners type them, and the definition that each of them means.

One definition has many right names: "module:qualname" with the module cut short on the left, a path in the module's
place, a dot for the colon, "file:line" of its `def` or its decorator, `torch.ops.` before an operator, the module that
imports it for the one that defines it. `course.vllm_index` reads most of them; what means nothing, or several things,
is told what was meant instead.
"""

from __future__ import annotations

import difflib
import re

from autograder.checks.plain_answers import refuse, text
from course import vllm_index
from course.vllm_index import Symbol

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


def fitting(given: str) -> list[Symbol]:
    """Every definition that a name fits."""
    name = _OPERATOR.sub("", given.strip())
    if found := vllm_index.find(name):
        return found
    # The name of a module that imports the function and calls it: "flash_attn:reshape_and_cache_flash".
    module, _, function = re.sub(r"\.py(?=[.:])", "", name).replace("/", ".").replace(":", ".").rpartition(".")
    return [
        symbol
        for symbol in (vllm_index.find(function) if module else [])
        if any(f".{_module_of(caller)}".endswith(f".{module}") for caller in vllm_index.callers(symbol.name))
    ]


def _module_of(name: str) -> str:
    return name.partition(":")[0]


def _at(part: str, place: str, line: int) -> Symbol:
    """The definition that begins at "path:line"; a line inside of one, or of none, is told so."""
    try:
        symbol = vllm_index.at(place)
        said = vllm_index.describe(place)
    except ValueError as error:
        raise refuse(f"{part}: {str(error).removeprefix('place: ')}") from None
    if symbol is None or not symbol.start <= line <= symbol.first:
        raise refuse(f"{part}: {said}; write a name, or the line where the definition begins")
    return symbol


def _guess(given: str) -> str:
    last = re.split(r"[.:/]", given)[-1]
    known = {symbol.qualname.rpartition(".")[2]: symbol.qualname for symbol in vllm_index.find_all()}
    near = difflib.get_close_matches(last, known, n=1, cutoff=0.75)
    return f"; did you mean {known[near[0]]}?" if near else ""
