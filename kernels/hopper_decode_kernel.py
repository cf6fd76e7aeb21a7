"""The Gluon program of hopper_decode.py: paged decode on one Hopper GPU.

What it computes is what decode.py computes. How work is cut: a step is TILE_SIZE positions of a request; all steps of a
batch stand in one list, request by request; and a share is a part of that list, all shares of one length (the last one
shorter), whatever the requests' lengths are. A share is the work of NUM_KV_HEADS programs side by side, one for each kv
head. What it has of one request is a run. The programs live from the first step to the last, two on each multiprocessor
(one with heads of 256). Each reads all of seq_lens to find its share, its queries and its part of the block table. In it
one warp (the producer) lets the copy engine (TMA) fetch keys and values into a ring in shared memory, a box of rows for
each cache block, and runs ahead from one request into the next. Four warps (the consumer) multiply on the tensor cores
(wgmma). Their tile has 64 rows, most of them padding for the few query heads of a kv head: that costs a third of the
tensor cores' time, and saves moving keys and values through registers. A sequence that one program has from its start to
its end is written to the output at once; where a share ends within a sequence, what it has goes to a buffer with its
lse, and the kernel behind this one merges (hopper_decode_merge.py).

What bounds it: reading keys and values, once each. Two rings keep up to 160 KB on their way in each multiprocessor,
also while one request ends and the next begins. A slot's kv heads lie side by side in memory: as their programs go
through the positions together, neighbouring bytes are read at about the same time, which memory likes.
"""

# mypy: allow-untyped-defs

import torch
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

__all__ = ["describe_rows", "paged_decode_hopper_kernel"]

LOG2_E: gl.constexpr = gl.constexpr(1.4426950408889634)
LN_2: gl.constexpr = gl.constexpr(0.6931471805599453)
LOWEST: gl.constexpr = gl.constexpr(-3.4028234663852886e38)  # as in softmax.py
ROWS: gl.constexpr = gl.constexpr(64)  # of a tile: the least that four warps multiply
CLEAN_ROWS: gl.constexpr = gl.constexpr(32)  # rows of values that are cleaned at once

# Triton 3.7 calls it barrier, 3.6 thread_barrier: all threads of this partition of the program wait for one another.
_barrier = gl.barrier if hasattr(gl, "barrier") else gl.thread_barrier


@gluon.jit
def _add(a, b):
    return a + b


@gluon.jit
def _first_tile(seq_len, window, TILE_SIZE: gl.constexpr):
    """The tile with the first position that the query sees."""
    return gl.maximum(seq_len - window, 0) // TILE_SIZE


@gluon.jit
def _count_steps(seq_len, window, TILE_SIZE: gl.constexpr):
    """Steps of a request. One of length 0 has one: whoever takes it writes the zeros."""
    end = (seq_len + TILE_SIZE - 1) // TILE_SIZE
    return gl.maximum(end - _first_tile(seq_len, window, TILE_SIZE), 1)


