"""What is known of a layer's KV cache outside its backend: what its builder gets, and the names of dtypes."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

__all__ = ["AttentionSpec", "kv_cache_torch_dtype"]


@dataclass(frozen=True)
class AttentionSpec:
    """The KV cache of one layer, as a builder sees it. dtype: of the cache's elements.

    vLLM has one such class for each kind of cache, `vllm/v1/kv_cache_interface.py:144` (`AttentionSpec`).
    """

    block_size: int
    num_kv_heads: int
    head_size: int
    dtype: torch.dtype


_CACHE_DTYPES: Mapping[str, torch.dtype] = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "fp8": torch.float8_e4m3fn,
    "fp8_e4m3": torch.float8_e4m3fn,
    "fp8_e5m2": torch.float8_e5m2,
}


def kv_cache_torch_dtype(kv_cache_dtype: str, dtype: torch.dtype) -> torch.dtype:
    """The cache's dtype by vLLM's name for it; "auto" is the model's `dtype`. Raises ValueError for another name."""
    if kv_cache_dtype == "auto":
        return dtype
    if kv_cache_dtype not in _CACHE_DTYPES:
        known = ", ".join(["auto", *_CACHE_DTYPES])
        raise ValueError(f"kv_cache_dtype: expected one of {known}, got {kv_cache_dtype!r}")
    return _CACHE_DTYPES[kv_cache_dtype]
