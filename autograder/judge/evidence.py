"""Counts, inside the worker, what a person may want to know of a test: Triton kernels launched, torch's own attention called.

The worker is the learner's. Whoever wants to can launch a kernel that does nothing, undo these hooks, call what lies below
torch's function, or write numbers of their own to the judge. So these counts decide no points by themselves; they point a
person to submissions that deserve a look, and say to somebody honest that their kernel was never used.
"""

from __future__ import annotations

import functools
import sys
from collections import Counter
from typing import Any

MAX_NAMES = 20
OWN = "__main__"  # the module of what a learner's cells define

_launched: Counter[str] = Counter()
_attention_calls = 0


def watch() -> None:
    """Hooks into triton and torch where they are loaded. To be called once, before learner's code runs."""
    if "triton" in sys.modules:
        from triton.runtime.interpreter import InterpretedFunction
        from triton.runtime.jit import JITFunction

        for kind in (JITFunction, InterpretedFunction):
            kind.run = _counting_launches(kind.run)
    if "torch" in sys.modules:
        from torch.nn import functional

        functional.scaled_dot_product_attention = _counting_calls(functional.scaled_dot_product_attention)


def take() -> dict[str, Any]:
    """What was counted since the last time: {"launches": {kernel: number}, "attention_calls": number}.

    A kernel of the learner's is called by its name alone, one of a library by its module as well.
    """
    global _attention_calls
    found = {"launches": dict(_launched.most_common(MAX_NAMES)), "attention_calls": _attention_calls}
    _launched.clear()
    _attention_calls = 0
    return found


def _counting_launches(run: Any) -> Any:
    @functools.wraps(run)
    def counted(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        result = run(self, *args, grid=grid, warmup=warmup, **kwargs)
        if not warmup:
            module, name = str(self.fn.__module__), str(self.fn.__name__)
            _launched[(name if module == OWN else f"{module}.{name}")[:100]] += 1
        return result

    return counted


def _counting_calls(function: Any) -> Any:
    @functools.wraps(function)
    def counted(*args: Any, **kwargs: Any) -> Any:
        global _attention_calls
        _attention_calls += 1
        return function(*args, **kwargs)

    return counted
