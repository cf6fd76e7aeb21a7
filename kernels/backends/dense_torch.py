"""DENSE_TORCH: gather a request's keys and values, then attend as if there had never been a cache. The truth.

The builder does the part that is the same for all layers: it turns the block table into the slots of each request's
tokens in order. The impl indexes the cache with them.
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

__all__ = ["DenseTorchBackend", "DenseTorchImpl", "DenseTorchMetadata", "DenseTorchMetadataBuilder"]


class DenseTorchBackend(AttentionBackend):
    supported_dtypes: ClassVar[list[torch.dtype]] = [
        torch.float16,
        torch.bfloat16,
        torch.float32,
        torch.float64,
    ]
    supported_kv_cache_dtypes: ClassVar[list[str]] = ["auto"]
    forward_includes_kv_cache_update = False

    @staticmethod
    def get_name() -> str:
        return "DENSE_TORCH"

    @staticmethod
    def get_impl_cls() -> type["DenseTorchImpl"]:
        return DenseTorchImpl

    @staticmethod
    def get_builder_cls() -> type["DenseTorchMetadataBuilder"]:
        return DenseTorchMetadataBuilder

    @staticmethod
    def get_kv_cache_shape(
        num_blocks: int, block_size: int, num_kv_heads: int, head_size: int, cache_dtype_str: str = "auto"
    ) -> tuple[int, ...]:
        return (2, num_blocks, block_size, num_kv_heads, head_size)

    @classmethod
    def supports_sink(cls) -> bool:
        return True


@dataclass
class DenseTorchMetadata:
    """query_start_loc: one number more than requests. slots: of each request, its tokens' slots in order, int64."""

    num_actual_tokens: int
    query_start_loc: list[int]
    slots: list[torch.Tensor]
    causal: bool


class DenseTorchMetadataBuilder(AttentionMetadataBuilder):
    def build(
        self, common_prefix_len: int, common_attn_metadata: CommonAttentionMetadata, fast_build: bool = False
    ) -> DenseTorchMetadata:
        block_size = self.kv_cache_spec.block_size
        slots = []
        # Waits for the GPU: a kernel would read the lengths there.
        for request, seq_len in enumerate(common_attn_metadata.seq_lens.tolist()):
            position = torch.arange(seq_len, device=common_attn_metadata.block_table_tensor.device)
            block = common_attn_metadata.block_table_tensor[request, position // block_size]
            slots.append(block.long() * block_size + position % block_size)
        return DenseTorchMetadata(
            common_attn_metadata.num_actual_tokens,
            common_attn_metadata.query_start_loc_cpu.tolist(),
            slots,
            common_attn_metadata.causal,
        )


class DenseTorchImpl(AttentionImpl):
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
        key_slots, value_slots = kv_cache.flatten(1, 2)
        starts = attn_metadata.query_start_loc
        for request, slots in enumerate(attn_metadata.slots):
            tokens = slice(starts[request], starts[request + 1])
            output[tokens] = self.attend(
                query[tokens], key_slots[slots], value_slots[slots], attn_metadata.causal
            )
        return output

    def attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, causal: bool
    ) -> torch.Tensor:
        """One request: query [n_q, num_heads, head_size], key and value [seq_len, num_kv_heads, head_size]."""
        alibi_slopes = None if self.alibi_slopes is None else self.alibi_slopes.to(query.device)
        result: torch.Tensor = reference.dense_attention(
            query,
            key,
            value,
            self.scale,
            causal=causal,
            sliding_window=self.sliding_window,
            softcap=self.logits_soft_cap,
            alibi_slopes=alibi_slopes,
            sinks=self.sinks,
        )
        return result

    def do_kv_cache_update(
        self,
        layer: torch.nn.Module,
        key: torch.Tensor,
        value: torch.Tensor,
        kv_cache: torch.Tensor,
        slot_mapping: torch.Tensor,
    ) -> None:
        key_cache, value_cache = kv_cache
        num_tokens = len(slot_mapping)
        reference.reshape_and_cache(
            key[:num_tokens], value[:num_tokens], key_cache, value_cache, slot_mapping
        )