@gluon.jit
def _fetch_tile(
    desc,
    stage,
    barrier,
    block_table_row_ptr,
    kv_head,
    tile,
    first,
    end,
    rows_of_block,
    rows_of_head,
    columns_of_head,
    num_rows,
    BLOCK_SIZE: gl.constexpr,
    TILE_SIZE: gl.constexpr,
    BOX: gl.constexpr,
):
    """Start copying TILE_SIZE keys or values of one kv head. Boxes outside first .. end - 1 become zeros."""
    for box in gl.static_range(TILE_SIZE // BOX):
        position = tile * TILE_SIZE + box * BOX
        seen = (position < end) & (position + BOX > first)
        block = gl.load(block_table_row_ptr + position // BLOCK_SIZE, mask=seen, other=0)
        row = block * rows_of_block + kv_head * rows_of_head + position % BLOCK_SIZE
        row = gl.where(seen, row, num_rows)  # the copy engine fills what lies outside with zeros
        tma.async_copy_global_to_shared(
            desc, [row, kv_head * columns_of_head], barrier, stage.slice(box * BOX, BOX, dim=0)
        )


@gluon.jit
def _produce(
    key_desc,
    value_desc,
    key_rows_of_block,
    key_rows_of_head,
    key_columns_of_head,
    key_num_rows,
    value_rows_of_block,
    value_rows_of_head,
    value_columns_of_head,
    value_num_rows,
    block_table_ptr,
    stride_table_req,
    seq_lens_ptr,
    window,
    ring,
    full,
    empty,
    request,
    request_start,
    step,
    share_end,
    NUM_KV_HEADS: gl.constexpr,
    HEAD_SIZE: gl.constexpr,
    BLOCK_SIZE: gl.constexpr,
    TILE_SIZE: gl.constexpr,
    BOX: gl.constexpr,
    STAGES: gl.constexpr,
):
    """Fetch the share's tiles in turn: keys into one stage of the ring, their values into the next."""
    BYTES: gl.constexpr = TILE_SIZE * HEAD_SIZE * 2
    kv_head = gl.program_id(0) % NUM_KV_HEADS
    stage = 0
    phase = 1
    while step < share_end:
        seq_len = gl.load(seq_lens_ptr + request)
        num_steps = _count_steps(seq_len, window, TILE_SIZE)
        first_step = step - request_start
        last_step = gl.minimum(num_steps, first_step + share_end - step)  # one past
        first = gl.maximum(seq_len - window, 0)
        first_tile = _first_tile(seq_len, window, TILE_SIZE)
        block_table_row_ptr = block_table_ptr + request.to(gl.int64) * stride_table_req
        for tile in range(first_tile + first_step, first_tile + last_step):
            mbarrier.wait(empty.index(stage), phase)
            mbarrier.expect(full.index(stage), BYTES)
            _fetch_tile(
                key_desc, ring.index(stage), full.index(stage), block_table_row_ptr, kv_head, tile, first, seq_len,
                key_rows_of_block, key_rows_of_head, key_columns_of_head, key_num_rows, BLOCK_SIZE, TILE_SIZE, BOX,
            )  # fmt: skip
            stage += 1
            if stage == STAGES:
                stage = 0
                phase ^= 1
            mbarrier.wait(empty.index(stage), phase)
            mbarrier.expect(full.index(stage), BYTES)
            _fetch_tile(
                value_desc, ring.index(stage), full.index(stage), block_table_row_ptr, kv_head, tile, first, seq_len,
                value_rows_of_block, value_rows_of_head, value_columns_of_head, value_num_rows,
                BLOCK_SIZE, TILE_SIZE, BOX,
            )  # fmt: skip
            stage += 1
            if stage == STAGES:
                stage = 0
                phase ^= 1
        step += last_step - first_step
        if step - request_start == num_steps:
            request += 1
            request_start = step


@gluon.jit
def _clean(values, tile_start, first, end, TILE_SIZE: gl.constexpr, HEAD_SIZE: gl.constexpr):
    """Zeros in place of values that the query does not see: they may be NaN, and 0 * NaN is NaN."""
    layout: gl.constexpr = gl.BlockedLayout([1, 8], [2, 16], [4, 1], [1, 0])
    for start in gl.static_range(0, TILE_SIZE, CLEAN_ROWS):
        rows = values.slice(start, CLEAN_ROWS, dim=0)
        position = tile_start + start + gl.arange(0, CLEAN_ROWS, layout=gl.SliceLayout(1, layout))
        seen = gl.expand_dims((position >= first) & (position < end), 1)
        kept = rows.load(layout)
        rows.store(gl.where(seen, kept, gl.zeros([CLEAN_ROWS, HEAD_SIZE], values.dtype, layout)))
    fence_async_shared()
    _barrier()


@gluon.jit
def _consume(
    query_ptr,
    alibi_slopes_ptr,
    sinks_ptr,
    out_ptr,
    lse_ptr,
    part_out_ptr,
    part_lse_ptr,
    stride_query_token,
    stride_query_head,
    stride_out_token,
    stride_out_head,
    seq_lens_ptr,
    window,
    factor,
    cap_log2,
    query_smem,
    ring,
    full,
    empty,
    request,
    request_start,
    step,
    share_end,
    NUM_KV_HEADS: gl.constexpr,
    NUM_QUERIES_PER_KV: gl.constexpr,
    HEAD_SIZE: gl.constexpr,
    TILE_SIZE: gl.constexpr,
    STAGES: gl.constexpr,
    HAS_SOFTCAP: gl.constexpr,
    HAS_ALIBI: gl.constexpr,
    HAS_SINKS: gl.constexpr,
):
    """Online softmax over the share's runs. Row i of a tile is the i-th query head of the run's kv head."""
    SCORES: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, TILE_SIZE, 16])
    OUTPUT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, HEAD_SIZE, 16])
    WEIGHTS: gl.constexpr = gl.DotOperandLayout(0, OUTPUT, k_width=2)
    QUERY: gl.constexpr = gl.BlockedLayout([1, 8], [2, 16], [4, 1], [1, 0])
    SCORE_ROW: gl.constexpr = gl.SliceLayout(1, SCORES)
    OUTPUT_ROW: gl.constexpr = gl.SliceLayout(1, OUTPUT)
    dtype: gl.constexpr = query_smem.dtype
    program = gl.program_id(0)
    kv_head = program % NUM_KV_HEADS
    first_head = kv_head * NUM_QUERIES_PER_KV
    query_row = gl.arange(0, ROWS, layout=gl.SliceLayout(1, QUERY))
    query_dim = gl.arange(0, HEAD_SIZE, layout=gl.SliceLayout(0, QUERY))
    score_row = gl.arange(0, ROWS, layout=SCORE_ROW)
    column = gl.arange(0, TILE_SIZE, layout=gl.SliceLayout(0, SCORES))
    output_row = gl.arange(0, ROWS, layout=OUTPUT_ROW)
    output_dim = gl.arange(0, HEAD_SIZE, layout=gl.SliceLayout(0, OUTPUT))
    no_scores = gl.zeros([ROWS, TILE_SIZE], gl.float32, SCORES)

    stage = 0
    phase = 0
    while step < share_end:
        seq_len = gl.load(seq_lens_ptr + request)
        num_steps = _count_steps(seq_len, window, TILE_SIZE)
        first_step = step - request_start
        last_step = gl.minimum(num_steps, first_step + share_end - step)  # one past
        first = gl.maximum(seq_len - window, 0)
        first_tile = _first_tile(seq_len, window, TILE_SIZE)
        query_at = request.to(gl.int64) * stride_query_token + (first_head + query_row) * stride_query_head
        query = gl.load(
            query_ptr + gl.expand_dims(query_at, 1) + gl.expand_dims(query_dim, 0),
            mask=gl.expand_dims(query_row < NUM_QUERIES_PER_KV, 1),
            other=0.0,
        )
        query_smem.store(query)
        fence_async_shared()
        _barrier()

        if HAS_ALIBI:
            slopes_log2 = LOG2_E * gl.load(
                alibi_slopes_ptr + first_head + score_row, mask=score_row < NUM_QUERIES_PER_KV, other=0.0
            )
        row_max = gl.full([ROWS], LOWEST, gl.float32, SCORE_ROW)
        row_sum = gl.zeros([ROWS], gl.float32, SCORE_ROW)
        if HAS_SINKS:
            sinks = LOG2_E * gl.load(
                sinks_ptr + first_head + score_row, mask=score_row < NUM_QUERIES_PER_KV, other=0.0
            ).to(gl.float32)
            if first_step == 0:  # a sink counts once
                row_max = gl.maximum(sinks, LOWEST)
                row_sum = gl.exp2(sinks - row_max)
        acc = gl.zeros([ROWS, HEAD_SIZE], gl.float32, OUTPUT)
        for tile in range(first_tile + first_step, first_tile + last_step):
            tile_start = tile * TILE_SIZE
            mbarrier.wait(full.index(stage), phase)
            scores = warpgroup_mma(
                query_smem, ring.index(stage).permute((1, 0)), no_scores, use_acc=False, is_async=True
            )
            scores = warpgroup_mma_wait(0, deps=(scores,))
            mbarrier.arrive(empty.index(stage), count=1)
            stage += 1
            if stage == STAGES:
                stage = 0
                phase ^= 1

            scores = scores * factor
            if HAS_SOFTCAP:
                scores = cap_log2 * (1.0 - 2.0 / (gl.exp2(scores) + 1.0))
            if HAS_ALIBI:
                distance = (seq_len - 1 - tile_start - column).to(gl.float32)
                scores = scores - gl.expand_dims(slopes_log2, 1) * gl.expand_dims(distance, 0)
            seen = (tile_start + column >= first) & (tile_start + column < seq_len)
            scores = gl.where(gl.expand_dims(seen, 0), scores, float("-inf"))
            new_max = gl.maximum(row_max, gl.max(scores, axis=1))
            rescale = gl.exp2(row_max - new_max)
            weights = gl.exp2(scores - gl.expand_dims(new_max, 1))
            row_sum = row_sum * rescale + gl.sum(weights, axis=1)
            row_max = new_max
            weights = gl.convert_layout(weights.to(dtype), WEIGHTS, assert_trivial=True)
            acc = acc * gl.expand_dims(gl.convert_layout(rescale, OUTPUT_ROW, assert_trivial=True), 1)

            mbarrier.wait(full.index(stage), phase)
            values = ring.index(stage)
            if (tile_start < first) | (tile_start + TILE_SIZE > seq_len):
                _clean(values, tile_start, first, seq_len, TILE_SIZE, HEAD_SIZE)
            acc = warpgroup_mma(weights, values, acc, is_async=True)
            acc = warpgroup_mma_wait(0, deps=(acc,))
            mbarrier.arrive(empty.index(stage), count=1)
            stage += 1
            if stage == STAGES:
                stage = 0
                phase ^= 1

        nothing = row_sum == 0.0
        divisor = gl.where(nothing, 1.0, row_sum)
        lse = gl.where(nothing, float("-inf"), (row_max + gl.log2(divisor)) * LN_2)
        output = acc / gl.expand_dims(gl.convert_layout(divisor, OUTPUT_ROW, assert_trivial=True), 1)
        real_row = gl.expand_dims(output_row < NUM_QUERIES_PER_KV, 1)
        if (first_step == 0) & (last_step == num_steps):
            out_at = request.to(gl.int64) * stride_out_token + (first_head + output_row) * stride_out_head
            out_ptrs = out_ptr + gl.expand_dims(out_at, 1) + gl.expand_dims(output_dim, 0)
            gl.store(out_ptrs, output.to(dtype), mask=real_row)
            lse_at = request.to(gl.int64) * (NUM_KV_HEADS * NUM_QUERIES_PER_KV) + first_head + score_row
            gl.store(lse_ptr + lse_at, lse, mask=score_row < NUM_QUERIES_PER_KV)
        else:
            # A share cuts at its start and at its end: part 0 for a run whose beginning others have.
            part = program * 2 + gl.where(first_step == 0, 1, 0)
            part_at = (part * NUM_QUERIES_PER_KV + output_row) * HEAD_SIZE
            part_ptrs = part_out_ptr + gl.expand_dims(part_at, 1) + gl.expand_dims(output_dim, 0)
            gl.store(part_ptrs, output, mask=real_row)
            part_lse_ptrs = part_lse_ptr + part * NUM_QUERIES_PER_KV + score_row
            gl.store(part_lse_ptrs, lse, mask=score_row < NUM_QUERIES_PER_KV)

        step += last_step - first_step
        if step - request_start == num_steps:
            request += 1
            request_start = step


