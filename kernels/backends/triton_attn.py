"""TRITON_ATTN: the Triton kernels of this package, on any GPU that Triton compiles for, or in its interpreter.

A step in which every request has one token goes to `paged_decode`, any other to `paged_prefill`. Which it is follows
from the batch's shape, so that nothing waits for the GPU. Triton is loaded when the first of them is called.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

import kernels
from kernels import runtime
from kernels.backends.backend import (
    AttentionBackend,
    AttentionCGSupport,
    AttentionImpl,
    AttentionMetadataBuilder,
    CommonAttentionMetadata,
)
from kernels.backends.platforms import DeviceCapability

__all__ = [
    "TritonAttentionBackend",
    "TritonAttentionImpl",
    "TritonAttentionMetadata",
    "TritonAttentionMetadataBuilder",
    "triton_objection",
]


def triton_objection(dtype: torch.dtype, device_capability: DeviceCapability | None) -> str | None:
    """Why Triton's kernels cannot run on such a device with such numbers; None when they can."""
    if (device_capability is None) != runtime.INTERPRET:
        where = "a CPU" if device_capability is None else "a GPU"
        return f"the model is on {where}, and Triton kernels run on: {runtime.describe()}"
    if runtime.INTERPRET and dtype == torch.bfloat16:
        return "Triton's interpreter computes bfloat16 wrongly"
    return None


class TritonAttentionBackend(AttentionBackend):
    """Blocks of any size; vLLM's takes multiples of 16, `vllm/v1/attention/backends/triton_attn.py:290`
    (`MultipleOf(16)`)."""

    supported_dtypes: ClassVar[list[torch.dtype]] = [torch.float16, torch.bfloat16, torch.float32]
    supported_kv_cache_dtypes: ClassVar[list[str]] = ["auto", "fp8", "fp8_e4m3", "fp8_e5m2"]
    forward_includes_kv_cache_update = False

    @staticmethod
    def get_name() -> str:
        return "TRITON_ATTN"

    @staticmethod
    def get_impl_cls() -> type["TritonAttentionImpl"]:
        return TritonAttentionImpl

    @staticmethod
    def get_builder_cls() -> type["TritonAttentionMetadataBuilder"]:
        return TritonAttentionMetadataBuilder

    @staticmethod
    def get_kv_cache_shape(
        num_blocks: int, block_size: int, num_kv_heads: int, head_size: int, cache_dtype_str: str = "auto"
    ) -> tuple[int, ...]:
        return (num_blocks, 2, block_size, num_kv_heads, head_size)

    @classmethod
    def supports_sink(cls) -> bool:
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
class TritonAttentionMetadata:
    """one_token_each: whether every request has exactly one query token. The rest as in `CommonAttentionMetadata`."""

    num_actual_tokens: int
    max_query_len: int
    query_start_loc: torch.Tensor
    max_seq_len: int
    seq_lens: torch.Tensor
    block_table: torch.Tensor
    slot_mapping: torch.Tensor
    one_token_each: bool
    causal: bool = True


class TritonAttentionMetadataBuilder(AttentionMetadataBuilder):
    _cudagraph_support: ClassVar[AttentionCGSupport] = AttentionCGSupport.ALWAYS

    def build(
        self, common_prefix_len: int, common_attn_metadata: CommonAttentionMetadata, fast_build: bool = False
    ) -> TritonAttentionMetadata:
        """vLLM's builder also owns the buffers of its split kernel,
        `vllm/v1/attention/backends/triton_attn.py:133` (`TritonAttentionMetadataBuilder.__init__`)."""
        num_actual_tokens = common_attn_metadata.num_actual_tokens
        max_query_len = common_attn_metadata.max_query_len
        return TritonAttentionMetadata(
            num_actual_tokens=num_actual_tokens,
            max_query_len=max_query_len,
            query_start_loc=common_attn_metadata.query_start_loc,
            max_seq_len=common_attn_metadata.max_seq_len,
            seq_lens=common_attn_metadata.seq_lens,
            block_table=common_attn_metadata.block_table_tensor,
            slot_mapping=common_attn_metadata.slot_mapping,
            # No request has more than one, and together they have one each.
            one_token_each=max_query_len == 1 and num_actual_tokens == common_attn_metadata.num_reqs,
            causal=common_attn_metadata.causal,
        )


class TritonAttentionImpl(AttentionImpl):
    # The kernels that decode, and prefill where they can.
    tier = "triton"

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
        key_cache, value_cache = kv_cache.unbind(1)
        num_actual_tokens = attn_metadata.num_actual_tokens
        if self.alibi_slopes is not None:
            self.alibi_slopes = self.alibi_slopes.to(query.device)
        k_scale, v_scale = self.scales(layer)
        options: dict[str, Any] = {
            "sliding_window": self.sliding_window,
            "softcap": self.logits_soft_cap,
            "alibi_slopes": self.alibi_slopes,
            "sinks": self.sinks,
            "k_scale": k_scale,
            "v_scale": v_scale,
            "out": output[:num_actual_tokens],
        }
        cache = (key_cache, value_cache, attn_metadata.block_table, attn_metadata.seq_lens)
        if attn_metadata.one_token_each:
            kernels.paged_decode(query[:num_actual_tokens], *cache, self.scale, tier=self.tier, **options)
        else:
            attend = kernels.paged_attention if self.tier == "hopper" else kernels.paged_prefill
            attend(
                query[:num_actual_tokens],
                *cache,
                attn_metadata.query_start_loc,
                self.scale,
                causal=attn_metadata.causal,
                **options,
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
        key_cache, value_cache = kv_cache.unbind(1)
        num_tokens = len(slot_mapping)
        k_scale, v_scale = self.scales(layer)
        kernels.reshape_and_cache(
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
