"""Mistakes of kernels that are made in torch: a mistake is known by its numbers, and torch is there sooner than the interpreter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_KNOWN: set[Any] = set()


def stand_in(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of its own that does what `function` does, and is known to launch no kernel."""

    def in_torch(*arguments: Any) -> Any:
        return function(*arguments)

    _KNOWN.add(in_torch)
    return in_torch


def is_stand_in(function: Any) -> bool:
    return function in _KNOWN
