"""A serving benchmark that a plan drives: traffic, continuous batching over a block pool, figures with their spread.

    from course import serving

    result = serving.run(plan)      # plan.py says what a plan holds
    serving.capacity(plan)          # requests a second that each contender serves at most
    serving.picture(result)         # steady state, and the effect run by run

The scheduler is the one that our own engine runs on (`kernels.backends.scheduler`). Attention's times are an H200's, out of
the benchmark's results (kernel_times.py), unless `run(plan, source="gpu")` times this machine's; the rest of the model is a
stated constant (step_times.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from course.serving.plan import PlanError, read_plan
from course.serving.result import Result
from course.serving.running import capacity, run

if TYPE_CHECKING:
    from course.serving.drawing import picture

__all__ = ["PlanError", "Result", "capacity", "picture", "read_plan", "run"]


def __getattr__(name: str) -> Any:
    """The picture loads matplotlib, which grading does without."""
    if name == "picture":
        from importlib import import_module

        return import_module("course.serving.drawing").picture
    raise AttributeError(f"module 'course.serving' has no attribute {name!r}")
