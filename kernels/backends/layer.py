"""The attention layer as a model sees it. It knows no kernel: it finds the step's context and calls its impl.

    Attention.forward(query, key, value)
        unified_kv_cache_update         -> impl.do_kv_cache_update    writes, by slot_mapping
        unified_attention_with_output   -> impl.forward               reads, by the metadata's block table

The division is vLLM's, `vllm/model_executor/layers/attention/attention.py:437` (`Attention.forward`). There the two
functions are registered as custom ops, so that torch.compile leaves them alone, and a dummy tensor goes from the first
to the second to keep their order. The layer for latents is in mla_layer.py.
"""

from typing import Any

import torch

from kernels import runtime
from kernels.backends.backend import AttentionBackend, AttentionImpl
from kernels.backends.forward_context import get_forward_context
from kernels.backends.kv_cache_interface import AttentionSpec, kv_cache_torch_dtype
from kernels.backends.selector import get_attn_backend

__all__ = [
    "Attention",
    "attention_layers",
    "get_attention_context",
    "unified_attention_with_output",
    "unified_kv_cache_update",
]


class Attention(torch.nn.Module):
    """Attention with a paged KV cache, over whatever backend was chosen when the layer was made.

    kv_cache: one layer's cache, bound by whoever allocates it; empty until then.
    layer_name: under which the forward context has this layer, its metadata and its slots.
    _k_scale, _v_scale: what an fp8 cache's numbers are multiplied with; float32 of one element.
    """

    def __init__(
        self,
        num_heads: int,
        head_size: int,
        scale: float,
        num_kv_heads: int | None = None,
        alibi_slopes: list[float] | None = None,
        logits_soft_cap: float | None = None,
        per_layer_sliding_window: int | None = None,
        prefix: str = "",
        attn_backend: type[AttentionBackend] | None = None,
        *,
        dtype: torch.dtype | None = None,
        kv_cache_dtype: str = "auto",
        device: torch.device | str | None = None,
        **extra_impl_args: Any,
    ) -> None:
        """prefix: the layer's name. attn_backend: a backend's class; None asks the selector.

        dtype, kv_cache_dtype, device: of the model and its cache. vLLM takes them from its configuration.
        extra_impl_args: passed on to the impl, `sinks` for one.
        Raises ValueError for head counts that do not fit, or when no backend is valid.
        """
        super().__init__()
        num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        if num_kv_heads < 1 or num_heads % num_kv_heads:
            raise ValueError(
                f"num_heads: expected a multiple of num_kv_heads={num_kv_heads}, got {num_heads}"
            )
        self.num_heads = num_heads
        self.head_size = head_size
        self.num_kv_heads = num_kv_heads
        self.sliding_window = per_layer_sliding_window
        self.layer_name = prefix
        self.dtype = torch.get_default_dtype() if dtype is None else dtype
        self.kv_cache_dtype = kv_cache_dtype
        self.kv_cache_torch_dtype = kv_cache_torch_dtype(kv_cache_dtype, self.dtype)
        device = torch.device(runtime.device() if device is None else device)

        if attn_backend is None:
            attn_backend = get_attn_backend(
                head_size,
                self.dtype,
                kv_cache_dtype,
                has_sink=extra_impl_args.get("sinks") is not None,
                device=device,
            )
        if attn_backend.is_mla():
            raise ValueError(
                f"attn_backend: expected a backend that is not for latents, got {attn_backend.get_name()}"
            )
        self.attn_backend = attn_backend
        impl_cls: type[Any] = attn_backend.get_impl_cls()
        self.impl: AttentionImpl = impl_cls(
            num_heads,
            head_size,
            scale,
            num_kv_heads,
            alibi_slopes,
            per_layer_sliding_window,
            kv_cache_dtype,
            logits_soft_cap,
            **extra_impl_args,
        )
        self.kv_cache = torch.tensor([])
        self._k_scale = torch.ones(1, dtype=torch.float32, device=device)
        self._v_scale = torch.ones(1, dtype=torch.float32, device=device)

    def forward(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Attention of this step's tokens. Returns [num_tokens, num_heads * head_size].

        query: [num_tokens, num_heads * head_size]; key, value: [num_tokens, num_kv_heads * head_size], or the same
        with heads in a dimension of their own. No block table, no slot, no length: see the forward context.
        Raises ValueError for other shapes, RuntimeError outside a step.
        """
        query = _split_heads("query", query, self.num_heads, self.head_size)
        key = _split_heads("key", key, self.num_kv_heads, self.head_size)
        value = _split_heads("value", value, self.num_kv_heads, self.head_size)
        output = torch.empty_like(query, memory_format=torch.contiguous_format)
        if not self.attn_backend.forward_includes_kv_cache_update:
            unified_kv_cache_update(key, value, self.layer_name)
        unified_attention_with_output(query, key, value, output, self.layer_name)
        return output.flatten(1)

    def get_attn_backend(self) -> type[AttentionBackend]:
        return self.attn_backend

    def get_kv_cache_spec(self, block_size: int) -> AttentionSpec:
        """What this layer's cache looks like, for whoever allocates it and makes a builder."""
        return AttentionSpec(block_size, self.num_kv_heads, self.head_size, self.kv_cache_torch_dtype)

    def extra_repr(self) -> str:
        return (
            f"head_size={self.head_size}, num_heads={self.num_heads}, num_kv_heads={self.num_kv_heads}, "
            f"backend={type(self.impl).__name__}"
        )


def get_attention_context(layer_name: str) -> tuple[Any, Any, torch.Tensor, torch.Tensor | None]:
    """(attn_metadata, layer, kv_cache, slot_mapping) of a layer in this step, out of the forward context."""
    forward_context = get_forward_context()
    attn_metadata = forward_context.attn_metadata[layer_name]
    attn_layer: Any = forward_context.no_compile_layers[layer_name]
    return attn_metadata, attn_layer, attn_layer.kv_cache, forward_context.slot_mapping.get(layer_name)


def unified_kv_cache_update(key: torch.Tensor, value: torch.Tensor, layer_name: str) -> None:
    """Have the impl write this step's keys and values. Without slots for the layer nothing is written."""
    _, attn_layer, kv_cache, layer_slot_mapping = get_attention_context(layer_name)
    if layer_slot_mapping is not None:
        attn_layer.impl.do_kv_cache_update(attn_layer, key, value, kv_cache, layer_slot_mapping)


def unified_attention_with_output(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, output: torch.Tensor, layer_name: str
) -> None:
    """Have the impl attend, into `output`."""
    attn_metadata, attn_layer, kv_cache, _ = get_attention_context(layer_name)
    attn_layer.impl.forward(attn_layer, query, key, value, kv_cache, attn_metadata, output=output)


def attention_layers(model: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """The attention layers of a model by name, in the model's order. Raises ValueError when a name comes twice.

    In vLLM each layer enters itself in the configuration when it is made,
    `vllm/model_executor/layers/attention/attention.py:398` (`static_forward_context[prefix] = self`).
    """
    layers: dict[str, torch.nn.Module] = {}
    for module in model.modules():
        if hasattr(module, "layer_name") and hasattr(module, "kv_cache"):
            if module.layer_name in layers:
                raise ValueError(f"Duplicate layer name: {module.layer_name}")
            layers[str(module.layer_name)] = module
    return layers


def _split_heads(name: str, tensor: torch.Tensor, num_heads: int, head_size: int) -> torch.Tensor:
    """[num_tokens, num_heads, head_size] of a tensor that may have the two last in one."""
    flat = tensor.dim() == 2 and tensor.shape[1] == num_heads * head_size
    if not flat and tuple(tensor.shape[1:]) != (num_heads, head_size):
        raise ValueError(
            f"{name}: expected shape [num_tokens, {num_heads * head_size}] or [num_tokens, {num_heads}, "
            f"{head_size}], got {list(tensor.shape)}"
        )
    return tensor.view(len(tensor), num_heads, head_size)
