"""A launcher whose kernel is written wrong in one place, as `collect.edited` does it for functions in torch."""

from __future__ import annotations

import inspect
import linecache
import types
from collections.abc import Callable
from typing import Any


def with_kernel(launcher: Callable[..., Any], kernel: Any, name: str, *lines: tuple[str, str]) -> Any:
    """`launcher` launching `kernel` with, for each (right, wrong) of `lines`, the wrong text where it has the right.

    Raises ValueError when the right text does not stand exactly once in the kernel.
    """
    source = inspect.getsource(kernel.fn)
    for right, wrong in lines:
        if source.count(right) != 1:
            raise ValueError(f"{name}: expected exactly once in {kernel.fn.__name__}: {right!r}")
        source = source.replace(right, wrong)
    filename = f"<{kernel.fn.__name__}: {name}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    namespace = dict(kernel.fn.__globals__)
    exec(compile(source, filename, "exec"), namespace)
    edited = namespace[kernel.fn.__name__]
    scope = {**launcher.__globals__, kernel.fn.__name__: edited}
    return types.FunctionType(launcher.__code__, scope, launcher.__name__)
