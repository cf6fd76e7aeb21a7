"""Run a callable and get its calls as a tree, with files and lines.

    from course.trace import trace

    traced = trace(kernels.paged_attention, query, key_cache, ..., packages=("kernels",))
    traced                        the tree, as HTML in a notebook, as text elsewhere
    traced.result                 what the callable returned
    traced.calls()                every call, flat
    traced.find("paged_decode")   the calls of one function: .arguments["query"].shape, .returned, .called_at
    traced.edges()                {("kernels.attention:paged_attention", "kernels.contract:check_paged"), ...}
    traced.path("_paged_decode_kernel")   from the root to the kernel's launch
    traced.without("kernels.contract")    the same without what these modules do
    traced.to_dict()              lists, dicts, strings and numbers, for a widget

A function is named "module:qualname". Recorded are the Python functions of the chosen packages, and the launches of
their Triton kernels, one call each; what other packages do in between is left out, so that a function of ours that
torch calls for us (a module's `forward`) hangs below the function of ours that called torch.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from course.trace.hooks import watching
from course.trace.launches import observed
from course.trace.recorder import Recorder
from course.trace.tree import Call, Trace, Value

__all__ = ["Call", "Trace", "Value", "trace"]

_running = threading.local()


def trace(
    function: Callable[..., Any], /, *args: Any, packages: Sequence[str] = ("kernels",), **kwargs: Any
) -> Trace:
    """`function(*args, **kwargs)` is run, and what it calls in `packages` on this thread is recorded.

    packages: names of packages or modules; "__main__" is the notebook itself. The trace holds words about the
    arguments and returned values, no tensors but those in `result`. An exception goes through, with the trace up to
    it in its attribute `trace`. Raises ValueError for a bad argument, RuntimeError inside another trace.
    """
    if not callable(function):
        raise ValueError(f"function: expected a callable, got {type(function).__name__}")
    if (
        isinstance(packages, str)
        or not packages
        or not all(isinstance(name, str) and name for name in packages)
    ):
        raise ValueError(f'packages: expected names of packages, as in ("kernels",), got {packages!r}')
    if getattr(_running, "trace", False):
        raise RuntimeError("a trace is already being made on this thread; traces cannot be nested")
    traced = Trace(tuple(packages))
    recorder = Recorder(traced)
    _running.trace = True
    try:
        with observed(recorder), watching(recorder):
            traced.result = function(*args, **kwargs)
    except BaseException as error:
        error.trace = traced  # type: ignore[attr-defined]
        raise
    finally:
        recorder.finish()
        _running.trace = False
    return traced
