"""What a Triton kernel reads and writes: `course.record` runs it in Triton's interpreter and keeps every access.

    with course.record(key_cache=key_cache, value_cache=value_cache, query=query) as recording:
        paged_attention_triton(query, key_cache, value_cache, block_table, seq_lens, scale)
    recording                                  # a table: bytes per tensor, how often each was read
    recording.reads("key_cache")               # [num_blocks, block_size, num_kv_heads, head_size]: times read
    recording.trespasses(block_table, seq_lens)  # reads of slots that a request does not own

session.py starts and stops, hook.py is the place that knows Triton's interpreter, compiled.py brings kernels there that
are compiled otherwise (on a machine with a GPU), memory.py decides what an address is, collect.py writes down, model.py,
access.py and columns.py are what is kept, torch_ops.py watches torch, summary.py and paged.py compute, render.py shows.
Nothing here loads Triton or torch before a recording starts.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from course.recording.access import Access, Line
    from course.recording.memory import OutOfBounds
    from course.recording.model import Recording
    from course.recording.paged import Trespass, least_bytes
    from course.recording.session import record

__all__ = ["Access", "Line", "OutOfBounds", "Recording", "Trespass", "least_bytes", "record"]

_HOME = {
    "Access": "access",
    "Line": "access",
    "OutOfBounds": "memory",
    "Recording": "model",
    "Trespass": "paged",
    "least_bytes": "paged",
    "record": "session",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name in _HOME:
        return getattr(import_module(f"course.recording.{_HOME[name]}"), name)
    raise AttributeError(f"module 'course.recording' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
