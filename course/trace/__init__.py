"""Run a callable and get its calls as a tree, with files and lines.

from course.trace import trace

traced = trace(kernels.paged_attention, query, key_cache, ..., packages=("kernels",))
traced                      the tree, as text or HTML
traced.result               what the callable returned
traced.calls()              every call, flat
traced.find("paged_decode") the calls of one function: arguments["query"].shape, returned, called_at
traced.edges()              {("kernels.attention:paged_attention", "kernels.contract:check_paged"), ...}
traced.path("_paged_decode_kernel")   from the root to the kernel's launch
traced.to_dict()            for a widget, or as JSON
"""

import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

from course.trace.tree import Call, Trace, Value

__all__ = ["Call", "Trace", "Value", "trace"]


def trace(
    function: Callable[..., Any], *args: Any, packages: Sequence[str] = ("kernels",), **kwargs: Any
) -> Trace:
    """`function(*args, **kwargs)`, and what it called in `packages`."""
    traced = Trace(tuple(packages))
    stack: list[tuple[FrameType, Call]] = []

    def hook(frame: FrameType, event: str, arg: Any) -> Any:
        module = frame.f_globals.get("__name__", "")
        if event == "call":
            if not any(module == name or module.startswith(name + ".") for name in packages):
                return None
            code = frame.f_code
            file = module.replace(".", "/") + ".py"
            at = f"{stack[-1][1].file}:{stack[-1][0].f_lineno}" if stack else None
            call = Call(module, code.co_qualname, file, code.co_firstlineno, at)
            names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
            call.arguments = {name: _value(frame.f_locals[name]) for name in names}
            (stack[-1][1].calls if stack else traced.roots).append(call)
            stack.append((frame, call))
            frame.f_trace_lines = False
            return hook
        if event == "return" and stack and stack[-1][0] is frame:
            stack.pop()[1].returned = _value(arg)
        return hook

    before = sys.gettrace()
    sys.settrace(hook)
    try:
        traced.result = function(*args, **kwargs)
    finally:
        sys.settrace(before)
    return traced


def _value(value: Any) -> Value:
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        dtype = str(value.dtype).removeprefix("torch.")
        return Value(f"{dtype} {list(value.shape)}", tuple(value.shape), dtype)
    return Value(repr(value)[:40])
