"""Gathers one module's misconceptions and right variants."""

from __future__ import annotations

import inspect
import linecache
from collections.abc import Callable
from typing import Any

from autograder.registry import Misconception, RightVariant


class Collector:
    """Gathers misconceptions about some solution functions, and right variants of them.

    Most mistakes are one line of the solution written wrong, so most are given as edits of it; the others, and right
    answers by another road, are functions of their own. Functions under one name belong together.
    """

    def __init__(self, *solution: Callable[..., Any]) -> None:
        self._solution = {function.__name__: function for function in solution}
        self._wrong: dict[str, tuple[str, dict[str, Any]]] = {}
        self._right: dict[str, dict[str, Any]] = {}

    def edit(self, name: str, message: str, *lines: tuple[str, str], part: str | None = None) -> None:
        """The misconception that has, for each (right, wrong) of `lines`, the wrong text where the solution has the right.

        part: whose text is meant, where the solution has several functions (otherwise the first).
        Raises ValueError when the right text does not stand exactly once in the solution.
        """
        part = part or next(iter(self._solution))
        self._wrong.setdefault(name, (message, {}))[1][part] = edited(self._solution[part], name, lines)

    def misconception(self, name: str, message: str, *, part: str) -> Callable[[Any], Any]:
        """Registers a function as the wrong `part` of the misconception `name`."""

        def register(function: Any) -> Any:
            self._wrong.setdefault(name, (message, {}))[1][part] = function
            return function

        return register

    def right(self, name: str, *, part: str) -> Callable[[Any], Any]:
        """Registers a function as the `part` of the right variant `name`."""

        def register(function: Any) -> Any:
            self._right.setdefault(name, {})[part] = function
            return function

        return register

    @property
    def misconceptions(self) -> tuple[Misconception, ...]:
        return tuple(Misconception(name, message, parts) for name, (message, parts) in self._wrong.items())

    @property
    def right_variants(self) -> tuple[RightVariant, ...]:
        return tuple(RightVariant(name, parts) for name, parts in self._right.items())


def edited(function: Callable[..., Any], name: str, lines: tuple[tuple[str, str], ...]) -> Callable[..., Any]:
    """`function` with some of its text replaced. `inspect.getsource` and tracebacks show the edited text."""
    source = inspect.getsource(function)
    for right, wrong in lines:
        if source.count(right) != 1:
            raise ValueError(f"{name}: expected exactly once in {function.__name__}: {right!r}")
        source = source.replace(right, wrong)
    filename = f"<{function.__name__}: {name}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    namespace = dict(function.__globals__)
    exec(compile(source, filename, "exec"), namespace)
    result: Callable[..., Any] = namespace[function.__name__]
    return result
