"""Paged attention of a ragged batch: prefill, chunks of a prefill and decode, side by side in one launch.

What: softmax(query @ keys * scale) @ values for every query token, keys and values looked up through the block table.
Work: a program takes BLOCK_Q query tokens of one request and one kv head, with all query heads that it serves (row =
token * NUM_QUERIES_PER_KV + head), so that a key that is loaded once serves them all. The grid comes from shapes
alone, as in vLLM's unified attention (vllm/v1/attention/ops/triton_unified_attention.py): a request of n query tokens
needs at most n // BLOCK_Q + 1 programs a kv head, so num_tokens // BLOCK_Q + num_reqs are enough for the batch, and
each program finds its request by a binary search in query_start_loc. Nothing waits for the GPU, and a CUDA graph fits
every batch of its shape. Programs with the most keys start first, so that none of them is left over at the end.
Where programs are too few to fill the GPU, keys are cut into splits as well, each a program's (prefill_tiles.py).
Reads its queries once and the keys and values that they see, tile by tile; writes its outputs and their lse once, those
of a split in float32 for merge.py.
Bound: the matrix units, 4 * head_size operations a pair of query and key. Between them stand the exponentials of the
softmax, in a program one after the other. So two programs share a multiprocessor where there are enough: one multiplies
while the other takes exponentials.
"""

# mypy: allow-untyped-defs

import torch
import triton
import triton.language as tl

from kernels import contract, runtime
from kernels.contract import AttentionResult
from kernels.merge import launch_merge
from kernels.options import Scale, ScoreOptions
from kernels.prefill_tiles import choose_key_splits, choose_tile, pad_head_size
from kernels.scores import alibi, hide, score_numbers, softcap
from kernels.softmax import (
    LOG2_E,
    finish_softmax,
    start_softmax,
    start_softmax_at_sinks,
    update_scaled_softmax,
    update_softmax,
)

__all__ = ["paged_prefill"]

