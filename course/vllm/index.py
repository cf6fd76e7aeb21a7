"""Where the names of vLLM 0.22.1's attention code stand and who calls whom, from a committed file of facts.

    find("forward")                      every definition of that name
    where("FlashAttentionImpl.forward")  the one definition: path, lines, kind, bases or parameters, calls
    members("AttentionSelectorConfig")   what a class defines: fields and methods
    at("path.py:line")                   what stands there: the innermost definition that holds the line
    describe("path.py:line")             the same as a sentence
    objection("path.py:line", name)      what is wrong with an answer to where a name is defined, or None
    callees(name), callers(name)         call edges
    route(start, to)                     a shortest call path
    broken_step(["Attention.forward", ...])   what is wrong with a call path, or None
    python -m course.vllm.index NAME or FILE:LINE ...

A name is "module:qualname", as the tracer writes it, or another way of saying it: the module cut on the left or left
out ("flash_attn:FlashAttentionImpl.forward", "FlashAttentionImpl.forward", "get_forward_context"), the package that
re-exports it ("vllm.model_executor.layers.attention:Attention"), a path for the module, a dot for the colon.

Everything works without vLLM's source: `course/data/vllm_0_22_1_index.json` holds facts and no text, and a test holds it
against the source. `course.vllm.facts` says how the facts are found, `course.vllm.index_build` of which files.
"""

import re
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import PurePosixPath

from course.vllm.symbols import VERSION, Symbol, by_name, derives, files, find, members, symbols, where

__all__ = [
    "Symbol",
    "at",
    "broken_step",
    "callees",
    "callers",
    "describe",
    "files",
    "find",
    "members",
    "objection",
    "route",
    "where",
]

# "path.py:LINE", "path.py:LINE-LINE", and the link to such a place on GitHub.
_PLACE = re.compile(r"(?P<path>[^\s:#]*[^\s:#/]\.py)(?::|#L)(?P<first>\d+)(?:[-–]L?(?P<last>\d+))?")
_LINK = re.compile(r"https?://\S*/blob/v?(?P<version>[^/\s]+)/(?P<place>\S+)")


def at(place: str) -> Symbol | None:
    """The innermost definition that holds a line ("path:line"), decorators included; None outside of all.

    Raises ValueError for what is no place of one indexed file.
    """
    path, first, _ = _read_place(place)
    matches = _files_ending_in(path)
    if len(matches) != 1:
        what = "fits none" if not matches else f"fits {', '.join(matches)}"
        raise ValueError(
            f"place: expected the end of one indexed file of vLLM {VERSION}, got {path!r}, which {what}"
        )
    return _innermost(matches[0], first)


def describe(place: str) -> str:
    """What stands in a place, as a sentence without its full stop. Raises ValueError as `at` does."""
    found = at(place)
    path, line, _ = _read_place(place)
    if found is None:
        length = files()[_files_ending_in(path)[0]]
        if not 1 <= line <= length:
            return f"{path} has {length} lines"
        return f"line {line} is in no class and no function"
    what = f"the {found.kind} {found.qualname}"
    if line == found.first:
        return f"line {line} is {what}"
    if line < found.first:
        return f"line {line} is a decorator of {what}"
    return f"line {line} is inside {what} (lines {found.first} to {found.last})"


def objection(place: str, name: str) -> str | None:
    """What is wrong with `place` ("path:line") as an answer to where `name` is defined; None if it is right.

    A near miss is told what it hit: "line 592 is the class FlashAttentionImpl; FlashAttentionImpl.forward starts at
    667". Right are the line of `class`, `def` or the assignment, or of a decorator of it, and the range to its last
    line; the path may be cut short. Raises ValueError when `name` is not the name of one definition.
    """
    target = where(name)
    try:
        path, first, last = _read_place(place)
    except ValueError as wrong:
        return str(wrong).removeprefix("place: ")
    matches = _files_ending_in(path)
    if target.path not in matches:
        if not matches:
            return f"vLLM {VERSION} has no file {path} among those of its attention code"
        hit = f": {describe(f'{matches[0]}:{first}')}" if len(matches) == 1 else ""
        return f"{target.qualname} is not in {path}{hit}"
    if not target.start <= first <= target.first:
        return f"{describe(f'{target.path}:{first}')}; {target.qualname} starts at {target.first}"
    if last not in (None, first, target.last):
        return f"{target.qualname} starts there and ends at {target.last}, not at {last}"
    return None


