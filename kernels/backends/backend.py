"""What a backend is: three classes with one job each, and the metadata that a batch brings.

- `AttentionBackend` says what there is: the other two classes, the shape of the KV cache, what is supported. It is
  never instantiated.
- `AttentionMetadataBuilder` works once a step, for all layers: from the batch to what the kernel wants to read.
- `AttentionImpl` works once a layer: it writes the step's keys and values into the cache, and it attends.

Names and roles are those of vLLM 0.22.1, `vllm/v1/attention/backend.py:55` (`AttentionBackend`). What vLLM has besides:
encoder attention, cross attention, sparse attention, multimodal prefixes, quantized outputs, context parallelism.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

import torch

from kernels.backends.kv_cache_interface import AttentionSpec
from kernels.backends.platforms import DeviceCapability

__all__ = [
    "AttentionBackend",
    "AttentionCGSupport",
    "AttentionImpl",
    "AttentionMetadataBuilder",
    "CommonAttentionMetadata",
    "MLAAttentionImpl",
    "MultipleOf",
]


class MultipleOf:
    """A block size that a kernel takes: any multiple of `base`."""

    def __init__(self, base: int) -> None:
        self.base = base


@dataclass
class CommonAttentionMetadata:
    """One step's batch, the same for every layer and every backend. Builders turn it into their own metadata.

    A request's query tokens are the last of its sequence:

        |------- computed before -------|---- this step's ----|
        |------------------- seq_len -------------------------|
                                        |----- query_len -----|

    query_start_loc: [num_reqs + 1] int32, where each request's tokens start, and the end.
    query_start_loc_cpu: the same on the CPU, so that nobody waits for the GPU.
    seq_lens: [num_reqs] int32, tokens in the cache once this step's are written.
    num_reqs, num_actual_tokens: requests, and tokens without padding. The layer's tensors may have more rows.
    max_query_len, max_seq_len: the longest, or an upper bound.
    block_table_tensor: [num_reqs, max_num_blocks] int32; entries past a request's end hold anything.
    slot_mapping: [num_tokens] int64, block * block_size + offset for each token; -1 is not written.

    The tensors are the engine's own and are filled anew for the next step: a builder that wants to keep something
    copies it. vLLM's has more fields, `vllm/v1/attention/backend.py:353` (`CommonAttentionMetadata`).
    """

    query_start_loc: torch.Tensor
    query_start_loc_cpu: torch.Tensor
    seq_lens: torch.Tensor
    num_reqs: int
    num_actual_tokens: int
    max_query_len: int
    max_seq_len: int
    block_table_tensor: torch.Tensor
    slot_mapping: torch.Tensor
    causal: bool = True


class AttentionBackend(ABC):
    """What a backend is made of and what it supports. Everything is asked of the class."""

    supported_dtypes: ClassVar[list[torch.dtype]] = [torch.float16, torch.bfloat16]
    supported_kv_cache_dtypes: ClassVar[list[str]] = ["auto", "float16", "bfloat16"]

    # True: the impl's forward writes the cache itself. False: the layer calls its do_kv_cache_update before.
    forward_includes_kv_cache_update: bool = True

    @staticmethod
    @abstractmethod
    def get_name() -> str:
        """The name under which the backend is registered, or any other for one that is not."""
        raise NotImplementedError

    @staticmethod
    @abstractmethod
    def get_impl_cls() -> "type[AttentionImpl | MLAAttentionImpl]":
        raise NotImplementedError

    @staticmethod
    @abstractmethod
    def get_builder_cls() -> "type[AttentionMetadataBuilder]":
        raise NotImplementedError

    @staticmethod
    @abstractmethod
    def get_kv_cache_shape(
        num_blocks: int, block_size: int, num_kv_heads: int, head_size: int, cache_dtype_str: str = "auto"
    ) -> tuple[int, ...]:
        """The shape of one layer's cache, keys and values together. Whoever allocates it knows no more than this.

        vLLM's backends may ask for another order in memory, `vllm/v1/attention/backend.py:119`
        (`AttentionBackend.get_kv_cache_stride_order`).
        """
        raise NotImplementedError

    @classmethod
    def get_kv_cache_block_dim(
        cls, block_size: int, num_kv_heads: int, head_size: int, cache_dtype_str: str = "auto"
    ) -> int:
        """Which dimension of the cache counts blocks: whoever copies a block has to know."""
        marker = 1234567
        return cls.get_kv_cache_shape(marker, block_size, num_kv_heads, head_size, cache_dtype_str).index(
            marker
        )

    @classmethod
    def get_supported_head_sizes(cls) -> list[int]:
        """Head sizes that the kernel takes; empty for any."""
        return []

    @classmethod
    def supports_head_size(cls, head_size: int) -> bool:
        supported = cls.get_supported_head_sizes()
        return not supported or head_size in supported

    @classmethod
    def supports_dtype(cls, dtype: torch.dtype) -> bool:
        return dtype in cls.supported_dtypes

    @classmethod
    def supports_kv_cache_dtype(cls, kv_cache_dtype: str | None) -> bool:
        return kv_cache_dtype is None or kv_cache_dtype in cls.supported_kv_cache_dtypes

    @staticmethod
    def get_supported_kernel_block_sizes() -> list[int | MultipleOf]:
        return [MultipleOf(1)]

    @classmethod
    def supports_block_size(cls, block_size: int | None) -> bool:
        """None, when the user asked for no block size: then the backend decides.

        A multiple of a fixed size will do, because vLLM splits larger blocks for such kernels.
        """
        if block_size is None:
            return True
        sizes = cls.get_supported_kernel_block_sizes()
        return any(block_size % (size.base if isinstance(size, MultipleOf) else size) == 0 for size in sizes)

    @classmethod
    def is_mla(cls) -> bool:
        """Whether the cache holds latents, one row for all heads of a token."""
        return False

    @classmethod
    def supports_sink(cls) -> bool:
        return False

    @classmethod
    def supports_compute_capability(cls, capability: DeviceCapability | None) -> bool:
        """None is a CPU, of which vLLM's selector for CUDA never asks."""
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
        """What is wrong with these together although each is supported; None for nothing."""
        return None

    @classmethod
    def validate_configuration(
        cls,
        head_size: int,
        dtype: torch.dtype,
        kv_cache_dtype: str | None,
        block_size: int | None,
        use_mla: bool,
        has_sink: bool,
        device_capability: DeviceCapability | None,
    ) -> list[str]:
        """Every reason against this backend, in vLLM's words; empty when it can serve.

        vLLM asks in the same order and has six more questions, `vllm/v1/attention/backend.py:271`
        (`AttentionBackend.validate_configuration`).
        """
        reasons = []
        if not cls.supports_head_size(head_size):
            reasons.append("head_size not supported")
        if not cls.supports_dtype(dtype):
            reasons.append("dtype not supported")
        if not cls.supports_kv_cache_dtype(kv_cache_dtype):
            reasons.append("kv_cache_dtype not supported")
        if not cls.supports_block_size(block_size):
            reasons.append("block_size not supported")
        if use_mla != cls.is_mla():
            reasons.append("MLA not supported" if use_mla else "non-MLA not supported")
        if has_sink and not cls.supports_sink():
            reasons.append("attention sinks not supported")
        if not cls.supports_compute_capability(device_capability):
            reasons.append("compute capability not supported")
        combination = cls.supports_combination(
            head_size, dtype, kv_cache_dtype, block_size, use_mla, has_sink, device_capability
        )
        if combination is not None:
            reasons.append(combination)
        return reasons


