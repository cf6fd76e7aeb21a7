"""Paged decode, second rung: the query heads that share a kv head go into one tile, so that a key is read once.

Computes what decode.py computes, without its options. A program takes one kv head of one request and all query heads that it serves:
row i of its tile is the i-th of them. The scores of a tile of keys are then one small matrix product on the
tensor cores, and each key and value is read once instead of num_queries_per_kv times.
Work is cut into num_reqs * num_kv_heads programs. Each reads its queries, its request's row of the block table,
and the keys and values of its kv head; it writes the outputs and lses of its query heads.

What bounds it: reading keys and values, as long as there are enough programs of about the same length. One
request of 32k tokens with 8 kv heads keeps 8 of an H200's 132 multiprocessors busy; decode.py cuts it into pieces.
"""

# mypy: allow-untyped-defs

import torch
import triton
import triton.language as tl

from kernels import contract, runtime
from kernels.contract import AttentionResult
from kernels.paging import find_slots, load_tile
from kernels.softmax import LOG2_E, finish_softmax, start_softmax, update_softmax

__all__ = ["gqa_decode"]


@triton.jit
def _gqa_decode_kernel(
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
    BLOCK_M: tl.constexpr,  # NUM_QUERIES_PER_KV padded to what tl.dot takes
    TILE_SIZE: tl.constexpr,
):
    request = tl.program_id(0).to(tl.int64)
    kv_head = tl.program_id(1).to(tl.int64)

    row = tl.arange(0, BLOCK_M)
    dim = tl.arange(0, HEAD_SIZE_PADDED)
    head = kv_head * NUM_QUERIES_PER_KV + row
    mask = (row < NUM_QUERIES_PER_KV)[:, None] & (dim < HEAD_SIZE)[None, :]
    query_at = request * stride_query_token + head * stride_query_head
    query = tl.load(query_ptr + query_at[:, None] + dim[None, :], mask=mask, other=0.0)

    seq_len = tl.load(seq_lens_ptr + request)
    block_table_row_ptr = block_table_ptr + request * stride_table_req
    key_ptr = key_cache_ptr + kv_head * stride_key_head
    value_ptr = value_cache_ptr + kv_head * stride_value_head
    row_max, row_sum, acc = start_softmax(BLOCK_M, HEAD_SIZE_PADDED)
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
        scores = tl.dot(query, tl.trans(key), input_precision="ieee") * scale_log2
        scores = tl.where(visible[None, :], scores, float("-inf"))
        row_max, row_sum, acc = update_softmax(row_max, row_sum, acc, scores, value)

    output, lse = finish_softmax(row_max, row_sum, acc)
    out_at = request * stride_out_token + head * stride_out_head
    tl.store(out_ptr + out_at[:, None] + dim[None, :], output.to(out_ptr.dtype.element_ty), mask=mask)
    lse_at = request * stride_lse_token + head
    tl.store(lse_ptr + lse_at, lse, mask=row < NUM_QUERIES_PER_KV)


def gqa_decode(
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
    """`kernels.paged_decode` without a schedule and without its options: caches are in query's dtype.

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

    num_queries_per_kv = num_heads // num_kv_heads
    head_size_padded = max(16, triton.next_power_of_2(head_size))
    max_seq_len = block_table.shape[1] * block_size
    block_m = max(16, triton.next_power_of_2(num_queries_per_kv))
    if runtime.INTERPRET:
        tile_size = runtime.interpreter_tile(block_m, head_size_padded, max_seq_len)
    else:
        tile_size = 64 if query.element_size() == 2 and head_size_padded <= 128 else 32

    with torch.cuda.device_of(query):
        _gqa_decode_kernel[(num_reqs, num_kv_heads)](
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
            NUM_QUERIES_PER_KV=num_queries_per_kv,
            HEAD_SIZE=head_size,
            HEAD_SIZE_PADDED=head_size_padded,
            BLOCK_SIZE=block_size,
            BLOCK_M=block_m,
            TILE_SIZE=tile_size,
            num_warps=4,
            num_stages=3,
        )
    return (out, lse) if return_lse else out