def callees(name: str) -> list[str]:
    """What a definition calls, in the order of the text, "module:qualname" each; torch's and others' are left out.

    Of a method ("...:AttentionImplBase.forward") the class is the one that the object is at least of: which method
    runs is then that class's or a subclass's.
    """
    return list(where(name).calls)


def callers(name: str) -> list[str]:
    """The definitions that call one, themselves or through a method that it overrides, as "module:qualname"."""
    target = where(name)
    return [each.name for each in symbols() if _calls(each, target)]


def route(start: str, to: str) -> list[str] | None:
    """A shortest call path from one definition to another, both included, as "module:qualname"; None if there is none."""
    first, last = where(start), where(to)
    came_from: dict[str, str | None] = {first.name: None}
    pending = [first]
    while pending:
        one = pending.pop(0)
        if one.name == last.name:
            found = [one.name]
            while (before := came_from[found[0]]) is not None:
                found.insert(0, before)
            return found
        for callee in one.calls:
            for reached in _reached(callee):
                if reached.name not in came_from:
                    came_from[reached.name] = one.name
                    pending.append(reached)
    return None


def broken_step(path: Sequence[str]) -> str | None:
    """What is wrong with a call path (names, each calling the next); None if every step is a call edge."""
    if isinstance(path, str) or not all(isinstance(name, str) for name in path) or len(path) < 2:
        return f"expected a list of at least two names, each calling the next, got {path!r}"
    try:
        symbols = [where(name) for name in path]
    except ValueError as wrong:
        return str(wrong).removeprefix("name: ")
    for caller, callee in pairwise(symbols):
        if _calls(caller, callee):
            continue
        between = route(caller.name, callee.name)
        said = f"{caller.qualname} does not call {callee.qualname}"
        if between and len(between) > 2:
            return (
                f"{said} itself: {len(between) - 2} step(s) are missing, first {between[1].partition(':')[2]}"
            )
        if _calls(callee, caller):
            return f"{said}: it is the other way round"
        return said
    return None


def _calls(caller: Symbol, callee: Symbol) -> bool:
    return any(_stands_for(called, callee) for called in caller.calls)


def _stands_for(called: str, symbol: Symbol) -> bool:
    """Whether a call edge may run a definition: itself, a class's __init__, or a subclass's method."""
    if called == symbol.name or f"{called}.__init__" == symbol.name:
        return True
    owner, _, method = called.rpartition(".")
    own, _, name = symbol.name.rpartition(".")
    return symbol.kind == "method" and method == name and derives(own, owner)


def _reached(called: str) -> list[Symbol]:
    name = called.rpartition(".")[2] if "." in called.partition(":")[2] else None
    methods = [
        s
        for s in symbols()
        if s.kind == "method" and s.qualname.endswith(f".{name}") and _stands_for(called, s)
    ]
    return methods or [by_name()[name] for name in (called, f"{called}.__init__") if name in by_name()]


def _innermost(path: str, line: int) -> Symbol | None:
    holding = [s for s in symbols() if s.path == path and s.start <= line <= s.last]
    return max(holding, key=lambda s: (s.start, s.qualname.count("."))) if holding else None


def _read_place(place: str) -> tuple[str, int, int | None]:
    """(path, first line, last line or None) of a place as people write it."""
    text = place.strip().strip("`") if isinstance(place, str) else ""
    if link := _LINK.fullmatch(text):
        if link["version"] != VERSION:
            raise ValueError(f"place: expected a link to v{VERSION}, got one to {link['version']!r}")
        text = link["place"]
    match = _PLACE.fullmatch(text)
    if match is None:
        raise ValueError(f'place: expected "file.py:line", got {place!r}')
    path = match["path"]
    installed = path.rfind("/vllm/")  # site-packages/vllm/v1/...
    return (
        path[installed + 1 :] if installed >= 0 else path,
        int(match["first"]),
        int(match["last"]) if match["last"] else None,
    )


def _files_ending_in(path: str) -> list[str]:
    parts = tuple(part for part in PurePosixPath(path).parts if part != ".")
    return [full for full in files() if PurePosixPath(full).parts[-len(parts) :] == parts]


def main(arguments: list[str]) -> int:
    """`python -m course.vllm.index NAME or FILE:LINE ...`."""
    status = 0
    for asked in arguments:
        try:
            said = [describe(asked)] if _PLACE.fullmatch(asked) else [str(each) for each in find(asked)]
        except ValueError as error:
            said, status = [str(error)], 1
        if not said:
            said, status = [f"the attention code of vLLM {VERSION} defines no {asked!r}"], 1
        print("\n".join(said))
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
