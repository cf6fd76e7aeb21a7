"""The Gluon program of hopper_latent.py: decode over a cache of latents (MLA) on one Hopper GPU.

What it computes is what latent.py computes. How work is cut: a program takes 64 heads of one request and one split of its
sequence, and fills a multiprocessor: queries and two tiles of 64 rows take 216 KB of shared memory, and the 64 x 512
outputs half of the registers. One warp (the producer) lets the copy engine (TMA) fetch rows, a box for each cache block,
in three parts that are freed and fetched again on their own: the left 256 columns, the right 256, and the rest (the key
part for the position). Two warpgroups compute. Each has half of the output's columns for all rows, and every second tile:
of its own tile it multiplies scores and takes the softmax, adds its half of the output, and leaves weights and maxima in
shared memory for the other's half. So one's softmax runs beside the other's products:
    left:  scores 0, softmax 0, output 0,           output 1, scores 2, softmax 2, ...
    right: scores 1,           output 0, softmax 1, output 1, scores 3,            ...
Each row of a tile is fetched once by each 64 heads; with 128 the second fetch finds it in the L2 cache.

What bounds it: the tensor cores need 2176 cycles for 64 rows and 64 heads; shared memory is as busy (the products read 1728
cycles' worth of a tile, the copy engine writes 576), and on an H100 with 128 heads so is the memory behind it all. What is
not hidden is part of the wait for tile t + 2, which has the place of tile t: it is fetched while the outputs of tile t + 1
are multiplied, and nothing else is left to do then.
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

__all__ = ["describe_matrix", "latent_decode_hopper_kernel"]


def describe_matrix(matrix: torch.Tensor, box: list[int]) -> TensorDescriptor:
    """What the copy engine has to know to fetch boxes of a matrix, and how they lie in shared memory (swizzled)."""
    dtype = gl.bfloat16 if matrix.dtype == torch.bfloat16 else gl.float16
    layout = gl.NVMMASharedLayout.get_default_for(box, dtype)
    return TensorDescriptor(matrix, list(matrix.shape), list(matrix.stride()), box, layout)


LN_2: gl.constexpr = gl.constexpr(0.6931471805599453)
LOWEST: gl.constexpr = gl.constexpr(-3.4028234663852886e38)  # as in softmax.py
ROWS: gl.constexpr = gl.constexpr(64)  # heads of a program: what one wgmma has
TILE_SIZE: gl.constexpr = gl.constexpr(64)  # positions
HALF: gl.constexpr = gl.constexpr(256)  # columns of the output that a warpgroup has
REST: gl.constexpr = gl.constexpr(64)  # columns of a row behind the latent
CLEAN_ROWS: gl.constexpr = gl.constexpr(16)  # rows of values that are cleaned at once

# Triton 3.7 calls it barrier, 3.6 thread_barrier: all threads of this partition of the program wait for one another.
_barrier = gl.barrier if hasattr(gl, "barrier") else gl.thread_barrier


@gluon.jit
def _hide(number):
    """The number, hidden from the compiler, which would keep every address that follows from it in registers."""
    return gl.inline_asm_elementwise(
        "mov.b32 $0, $1;", "=r,r", [number], dtype=gl.int32, is_pure=False, pack=1
    )


@gluon.jit
def _fetch_part(
    desc,
    column,
    part,
    full,
    empty,
    phase,
    block_table_row_ptr,
    tile_start,
    end,
    rows_of_block,
    num_rows,
    COLUMNS: gl.constexpr,
    BLOCK_SIZE: gl.constexpr,
    BOX: gl.constexpr,
):
    """Fetch COLUMNS columns of a tile's rows as soon as there is room. Boxes from `end` on become zeros."""
    mbarrier.wait(empty, phase)
    mbarrier.expect(full, TILE_SIZE * COLUMNS * 2)
    for box in gl.static_range(TILE_SIZE // BOX):
        position = tile_start + box * BOX
        owned = position < end
        block = gl.load(block_table_row_ptr + position // BLOCK_SIZE, mask=owned, other=0)
        row = block * rows_of_block + position % BLOCK_SIZE
        row = gl.where(owned, row, num_rows)  # the copy engine fills what lies outside with zeros
        tma.async_copy_global_to_shared(desc, [row, column], full, part.slice(box * BOX, BOX, dim=0))


@gluon.jit
def _produce(
    descriptors,
    query_row,
    block_table_row_ptr,
    cache_rows,
    span,
    queries,
    rows,
    query_full,
    full,
    empty,
    BLOCK_SIZE: gl.constexpr,
    BOX: gl.constexpr,
):
    """One warp: fetches the queries once, and tile after tile into the two places that there are."""
    query_half_desc, query_rest_desc, cache_half_desc, cache_rest_desc = descriptors
    rows_of_block, num_rows = cache_rows
    first_tile, num_tiles, end = span
    query_left, query_right, query_rest = queries
    left, right, rest = rows
    left_full, right_full, rest_full = full
    left_empty, right_empty, rest_empty = empty
    if num_tiles > 0:
        mbarrier.expect(query_full, ROWS * (2 * HALF + REST) * 2)
        tma.async_copy_global_to_shared(
            query_rest_desc, [query_row, 2 * HALF], query_full, query_rest.index(0)
        )
        tma.async_copy_global_to_shared(query_half_desc, [query_row, 0], query_full, query_left.index(0))
        tma.async_copy_global_to_shared(query_half_desc, [query_row, HALF], query_full, query_right.index(0))
    for tile in range(num_tiles):
        stage = tile % 2
        phase = ((tile // 2) & 1) ^ 1
        tile_start = (first_tile + tile) * TILE_SIZE
        _fetch_part(
            cache_rest_desc, 2 * HALF, rest.index(stage), rest_full.index(stage), rest_empty.index(stage), phase,
            block_table_row_ptr, tile_start, end, rows_of_block, num_rows, REST, BLOCK_SIZE, BOX,
        )  # fmt: skip
        # The half first that will have been multiplied first: that of the warpgroup whose tile it is.
        if stage == 0:
            _fetch_part(
                cache_half_desc, 0, left.index(0), left_full.index(0), left_empty.index(0), phase,
                block_table_row_ptr, tile_start, end, rows_of_block, num_rows, HALF, BLOCK_SIZE, BOX,
            )  # fmt: skip
        _fetch_part(
            cache_half_desc, HALF, right.index(stage), right_full.index(stage), right_empty.index(stage), phase,
            block_table_row_ptr, tile_start, end, rows_of_block, num_rows, HALF, BLOCK_SIZE, BOX,
        )  # fmt: skip
        if stage == 1:
            _fetch_part(
                cache_half_desc, 0, left.index(1), left_full.index(1), left_empty.index(1), phase,
                block_table_row_ptr, tile_start, end, rows_of_block, num_rows, HALF, BLOCK_SIZE, BOX,
            )  # fmt: skip


@gluon.jit
def _multiply_scores(queries, rows, full, zero, stage, phase, LEFT_FIRST: gl.constexpr):
    """Start the product of the queries and a tile's rows, part by part as they come."""
    SCORE: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, TILE_SIZE, 16])
    query_left, query_right, query_rest = queries
    left, right, rest = rows
    left_full, right_full, rest_full = full
    scores = gl.zeros([ROWS, TILE_SIZE], gl.float32, SCORE)
    mbarrier.wait(rest_full.index(stage), phase)
    key = rest.index(stage).permute((1, 0))
    scores = warpgroup_mma(query_rest.index(zero), key, scores, use_acc=False, is_async=True)
    if LEFT_FIRST:
        mbarrier.wait(left_full.index(stage), phase)
        key = left.index(stage).permute((1, 0))
        scores = warpgroup_mma(query_left.index(zero), key, scores, is_async=True)
    mbarrier.wait(right_full.index(stage), phase)
    key = right.index(stage).permute((1, 0))
    scores = warpgroup_mma(query_right.index(zero), key, scores, is_async=True)
    if not LEFT_FIRST:
        mbarrier.wait(left_full.index(stage), phase)
        key = left.index(stage).permute((1, 0))
        scores = warpgroup_mma(query_left.index(zero), key, scores, is_async=True)
    return scores


@gluon.jit
def _take_softmax(scores, row_max, row_sum, factor, tile_start, end):
    """(weights, row_max, row_sum, what earlier outputs are multiplied with), as in softmax.py; factor is positive."""
    SCORE: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, TILE_SIZE, 16])
    if tile_start + TILE_SIZE > end:
        position = tile_start + gl.arange(0, TILE_SIZE, layout=gl.SliceLayout(0, SCORE))
        scores = gl.where(gl.expand_dims(position < end, 0), scores, float("-inf"))
    new_max = gl.maximum(row_max, gl.max(scores, axis=1) * factor)
    rescale = gl.exp2(row_max - new_max)
    weights = gl.exp2(scores * factor - gl.expand_dims(new_max, 1))
    return weights, new_max, row_sum * rescale + gl.sum(weights, axis=1), rescale


