"""One step of our own layer, recorded: which function called which, as it happened and not as the text says."""

from __future__ import annotations

import functools

from course.one_step import SmallAttention, run_step
from course.trace import Trace, trace

PACKAGES = ("kernels", "course.one_step")
# The functions that touch the cache, by backend: the one that writes and the one that reads.
ENDS = {
    "PAGED_TORCH": ("kernels.reference:reshape_and_cache", "kernels.reference:paged_attention"),
    "TRITON_ATTN": ("kernels.kv_cache:reshape_and_cache", "kernels.prefill:paged_prefill"),
}


@functools.cache
def recorded(backend: str = "PAGED_TORCH") -> Trace:
    """`course.one_step.run_step` over a backend, on whatever device this is. The same one step each time."""
    return trace(run_step, SmallAttention(backend), packages=PACKAGES)


def path(to: str, backend: str = "PAGED_TORCH") -> list[str]:
    """The recorded call path from `Attention.forward` to a function, as "module:qualname"."""
    whole = recorded(backend).path(to)
    return whole[next(i for i, name in enumerate(whole) if name.endswith(":Attention.forward")) :]
