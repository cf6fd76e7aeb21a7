"""Paged decode: one query token a request, the last of its sequence, against all that the cache holds for it.

Decode is bound by reading keys and values, so a program takes one kv head and all query heads that it serves:
a key is read once. A long sequence is cut into splits that run side by side, each with its own online
softmax; merge.py puts them together.
"""

# mypy: allow-untyped-defs

import torch
import triton
import triton.language as tl

from kernels import contract, runtime
from kernels.contract import AttentionResult
from kernels.merge import launch_merge
from kernels.paging import find_slots, load_tile
from kernels.softmax import LOG2_E, finish_softmax, start_softmax, update_softmax

__all__ = ["paged_decode"]


@triton.jit
def _paged_decode_kernel(
    query_ptr,  # [num_reqs, num_heads, head_size]
    key_cache_ptr,  # [num_blocks, block_size, num_kv_heads, head_size]
    value_cache_ptr,  # [num_blocks, block_size, num_kv_heads, head_size]
    block_table_ptr,  # [num_reqs, max_num_blocks]
    seq_lens_ptr,  # [num_reqs]
    out_ptr,  # [NUM_SPLITS, num_reqs, num_heads, head_size]
    lse_ptr,  # [NUM_SPLITS, num_reqs, num_heads]
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
    stride_out_split,
    stride_out_token,
    stride_out_head,
    stride_lse_split,
    stride_lse_token,
    NUM_QUERIES_PER_KV: tl.constexpr,
    HEAD_SIZE: tl.constexpr,
    HEAD_SIZE_PADDED: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    BLOCK_M: tl.constexpr,  # NUM_QUERIES_PER_KV padded to what tl.dot takes
    TILE_SIZE: tl.constexpr,
    NUM_SPLITS: tl.constexpr,
):
    """One program: one request, one kv head, one split. Row i is the i-th query head of that kv head."""
    request = tl.program_id(0).to(tl.int64)
    kv_head = tl.program_id(1).to(tl.int64)
    split = tl.program_id(2)

    seq_len = tl.load(seq_lens_ptr + request)
    tiles_per_split = tl.cdiv(tl.cdiv(seq_len, TILE_SIZE), NUM_SPLITS)
    split_start = split * tiles_per_split * TILE_SIZE
    split_end = tl.minimum(split_start + tiles_per_split * TILE_SIZE, seq_len)

    row = tl.arange(0, BLOCK_M)
    dim = tl.arange(0, HEAD_SIZE_PADDED)
    head = kv_head * NUM_QUERIES_PER_KV + row
    mask = (row < NUM_QUERIES_PER_KV)[:, None] & (dim < HEAD_SIZE)[None, :]
    query_at = request * stride_query_token + head * stride_query_head
    query = tl.load(query_ptr + query_at[:, None] + dim[None, :], mask=mask, other=0.0)

    block_table_row_ptr = block_table_ptr + request * stride_table_req
    key_ptr = key_cache_ptr + kv_head * stride_key_head
    value_ptr = value_cache_ptr + kv_head * stride_value_head
    row_max, row_sum, acc = start_softmax(BLOCK_M, HEAD_SIZE_PADDED)
    for tile_start in range(split_start, split_end, TILE_SIZE):
        position = tile_start + tl.arange(0, TILE_SIZE)
        in_split = position < split_end
        block, offset = find_slots(block_table_row_ptr, position, in_split, BLOCK_SIZE)
        key = load_tile(
            key_ptr, block, offset, stride_key_block, stride_key_slot, in_split, HEAD_SIZE, HEAD_SIZE_PADDED
        )
        value = load_tile(
            value_ptr,
            block,
            offset,
            stride_value_block,
            stride_value_slot,
            in_split,
            HEAD_SIZE,
            HEAD_SIZE_PADDED,
        )
        scores = tl.dot(query, tl.trans(key), input_precision="ieee") * scale_log2
        scores = tl.where(in_split[None, :], scores, float("-inf"))
        row_max, row_sum, acc = update_softmax(row_max, row_sum, acc, scores, value)

    output, lse = finish_softmax(row_max, row_sum, acc)
    out_at = split.to(tl.int64) * stride_out_split + request * stride_out_token + head * stride_out_head
    tl.store(out_ptr + out_at[:, None] + dim[None, :], output.to(out_ptr.dtype.element_ty), mask=mask)
    lse_at = split.to(tl.int64) * stride_lse_split + request * stride_lse_token + head
    tl.store(lse_ptr + lse_at, lse, mask=row < NUM_QUERIES_PER_KV)


def _choose_num_splits(num_programs: int, max_seq_len: int, device: torch.device) -> int:
    """Enough splits to give every multiprocessor a few programs, none shorter than 256 tokens.

    From shapes alone: reading seq_lens would wait for the GPU, and a CUDA graph fits every batch of its
    shapes.
    """
    wanted = 4 * runtime.num_multiprocessors(device) // num_programs
    return max(1, min(wanted, triton.cdiv(max_seq_len, 256), 64))


def paged_decode(
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
    """Attention of one query token a request, the last of its sequence, over a paged cache.

    query: [num_reqs, num_heads, head_size], float16, bfloat16 (GPU only) or float32.
    key_cache, value_cache: [num_blocks, block_size, num_kv_heads, head_size], query's dtype; num_heads is a
        multiple of num_kv_heads, and query head h reads kv head h // (num_heads // num_kv_heads).
    block_table: [num_reqs, max_num_blocks] int32; entries past a request's end are never read.
    seq_lens: [num_reqs] int32, tokens in the cache, this step's included; 0 is legal.
    scale: what scores are multiplied with, usually head_size ** -0.5.
    out: where to write the output, like query; made when None.

    Returns the output [num_reqs, num_heads, head_size] and, with `return_lse`, the natural logarithm of the
    sum of exponentials [num_reqs, num_heads] in float32. A request of length 0 gets zeros and -inf. Raises
    ValueError when an argument breaks the contract.
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
    num_splits = _choose_num_splits(num_reqs * num_kv_heads, max_seq_len, query.device)
    block_m = max(16, triton.next_power_of_2(num_queries_per_kv))
    if runtime.INTERPRET:
        tile_size = runtime.interpreter_tile(block_m, head_size_padded, max_seq_len)
    else:
        tile_size = 64 if query.element_size() == 2 and head_size_padded <= 128 else 32

    if num_splits == 1:
        outputs, lses = out[None], lse[None]
    else:
        outputs = query.new_empty(num_splits, num_reqs, num_heads, head_size, dtype=torch.float32)
        lses = query.new_empty(num_splits, num_reqs, num_heads, dtype=torch.float32)
    with torch.cuda.device_of(query):
        _paged_decode_kernel[(num_reqs, num_kv_heads, num_splits)](
            query,
            key_cache,
            value_cache,
            block_table,
            seq_lens,
            outputs,
            lses,
            scale * LOG2_E,
            *query.stride()[:2],
            *key_cache.stride()[:3],
            *value_cache.stride()[:3],
            block_table.stride(0),
            *outputs.stride()[:3],
            *lses.stride()[:2],
            NUM_QUERIES_PER_KV=num_queries_per_kv,
            HEAD_SIZE=head_size,
            HEAD_SIZE_PADDED=head_size_padded,
            BLOCK_SIZE=block_size,
            BLOCK_M=block_m,
            TILE_SIZE=tile_size,
            NUM_SPLITS=num_splits,
            num_warps=4,
            num_stages=3,
        )
    if num_splits > 1:
        launch_merge(outputs, lses, out, lse)
    return (out, lse) if return_lse else out