@gluon.jit
def _rescale(acc, rescale):
    OUTPUT_ROW: gl.constexpr = gl.SliceLayout(1, gl.NVMMADistributedLayout([3, 0], [4, 1], [16, HALF, 16]))
    return acc * gl.expand_dims(gl.convert_layout(rescale, OUTPUT_ROW, assert_trivial=True), 1)


@gluon.jit
def _clean(values, tile_start, end):
    """Zeros in place of values from `end` on: they may be NaN, and 0 * NaN is NaN."""
    if tile_start + TILE_SIZE > end:
        LAYOUT: gl.constexpr = gl.BlockedLayout([1, 8], [1, 32], [4, 1], [1, 0])
        for start in gl.static_range(0, TILE_SIZE, CLEAN_ROWS):
            part = values.slice(start, CLEAN_ROWS, dim=0)
            position = tile_start + start + gl.arange(0, CLEAN_ROWS, layout=gl.SliceLayout(1, LAYOUT))
            kept = part.load(LAYOUT)
            zero = gl.zeros([CLEAN_ROWS, HALF], values.dtype, LAYOUT)
            part.store(gl.where(gl.expand_dims(position < end, 1), kept, zero))
        fence_async_shared()
        _barrier()


@gluon.jit
def _publish(weights, row_max, shared_weights, shared_max, published):
    """Leave a tile's weights and maxima for the other warpgroup.

    There is one place for all tiles: who writes tile t + 1's is who has read tile t's.
    """
    shared_weights.index(0).store(weights)
    shared_max.store(row_max)
    fence_async_shared()
    _barrier()
    mbarrier.arrive(published, count=1)


