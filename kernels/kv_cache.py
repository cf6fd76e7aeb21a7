"""Writing a step's keys and values into the paged cache.

What: each token's key and value go to the slot that slot_mapping names, as they are or, for an fp8 cache, divided by a
scale and rounded.
Work: a program takes TILE_SIZE tokens of one kv head. Reads their keys, values and slots once, writes the slots once;
a slot of -1 is neither read for nor written.
Bound: bytes. There is nothing to compute, so that the memory's bandwidth is the limit, and for a decode step, which
writes one token a request, the launch itself.
"""

# mypy: allow-untyped-defs

import torch
import triton
import triton.language as tl

from kernels import contract, runtime
from kernels.options import Scale, split_scale

__all__ = ["reshape_and_cache"]

# NaN in both fp8 formats.
_FP8_NAN = tl.constexpr(0x7F)


@triton.jit
def _round_to_fp8(
    tokens,
    scale,
    FP8: tl.constexpr,
    LARGEST: tl.constexpr,
    MANTISSA: tl.constexpr,
    MIN_EXPONENT: tl.constexpr,
):
    """tokens / scale in the format FP8, to nearest, ties to even, as bytes; beyond the range its largest number.

    A GPU's own conversion does the same. Triton's interpreter rounds some numbers wrongly, so they are rounded
    before: added to a number so large that float32 keeps just MANTISSA bits of the sum's small part.
    """
    quotient = tl.div_rn(tokens.to(tl.float32), scale)
    clamped = tl.minimum(tl.maximum(quotient, -LARGEST), LARGEST)
    # 2 to the power of the exponent, at least the smallest normal number's: subnormals have its step.
    exponent = tl.maximum((clamped.to(tl.int32, bitcast=True) >> 23) & 0xFF, MIN_EXPONENT + 127)
    power = (exponent << 23).to(tl.float32, bitcast=True)
    shifter = power * (1.5 * 2 ** (23 - MANTISSA))
    rounded = (clamped + shifter) - shifter
    # The sign of a zero would be lost.
    rounded = tl.where(rounded == 0.0, clamped * 0.0, rounded)
    byte = rounded.to(FP8).to(tl.uint8, bitcast=True)
    return tl.where(quotient == quotient, byte, _FP8_NAN).to(tl.uint8)


@triton.jit
def _convert(
    tokens,
    scale,
    CACHE_DTYPE: tl.constexpr,
    LARGEST: tl.constexpr,
    MANTISSA: tl.constexpr,
    MIN_EXPONENT: tl.constexpr,
    HAS_SCALE: tl.constexpr,
):
    """What the cache keeps of the tokens."""
    if MANTISSA > 0:
        return _round_to_fp8(tokens, scale, CACHE_DTYPE, LARGEST, MANTISSA, MIN_EXPONENT)
    elif HAS_SCALE:
        return tl.div_rn(tokens.to(tl.float32), scale).to(tokens.dtype)
    else:
        return tokens


@triton.jit
def _reshape_and_cache_kernel(
    key_ptr,  # [num_tokens, num_kv_heads, head_size]
    value_ptr,  # [num_tokens, num_kv_heads, head_size]
    key_cache_ptr,  # [num_blocks, block_size, num_kv_heads, head_size]; bytes for fp8
    value_cache_ptr,  # [num_blocks, block_size, num_kv_heads, head_size]; bytes for fp8
    slot_mapping_ptr,  # [num_tokens]
    k_scale_ptr,  # [1] or [num_kv_heads], or None
    v_scale_ptr,  # [1] or [num_kv_heads], or None
    k_scale,  # what else keys are divided by
    v_scale,
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
    stride_k_scale_head,
    stride_v_scale_head,
    HEAD_SIZE: tl.constexpr,
    HEAD_SIZE_PADDED: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    TILE_SIZE: tl.constexpr,
    CACHE_DTYPE: tl.constexpr,
    LARGEST: tl.constexpr,  # of an fp8 cache: its largest number,
    MANTISSA: tl.constexpr,  # its bits behind the point (0 where the cache is not fp8),
    MIN_EXPONENT: tl.constexpr,  # and its smallest exponent
    HAS_SCALE: tl.constexpr,
):
    """One program: TILE_SIZE tokens of one kv head."""
    token = tl.program_id(0).to(tl.int64) * TILE_SIZE + tl.arange(0, TILE_SIZE)
    kv_head = tl.program_id(1).to(tl.int64)
    dim = tl.arange(0, HEAD_SIZE_PADDED)
    if k_scale_ptr is not None:
        k_scale *= tl.load(k_scale_ptr + kv_head * stride_k_scale_head)
    if v_scale_ptr is not None:
        v_scale *= tl.load(v_scale_ptr + kv_head * stride_v_scale_head)

    slot = tl.load(slot_mapping_ptr + token, mask=token < num_tokens, other=-1)
    mask = (slot >= 0)[:, None] & (dim < HEAD_SIZE)[None, :]
    block = slot // BLOCK_SIZE
    offset = slot % BLOCK_SIZE

    source = token * stride_key_token + kv_head * stride_key_head
    target = block * stride_key_block + offset * stride_key_slot + kv_head * stride_key_cache_head
    key = tl.load(key_ptr + source[:, None] + dim[None, :], mask=mask)
    key = _convert(key, k_scale, CACHE_DTYPE, LARGEST, MANTISSA, MIN_EXPONENT, HAS_SCALE)
    tl.store(key_cache_ptr + target[:, None] + dim[None, :], key, mask=mask)

    source = token * stride_value_token + kv_head * stride_value_head
    target = block * stride_value_block + offset * stride_value_slot + kv_head * stride_value_cache_head
    value = tl.load(value_ptr + source[:, None] + dim[None, :], mask=mask)
    value = _convert(value, v_scale, CACHE_DTYPE, LARGEST, MANTISSA, MIN_EXPONENT, HAS_SCALE)
    tl.store(value_cache_ptr + target[:, None] + dim[None, :], value, mask=mask)


