"""What a step's forward pass needs and a model does not pass along: metadata, slots, layers by name.

A model hands query, key and value to its attention layers and nothing else. Whoever runs the model puts the rest here
for the time of one step; layers take it out. As in vLLM there is one context for the process,
`vllm/forward_context.py:129` (`ForwardContext`); vLLM's carries data parallelism, microbatches and CUDA graphs' modes
besides.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["ForwardContext", "get_forward_context", "is_forward_context_available", "set_forward_context"]


@dataclass
class ForwardContext:
    """no_compile_layers: the model's attention layers by name. attn_metadata, slot_mapping: for each layer's name."""

    no_compile_layers: Mapping[str, torch.nn.Module]
    attn_metadata: Mapping[str, Any]
    slot_mapping: Mapping[str, torch.Tensor]


_forward_context: ForwardContext | None = None


def get_forward_context() -> ForwardContext:
    """The context of the step that is running. Raises RuntimeError outside a step."""
    if _forward_context is None:
        raise RuntimeError(
            "Forward context is not set. Please use `set_forward_context` to set the forward context."
        )
    return _forward_context


def is_forward_context_available() -> bool:
    return _forward_context is not None


@contextmanager
def set_forward_context(
    attn_metadata: Mapping[str, Any],
    layers: Mapping[str, torch.nn.Module],
    *,
    slot_mapping: Mapping[str, torch.Tensor] | None = None,
) -> Iterator[ForwardContext]:
    """Set the context for the forward pass inside the `with` block.

    attn_metadata: by layer's name, what the builder made. layers: by name, see `kernels.backends.attention_layers`;
    vLLM finds them in its configuration, `vllm/forward_context.py:221` (`static_forward_context`).
    slot_mapping: by layer's name, [num_tokens] int64; without it nothing is written to the cache.
    """
    global _forward_context
    previous = _forward_context
    _forward_context = ForwardContext(layers, attn_metadata, slot_mapping or {})
    try:
        yield _forward_context
    finally:
        _forward_context = previous