class AttentionCGSupport(Enum):
    """For which batches a CUDA graph of the layer can be captured and replayed with other lengths.

    vLLM has one more, for speculative decoding: `vllm/v1/attention/backend.py:506` (`UNIFORM_BATCH`).
    """

    ALWAYS = 3
    UNIFORM_SINGLE_TOKEN_DECODE = 1
    NEVER = 0


class AttentionMetadataBuilder(ABC):
    """Makes, once a step, the metadata that the impls of `layer_names` get."""

    _cudagraph_support: ClassVar[AttentionCGSupport] = AttentionCGSupport.NEVER

    def __init__(self, kv_cache_spec: AttentionSpec, layer_names: list[str], device: torch.device) -> None:
        """vLLM also hands its whole configuration over, `vllm/v1/attention/backend.py:529` (`AttentionMetadataBuilder.__init__`)."""
        self.kv_cache_spec = kv_cache_spec
        self.layer_names = layer_names
        self.device = device

    @classmethod
    def get_cudagraph_support(cls) -> AttentionCGSupport:
        return cls._cudagraph_support

    @abstractmethod
    def build(
        self, common_prefix_len: int, common_attn_metadata: CommonAttentionMetadata, fast_build: bool = False
    ) -> Any:
        """This step's metadata, of the backend's own class.

        common_prefix_len: tokens that all requests have in common at their beginning, a multiple of block_size;
            0 when nobody looked. A backend may ignore it.
        fast_build: whether building matters more than running, as for a draft of few layers. May be ignored.
        """
        raise NotImplementedError

    def build_for_cudagraph_capture(self, common_attn_metadata: CommonAttentionMetadata) -> Any:
        """Metadata whose tensors are those of `common_attn_metadata`, which a replay finds filled anew."""
        return self.build(common_prefix_len=0, common_attn_metadata=common_attn_metadata)


