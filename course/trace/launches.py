"""Launches of Triton and Gluon kernels, on a GPU or in Triton's interpreter, as single calls of a trace.

`kernel[grid](...)` ends in `JITFunction.run`, or in the interpreter in `InterpretedFunction.run`. These two methods,
which Triton does not document, are replaced while a trace is being made; tests/course/test_trace_launches.py fails
when Triton changes them.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from course.trace.recorder import Recorder

_lock = threading.Lock()
_recorders = threading.local()
_observed: list[tuple[type, Callable[..., Any]]] = []  # class and its own `run`, while anybody observes
_observers = 0


@contextmanager
def observed(recorder: Recorder) -> Iterator[None]:
    """While it is open, kernels of wanted modules that this thread launches are reported to the recorder."""
    global _observers
    classes = _classes()
    with _lock:
        _observers += 1
        if _observers == 1:
            for one in classes:
                _observed.append((one, one.run))
                one.run = _reporting(one.run)
    _recorders.active = recorder
    try:
        yield
    finally:
        _recorders.active = None
        with _lock:
            _observers -= 1
            if _observers == 0:
                for one, run in _observed:
                    one.run = run  # type: ignore[attr-defined]
                _observed.clear()


def _classes() -> list[Any]:
    """Triton's two, unless nobody here can launch: who traces other things is not made to wait for Triton.

    `kernels` loads Triton late, perhaps only in the run that is traced; it has chosen the interpreter or the GPU before.
    """
    if "triton" not in sys.modules and "kernels" not in sys.modules:
        return []
    try:
        from triton.runtime.interpreter import InterpretedFunction
        from triton.runtime.jit import JITFunction
    except ImportError:
        return []
    return [JITFunction, InterpretedFunction]


def _reporting(run: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(run)
    def reporting(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        recorder = getattr(_recorders, "active", None)
        function = self.fn
        if recorder is None or warmup or not recorder.wants(function.__module__):
            return run(self, *args, grid=grid, warmup=warmup, **kwargs)
        code = function.__code__
        names = code.co_varnames[: code.co_argcount]
        # num_warps and the like are options of the launch, not arguments of the kernel.
        arguments = dict(zip(names, args, strict=False)) | {n: kwargs[n] for n in names if n in kwargs}
        with recorder.launch(function, arguments, grid):
            return run(self, *args, grid=grid, warmup=warmup, **kwargs)

    return reporting
