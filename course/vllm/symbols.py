"""The definitions of vLLM 0.22.1's attention code, out of the committed index, and how their names are understood.

`course.vllm.index` answers questions with them; a lesson imports that.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

INDEX = Path(__file__).parents[1] / "data" / "vllm_0_22_1_index.json"
VERSION = "0.22.1"


@dataclass(frozen=True)
class Symbol:
    """A definition of vLLM.

    kind: "class", "function", "method", "attribute" (of a class) or "variable" (of a module). first, last: its lines,
    from 1. start: the line of its first decorator, or `first`. bases: what a class derives from; parameters: a
    function's, "*args" and "**kwargs" so. calls: whom it calls, as `callees` says.
    """

    path: str
    qualname: str
    kind: str
    first: int
    last: int
    start: int
    bases: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()

    @property
    def module(self) -> str:
        return _module(self.path)

    @property
    def name(self) -> str:
        """ "module:qualname"."""
        return f"{self.module}:{self.qualname}"

    @property
    def place(self) -> str:
        """ "path:line"."""
        return f"{self.path}:{self.first}"

    def __str__(self) -> str:
        return f"{self.kind} {self.qualname}, {self.path}:{self.first}-{self.last}"


def files() -> dict[str, int]:
    """The indexed files by path, each with its number of lines."""
    return {path: facts["lines"] for path, facts in _index().items()}


def find(name: str) -> list[Symbol]:
    """Every definition that a name fits, by file and line; none is an empty list.

    A whole qualified name comes before the end of one: "Attention.forward" is one method, "forward" is many.
    """
    if not isinstance(name, str):
        return []
    asked = name.strip().removesuffix("()")
    module, colon, qualname = asked.rpartition(":")
    if colon:
        return _fitting(module, qualname)
    if found := _fitting("", asked):
        return found
    parts = asked.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        if found := _fitting(".".join(parts[:cut]), ".".join(parts[cut:])):
            return found
    return []


def where(name: str) -> Symbol:
    """The one definition that a name fits. Raises ValueError when none or several do, and says which."""
    found = find(name)
    if len(found) == 1:
        return found[0]
    if not found:
        raise ValueError(f"name: the attention code of vLLM {VERSION} defines no {name!r}")
    some = ", ".join(f"{each.qualname} ({each.place})" for each in found[:4])
    more = f" and {len(found) - 4} more" if len(found) > 4 else ""
    raise ValueError(f"name: {name!r} fits {len(found)} definitions of vLLM {VERSION}: {some}{more}")


def members(name: str) -> list[Symbol]:
    """What a class itself defines: its fields and methods, in the order of the text."""
    owner = where(name)
    depth = owner.qualname.count(".") + 1
    inside = f"{owner.qualname}."
    return [
        s
        for s in symbols()
        if s.path == owner.path and s.qualname.startswith(inside) and s.qualname.count(".") == depth
    ]


@functools.cache
def symbols() -> tuple[Symbol, ...]:
    """Every definition, by file and line."""
    return tuple(
        _symbol(path, qualname, *row)
        for path, facts in _index().items()
        for qualname, row in facts["definitions"].items()
    )


def derives(owner: str, base: str) -> bool:
    """Whether a class, "module:qualname", is another or derives from it, as far as the index goes."""
    pending, seen = [owner], set()
    while pending:
        name = pending.pop()
        if name == base:
            return True
        if name not in seen and name in by_name():
            seen.add(name)
            pending += by_name()[name].bases
    return False


@functools.cache
def by_name() -> dict[str, Symbol]:
    """Every definition by its "module:qualname"."""
    return {symbol.name: symbol for symbol in symbols()}


@functools.cache
def _index() -> dict[str, dict[str, Any]]:
    return dict(json.loads(INDEX.read_text(encoding="utf-8"))["files"])


def _module(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _symbol(
    path: str,
    qualname: str,
    kind: str,
    first: int,
    last: int,
    start: int,
    names: str = "",
    calls: tuple[str, ...] = (),
) -> Symbol:
    listed = tuple(names.split(", ")) if names else ()
    full = tuple(_module(path) + call if call.startswith(":") else call for call in calls)
    bases, parameters = (listed, ()) if kind == "class" else ((), listed)
    return Symbol(path, qualname, kind, first, last, start, bases, parameters, full)


def _fitting(module: str, qualname: str) -> list[Symbol]:
    """The definitions whose qualified name is, or else ends in, `qualname`, in modules that end in `module`."""
    wanted = _module(module).strip(".")
    if not qualname:
        return []
    found = [s for s in symbols() if _ends_in(s.qualname, qualname) and _ends_in(s.module, wanted)]
    if wanted and not found:
        imported, dot, rest = qualname.partition(".")
        for path, facts in _index().items():
            if _ends_in(_module(path), wanted) and imported in facts["imports"]:
                found += [s for s in symbols() if s.name == facts["imports"][imported] + dot + rest]
    rules: list[Callable[[Symbol], bool]] = [
        lambda s: s.qualname == qualname,
        lambda s: s.module == wanted,
        lambda s: s.kind not in ("variable", "attribute"),
    ]
    for better in rules:
        found = [symbol for symbol in found if better(symbol)] or found
    return list(dict.fromkeys(found))


def _ends_in(whole: str, end: str) -> bool:
    return not end or whole == end or whole.endswith(f".{end}")