@gluon.jit
def _take_published(row_max, row_sum, acc, shared_max, published, phase):
    """(row_max, row_sum, acc) for the tile that the other warpgroup has published: its weights are ready."""
    ROW: gl.constexpr = gl.SliceLayout(1, gl.NVMMADistributedLayout([3, 0], [4, 1], [16, TILE_SIZE, 16]))
    mbarrier.wait(published, phase)
    new_max = shared_max.load(ROW)
    rescale = gl.exp2(row_max - new_max)
    return new_max, row_sum * rescale, _rescale(acc, rescale)


@gluon.jit
def _finish(outputs, place, num_heads, row_max, row_sum, acc, shared_sums, finished, ME: gl.constexpr):
    """Divide by the sum over both warpgroups' tiles, and store this one's half of the output."""
    OUTPUT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, HALF, 16])
    ROW: gl.constexpr = gl.SliceLayout(1, gl.NVMMADistributedLayout([3, 0], [4, 1], [16, TILE_SIZE, 16]))
    out_ptr, lse_ptr, stride_out_split, stride_out_req, stride_out_head = outputs
    split, request, num_reqs, first_head = place
    shared_sums.index(ME).store(row_sum)
    _barrier()
    mbarrier.arrive(finished, count=1)
    mbarrier.wait(finished, 0)
    total = shared_sums.index(0).load(ROW) + shared_sums.index(1).load(ROW)
    nothing = total == 0.0
    divisor = gl.where(nothing, 1.0, total)
    output = _rescale(acc, 1.0 / divisor)
    head = first_head + gl.arange(0, ROWS, layout=gl.SliceLayout(1, OUTPUT))
    column = ME * HALF + gl.arange(0, HALF, layout=gl.SliceLayout(0, OUTPUT))
    out_at = split.to(gl.int64) * stride_out_split + request.to(gl.int64) * stride_out_req
    out_at = out_at + head * stride_out_head
    mask = gl.expand_dims(head < num_heads, 1)
    gl.store(out_ptr + gl.expand_dims(out_at, 1) + gl.expand_dims(column, 0), output, mask=mask)
    if ME == 0:
        lse = gl.where(nothing, float("-inf"), (row_max + gl.log2(divisor)) * LN_2)
        lse_head = first_head + gl.arange(0, ROWS, layout=ROW)
        lse_at = (split.to(gl.int64) * num_reqs + request) * num_heads + lse_head
        gl.store(lse_ptr + lse_at, lse, mask=lse_head < num_heads)