_LOG2_E = tl.constexpr(LOG2_E)


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
def _find_blocks(block_table_row_ptr, position, kv_end, BLOCK_SIZE: tl.constexpr):
    """The blocks of these positions, 0 from kv_end on. In front of a window they may be anybody's: nothing is read of them."""
    return tl.load(block_table_row_ptr + position // BLOCK_SIZE, mask=position < kv_end, other=0)


@triton.jit
def _load_keys_or_values(
    head_ptr,
    block,
    position,
    kv_first,
    kv_end,
    stride_block,
    stride_slot,
    HEAD_SIZE: tl.constexpr,
    HEAD_SIZE_PADDED: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    IN_REACH: tl.constexpr,  # all positions are from kv_first to kv_end - 1
):
    """The tile of one head at these positions, [TILE_SIZE, HEAD_SIZE_PADDED]; zeros outside kv_first to kv_end - 1."""
    dim = tl.arange(0, HEAD_SIZE_PADDED)
    # A cache can hold more than 2**31 elements: widen before any multiplication with a stride.
    row = block.to(tl.int64) * stride_block + (position % BLOCK_SIZE).to(tl.int64) * stride_slot
    ptrs = head_ptr + row[:, None] + dim[None, :]
    if IN_REACH:
        if HEAD_SIZE == HEAD_SIZE_PADDED:
            return tl.load(ptrs)
        return tl.load(ptrs, mask=(dim < HEAD_SIZE)[None, :], other=0.0)
    # What lies outside may hold NaN, and an engine may have given blocks before the window to others.
    mask = ((position >= kv_first) & (position < kv_end))[:, None] & (dim < HEAD_SIZE)[None, :]
    return tl.load(ptrs, mask=mask, other=0.0)


@triton.jit
def _attend(
    state,  # (row_max, row_sum, acc), as in softmax.py
    start,  # a multiple of TILE_SIZE
    end,
    query,
    query_position,
    request,  # (row of the block table, its keys, its values, kv_first, kv_end)
    strides,  # of the caches' blocks and slots: (key block, key slot, value block, value slot)
    visible,  # (first, last) position that each row sees
    scaling,  # (factor, cap_log2, slopes_log2)
    HEAD_SIZE: tl.constexpr,
    HEAD_SIZE_PADDED: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    TILE_SIZE: tl.constexpr,
    NUM_STAGES: tl.constexpr,
    MASKED: tl.constexpr,  # some row does not see all of these positions
    HAS_WINDOW: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    HAS_ALIBI: tl.constexpr,
    SCALE_FIRST: tl.constexpr,
):
    """The softmax's state after the tiles from start to end."""
    row_max, row_sum, acc = state
    block_table_row_ptr, key_ptr, value_ptr, kv_first, kv_end = request
    stride_key_block, stride_key_slot, stride_value_block, stride_value_slot = strides
    first, last = visible
    factor, cap_log2, slopes_log2 = scaling
    column = tl.arange(0, TILE_SIZE)
    block = _find_blocks(block_table_row_ptr, start + column, kv_end, BLOCK_SIZE)
    for tile_start in tl.range(start, end, TILE_SIZE, num_stages=NUM_STAGES):
        position = tile_start + column
        key = _load_keys_or_values(
            key_ptr, block, position, kv_first, kv_end, stride_key_block, stride_key_slot,
            HEAD_SIZE, HEAD_SIZE_PADDED, BLOCK_SIZE, not MASKED,
        )  # fmt: skip
        value = _load_keys_or_values(
            value_ptr, block, position, kv_first, kv_end, stride_value_block, stride_value_slot,
            HEAD_SIZE, HEAD_SIZE_PADDED, BLOCK_SIZE, not MASKED,
        )  # fmt: skip
        # The next tile's blocks, so that its loads will not wait for the table: Triton would count that wait as one
        # of the stages, and have half as many tiles on their way.
        block = _find_blocks(block_table_row_ptr, position + TILE_SIZE, kv_end, BLOCK_SIZE)
        scores = tl.dot(query, tl.trans(key.to(query.dtype)), input_precision="ieee")
        if SCALE_FIRST:
            scores = scores * factor
            if HAS_SOFTCAP:
                scores = softcap(scores, cap_log2)
            if HAS_ALIBI:
                scores = alibi(scores, slopes_log2, query_position, position)
        if MASKED:
            scores = hide(scores, first, last, position, HAS_WINDOW)
        if SCALE_FIRST:
            row_max, row_sum, acc = update_softmax(row_max, row_sum, acc, scores, value.to(query.dtype))
        else:
            row_max, row_sum, acc = update_scaled_softmax(
                row_max, row_sum, acc, scores, factor, value.to(query.dtype)
            )
    return row_max, row_sum, acc


@triton.jit
def _paged_prefill_kernel(
    query_ptr,  # [num_tokens, num_heads, head_size]
    key_cache_ptr,  # [num_blocks, block_size, num_kv_heads, head_size]
    value_cache_ptr,  # [num_blocks, block_size, num_kv_heads, head_size]
    block_table_ptr,  # [num_reqs, max_num_blocks]
    seq_lens_ptr,  # [num_reqs]
    query_start_loc_ptr,  # [num_reqs + 1]
    alibi_slopes_ptr,  # [num_heads], with HAS_ALIBI
    sinks_ptr,  # [num_heads], with HAS_SINKS
    k_scale_ptr,  # [1] or [num_kv_heads], with HAS_K_SCALE
    v_scale_ptr,  # [1] or [num_kv_heads], with HAS_V_SCALE
    out_ptr,  # [NUM_SPLITS, num_tokens, num_heads, head_size]
    lse_ptr,  # [NUM_SPLITS, num_tokens, num_heads], contiguous
    factor,  # what a score is multiplied with: scale * log2(e), or 2 / softcap times that
    cap_log2,  # softcap * log2(e)
    value_factor,  # what an output is multiplied with
    sliding_window,
    num_reqs,
    num_tokens,
    stride_query_token,
    stride_query_head,
    stride_key_block,
    stride_key_slot,
    stride_key_head,
    stride_value_block,
    stride_value_slot,
    stride_value_head,
    stride_table_req,
    stride_k_scale_head,
    stride_v_scale_head,
    stride_out_split,
    stride_out_token,
    stride_out_head,
    NUM_HEADS: tl.constexpr,
    NUM_KV_HEADS: tl.constexpr,
    HEAD_SIZE: tl.constexpr,
    HEAD_SIZE_PADDED: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    BLOCK_M: tl.constexpr,  # rows of the tile; the first BLOCK_Q * NUM_QUERIES_PER_KV are used
    BLOCK_Q: tl.constexpr,  # query tokens of the tile
    TILE_SIZE: tl.constexpr,
    NUM_STAGES: tl.constexpr,  # one more than the tiles that are on their way while one is multiplied
    NUM_SPLITS: tl.constexpr,
    CAUSAL: tl.constexpr,
    HAS_WINDOW: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    HAS_ALIBI: tl.constexpr,
    HAS_SINKS: tl.constexpr,
    HAS_K_SCALE: tl.constexpr,
    HAS_V_SCALE: tl.constexpr,
    SCALE_FIRST: tl.constexpr,  # scores are multiplied before the softmax, not in it
):
    """One program: BLOCK_Q query tokens of one request, for all query heads of one kv head, one split of the keys."""
    NUM_QUERIES_PER_KV: tl.constexpr = NUM_HEADS // NUM_KV_HEADS
    # The last programs of a request see the most keys: they come first. All kv heads of a tile run side by side.
    num_q_blocks = tl.num_programs(0) // NUM_KV_HEADS
    q_block = num_q_blocks - 1 - tl.program_id(0) // NUM_KV_HEADS
    kv_head = (tl.program_id(0) % NUM_KV_HEADS).to(tl.int64)
    split = tl.program_id(1)
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

    # What is visible. The queries are the last tokens of the sequence; row i sees the positions first to last, and
    # all rows see those from full_start to full_end, where no mask is needed.
    seq_len = tl.load(seq_lens_ptr + request)
    query_position = seq_len - num_queries + query_index
    tile_first = seq_len - num_queries + first_query
    tile_last = tl.minimum(tile_first + BLOCK_Q, seq_len) - 1
    if CAUSAL:
        last = query_position
        kv_end = tile_last + 1
        full_end = tile_first + 1
    else:
        last = tl.zeros_like(query_position) + (seq_len - 1)
        kv_end = seq_len
        full_end = seq_len
    first = query_position
    kv_first = 0
    kv_start = 0
    full_start = 0
    if HAS_WINDOW:
        first = query_position - sliding_window + 1
        kv_first = tl.maximum(tile_first - sliding_window + 1, 0)
        kv_start = kv_first // TILE_SIZE * TILE_SIZE
        full_start = tile_last - sliding_window + 1
    if NUM_SPLITS > 1:
        tiles_per_split = tl.cdiv(tl.cdiv(kv_end - kv_start, TILE_SIZE), NUM_SPLITS)
        kv_start += split * tiles_per_split * TILE_SIZE
        kv_end = tl.minimum(kv_end, kv_start + tiles_per_split * TILE_SIZE)

    slopes_log2 = 0.0
    if HAS_ALIBI:
        slopes_log2 = tl.load(alibi_slopes_ptr + head, mask=row_mask, other=0.0) * _LOG2_E
    if HAS_K_SCALE:
        factor *= tl.load(k_scale_ptr + kv_head * stride_k_scale_head)
    if HAS_V_SCALE:
        value_factor *= tl.load(v_scale_ptr + kv_head * stride_v_scale_head)

    if HAS_SINKS:
        sinks = tl.load(sinks_ptr + head, mask=row_mask, other=0.0).to(tl.float32) * _LOG2_E
        if NUM_SPLITS > 1:  # a sink counts once
            sinks = tl.where(split == 0, sinks, float("-inf"))
        row_max, row_sum, acc = start_softmax_at_sinks(sinks, BLOCK_M, HEAD_SIZE_PADDED)
    else:
        row_max, row_sum, acc = start_softmax(BLOCK_M, HEAD_SIZE_PADDED)

    state = (row_max, row_sum, acc)
    seen = (
        block_table_ptr + request.to(tl.int64) * stride_table_req,
        key_cache_ptr + kv_head * stride_key_head,
        value_cache_ptr + kv_head * stride_value_head,
        kv_first,
        kv_end,
    )
    strides = (stride_key_block, stride_key_slot, stride_value_block, stride_value_slot)
    visible = (first, last)
    scaling = (factor, cap_log2, slopes_log2)
    # Tiles at the window's edge, then those that all rows see whole, then those on the diagonal or at the end.
    whole_start = kv_start
    if HAS_WINDOW:
        whole_start = tl.minimum(tl.cdiv(full_start, TILE_SIZE) * TILE_SIZE, kv_end)
        whole_start = tl.maximum(whole_start, kv_start)  # kv_end is less where there is nothing to see
        state = _attend(
            state, kv_start, whole_start, query, query_position, seen, strides, visible, scaling,
            HEAD_SIZE, HEAD_SIZE_PADDED, BLOCK_SIZE, TILE_SIZE, 1, True, True, HAS_SOFTCAP, HAS_ALIBI, SCALE_FIRST,
        )  # fmt: skip
    whole_end = tl.maximum(tl.minimum(full_end, kv_end) // TILE_SIZE * TILE_SIZE, whole_start)
    state = _attend(
        state, whole_start, whole_end, query, query_position, seen, strides, visible, scaling,
        HEAD_SIZE, HEAD_SIZE_PADDED, BLOCK_SIZE, TILE_SIZE, NUM_STAGES, False, HAS_WINDOW, HAS_SOFTCAP, HAS_ALIBI,
        SCALE_FIRST,
    )  # fmt: skip
    row_max, row_sum, acc = _attend(
        state, whole_end, kv_end, query, query_position, seen, strides, visible, scaling,
        HEAD_SIZE, HEAD_SIZE_PADDED, BLOCK_SIZE, TILE_SIZE, 1, True, HAS_WINDOW, HAS_SOFTCAP, HAS_ALIBI, SCALE_FIRST,
    )  # fmt: skip

    output, lse = finish_softmax(row_max, row_sum, acc)
    output *= value_factor
    out_at = split.to(tl.int64) * stride_out_split + token * stride_out_token + head * stride_out_head
    tl.store(out_ptr + out_at[:, None] + dim[None, :], output.to(out_ptr.dtype.element_ty), mask=mask)
    lse_at = (split.to(tl.int64) * num_tokens + token) * NUM_HEADS + head
    tl.store(lse_ptr + lse_at, lse, mask=row_mask)


def paged_prefill(
    query: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    query_start_loc: torch.Tensor,
    scale: float,
    *,
    causal: bool = True,
    sliding_window: int | None = None,
    softcap: float | None = None,
    alibi_slopes: torch.Tensor | None = None,
    sinks: torch.Tensor | None = None,
    k_scale: Scale = None,
    v_scale: Scale = None,
    batch_invariant: bool = False,
    out: torch.Tensor | None = None,
    return_lse: bool = False,
) -> AttentionResult:
    """Attention of a ragged batch over a paged cache, by the plain Triton kernel: the Triton tier of
    `kernels.paged_attention`, with the same arguments, results and errors.
    """
    options = ScoreOptions(
        causal, sliding_window, softcap, alibi_slopes, sinks, k_scale, v_scale, batch_invariant
    )
    contract.check_paged(
        query, key_cache, value_cache, block_table, seq_lens, query_start_loc, scale, out, options, fp8=True
    )
    runtime.check_launch("query", query)
    return run_prefill(
        query, key_cache, value_cache, block_table, seq_lens, query_start_loc, scale, options, out, return_lse
    )


def run_prefill(
    query: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    query_start_loc: torch.Tensor,
    scale: float,
    options: ScoreOptions,
    out: torch.Tensor | None,
    return_lse: bool,
) -> AttentionResult:
    """`paged_prefill` of arguments that were checked."""
    if out is None:
        out = torch.empty_like(query, memory_format=torch.contiguous_format)
    lse = query.new_empty(query.shape[:2], dtype=torch.float32)
    launch_prefill(
        query, key_cache, value_cache, block_table, seq_lens, query_start_loc, scale, options, out, lse
    )
    return (out, lse) if return_lse else out


def launch_prefill(
    query: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    query_start_loc: torch.Tensor,
    scale: float,
    options: ScoreOptions,
    out: torch.Tensor,
    lse: torch.Tensor,
) -> None:
    """Fill `out`, like query, and `lse`, [num_tokens, num_heads] float32 and contiguous. Arguments were checked."""
    num_tokens, num_heads, head_size = query.shape
    _, block_size, num_kv_heads, _ = key_cache.shape
    num_reqs = block_table.shape[0]
    if num_tokens == 0:
        return
    num_queries_per_kv = num_heads // num_kv_heads
    max_seq_len = block_table.shape[1] * block_size
    tile = choose_tile(query, key_cache, block_table, options.batch_invariant)
    block_q = tile.rows // num_queries_per_kv
    num_programs = (num_tokens // block_q + num_reqs) * num_kv_heads
    num_splits = 1 if options.batch_invariant else choose_key_splits(num_programs, max_seq_len, query.device)

    numbers = score_numbers(scale, options)
    outputs, lses = out[None], lse[None]
    if num_splits > 1:
        outputs = query.new_empty(num_splits, num_tokens, num_heads, head_size, dtype=torch.float32)
        lses = query.new_empty(num_splits, num_tokens, num_heads, dtype=torch.float32)
    with torch.cuda.device_of(query):
        _paged_prefill_kernel[(num_programs, num_splits)](
            query,
            key_cache,
            value_cache,
            block_table,
            seq_lens,
            query_start_loc,
            options.alibi_slopes,
            options.sinks,
            numbers.k_scale,
            numbers.v_scale,
            outputs,
            lses,
            numbers.factor,
            numbers.cap_log2,
            numbers.value_factor,
            options.sliding_window or 0,
            num_reqs,
            num_tokens,
            *query.stride()[:2],
            *key_cache.stride()[:3],
            *value_cache.stride()[:3],
            block_table.stride(0),
            numbers.stride_k_scale_head,
            numbers.stride_v_scale_head,
            *outputs.stride()[:3],
            NUM_HEADS=num_heads,
            NUM_KV_HEADS=num_kv_heads,
            HEAD_SIZE=head_size,
            HEAD_SIZE_PADDED=pad_head_size(head_size),
            BLOCK_SIZE=block_size,
            BLOCK_M=tile.rows,
            BLOCK_Q=block_q,
            TILE_SIZE=tile.positions,
            NUM_SPLITS=num_splits,
            CAUSAL=options.causal,
            HAS_WINDOW=options.sliding_window is not None,
            HAS_SOFTCAP=options.softcap is not None,
            HAS_ALIBI=options.alibi_slopes is not None,
            HAS_SINKS=options.sinks is not None,
            HAS_K_SCALE=numbers.k_scale is not None,
            HAS_V_SCALE=numbers.v_scale is not None,
            SCALE_FIRST=numbers.scale_first,
            NUM_STAGES=tile.num_stages,
            num_warps=tile.num_warps,
            maxnreg=tile.max_registers,
        )
    if num_splits > 1:
        launch_merge(outputs, lses, out, lse)
