"""TRITON_MLA: attention over a cache of latents, one row a token for all heads.

Decode is `latent_decode`. It takes one query token a request, so the builder makes each query token of a longer one a
request of its own: a token at position p is the last of a sequence of p + 1 tokens in the same blocks. That reads a
request's latents once for each of its query tokens. vLLM's backends send prefills to another kernel instead,
`vllm/model_executor/layers/attention/mla_attention.py:2246` (`MLACommonImpl.forward_mha`).
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

import kernels
from kernels.backends.backend import (
    AttentionBackend,
    AttentionCGSupport,
    AttentionMetadataBuilder,
    CommonAttentionMetadata,
    MLAAttentionImpl,
)
from kernels.backends.platforms import DeviceCapability
from kernels.backends.triton_attn import triton_objection

__all__ = ["TritonMLABackend", "TritonMLAImpl", "TritonMLAMetadata", "TritonMLAMetadataBuilder"]


class TritonMLABackend(AttentionBackend):
    supported_dtypes: ClassVar[list[torch.dtype]] = [torch.float16, torch.bfloat16, torch.float32]
    supported_kv_cache_dtypes: ClassVar[list[str]] = ["auto", "fp8", "fp8_e4m3", "fp8_e5m2"]
    forward_includes_kv_cache_update = False

    @staticmethod
    def get_name() -> str:
        return "TRITON_MLA"

    @staticmethod
    def get_impl_cls() -> type["TritonMLAImpl"]:
        return TritonMLAImpl

    @staticmethod
    def get_builder_cls() -> type["TritonMLAMetadataBuilder"]:
        return TritonMLAMetadataBuilder

    @staticmethod
    def get_kv_cache_shape(
        num_blocks: int, block_size: int, num_kv_heads: int, head_size: int, cache_dtype_str: str = "auto"
    ) -> tuple[int, ...]:
        return (num_blocks, block_size, head_size)

    @classmethod
    def is_mla(cls) -> bool:
        return True

    @classmethod
    def supports_combination(
        cls,
        head_size: int,
        dtype: torch.dtype,
        kv_cache_dtype: str | None,
        block_size: int | None,
        use_mla: bool,
        has_sink: bool,
        device_capability: DeviceCapability | None,
    ) -> str | None:
        return triton_objection(dtype, device_capability)


@dataclass
class TritonMLAMetadata:
    """A request for each query token.

    block_table: [num_actual_tokens, max_num_blocks] int32. seq_lens: [num_actual_tokens] int32, what the token sees.
    """

    num_actual_tokens: int
    block_table: torch.Tensor
    seq_lens: torch.Tensor


class TritonMLAMetadataBuilder(AttentionMetadataBuilder):
    # In a decode the tensors are the batch's own; what is made for a prefill would lie elsewhere at the next step.
    _cudagraph_support: ClassVar[AttentionCGSupport] = AttentionCGSupport.UNIFORM_SINGLE_TOKEN_DECODE

    def build(
        self, common_prefix_len: int, common_attn_metadata: CommonAttentionMetadata, fast_build: bool = False
    ) -> TritonMLAMetadata:
        num_tokens = common_attn_metadata.num_actual_tokens
        block_table = common_attn_metadata.block_table_tensor
        seq_lens = common_attn_metadata.seq_lens
        if common_attn_metadata.max_query_len == 1 and num_tokens == common_attn_metadata.num_reqs:
            return TritonMLAMetadata(num_tokens, block_table, seq_lens)
        starts = common_attn_metadata.query_start_loc.long()
        token = torch.arange(num_tokens, device=starts.device)
        request = torch.searchsorted(starts, token, right=True) - 1
        # The request's last token sees all of it, the one before one less. An empty request stays empty.
        sees = seq_lens[request] - (starts[request + 1] - 1 - token)
        return TritonMLAMetadata(num_tokens, block_table[request], sees.clamp(min=0).to(torch.int32))


class TritonMLAImpl(MLAAttentionImpl):
    def __init__(
        self,
        num_heads: int,
        head_size: int,
        scale: float,
        num_kv_heads: int,
        kv_lora_rank: int,
        kv_cache_dtype: str = "auto",
    ) -> None:
        self.num_heads = num_heads
        self.head_size = head_size
        self.scale = float(scale)
        self.num_kv_heads = num_kv_heads
        self.kv_lora_rank = kv_lora_rank
        self.kv_cache_dtype = kv_cache_dtype

    def forward_mqa(
        self, q: torch.Tensor, kv_c_and_k_pe_cache: torch.Tensor, attn_metadata: Any, layer: torch.nn.Module
    ) -> torch.Tensor:
        output = q.new_empty(len(q), self.num_heads, self.kv_lora_rank)
        num_actual_tokens = attn_metadata.num_actual_tokens
        k_scale: Any = layer._k_scale
        kernels.latent_decode(
            q[:num_actual_tokens],
            kv_c_and_k_pe_cache,
            attn_metadata.block_table,
            attn_metadata.seq_lens,
            self.scale,
            kv_lora_rank=self.kv_lora_rank,
            kv_scale=k_scale if self.kv_cache_dtype.startswith("fp8") else None,
            out=output[:num_actual_tokens],
        )
        return output

    def do_kv_cache_update(
        self,
        kv_c_normed: torch.Tensor,
        k_pe: torch.Tensor,
        kv_cache: torch.Tensor,
        slot_mapping: torch.Tensor,
        kv_cache_dtype: str,
        k_scale: torch.Tensor,
    ) -> None:
        num_tokens = len(slot_mapping)
        row = torch.cat([kv_c_normed[:num_tokens], k_pe[:num_tokens].flatten(1)], dim=-1)[:, None]
        cache = kv_cache[:, :, None]
        scale = k_scale if kv_cache_dtype.startswith("fp8") else None
        # The writer of ordinary caches, with one head whose key and value are the same row: written twice, a step's
        # rows are few.
        kernels.reshape_and_cache(row, row, cache, cache, slot_mapping, k_scale=scale, v_scale=scale)
