"""Drawings of the way from the layer through the impl to the kernel that are right, one for each backend.

A drawing is two chains of four functions, one to the write and one to the read. vLLM's are checked against the call
edges of its syntax tree, our own against a recorded run: what was recorded is what is right.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

from autograder.checks import recorded_run
from autograder.checks.q6_paths import START, THROUGH
from course.vllm import index as vllm_index

Edge = tuple[str, str]
# What each edge of a chain leads from and to, for the write and for the read.
STEPS = (
    "write: from the layer to its operator",
    "write: from the operator to the impl",
    "write: from the impl to the kernel",
    "read: from the layer to its operator",
    "read: from the operator to the impl",
    "read: from the impl to the kernel",
)
_TRITON = "vllm.v1.attention.backends.triton_attn:TritonAttentionImpl"
_TRITON_OPS = "vllm.v1.attention.ops"
_TRITON_THROUGH = (
    (
        f"{_TRITON}.do_kv_cache_update",
        f"{_TRITON_OPS}.triton_reshape_and_cache_flash:triton_reshape_and_cache_flash",
    ),
    (f"{_TRITON}.forward", f"{_TRITON_OPS}.triton_unified_attention:unified_attention"),
)


@dataclass(frozen=True)
class Drawing:
    """edges: the six that are asked for, in the order of STEPS, between functions as "module:qualname"."""

    name: str
    edges: tuple[Edge, ...]

    def nodes(self) -> set[str]:
        return {node for edge in self.edges for node in edge}


@functools.cache
def of_vllm() -> tuple[Drawing, ...]:
    """FLASH_ATTN's and TRITON_ATTN's."""
    return (
        _drawing("FLASH_ATTN", tuple(THROUGH.values())),
        _drawing("TRITON_ATTN", _TRITON_THROUGH),
    )


def _drawing(name: str, through: tuple[tuple[str, str], ...]) -> Drawing:
    edges: list[Edge] = []
    for method, end in through:
        chain = [*(vllm_index.route(START, method) or []), end]
        edges += itertools.pairwise(chain)
    return Drawing(name, tuple(edges))


@functools.cache
def of_ours(backend: str) -> Drawing:
    """One of our own backends', as recorded."""
    edges: list[Edge] = []
    for end in recorded_run.ENDS[backend]:
        chain = recorded_run.path(end, backend)
        edges += list(itertools.pairwise(chain))[:3]
    return Drawing(backend, tuple(edges))


def belongs(node: str, name: str) -> bool:
    """Whether a node of a learner's drawing is this function, or the class whose method it is."""
    return node == name or name.startswith(f"{node}.")
