"""What makes the lessons alive: plots, a tracer, vLLM's own source and rules, and the `course` command.

    from course import plots, vllm_rules
    from course.trace import trace

Importing `course` is cheap: each of its modules is loaded when it is asked for.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from course import plots, trace, vllm_index, vllm_rules, vllm_show, vllm_source

__all__ = ["plots", "trace", "vllm_index", "vllm_rules", "vllm_show", "vllm_source"]


def __getattr__(name: str) -> ModuleType:
    """Import a public module on first use."""
    if name in __all__:
        return import_module(f"course.{name}")
    raise AttributeError(f"module 'course' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
