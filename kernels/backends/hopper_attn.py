"""HOPPER_ATTN: the Gluon programs for Hopper GPUs; the rest is TRITON_ATTN's. A backend for one
generation of GPUs shows what `validate_configuration` is for: everywhere else it says why not.
"""

from typing import ClassVar

import torch

from kernels.backends.backend import MultipleOf
from kernels.backends.platforms import DeviceCapability
from kernels.backends.triton_attn import TritonAttentionBackend, TritonAttentionImpl, triton_objection

__all__ = ["HopperAttentionBackend", "HopperAttentionImpl"]


class HopperAttentionBackend(TritonAttentionBackend):
    supported_dtypes: ClassVar[list[torch.dtype]] = [torch.float16, torch.bfloat16]
    supported_kv_cache_dtypes: ClassVar[list[str]] = ["auto"]

    @staticmethod
    def get_name() -> str:
        return "HOPPER_ATTN"

    @staticmethod
    def get_impl_cls() -> type["HopperAttentionImpl"]:
        return HopperAttentionImpl

    @classmethod
    def get_supported_head_sizes(cls) -> list[int]:
        return [64, 128, 256]

    @staticmethod
    def get_supported_kernel_block_sizes() -> list[int | MultipleOf]:
        return [8, 16, 32, 64, 128, 256]

    @classmethod
    def supports_block_size(cls, block_size: int | None) -> bool:
        return block_size is None or block_size in cls.get_supported_kernel_block_sizes()

    @classmethod
    def supports_compute_capability(cls, capability: DeviceCapability | None) -> bool:
        return capability is not None and capability.major == 9

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
        if device_capability is None:
            return "Gluon has no interpreter"
        return triton_objection(dtype, device_capability)


class HopperAttentionImpl(TritonAttentionImpl):
    tier = "hopper"
