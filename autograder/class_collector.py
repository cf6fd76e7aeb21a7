"""Gathers misconceptions and right variants of an answer that consists of classes, as edits of the solution's text.

The classes of one answer name each other, so they are made together, from one text, in a namespace of their own.
"""

from __future__ import annotations

import ast
import inspect
import linecache
from types import ModuleType
from typing import Any

from autograder.registry import Misconception, RightVariant

_texts: dict[Any, str] = {}


class ClassCollector:
    """`parts`: the names of the classes that are handed over; what stands before one of them in `module` belongs to it."""

    def __init__(self, module: ModuleType, parts: tuple[str, ...]) -> None:
        self._parts = parts
        self._text = inspect.getsource(module)
        self._misconceptions: list[Misconception] = []
        self._right_variants: list[RightVariant] = []
        self.solution = self._made("solution", self._text)

    def edit(self, name: str, message: str, *lines: tuple[str, str]) -> None:
        """The misconception with, for each (right, wrong) of `lines`, the wrong text in place of the right.

        Raises ValueError when the right text does not stand exactly once in the solution.
        """
        self._misconceptions.append(Misconception(name, message, self._edited(name, lines)))

    def right(self, name: str, *lines: tuple[str, str]) -> None:
        """A right answer by another road, given in the same way."""
        self._right_variants.append(RightVariant(name, self._edited(name, lines)))

    def body(self, cls: str, method: str) -> str:
        """The text of a method's body, to be replaced as a whole."""
        node = next(n for n in self._classes() if n.name == cls)
        function = next(n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == method)
        return "\n".join(self._text.splitlines()[function.body[0].lineno - 1 : function.end_lineno])

    def whole(self, cls: str) -> str:
        """The text of a class, to be replaced as a whole."""
        node = next(n for n in self._classes() if n.name == cls)
        return "\n".join(self._text.splitlines()[node.lineno - 1 : node.end_lineno])

    @property
    def misconceptions(self) -> tuple[Misconception, ...]:
        return tuple(self._misconceptions)

    @property
    def right_variants(self) -> tuple[RightVariant, ...]:
        return tuple(self._right_variants)

    def _classes(self) -> list[ast.ClassDef]:
        return [node for node in ast.parse(self._text).body if isinstance(node, ast.ClassDef)]

    def _edited(self, name: str, lines: tuple[tuple[str, str], ...]) -> dict[str, Any]:
        text = self._text
        for old, new in lines:
            if text.count(old) != 1:
                raise ValueError(
                    f"{name}: expected exactly once in the solution, got {text.count(old)} times: {old!r}"
                )
            text = text.replace(old, new)
        return self._made(name, text)

    def _made(self, name: str, text: str) -> dict[str, Any]:
        filename = f"<classes: {name}>"
        linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
        # A module's name of its own: it tells whose a class is.
        namespace: dict[str, Any] = {"__name__": f"answer.{name}"}
        exec(compile(text, filename, "exec", dont_inherit=True), namespace)
        made = {part: namespace[part] for part in self._parts}
        for part, own in _split(text, self._parts).items():
            _texts[made[part]] = own
        return made


def text_of_class(made: Any) -> str | None:
    """The text of a class that a ClassCollector has made, with the imports that it needs; None for any other object."""
    return _texts.get(made) if isinstance(made, type) else None


def _split(text: str, parts: tuple[str, ...]) -> dict[str, str]:
    """The text of each part: the imports, what stands before it and after the part before, and itself."""
    lines = text.splitlines()
    imports: list[str] = []
    pending: list[str] = []
    found = {}
    for node in ast.parse(text).body:
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
        own = "\n".join(lines[first - 1 : node.end_lineno])
        if isinstance(node, ast.Import | ast.ImportFrom):
            imports.append(own)
        elif isinstance(node, ast.ClassDef) and node.name in parts:
            found[node.name] = "\n\n\n".join(["\n".join(imports), *pending, own])
            pending = []
        elif not isinstance(node, ast.Expr):
            pending.append(own)
    return found
