"""Names of vLLM 0.22.1 as learners type them, and the definition that each of them means.

One definition has many right names: "module:qualname" with the module cut short on the left, a path in the module's
place, dots for the colon, "file:line" of its `def` or its decorator, `torch.ops.vllm.` before a registered operator.
All of them are read; what means nothing, or several things, is told what was meant instead.
"""

from __future__ import annotations

import difflib
import re

from autograder.checks.plain_answers import refuse, text
from course import vllm_index
from course.vllm_index import Symbol

EXPECTED = 'a name in vLLM as "module:qualname"'
_OPERATOR = re.compile(r"^(torch\.ops\.)?vllm\.(?=\w+$)|^torch\.ops\.\w+\.")
_PLACE = re.compile(r"^(?P<path>[\w./-]*\w\.py):(?P<first>\d+)(?:[-–]\d+)?$")
_OWN = re.compile(r"^(\./)?kernels[./:]")


def definition(part: str, value: object, expected: str = EXPECTED) -> Symbol:
    """The definition that a learner's text names. Raises AnswerProblem for what names none, or several."""
    given = text(part, value, expected).removesuffix("()").removesuffix("(…)").strip()
    if _OWN.match(given):
        raise refuse(
            f"{part}: {given} is in our own code; vLLM's source has the same role under nearly the same name"
        )
    if place := _PLACE.match(given):
        return _at(part, given, int(place["first"]))
    found = fitting(given)
    if not found:
        raise refuse(f"{part}: vLLM {_version()} has no {given!r} in the files around attention{_guess(given)}")
    if len({symbol.name for symbol in found}) > 1:
        owners = sorted({symbol.name for symbol in found})
        which = f"{owners[0]} and {owners[1]}" if len(owners) == 2 else f"{owners[0]} and {len(owners) - 1} more"
        raise refuse(f"{part}: {given!r} may mean {which}; write the module and the class before it")
    return found[0]


def fitting(given: str) -> list[Symbol]:
    """Every definition that a name fits, however it separates module and name."""
    name = _OPERATOR.sub("", given.strip().lstrip("."))
    name = re.sub(r"\.py(?=[:.]|$)", "", name).replace("/", ".").strip(".")
    if ":" in name:
        module, _, qualname = name.rpartition(":")
        return vllm_index.find(f"{module.replace(':', '.')}:{qualname}") or _reexported(module, qualname)
    parts = name.split(".")
    for cut in range(len(parts)):
        module, qualname = ".".join(parts[:cut]), ".".join(parts[cut:])
        spelt = f"{module}:{qualname}" if module else qualname
        if found := vllm_index.find(spelt) or _reexported(module, qualname):
            return found
    return []


def _reexported(module: str, qualname: str) -> list[Symbol]:
    """A function under the name of a module that calls it or of the package that hands it on."""
    if not module or "." in qualname:
        return []
    found = []
    for symbol in vllm_index.find(qualname):
        users = {name.partition(":")[0] for name in vllm_index.callers(symbol.name)}
        packages = {symbol.module.rpartition(".")[0]}
        if any(f".{known}".endswith(f".{module}") for known in users | packages):
            found.append(symbol)
    return found


def _at(part: str, place: str, line: int) -> Symbol:
    """The definition that starts at "path:line"; a line inside of one is told so."""
    try:
        symbol = vllm_index.at(place)
    except ValueError as error:
        raise refuse(f"{part}: {error}") from None
    if symbol is None:
        raise refuse(f"{part}: at {place} no definition stands")
    if not symbol.start <= line <= symbol.first:
        raise refuse(f"{part}: line {line} is inside {symbol.qualname}, which starts at {symbol.first}")
    return symbol


def _guess(given: str) -> str:
    last = re.split(r"[.:/]", given)[-1]
    known = {symbol.qualname.rpartition(".")[2]: symbol.qualname for symbol in vllm_index.symbols()}
    near = difflib.get_close_matches(last, known, n=1, cutoff=0.75)
    return f"; did you mean {known[near[0]]}?" if near else ""


def _version() -> str:
    from course.vllm_source import VERSION

    return VERSION
