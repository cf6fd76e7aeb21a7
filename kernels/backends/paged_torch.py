"""PAGED_TORCH: the paged reference in torch. The metadata is what every paged kernel reads; nothing waits to be built.

Its cache may hold fp8 numbers, which are divided by the layer's scales when they are written.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from kernels import reference
from kernels.backends.backend import (
    AttentionBackend,
    AttentionImpl,
    AttentionMetadataBuilder,
    CommonAttentionMetadata,
)

__all__ = ["PagedTorchBackend", "PagedTorchImpl", "PagedTorchMetadata", "PagedTorchMetadataBuilder"]


class PagedTorchBackend(AttentionBackend):
    supported_dtypes: ClassVar[list[torch.dtype]] = [
        torch.float16,
        torch.bfloat16,
        torch.float32,
        torch.float64,
    ]
    supported_kv_cache_dtypes: ClassVar[list[str]] = ["auto", "fp8", "fp8_e4m3", "fp8_e5m2"]
    forward_includes_kv_cache_update = False

    @staticmethod
    def get_name() -> str:
        return "PAGED_TORCH"

    @staticmethod
    def get_impl_cls() -> type["PagedTorchImpl"]:
        return PagedTorchImpl

    @staticmethod
    def get_builder_cls() -> type["PagedTorchMetadataBuilder"]:
        return PagedTorchMetadataBuilder

    @staticmethod
    def get_kv_cache_shape(
        num_blocks: int, block_size: int, num_kv_heads: int, head_size: int, cache_dtype_str: str = "auto"
    ) -> tuple[int, ...]:
        return (2, num_blocks, block_size, num_kv_heads, head_size)

    @classmethod
    def supports_sink(cls) -> bool:
        return True


@dataclass
class PagedTorchMetadata:
    """The fields that paged backends of vLLM have too, `vllm/v1/attention/backends/triton_attn.py:59`
    (`TritonAttentionMetadata`). Shapes as in `CommonAttentionMetadata`."""

    num_actual_tokens: int
    max_query_len: int
    query_start_loc: torch.Tensor
    max_seq_len: int
    seq_lens: torch.Tensor
    block_table: torch.Tensor
    slot_mapping: torch.Tensor
    causal: bool = True


class PagedTorchMetadataBuilder(AttentionMetadataBuilder):
    def build(
        self, common_prefix_len: int, common_attn_metadata: CommonAttentionMetadata, fast_build: bool = False
    ) -> PagedTorchMetadata:
        return PagedTorchMetadata(
            num_actual_tokens=common_attn_metadata.num_actual_tokens,
            max_query_len=common_attn_metadata.max_query_len,
            query_start_loc=common_attn_metadata.query_start_loc,
            max_seq_len=common_attn_metadata.max_seq_len,
            seq_lens=common_attn_metadata.seq_lens,
            block_table=common_attn_metadata.block_table_tensor,
            slot_mapping=common_attn_metadata.slot_mapping,
            causal=common_attn_metadata.causal,
        )


class PagedTorchImpl(AttentionImpl):
    def forward(
        self,
        layer: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        kv_cache: torch.Tensor,
        attn_metadata: Any,
        output: torch.Tensor,
    ) -> torch.Tensor:
        key_cache, value_cache = kv_cache.unbind(0)
        num_actual_tokens = attn_metadata.num_actual_tokens
        k_scale, v_scale = self.scales(layer)
        reference.paged_attention(
            query[:num_actual_tokens],
            key_cache,
            value_cache,
            attn_metadata.block_table,
            attn_metadata.seq_lens,
            attn_metadata.query_start_loc,
            self.scale,
            causal=attn_metadata.causal,
            sliding_window=self.sliding_window,
            softcap=self.logits_soft_cap,
            alibi_slopes=None if self.alibi_slopes is None else self.alibi_slopes.to(query.device),
            sinks=self.sinks,
            k_scale=k_scale,
            v_scale=v_scale,
            out=output[:num_actual_tokens],
        )
        return output

    def do_kv_cache_update(
        self,
        layer: torch.nn.Module,
        key: torch.Tensor,
        value: torch.Tensor,
        kv_cache: torch.Tensor,
        slot_mapping: torch.Tensor,
    ) -> None:
        key_cache, value_cache = kv_cache.unbind(0)
        num_tokens = len(slot_mapping)
        k_scale, v_scale = self.scales(layer)
        reference.reshape_and_cache(
            key[:num_tokens],
            value[:num_tokens],
            key_cache,
            value_cache,
            slot_mapping,
            k_scale=k_scale,
            v_scale=v_scale,
        )

    def scales(self, layer: Any) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """The layer's scales of keys and values, if its cache has fp8 numbers."""
        if not self.kv_cache_dtype.startswith("fp8"):
            return None, None
        return layer._k_scale, layer._v_scale
