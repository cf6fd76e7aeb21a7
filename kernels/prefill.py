"""Paged attention of a ragged batch: prefill, chunks of a prefill and decode, side by side in one launch.

The grid comes from shapes alone, as in vLLM's unified attention
(vllm/v1/attention/ops/triton_unified_attention.py): a request of n query tokens needs at most n // BLOCK_Q +
1 programs a kv head, so num_tokens // BLOCK_Q + num_reqs are enough for the batch, and each program finds its
request by a binary search in query_start_loc. Nothing waits for the GPU, and a CUDA graph fits every batch of
its shape.
"""

# mypy: allow-untyped-defs

import torch
import triton
import triton.language as tl

from kernels import contract, runtime
from kernels.contract import AttentionResult
from kernels.paging import find_slots, load_tile
from kernels.softmax import LOG2_E, finish_softmax, start_softmax, update_softmax

__all__ = ["paged_attention"]


@triton.jit
def _find_request(query_start_loc_ptr, q_block, num_reqs, BLOCK_Q: tl.constexpr):
    """The request that block number q_block of the queries belongs to.

    The first block of request r is query_start_loc[r] // BLOCK_Q + r.
    """
    low = 0
    high = num_reqs
    while low < high:
        middle = (low + high) // 2
        first_block = tl.load(query_start_loc_ptr + middle) // BLOCK_Q + middle
        if first_block <= q_block:
            low = middle + 1
        else:
            high = middle
    return low - 1


