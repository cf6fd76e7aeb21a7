"""What makes the lessons alive: plots, a tracer, recordings of kernels, vLLM's own source and rules, and the `course` command.

    import course
    from course import plots
    from course.trace import trace
    from course.vllm import rules

    course.record(paged_decode, query, key_cache, ...)   # what the kernel loads and stores: course/recording/
    course.softmax_steps(query, key_cache, ...)          # (m, l, acc) after each block: course/online_softmax.py
    course.show(block_table, slot_mapping, seq_lens, ...)  # your metadata as a picture: course/widgets/block_table/

Importing `course` is cheap: each of its modules is loaded when it is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from course import plots, recording, roofline, trace, vllm
    from course.online_softmax import softmax_steps
    from course.recording import record
    from course.widgets.block_table.widget import show

__all__ = [
    "plots",
    "record",
    "recording",
    "roofline",
    "show",
    "softmax_steps",
    "trace",
    "vllm",
]

# Functions that a notebook calls as `course.NAME`, and the module each is in.
_FUNCTIONS = {
    "record": "course.recording",
    "show": "course.widgets.block_table.widget",
    "softmax_steps": "course.online_softmax",
}


def __getattr__(name: str) -> Any:
    """Import a public module or function on first use."""
    if name in _FUNCTIONS:
        return getattr(import_module(_FUNCTIONS[name]), name)
    if name in __all__:
        return import_module(f"course.{name}")
    raise AttributeError(f"module 'course' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