# (Triton's name, bits behind the point, smallest exponent) of a cache's dtype.
_FP8_FORMATS = {torch.float8_e4m3fn: (tl.float8e4nv, 3, -6), torch.float8_e5m2: (tl.float8e5, 2, -14)}


def reshape_and_cache(
    key: torch.Tensor,
    value: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    slot_mapping: torch.Tensor,
    *,
    k_scale: Scale = None,
    v_scale: Scale = None,
) -> None:
    """Write each token's key and value to its slot of the cache, in place.

    key, value: [num_tokens, num_kv_heads, head_size], float16, bfloat16 (GPU only) or float32.
    key_cache, value_cache: [num_blocks, block_size, num_kv_heads, head_size], key's dtype, or float8_e4m3fn or
        float8_e5m2, rounded to nearest; numbers beyond fp8's range become its largest, as in vLLM.
    slot_mapping: [num_tokens] int64, block * block_size + offset; -1 = do not write this token.
    k_scale, v_scale: what keys and values are divided by first, and attention multiplies them with again: a number,
        or a float32 tensor with one element or one for each kv head. Positive.

    Two tokens must not name the same slot: which of them stays there is undefined.
    Raises ValueError when an argument breaks the contract.
    """
    contract.check_cache_write(
        key, value, key_cache, value_cache, slot_mapping, k_scale=k_scale, v_scale=v_scale
    )
    runtime.check_launch("key", key)
    num_tokens, num_kv_heads, head_size = key.shape
    if num_tokens == 0:
        return
    cache_dtype, mantissa, min_exponent, largest = None, 0, 0, 0.0
    if key_cache.dtype in _FP8_FORMATS:
        cache_dtype, mantissa, min_exponent = _FP8_FORMATS[key_cache.dtype]
        largest = torch.finfo(key_cache.dtype).max
        key_cache, value_cache = key_cache.view(torch.uint8), value_cache.view(torch.uint8)
    k_pointer, k_number, k_stride = split_scale(k_scale)
    v_pointer, v_number, v_stride = split_scale(v_scale)
    tile_size = 256 if runtime.INTERPRET else 16
    grid = (triton.cdiv(num_tokens, tile_size), num_kv_heads)
    with torch.cuda.device_of(key):
        _reshape_and_cache_kernel[grid](
            key,
            value,
            key_cache,
            value_cache,
            slot_mapping,
            k_pointer,
            v_pointer,
            k_number,
            v_number,
            num_tokens,
            *key.stride()[:2],
            *value.stride()[:2],
            *key_cache.stride()[:3],
            *value_cache.stride()[:3],
            k_stride,
            v_stride,
            HEAD_SIZE=head_size,
            HEAD_SIZE_PADDED=triton.next_power_of_2(head_size),
            BLOCK_SIZE=key_cache.shape[1],
            TILE_SIZE=tile_size,
            CACHE_DTYPE=cache_dtype,
            LARGEST=largest,
            MANTISSA=mantissa,
            MIN_EXPONENT=min_exponent,
            HAS_SCALE=k_scale is not None or v_scale is not None,
        )