@triton.jit
def _paged_attention_kernel(
    query_ptr,  # [num_tokens, num_heads, head_size]
    key_cache_ptr,  # [num_blocks, block_size, num_kv_heads, head_size]
    value_cache_ptr,  # [num_blocks, block_size, num_kv_heads, head_size]
    block_table_ptr,  # [num_reqs, max_num_blocks]
    seq_lens_ptr,  # [num_reqs]
    query_start_loc_ptr,  # [num_reqs + 1]
    out_ptr,  # [num_tokens, num_heads, head_size]
    lse_ptr,  # [num_tokens, num_heads], contiguous
    scale_log2,  # scale * log2(e)
    num_reqs,
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
    NUM_HEADS: tl.constexpr,
    NUM_QUERIES_PER_KV: tl.constexpr,
    HEAD_SIZE: tl.constexpr,
    HEAD_SIZE_PADDED: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    BLOCK_M: tl.constexpr,  # rows of the tile; the first BLOCK_Q * NUM_QUERIES_PER_KV are used
    BLOCK_Q: tl.constexpr,  # query tokens of the tile
    TILE_SIZE: tl.constexpr,
):
    """One program: BLOCK_Q query tokens of one request, for all query heads of one kv head.

    A row of its tile is a query token and a query head: row = token * NUM_QUERIES_PER_KV + head. So a key
    that is loaded once serves all of them.
    """
    q_block = tl.program_id(0)
    kv_head = tl.program_id(1).to(tl.int64)
    request = _find_request(query_start_loc_ptr, q_block, num_reqs, BLOCK_Q)
    query_start = tl.load(query_start_loc_ptr + request)
    num_queries = tl.load(query_start_loc_ptr + request + 1) - query_start
    first_query = (q_block - query_start // BLOCK_Q - request) * BLOCK_Q
    if first_query >= num_queries:
        return

    row = tl.arange(0, BLOCK_M)
    dim = tl.arange(0, HEAD_SIZE_PADDED)
    query_index = first_query + row // NUM_QUERIES_PER_KV
    head = kv_head * NUM_QUERIES_PER_KV + row % NUM_QUERIES_PER_KV
    token = query_start.to(tl.int64) + query_index
    row_mask = (row < BLOCK_Q * NUM_QUERIES_PER_KV) & (query_index < num_queries)
    mask = row_mask[:, None] & (dim < HEAD_SIZE)[None, :]
    query_at = token * stride_query_token + head * stride_query_head
    query = tl.load(query_ptr + query_at[:, None] + dim[None, :], mask=mask, other=0.0)

    # The queries are the last tokens of the sequence. The tile's last query sees the most.
    num_computed = tl.load(seq_lens_ptr + request) - num_queries
    query_position = num_computed + query_index
    kv_end = num_computed + tl.minimum(first_query + BLOCK_Q, num_queries)

    block_table_row_ptr = block_table_ptr + request.to(tl.int64) * stride_table_req
    key_ptr = key_cache_ptr + kv_head * stride_key_head
    value_ptr = value_cache_ptr + kv_head * stride_value_head
    row_max, row_sum, acc = start_softmax(BLOCK_M, HEAD_SIZE_PADDED)
    for tile_start in range(0, kv_end, TILE_SIZE):
        position = tile_start + tl.arange(0, TILE_SIZE)
        in_reach = position < kv_end
        block, offset = find_slots(block_table_row_ptr, position, in_reach, BLOCK_SIZE)
        key = load_tile(
            key_ptr, block, offset, stride_key_block, stride_key_slot, in_reach, HEAD_SIZE, HEAD_SIZE_PADDED
        )
        value = load_tile(
            value_ptr,
            block,
            offset,
            stride_value_block,
            stride_value_slot,
            in_reach,
            HEAD_SIZE,
            HEAD_SIZE_PADDED,
        )
        scores = tl.dot(query, tl.trans(key), input_precision="ieee") * scale_log2
        visible = position[None, :] <= query_position[:, None]
        scores = tl.where(visible, scores, float("-inf"))
        row_max, row_sum, acc = update_softmax(row_max, row_sum, acc, scores, value)

    output, lse = finish_softmax(row_max, row_sum, acc)
    out_at = token * stride_out_token + head * stride_out_head
    tl.store(out_ptr + out_at[:, None] + dim[None, :], output.to(out_ptr.dtype.element_ty), mask=mask)
    tl.store(lse_ptr + token * NUM_HEADS + head, lse, mask=row_mask)


def _choose_tile(
    query: torch.Tensor, head_size_padded: int, num_reqs: int, num_queries_per_kv: int, max_seq_len: int
) -> tuple[int, int, int]:
    """(BLOCK_M, TILE_SIZE, num_warps), from shapes alone: rows for an average request, within what fits."""
    if runtime.INTERPRET:
        largest_rows = 64
    elif query.element_size() == 4:
        largest_rows = 16  # true float32 runs on the ordinary multipliers, whose operands sit in registers
    else:
        largest_rows = 128 if head_size_padded <= 128 else 64
    average_rows = triton.cdiv(query.shape[0], num_reqs) * num_queries_per_kv
    rows = max(16, min(triton.next_power_of_2(average_rows), largest_rows))
    rows = max(rows, triton.next_power_of_2(num_queries_per_kv))
    if runtime.INTERPRET:
        tile_size = runtime.interpreter_tile(rows, head_size_padded, max_seq_len)
    else:
        tile_size = 64 if query.element_size() == 2 and head_size_padded <= 128 else 32
    return rows, tile_size, 8 if rows > 64 else 4


def paged_attention(
    query: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    query_start_loc: torch.Tensor,
    scale: float,
    *,
    out: torch.Tensor | None = None,
    return_lse: bool = False,
) -> AttentionResult:
    """Causal attention of a ragged batch over a paged cache that already holds this step's tokens.

    query: [num_tokens, num_heads, head_size], float16, bfloat16 (GPU only) or float32; the requests' tokens
        one after another. The n_q query tokens of a request are the last of its sequence: query i sits at position
        seq_len - n_q + i and sees the positions up to and including its own.
    key_cache, value_cache: [num_blocks, block_size, num_kv_heads, head_size], query's dtype; num_heads is a
        multiple of num_kv_heads, and query head h reads kv head h // (num_heads // num_kv_heads).
    block_table: [num_reqs, max_num_blocks] int32; entries past a request's end are never read.
    seq_lens: [num_reqs] int32, tokens in the cache, this step's included; 0 is legal.
    query_start_loc: [num_reqs + 1] int32, where each request's tokens start, and the end, num_tokens.
    scale: what scores are multiplied with, usually head_size ** -0.5.
    out: where to write the output, like query; made when None.

    Returns the output [num_tokens, num_heads, head_size] and, with `return_lse`, the natural logarithm of the
    sum of exponentials [num_tokens, num_heads] in float32. A token that sees nothing gets zeros and -inf.
    Raises ValueError when an argument breaks the contract.
    """
    contract.check_paged(query, key_cache, value_cache, block_table, seq_lens, query_start_loc, scale, out)
    runtime.check_launch("query", query)
    num_tokens, num_heads, head_size = query.shape
    _, block_size, num_kv_heads, _ = key_cache.shape
    num_reqs = block_table.shape[0]
    if out is None:
        out = torch.empty_like(query, memory_format=torch.contiguous_format)
    lse = query.new_empty(num_tokens, num_heads, dtype=torch.float32)
    if num_tokens == 0:
        return (out, lse) if return_lse else out

    num_queries_per_kv = num_heads // num_kv_heads
    max_seq_len = block_table.shape[1] * block_size
    head_size_padded = max(16, triton.next_power_of_2(head_size))
    block_m, tile_size, num_warps = _choose_tile(
        query, head_size_padded, num_reqs, num_queries_per_kv, max_seq_len
    )
    block_q = block_m // num_queries_per_kv
    with torch.cuda.device_of(query):
        _paged_attention_kernel[(num_tokens // block_q + num_reqs, num_kv_heads)](
            query,
            key_cache,
            value_cache,
            block_table,
            seq_lens,
            query_start_loc,
            out,
            lse,
            scale * LOG2_E,
            num_reqs,
            *query.stride()[:2],
            *key_cache.stride()[:3],
            *value_cache.stride()[:3],
            block_table.stride(0),
            *out.stride()[:2],
            NUM_HEADS=num_heads,
            NUM_QUERIES_PER_KV=num_queries_per_kv,
            HEAD_SIZE=head_size,
            HEAD_SIZE_PADDED=head_size_padded,
            BLOCK_SIZE=block_size,
            BLOCK_M=block_m,
            BLOCK_Q=block_q,
            TILE_SIZE=tile_size,
            num_warps=num_warps,
            num_stages=2,
        )
    return (out, lse) if return_lse else out
