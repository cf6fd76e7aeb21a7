"""What makes the lessons alive: plots, vLLM's own source and rules, and the `course` command.

    from course import plots, vllm_rules

Importing `course` is cheap: each of its modules is loaded when it is asked for.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from course import plots, vllm_rules, vllm_source

__all__ = ["plots", "vllm_rules", "vllm_source"]


def __getattr__(name: str) -> ModuleType:
    """Import a public module on first use."""
    if name in __all__:
        return import_module(f"course.{name}")
    raise AttributeError(f"module 'course' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
