"""Writing a step's keys and values into the paged cache."""

# mypy: allow-untyped-defs

import torch
import triton
import triton.language as tl

from kernels import contract, runtime

__all__ = ["reshape_and_cache"]


@triton.jit
def _reshape_and_cache_kernel(
    key_ptr,  # [num_tokens, num_kv_heads, head_size]
    value_ptr,  # [num_tokens, num_kv_heads, head_size]
    key_cache_ptr,  # [num_blocks, block_size, num_kv_heads, head_size]
    value_cache_ptr,  # [num_blocks, block_size, num_kv_heads, head_size]
    slot_mapping_ptr,  # [num_tokens]
    num_tokens,
    stride_key_token,
    stride_key_head,
    stride_value_token,
    stride_value_head,
    stride_key_block,
    stride_key_slot,
    stride_key_cache_head,
    stride_value_block,
    stride_value_slot,
    stride_value_cache_head,
    HEAD_SIZE: tl.constexpr,
    HEAD_SIZE_PADDED: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    TILE_SIZE: tl.constexpr,
):
    """One program: TILE_SIZE tokens of one kv head."""
    token = tl.program_id(0).to(tl.int64) * TILE_SIZE + tl.arange(0, TILE_SIZE)
    kv_head = tl.program_id(1).to(tl.int64)
    dim = tl.arange(0, HEAD_SIZE_PADDED)

    slot = tl.load(slot_mapping_ptr + token, mask=token < num_tokens, other=-1)
    mask = (slot >= 0)[:, None] & (dim < HEAD_SIZE)[None, :]
    block = slot // BLOCK_SIZE
    offset = slot % BLOCK_SIZE

    source = token * stride_key_token + kv_head * stride_key_head
    target = block * stride_key_block + offset * stride_key_slot + kv_head * stride_key_cache_head
    key = tl.load(key_ptr + source[:, None] + dim[None, :], mask=mask)
    tl.store(key_cache_ptr + target[:, None] + dim[None, :], key, mask=mask)

    source = token * stride_value_token + kv_head * stride_value_head
    target = block * stride_value_block + offset * stride_value_slot + kv_head * stride_value_cache_head
    value = tl.load(value_ptr + source[:, None] + dim[None, :], mask=mask)
    tl.store(value_cache_ptr + target[:, None] + dim[None, :], value, mask=mask)


def reshape_and_cache(
    key: torch.Tensor,
    value: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    slot_mapping: torch.Tensor,
) -> None:
    """Write each token's key and value to its slot of the cache, in place.

    key, value: [num_tokens, num_kv_heads, head_size], float16, bfloat16 (GPU only) or float32.
    key_cache, value_cache: [num_blocks, block_size, num_kv_heads, head_size], key's dtype.
    slot_mapping: [num_tokens] int64, block * block_size + offset; -1 = do not write this token.

    Two tokens must not name the same slot: which of them stays there is undefined.
    Raises ValueError when an argument breaks the contract.
    """
    contract.check_cache_write(key, value, key_cache, value_cache, slot_mapping)
    runtime.check_launch("key", key)
    num_tokens, num_kv_heads, head_size = key.shape
    if num_tokens == 0:
        return
    tile_size = 256 if runtime.INTERPRET else 16
    grid = (triton.cdiv(num_tokens, tile_size), num_kv_heads)
    with torch.cuda.device_of(key):
        _reshape_and_cache_kernel[grid](
            key,
            value,
            key_cache,
            value_cache,
            slot_mapping,
            num_tokens,
            *key.stride()[:2],
            *value.stride()[:2],
            *key_cache.stride()[:3],
            *value_cache.stride()[:3],
            HEAD_SIZE=head_size,
            HEAD_SIZE_PADDED=triton.next_power_of_2(head_size),
            BLOCK_SIZE=key_cache.shape[1],
            TILE_SIZE=tile_size,
        )