@gluon.jit
def _consume_left(
    outputs, place, num_heads, factor, span, queries, rows, exchange, query_full, full, empty, meeting
):
    """The warpgroup of the even tiles and of the output's left half: the tile first, then the other's."""
    OUTPUT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, HALF, 16])
    ROW: gl.constexpr = gl.SliceLayout(1, gl.NVMMADistributedLayout([3, 0], [4, 1], [16, TILE_SIZE, 16]))
    WEIGHT: gl.constexpr = gl.DotOperandLayout(0, OUTPUT, k_width=2)
    first_tile, num_tiles, end = span
    left, _, _ = rows
    left_full, _, _ = full
    left_empty, _, rest_empty = empty
    shared_weights, shared_max, shared_sums = exchange
    published, finished = meeting
    row_max = gl.full([ROWS], LOWEST, gl.float32, ROW)
    row_sum = gl.zeros([ROWS], gl.float32, ROW)
    acc = gl.zeros([ROWS, HALF], gl.float32, OUTPUT)
    if num_tiles > 0:
        mbarrier.wait(query_full, 0)
    for pair in range((num_tiles + 1) // 2):
        phase = pair & 1
        zero = _hide(0)
        mine, others = zero, zero + 1
        tile_start = (first_tile + pair * 2) * TILE_SIZE
        scores = _multiply_scores(queries, rows, full, zero, mine, phase, True)
        scores = warpgroup_mma_wait(0, deps=(scores,))
        mbarrier.arrive(rest_empty.index(mine), count=1)
        weights, row_max, row_sum, rescale = _take_softmax(scores, row_max, row_sum, factor, tile_start, end)
        weights = weights.to(shared_weights.dtype)
        _publish(weights, row_max, shared_weights, shared_max, published)
        acc = _rescale(acc, rescale)
        _clean(left.index(mine), tile_start, end)
        weights = gl.convert_layout(weights, WEIGHT, assert_trivial=True)
        acc = warpgroup_mma(weights, left.index(mine), acc, is_async=True)
        acc = warpgroup_mma_wait(0, deps=(acc,))
        mbarrier.arrive(left_empty.index(mine), count=1)

        if pair * 2 + 1 < num_tiles:
            row_max, row_sum, acc = _take_published(row_max, row_sum, acc, shared_max, published, 1)
            mbarrier.wait(left_full.index(others), phase)
            _clean(left.index(others), tile_start + TILE_SIZE, end)
            acc = warpgroup_mma(shared_weights.index(zero), left.index(others), acc, is_async=True)
            acc = warpgroup_mma_wait(0, deps=(acc,))
            mbarrier.arrive(left_empty.index(others), count=1)
    _finish(outputs, place, num_heads, row_max, row_sum, acc, shared_sums, finished, 0)


@gluon.jit
def _consume_right(
    outputs, place, num_heads, factor, span, queries, rows, exchange, query_full, full, empty, meeting
):
    """The warpgroup of the odd tiles and of the output's right half: while the other's tile is multiplied, its softmax."""
    OUTPUT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, HALF, 16])
    ROW: gl.constexpr = gl.SliceLayout(1, gl.NVMMADistributedLayout([3, 0], [4, 1], [16, TILE_SIZE, 16]))
    WEIGHT: gl.constexpr = gl.DotOperandLayout(0, OUTPUT, k_width=2)
    first_tile, num_tiles, end = span
    _, right, _ = rows
    _, right_full, _ = full
    _, right_empty, rest_empty = empty
    shared_weights, shared_max, shared_sums = exchange
    published, finished = meeting
    row_max = gl.full([ROWS], LOWEST, gl.float32, ROW)
    row_sum = gl.zeros([ROWS], gl.float32, ROW)
    acc = gl.zeros([ROWS, HALF], gl.float32, OUTPUT)
    if num_tiles > 0:
        mbarrier.wait(query_full, 0)
    for pair in range(num_tiles // 2):
        phase = pair & 1
        zero = _hide(0)
        mine, others = zero + 1, zero
        tile_start = (first_tile + pair * 2 + 1) * TILE_SIZE
        scores = _multiply_scores(queries, rows, full, zero, mine, phase, False)
        # Waited for before acc is touched: the compiler would do it anyway.
        scores = warpgroup_mma_wait(0, deps=(scores,))
        mbarrier.arrive(rest_empty.index(mine), count=1)

        row_max, row_sum, acc = _take_published(row_max, row_sum, acc, shared_max, published, 0)
        mbarrier.wait(right_full.index(others), phase)
        acc = warpgroup_mma(shared_weights.index(zero), right.index(others), acc, is_async=True)
        weights, row_max, row_sum, rescale = _take_softmax(scores, row_max, row_sum, factor, tile_start, end)
        weights = weights.to(shared_weights.dtype)
        # Long since there: but without a branch here the compiler would wait for the product before the softmax.
        mbarrier.wait(right_full.index(mine), phase)
        acc = warpgroup_mma_wait(0, deps=(acc,))
        mbarrier.arrive(right_empty.index(others), count=1)
        _publish(weights, row_max, shared_weights, shared_max, published)
        acc = _rescale(acc, rescale)
        _clean(right.index(mine), tile_start, end)
        weights = gl.convert_layout(weights, WEIGHT, assert_trivial=True)
        acc = warpgroup_mma(weights, right.index(mine), acc, is_async=True)
        acc = warpgroup_mma_wait(0, deps=(acc,))
        mbarrier.arrive(right_empty.index(mine), count=1)
    if num_tiles % 2 == 1:
        row_max, row_sum, acc = _take_published(row_max, row_sum, acc, shared_max, published, 0)
        mbarrier.wait(right_full.index(0), (num_tiles // 2) & 1)
        _clean(right.index(0), (first_tile + num_tiles - 1) * TILE_SIZE, end)
        acc = warpgroup_mma(shared_weights.index(0), right.index(0), acc, is_async=True)
        acc = warpgroup_mma_wait(0, deps=(acc,))
    _finish(outputs, place, num_heads, row_max, row_sum, acc, shared_sums, finished, 1)


@gluon.jit(do_not_specialize=["num_reqs", "num_splits", "stride_table_req", "num_cache_rows"])
def latent_decode_hopper_kernel(
    query_half_desc,  # rows of all heads of all requests, boxes of ROWS heads and HALF columns
    query_rest_desc,  # the same, REST columns
    cache_half_desc,  # rows of slots, boxes of BOX slots and HALF columns
    cache_rest_desc,  # the same, REST columns
    block_table_ptr,  # [num_reqs, max_num_blocks]
    seq_lens_ptr,  # [num_reqs]
    out_ptr,  # [num_splits, num_reqs, num_heads, 512]
    lse_ptr,  # [num_splits, num_reqs, num_heads], contiguous
    factor,  # scale * log2(e), positive
    num_reqs,
    num_splits,
    rows_of_req,  # of the queries, from a request to the next
    rows_of_block,  # of the cache, from a block to the next
    num_cache_rows,
    stride_table_req,
    stride_out_split,
    stride_out_req,
    stride_out_head,
    NUM_HEADS: gl.constexpr,
    BLOCK_SIZE: gl.constexpr,
    BOX: gl.constexpr,
):
    DTYPE: gl.constexpr = query_half_desc.dtype
    HALF_SHARED: gl.constexpr = gl.NVMMASharedLayout.get_default_for([ROWS, HALF], DTYPE)
    REST_SHARED: gl.constexpr = gl.NVMMASharedLayout.get_default_for([ROWS, REST], DTYPE)
    FLAT: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [0])
    BARRIER: gl.constexpr = mbarrier.MBarrierLayout()
    query_left = gl.allocate_shared_memory(DTYPE, [1, ROWS, HALF], HALF_SHARED)
    query_right = gl.allocate_shared_memory(DTYPE, [1, ROWS, HALF], HALF_SHARED)
    query_rest = gl.allocate_shared_memory(DTYPE, [1, ROWS, REST], REST_SHARED)
    left = gl.allocate_shared_memory(DTYPE, [2, TILE_SIZE, HALF], HALF_SHARED)
    right = gl.allocate_shared_memory(DTYPE, [2, TILE_SIZE, HALF], HALF_SHARED)
    rest = gl.allocate_shared_memory(DTYPE, [2, TILE_SIZE, REST], REST_SHARED)
    shared_weights = gl.allocate_shared_memory(DTYPE, [1, ROWS, TILE_SIZE], REST_SHARED)
    shared_max = gl.allocate_shared_memory(gl.float32, [ROWS], FLAT)
    shared_sums = gl.allocate_shared_memory(gl.float32, [2, ROWS], FLAT)
    query_full = gl.allocate_shared_memory(gl.int64, [1, 1], BARRIER)
    published = gl.allocate_shared_memory(gl.int64, [1, 1], BARRIER)
    finished = gl.allocate_shared_memory(gl.int64, [1, 1], BARRIER)
    left_full = gl.allocate_shared_memory(gl.int64, [2, 1], BARRIER)
    left_empty = gl.allocate_shared_memory(gl.int64, [2, 1], BARRIER)
    right_full = gl.allocate_shared_memory(gl.int64, [2, 1], BARRIER)
    right_empty = gl.allocate_shared_memory(gl.int64, [2, 1], BARRIER)
    rest_full = gl.allocate_shared_memory(gl.int64, [2, 1], BARRIER)
    rest_empty = gl.allocate_shared_memory(gl.int64, [2, 1], BARRIER)
    mbarrier.init(query_full.index(0), count=1)
    mbarrier.init(published.index(0), count=1)
    mbarrier.init(finished.index(0), count=2)
    for i in gl.static_range(2):
        mbarrier.init(left_full.index(i), count=1)
        mbarrier.init(right_full.index(i), count=1)
        mbarrier.init(rest_full.index(i), count=1)
        # One arrival each, from the last who reads: scores have read a part before there are weights for its outputs.
        mbarrier.init(left_empty.index(i), count=1)
        mbarrier.init(right_empty.index(i), count=1)
        mbarrier.init(rest_empty.index(i), count=1)
    fence_async_shared()

    # Neighbours take the heads of one split: they read the same rows at the same time.
    NUM_HEAD_BLOCKS: gl.constexpr = (NUM_HEADS + ROWS - 1) // ROWS
    program = gl.program_id(0)
    first_head = program % NUM_HEAD_BLOCKS * ROWS
    split = program // NUM_HEAD_BLOCKS % num_splits
    request = program // (NUM_HEAD_BLOCKS * num_splits)
    seq_len = gl.load(seq_lens_ptr + request)
    tiles_of_request = (seq_len + TILE_SIZE - 1) // TILE_SIZE
    tiles_of_split = (tiles_of_request + num_splits - 1) // num_splits
    first_tile = split * tiles_of_split
    num_tiles = gl.maximum(gl.minimum(tiles_of_split, tiles_of_request - first_tile), 0)

    block_table_row_ptr = block_table_ptr + request.to(gl.int64) * stride_table_req
    outputs = (out_ptr, lse_ptr, stride_out_split, stride_out_req, stride_out_head)
    place = (split, request, num_reqs, first_head)
    span = (first_tile, num_tiles, seq_len)
    queries = (query_left, query_right, query_rest)
    rows = (left, right, rest)
    exchange = (shared_weights, shared_max, shared_sums)
    full = (left_full, right_full, rest_full)
    empty = (left_empty, right_empty, rest_empty)
    meeting = (published.index(0), finished.index(0))
    descriptors = (query_half_desc, query_rest_desc, cache_half_desc, cache_rest_desc)
    gl.warp_specialize(
        [
            (
                _consume_left,
                (
                    outputs, place, NUM_HEADS, factor, span, queries, rows, exchange, query_full.index(0), full,
                    empty, meeting,
                ),
            ),
            (
                _consume_right,
                (
                    outputs, place, NUM_HEADS, factor, span, queries, rows, exchange, query_full.index(0), full,
                    empty, meeting,
                ),
            ),
            (
                _produce,
                (
                    descriptors, request * rows_of_req + first_head, block_table_row_ptr,
                    (rows_of_block, num_cache_rows), span, queries, rows, query_full.index(0), full, empty,
                    BLOCK_SIZE, BOX,
                ),
            ),
        ],
        [4, 1],
        [232, 40],
    )  # fmt: skip