_NOT_SPECIALIZED = ["num_reqs", "window", "stride_table_req", "key_num_rows", "value_num_rows"]


@gluon.jit(do_not_specialize=_NOT_SPECIALIZED)
def paged_decode_hopper_kernel(
    key_desc,  # boxes of BOX rows of one head; a row is a slot, or a slot of one head, as strides have it
    value_desc,
    query_ptr,  # [num_reqs, num_heads, head_size]
    block_table_ptr,  # [num_reqs, max_num_blocks]
    seq_lens_ptr,  # [num_reqs]
    alibi_slopes_ptr,  # [num_heads], with HAS_ALIBI
    sinks_ptr,  # [num_heads], with HAS_SINKS
    out_ptr,  # [num_reqs, num_heads, head_size]
    lse_ptr,  # [num_reqs, num_heads], contiguous
    part_out_ptr,  # [programs, 2, NUM_QUERIES_PER_KV, HEAD_SIZE] float32, contiguous
    part_lse_ptr,  # [programs, 2, NUM_QUERIES_PER_KV]
    num_reqs,
    window,  # positions that a query sees at most
    factor,  # what a score is multiplied with: scale * log2(e), or 2 / softcap times that
    cap_log2,  # softcap * log2(e)
    key_rows_of_block,
    key_rows_of_head,
    key_columns_of_head,
    key_num_rows,
    value_rows_of_block,
    value_rows_of_head,
    value_columns_of_head,
    value_num_rows,
    stride_query_token,
    stride_query_head,
    stride_table_req,
    stride_out_token,
    stride_out_head,
    NUM_KV_HEADS: gl.constexpr,
    NUM_QUERIES_PER_KV: gl.constexpr,
    HEAD_SIZE: gl.constexpr,
    BLOCK_SIZE: gl.constexpr,
    TILE_SIZE: gl.constexpr,
    BOX: gl.constexpr,
    STAGES: gl.constexpr,
    LANES: gl.constexpr,  # at least num_reqs and 128, a power of two
    HAS_SOFTCAP: gl.constexpr,
    HAS_ALIBI: gl.constexpr,
    HAS_SINKS: gl.constexpr,
):
    dtype: gl.constexpr = query_ptr.dtype.element_ty
    SHARED: gl.constexpr = gl.NVMMASharedLayout.get_default_for([TILE_SIZE, HEAD_SIZE], dtype)
    QUERY_SHARED: gl.constexpr = gl.NVMMASharedLayout.get_default_for([ROWS, HEAD_SIZE], dtype)
    ring = gl.allocate_shared_memory(dtype, [STAGES, TILE_SIZE, HEAD_SIZE], SHARED)
    query_smem = gl.allocate_shared_memory(dtype, [ROWS, HEAD_SIZE], QUERY_SHARED)
    full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(STAGES):
        mbarrier.init(full.index(i), count=1)
        mbarrier.init(empty.index(i), count=1)
    fence_async_shared()

    # This kernel may have started before the one in front of it ended: wait for what that one writes.
    gdc_wait()
    gdc_launch_dependents()

    # The share: nobody plans on the host, each program adds up seq_lens and finds where its share begins.
    layout: gl.constexpr = gl.BlockedLayout([LANES // 128], [32], [4], [0])
    lane = gl.arange(0, LANES, layout=layout)
    seq_lens = gl.load(seq_lens_ptr + lane, mask=lane < num_reqs, other=0)
    steps = gl.where(lane < num_reqs, _count_steps(seq_lens, window, TILE_SIZE), 0)
    end = gl.associative_scan(steps, 0, _add)
    num_steps = gl.max(end)
    steps_a_share = gl.cdiv(num_steps, gl.num_programs(0) // NUM_KV_HEADS)
    step = gl.minimum(gl.program_id(0) // NUM_KV_HEADS * steps_a_share, num_steps)
    share_end = gl.minimum(step + steps_a_share, num_steps)
    before = (lane < num_reqs) & (end <= step)
    request = gl.sum(before.to(gl.int32))
    request_start = gl.max(gl.where(before, end, 0))

    gl.warp_specialize(
        [
            (
                _consume,
                (
                    query_ptr, alibi_slopes_ptr, sinks_ptr, out_ptr, lse_ptr, part_out_ptr, part_lse_ptr,
                    stride_query_token, stride_query_head, stride_out_token, stride_out_head, seq_lens_ptr, window,
                    factor, cap_log2, query_smem, ring, full, empty, request, request_start, step, share_end,
                    NUM_KV_HEADS, NUM_QUERIES_PER_KV, HEAD_SIZE, TILE_SIZE, STAGES,
                    HAS_SOFTCAP, HAS_ALIBI, HAS_SINKS,
                ),
            ),
            (
                _produce,
                (
                    key_desc, value_desc, key_rows_of_block, key_rows_of_head, key_columns_of_head, key_num_rows,
                    value_rows_of_block, value_rows_of_head, value_columns_of_head, value_num_rows, block_table_ptr,
                    stride_table_req, seq_lens_ptr, window, ring, full, empty, request, request_start, step,
                    share_end, NUM_KV_HEADS, HEAD_SIZE, BLOCK_SIZE, TILE_SIZE, BOX, STAGES,
                ),
            ),
        ],
        [1],
        [40],
    )  # fmt: skip


def describe_rows(cache: torch.Tensor, box: int) -> tuple[object, int, int, int, int]:
    """The cache as a matrix for the copy engine, whose rows are as far apart as slots are.

    Returns (descriptor, rows from a block to the next, rows and columns from a kv head to the next, rows). In the
    usual layout a row holds all heads of a slot, and heads are columns apart; heads may be rows apart as well.
    """
    num_blocks, block_size, num_kv_heads, head_size = cache.shape
    stride_block, stride_slot, stride_head, _ = cache.stride()
    rows_of_block = stride_block // stride_slot
    rows_of_head, columns_of_head = divmod(stride_head, stride_slot)
    num_rows = (num_blocks - 1) * rows_of_block + (num_kv_heads - 1) * rows_of_head + block_size
    num_columns = (num_kv_heads - 1) * columns_of_head + head_size
    matrix = cache.as_strided((num_rows, num_columns), (stride_slot, 1))
    dtype = gl.bfloat16 if cache.dtype == torch.bfloat16 else gl.float16
    layout = gl.NVMMASharedLayout.get_default_for([box, head_size], dtype)
    desc = TensorDescriptor(matrix, list(matrix.shape), list(matrix.stride()), [box, head_size], layout)
    return desc, rows_of_block, rows_of_head, columns_of_head, num_rows
