"""What a trace holds: calls in a tree, as text about the values, never the values themselves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Value:
    """What an argument or a returned value was at that moment, in a few words.

    text: "float32 [3, 8, 64]", "0.125", "PagedMetadata". shape, dtype: of a tensor, else None.
    """

    text: str
    shape: tuple[int, ...] | None = None
    dtype: str | None = None

    def __str__(self) -> str:
        return self.text


@dataclass
class Call:
    """One call of a function of the traced packages.

    kind: "call", "generator" (or a coroutine: one call, however often it is resumed) or "launch" (of a kernel).
    file: from the folder above the top package, "kernels/decode.py". line: where the function's `def` stands.
    called_at: "file:line" in the recorded function that it was called from; None of a root.
    arguments: as they were when it began, by name, "*args" and "**kwargs" so. returned: None of a launch, and of what
    did not return. raised: the name of the exception that left it. grid: of a launch.
    """

    module: str
    qualname: str
    file: str
    line: int
    called_at: str | None = None
    kind: str = "call"
    arguments: dict[str, Value] = field(default_factory=dict)
    returned: Value | None = None
    raised: str | None = None
    grid: str | None = None
    calls: list[Call] = field(default_factory=list)

    @property
    def name(self) -> str:
        """ "module:qualname"."""
        return f"{self.module}:{self.qualname}"

    def walk(self) -> Iterator[Call]:
        """This call and all below it, in the order in which they began."""
        yield self
        for call in self.calls:
            yield from call.walk()


@dataclass(repr=False)
class Trace:
    """The calls of one run. result: what the callable returned. roots: the outermost calls of the traced packages."""

    packages: tuple[str, ...]
    roots: list[Call] = field(default_factory=list)
    result: Any = None

    def calls(self) -> list[Call]:
        """Every call, in the order in which they began."""
        return [call for root in self.roots for call in root.walk()]

    def find(self, to: str) -> list[Call]:
        """The calls of a function: "module:qualname", or the end of one ("decode:paged_decode", "Attention.forward")."""
        return [call for call in self.calls() if _names(to, call)]

    def edges(self) -> set[tuple[str, str]]:
        """(caller, callee), each as "module:qualname"."""
        return {(caller.name, callee.name) for caller in self.calls() for callee in caller.calls}

    def path(self, to: str) -> list[str]:
        """The call path from the root to the first call of a function, both included, as "module:qualname"."""
        for root in self.roots:
            if found := _path(root, to):
                return [call.name for call in found]
        called = ", ".join(sorted({call.name for call in self.calls()})) or "nothing"
        raise ValueError(f"to: expected a function that was called, got {to!r}; called were: {called}")

    def without(self, *modules: str) -> Trace:
        """The same trace, the calls of some modules or packages left out; what they called moves up to their caller."""

        def kept(calls: list[Call]) -> list[Call]:
            found: list[Call] = []
            for call in calls:
                below = kept(call.calls)
                left_out = any(f"{call.module}.".startswith(f"{module}.") for module in modules)
                found += below if left_out else [replace(call, calls=below)]
            return found

        return Trace(self.packages, kept(self.roots), self.result)

    def __repr__(self) -> str:
        from course.trace.render import text

        return text(self)

    def _repr_html_(self) -> str:
        from course.trace.render import html

        return html(self)

    def to_dict(self) -> dict[str, Any]:
        """Lists, dicts, strings and numbers only."""
        return {"packages": list(self.packages), "calls": [asdict(root) for root in self.roots]}


def _path(call: Call, to: str) -> list[Call] | None:
    if _names(to, call):
        return [call]
    for below in call.calls:
        if found := _path(below, to):
            return [call, *found]
    return None


def _names(to: str, call: Call) -> bool:
    """Whether `to` is the call's name, or the end of its qualified name after the end of its module."""
    module, _, qualname = to.rpartition(":")
    if not qualname or not f".{call.qualname}".endswith(f".{qualname}"):
        return False
    return not module or f".{call.module}".endswith(f".{module}")
