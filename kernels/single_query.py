"""Paged decode, first rung: one program for one query head of one request.

Computes what decode.py computes, without its options and in the plainest way. A program takes one query vector, walks over the keys of
its kv head a tile at a time, and keeps an online softmax (softmax.py): one maximum, one sum, one output vector.
Work is cut into num_reqs * num_heads programs. Each reads its query, its request's row of the block table, and
every key and value of its kv head; it writes one output vector and one lse.

What bounds it: reading keys and values. Two things are lost. Query heads that share a kv head read the same
keys, each for itself (gqa_decode.py). And a program lives as long as its sequence is long, so that a small
batch leaves most of the GPU idle, and in a ragged batch all wait for the longest request (decode.py).
"""

# mypy: allow-untyped-defs

import torch
import triton
import triton.language as tl

from kernels import contract, runtime
from kernels.contract import AttentionResult
from kernels.paging import find_slots, load_tile
from kernels.softmax import LN_2, LOG2_E, LOWEST

__all__ = ["single_query_decode"]


@triton.jit
def _single_query_kernel(
    query_ptr,  # [num_reqs, num_heads, head_size]
    key_cache_ptr,  # [num_blocks, block_size, num_kv_heads, head_size]
    value_cache_ptr,  # [num_blocks, block_size, num_kv_heads, head_size]
    block_table_ptr,  # [num_reqs, max_num_blocks]
    seq_lens_ptr,  # [num_reqs]
    out_ptr,  # [num_reqs, num_heads, head_size]
    lse_ptr,  # [num_reqs, num_heads]
    scale_log2,  # scale * log2(e)
    stride_query_token,
    stride_query_head,
    stride_key_block,
    stride_key_slot,
    stride_key_head,
    stride_value_block,
    stride_value_slot,
    stride_value_head,
    stride_table_req,
    stride_out_token,
    stride_out_head,
    stride_lse_token,
    NUM_QUERIES_PER_KV: tl.constexpr,
    HEAD_SIZE: tl.constexpr,
    HEAD_SIZE_PADDED: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    TILE_SIZE: tl.constexpr,
):
    request = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1).to(tl.int64)
    kv_head = head // NUM_QUERIES_PER_KV

    dim = tl.arange(0, HEAD_SIZE_PADDED)
    in_head = dim < HEAD_SIZE
    query_at = request * stride_query_token + head * stride_query_head
    query = tl.load(query_ptr + query_at + dim, mask=in_head, other=0.0).to(tl.float32)

    seq_len = tl.load(seq_lens_ptr + request)
    block_table_row_ptr = block_table_ptr + request * stride_table_req
    key_ptr = key_cache_ptr + kv_head * stride_key_head
    value_ptr = value_cache_ptr + kv_head * stride_value_head
    # The three steps of softmax.py for a single row: here scores are a vector and the state is two numbers.
    row_max = tl.full([], LOWEST, dtype=tl.float32)
    row_sum = tl.full([], 0.0, dtype=tl.float32)
    acc = tl.zeros([HEAD_SIZE_PADDED], dtype=tl.float32)
    for tile_start in range(0, seq_len, TILE_SIZE):
        position = tile_start + tl.arange(0, TILE_SIZE)
        visible = position < seq_len
        block, offset = find_slots(block_table_row_ptr, position, visible, BLOCK_SIZE)
        key = load_tile(
            key_ptr, block, offset, stride_key_block, stride_key_slot, visible, HEAD_SIZE, HEAD_SIZE_PADDED
        )
        value = load_tile(
            value_ptr,
            block,
            offset,
            stride_value_block,
            stride_value_slot,
            visible,
            HEAD_SIZE,
            HEAD_SIZE_PADDED,
        )
        scores = tl.sum(key.to(tl.float32) * query[None, :], axis=1) * scale_log2
        scores = tl.where(visible, scores, float("-inf"))
        new_max = tl.maximum(row_max, tl.max(scores, axis=0))
        rescale = tl.exp2(row_max - new_max)
        weights = tl.exp2(scores - new_max)
        row_sum = row_sum * rescale + tl.sum(weights, axis=0)
        acc = acc * rescale + tl.sum(weights[:, None] * value.to(tl.float32), axis=0)
        row_max = new_max

    empty = row_sum == 0.0
    divisor = tl.where(empty, 1.0, row_sum)
    out_at = request * stride_out_token + head * stride_out_head
    tl.store(out_ptr + out_at + dim, (acc / divisor).to(out_ptr.dtype.element_ty), mask=in_head)
    lse = tl.where(empty, float("-inf"), (row_max + tl.log2(divisor)) * LN_2)
    tl.store(lse_ptr + request * stride_lse_token + head, lse)


def single_query_decode(
    query: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    scale: float,
    *,
    out: torch.Tensor | None = None,
    return_lse: bool = False,
) -> AttentionResult:
    """`kernels.paged_decode` without its ideas and its options: caches are in query's dtype.

    The arguments, the result and ValueError are as there.
    """
    contract.check_paged(query, key_cache, value_cache, block_table, seq_lens, None, scale, out)
    runtime.check_launch("query", query)
    num_reqs, num_heads, head_size = query.shape
    _, block_size, num_kv_heads, _ = key_cache.shape
    if out is None:
        out = torch.empty_like(query, memory_format=torch.contiguous_format)
    lse = query.new_empty(num_reqs, num_heads, dtype=torch.float32)
    if num_reqs == 0:
        return (out, lse) if return_lse else out

    head_size_padded = triton.next_power_of_2(head_size)
    max_seq_len = block_table.shape[1] * block_size
    # A GPU holds the tile's keys and values in registers; the interpreter is fast with few large tiles.
    tile_size = 32 if not runtime.INTERPRET else runtime.interpreter_tile(1, head_size_padded, max_seq_len)
    with torch.cuda.device_of(query):
        _single_query_kernel[(num_reqs, num_heads)](
            query,
            key_cache,
            value_cache,
            block_table,
            seq_lens,
            out,
            lse,
            scale * LOG2_E,
            *query.stride()[:2],
            *key_cache.stride()[:3],
            *value_cache.stride()[:3],
            block_table.stride(0),
            *out.stride()[:2],
            lse.stride(0),
            NUM_QUERIES_PER_KV=num_heads // num_kv_heads,
            HEAD_SIZE=head_size,
            HEAD_SIZE_PADDED=head_size_padded,
            BLOCK_SIZE=block_size,
            TILE_SIZE=tile_size,
            num_warps=4,
        )
    return (out, lse) if return_lse else out