class AttentionImpl(ABC):
    """One layer's attention: it knows the kernels, and nothing of models."""

    def __init__(
        self,
        num_heads: int,
        head_size: int,
        scale: float,
        num_kv_heads: int | None = None,
        alibi_slopes: list[float] | None = None,
        sliding_window: int | None = None,
        kv_cache_dtype: str = "auto",
        logits_soft_cap: float | None = None,
        sinks: torch.Tensor | None = None,
    ) -> None:
        """Keeps the layer's arguments. What the kernel cannot do raises NotImplementedError here, as in vLLM.

        vLLM also passes the kind of attention and a layer to share the cache with, and each class there keeps them itself,
        `vllm/v1/attention/backend.py:774` (`AttentionImpl.__init__`).
        """
        self.num_heads = num_heads
        self.head_size = head_size
        self.scale = float(scale)
        self.num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        self.alibi_slopes = None if alibi_slopes is None else torch.tensor(alibi_slopes, dtype=torch.float32)
        self.sliding_window = sliding_window
        self.kv_cache_dtype = kv_cache_dtype
        self.logits_soft_cap = logits_soft_cap
        self.sinks = sinks

    @abstractmethod
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
        """Attend, and write the result to `output`.

        layer: whose scales of the cache are `layer._k_scale` and `layer._v_scale`.
        query, output: [num_tokens, num_heads, head_size]; rows past attn_metadata's num_actual_tokens are padding.
        key, value: [num_tokens, num_kv_heads, head_size]. They are in the cache already, unless the backend says
            that forward_includes_kv_cache_update.
        kv_cache: of the shape that the backend's get_kv_cache_shape gives. Slots that no request owns hold anything,
            NaN included.
        attn_metadata: what the builder made of this step's batch.

        vLLM also passes scales for a quantized output, `vllm/v1/attention/backend.py:790` (`AttentionImpl.forward`).
        """
        raise NotImplementedError

    def do_kv_cache_update(
        self,
        layer: torch.nn.Module,
        key: torch.Tensor,
        value: torch.Tensor,
        kv_cache: torch.Tensor,
        slot_mapping: torch.Tensor,
    ) -> None:
        """Write this step's keys and values to their slots, in place. Rows past slot_mapping's end are padding.

        Called by the layer before `forward`, for backends whose forward_includes_kv_cache_update is False.
        """
        raise NotImplementedError(f"{type(self).__name__} does not support kv cache update")


class MLAAttentionImpl(ABC):
    """One layer's attention over a cache of latents.

    vLLM's has `forward_mha` besides, which computes a prefill's keys and values of each head from the latents
    instead of attending in the latent space, `vllm/v1/attention/backend.py:873` (`MLAAttentionImpl.forward_mha`).
    """

    @abstractmethod
    def __init__(
        self,
        num_heads: int,
        head_size: int,
        scale: float,
        num_kv_heads: int,
        kv_lora_rank: int,
        kv_cache_dtype: str = "auto",
    ) -> None:
        """head_size: kv_lora_rank and the key part for the position together. num_kv_heads: 1."""
        raise NotImplementedError

    @abstractmethod
    def forward_mqa(
        self, q: torch.Tensor, kv_c_and_k_pe_cache: torch.Tensor, attn_metadata: Any, layer: torch.nn.Module
    ) -> torch.Tensor:
        """Attend in the latent space. Returns [num_tokens, num_heads, kv_lora_rank], padding rows included.

        q: [num_tokens, num_heads, head_size], with the projection to keys absorbed.
        kv_c_and_k_pe_cache: a token's row is its key; the row's first kv_lora_rank numbers are its value.
        """
        raise NotImplementedError

    @abstractmethod
    def do_kv_cache_update(
        self,
        kv_c_normed: torch.Tensor,
        k_pe: torch.Tensor,
        kv_cache: torch.Tensor,
        slot_mapping: torch.Tensor,
        kv_cache_dtype: str,
        k_scale: torch.Tensor,
    ) -> None:
        """Write this step's rows, in place. kv_c_normed: [num_tokens, kv_lora_rank]; k_pe: [num_tokens, 1, rest]."""
        raise NotImplementedError
