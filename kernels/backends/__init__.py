"""Attention backends at a size that can be read in one sitting, with vLLM 0.22.1's roles and names.

Read in this order: layer.py (what a model sees), forward_context.py (how the step's metadata gets there), backend.py
(the three classes of a backend), dense_torch.py (the simplest), selector.py and registry.py (who chooses), then the
backends with kernels. conformance/ is a suite for any backend, tiny_model.py and engine.py a model that runs on each.

Nothing here loads Triton before a backend that uses it computes.
"""

from kernels.backends.backend import (
    AttentionBackend,
    AttentionCGSupport,
    AttentionImpl,
    AttentionMetadataBuilder,
    CommonAttentionMetadata,
    MLAAttentionImpl,
    MultipleOf,
)
from kernels.backends.forward_context import ForwardContext, get_forward_context, set_forward_context
from kernels.backends.kv_cache_interface import AttentionSpec
from kernels.backends.layer import (
    Attention,
    attention_layers,
    unified_attention_with_output,
    unified_kv_cache_update,
)
from kernels.backends.mla_layer import MLAAttention
from kernels.backends.platforms import DeviceCapability, get_device_capability
from kernels.backends.registry import AttentionBackendEnum, register_backend
from kernels.backends.selector import (
    AttentionSelectorConfig,
    explain_attn_backend,
    get_attn_backend,
    get_valid_backends,
)

__all__ = [
    "Attention",
    "AttentionBackend",
    "AttentionBackendEnum",
    "AttentionCGSupport",
    "AttentionImpl",
    "AttentionMetadataBuilder",
    "AttentionSelectorConfig",
    "AttentionSpec",
    "CommonAttentionMetadata",
    "DeviceCapability",
    "ForwardContext",
    "MLAAttention",
    "MLAAttentionImpl",
    "MultipleOf",
    "attention_layers",
    "explain_attn_backend",
    "get_attn_backend",
    "get_device_capability",
    "get_forward_context",
    "get_valid_backends",
    "register_backend",
    "set_forward_context",
    "unified_attention_with_output",
    "unified_kv_cache_update",
]
