"""One step of our own layer, recorded: which function called which, as it happened and not as the text says."""

from __future__ import annotations

import functools

from course.one_step import SmallAttention, run_step
from course.trace import Trace, trace

PACKAGES = ("kernels", "course.one_step")
WRITE, READ = "reshape_and_cache", "paged_attention"


@functools.cache
def recorded() -> Trace:
    """`course.one_step.run_step` over paged torch, on whatever device this is. The same one step each time."""
    return trace(run_step, SmallAttention("PAGED_TORCH"), packages=PACKAGES)


def path(to: str) -> list[str]:
    """The recorded call path from `Attention.forward` to a function, as "module:qualname"."""
    whole = recorded().path(to)
    return whole[next(i for i, name in enumerate(whole) if name.endswith(":Attention.forward")) :]
