"""The attention layer for latents (MLA): it puts the projections around what the backend computes.

A token's keys and values of all heads come from one latent: k_nope = W_UK kv_c, v = W_UV kv_c, and all heads share a key
part k_pe for the position. Only kv_c and k_pe are cached. Since q · (W_UK kv_c) = (W_UKᵀ q) · kv_c, the layer multiplies
W_UK into the query ("absorbs" it) and W_UV into the backend's output, and the backend attends over the latents alone.

vLLM's layer does so for decodes; a prefill's keys and values it computes head by head, which reads more and multiplies
less, `vllm/model_executor/layers/attention/mla_attention.py:322` (`MLAAttention`).
"""

from typing import Any

import torch

from kernels.backends.backend import AttentionBackend, MLAAttentionImpl
from kernels.backends.kv_cache_interface import AttentionSpec, kv_cache_torch_dtype
from kernels.backends.layer import get_attention_context
from kernels.backends.selector import get_attn_backend

__all__ = ["MLAAttention", "unified_mla_attention_with_output", "unified_mla_kv_cache_update"]


class MLAAttention(torch.nn.Module):
    """Multi-head latent attention with a paged cache of latents.

    kv_b_proj: [num_heads * (qk_nope_head_dim + v_head_dim), kv_lora_rank], of each head first W_UK, then W_UV.
    """

    def __init__(
        self,
        num_heads: int,
        scale: float,
        qk_nope_head_dim: int,
        qk_rope_head_dim: int,
        v_head_dim: int,
        kv_lora_rank: int,
        kv_b_proj: torch.Tensor,
        prefix: str = "",
        attn_backend: type[AttentionBackend] | None = None,
        *,
        kv_cache_dtype: str = "auto",
    ) -> None:
        """Raises ValueError for a backend that is not for latents, or projections of another shape."""
        super().__init__()
        rows = num_heads * (qk_nope_head_dim + v_head_dim)
        if tuple(kv_b_proj.shape) != (rows, kv_lora_rank):
            raise ValueError(
                f"kv_b_proj: expected shape [{rows}, {kv_lora_rank}], got {list(kv_b_proj.shape)}"
            )
        self.num_heads = num_heads
        self.num_kv_heads = 1
        self.head_size = kv_lora_rank + qk_rope_head_dim
        self.qk_nope_head_dim = qk_nope_head_dim
        self.qk_rope_head_dim = qk_rope_head_dim
        self.v_head_dim = v_head_dim
        self.kv_lora_rank = kv_lora_rank
        self.layer_name = prefix
        self.dtype = kv_b_proj.dtype
        self.kv_cache_dtype = kv_cache_dtype
        self.kv_cache_torch_dtype = kv_cache_torch_dtype(kv_cache_dtype, self.dtype)

        per_head = kv_b_proj.view(num_heads, qk_nope_head_dim + v_head_dim, kv_lora_rank)
        self.register_buffer("W_UK", per_head[:, :qk_nope_head_dim])
        self.register_buffer("W_UV", per_head[:, qk_nope_head_dim:])

        if attn_backend is None:
            attn_backend = get_attn_backend(
                self.head_size, self.dtype, kv_cache_dtype, use_mla=True, device=kv_b_proj.device
            )
        if not attn_backend.is_mla():
            raise ValueError(f"attn_backend: expected an MLA backend, got {attn_backend.get_name()}")
        self.attn_backend = attn_backend
        impl_cls: type[Any] = attn_backend.get_impl_cls()
        self.impl: MLAAttentionImpl = impl_cls(
            num_heads, self.head_size, scale, 1, kv_lora_rank=kv_lora_rank, kv_cache_dtype=kv_cache_dtype
        )
        self.kv_cache = torch.tensor([])
        self._k_scale = torch.ones(1, dtype=torch.float32, device=kv_b_proj.device)

    def forward(self, q: torch.Tensor, kv_c_normed: torch.Tensor, k_pe: torch.Tensor) -> torch.Tensor:
        """Attention of this step's tokens. Returns [num_tokens, num_heads * v_head_dim].

        q: [num_tokens, num_heads, qk_nope_head_dim + qk_rope_head_dim]; kv_c_normed: [num_tokens, kv_lora_rank];
        k_pe: [num_tokens, 1, qk_rope_head_dim].
        """
        unified_mla_kv_cache_update(kv_c_normed, k_pe, self.layer_name)
        q_nope, q_pe = q.split([self.qk_nope_head_dim, self.qk_rope_head_dim], dim=-1)
        absorbed = torch.cat([torch.einsum("thd,hdr->thr", q_nope, self.W_UK), q_pe], dim=-1)
        latent = q.new_empty(len(q), self.num_heads, self.kv_lora_rank)
        unified_mla_attention_with_output(absorbed, latent, self.layer_name)
        return torch.einsum("thr,hdr->thd", latent, self.W_UV).flatten(1)

    def get_attn_backend(self) -> type[AttentionBackend]:
        return self.attn_backend

    def get_kv_cache_spec(self, block_size: int) -> AttentionSpec:
        return AttentionSpec(block_size, self.num_kv_heads, self.head_size, self.kv_cache_torch_dtype)


def unified_mla_kv_cache_update(kv_c_normed: torch.Tensor, k_pe: torch.Tensor, layer_name: str) -> None:
    """Have the impl write this step's latents. Without slots for the layer nothing is written."""
    _, attn_layer, kv_cache, layer_slot_mapping = get_attention_context(layer_name)
    if layer_slot_mapping is not None:
        attn_layer.impl.do_kv_cache_update(
            kv_c_normed,
            k_pe,
            kv_cache,
            layer_slot_mapping,
            attn_layer.kv_cache_dtype,
            attn_layer._k_scale,
        )


def unified_mla_attention_with_output(q: torch.Tensor, output: torch.Tensor, layer_name: str) -> None:
    """Have the impl attend in the latent space, into `output` [num_tokens, num_heads, kv_lora_rank]."""
    attn_metadata, attn_layer, kv_cache, _ = get_attention_context(layer_name)
    output.copy_(attn_layer.impl.forward_mqa(q, kv_cache, attn_metadata, attn_layer))
