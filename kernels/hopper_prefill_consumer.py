"""The consumers of hopper_prefill_kernel.py: warpgroups that multiply, each with 64 rows of a tile.

Per tile of keys: scores on the tensor cores (wgmma), softcap, ALiBi and mask where they are asked for, one step of the
online softmax in registers, and weights times values on the tensor cores again. Keys are walked from the diagonal back
to the start, so that the tiles that need a mask come first and the long loop has none.
"""

# mypy: allow-untyped-defs

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from kernels.hopper_prefill_tiles import ROWS, STAGES, find_reach, wait_for_all

__all__ = ["consume"]

LOG2_E: gl.constexpr = gl.constexpr(1.4426950408889634)
LN_2: gl.constexpr = gl.constexpr(0.6931471805599453)
# Finite, so that a row that has seen nothing yet has exp2(-inf - row_max) = 0 and no branch.
NOTHING_SEEN: gl.constexpr = gl.constexpr(-1.0e30)
# Rows of values that are cleaned at once where a request ends inside a tile.
CLEAN_ROWS: gl.constexpr = gl.constexpr(32)


@gluon.jit
def _shape_scores(
    scores,
    kv_start,
    column,
    row_position,
    row_end,
    slope,
    scale_in,
    scale_out,
    MASKED: gl.constexpr,
    C: gl.constexpr,
):
    """Softcap, ALiBi and mask, in this order. What is left to multiply with is scale_out, or 1 with ALiBi."""
    ALIBI: gl.constexpr = C.ALIBI
    SOFTCAP: gl.constexpr = C.SOFTCAP
    WINDOW: gl.constexpr = C.WINDOW
    if SOFTCAP:
        # tanh(x) = 1 - 2 / (exp(2 x) + 1) overflows nowhere; scale_in holds 2 * log2(e) * scale / softcap.
        scores = 1.0 - 2.0 / (gl.exp2(scores * scale_in) + 1.0)
    if ALIBI:
        distance = gl.expand_dims(row_position, 1) - gl.expand_dims(kv_start + column, 0)
        distance = gl.maximum(distance, -distance).to(gl.float32)
        scores = scores * scale_out - gl.expand_dims(slope, 1) * distance
    if MASKED:
        position = kv_start + column
        scores = gl.where(gl.expand_dims(position, 0) < gl.expand_dims(row_end, 1), scores, float("-inf"))
        if WINDOW > 0:
            lowest = row_position - (WINDOW - 1)
            scores = gl.where(gl.expand_dims(position, 0) >= gl.expand_dims(lowest, 1), scores, float("-inf"))
    return scores


@gluon.jit
def _update_softmax(scores, row_max, row_sum, scale):
    """(weights, row_max, row_sum, what earlier outputs are multiplied with). Powers of two, as in softmax.py.

    The maximum is taken before the scale (which is positive): then scale and subtraction are one instruction.
    """
    new_max = gl.maximum(row_max, gl.max(scores, axis=1) * scale)
    rescale = gl.exp2(row_max - new_max)
    weights = gl.exp2(scores * scale - gl.expand_dims(new_max, 1))
    return weights, new_max, row_sum * rescale + gl.sum(weights, axis=1), rescale


@gluon.jit
def _clean_values(value_tile, kv_start, seq_len, C: gl.constexpr):
    """Zero the rows of a tile of values that lie past the request's end: they may hold NaN, and 0 * NaN is NaN.

    Every consumer does it, each before its own product; they write the same.
    """
    HEAD_SIZE_PADDED: gl.constexpr = C.HEAD_SIZE_PADDED
    TILE_SIZE: gl.constexpr = C.TILE_SIZE
    LAYOUT: gl.constexpr = gl.BlockedLayout(
        [1, 8], [256 // HEAD_SIZE_PADDED, HEAD_SIZE_PADDED // 8], [4, 1], [1, 0]
    )
    PARTS: gl.constexpr = TILE_SIZE // CLEAN_ROWS
    for i in gl.static_range(PARTS):
        start = kv_start + i * CLEAN_ROWS
        if start + CLEAN_ROWS > seq_len:
            part = value_tile.slice(i * CLEAN_ROWS, CLEAN_ROWS, dim=0)
            rows = start + gl.arange(0, CLEAN_ROWS, layout=gl.SliceLayout(1, LAYOUT))
            value = part.load(LAYOUT)
            zero = gl.zeros([CLEAN_ROWS, HEAD_SIZE_PADDED], value_tile.dtype, LAYOUT)
            part.store(gl.where(gl.expand_dims(rows < seq_len, 1), value, zero))
    fence_async_shared()
    wait_for_all()


@gluon.jit
def _attend_half_tile(
    query,
    key_tiles,
    value_tiles,
    barriers,
    options,
    used,
    row_position,
    row_end,
    slope,
    kv_start,
    seq_len,
    row_max,
    row_sum,
    acc,
    C: gl.constexpr,
):
    """The first half of a tile's last key tile, all in one go: (row_max, row_sum, acc)."""
    HALF: gl.constexpr = C.TILE_SIZE // 2
    DTYPE: gl.constexpr = key_tiles.dtype
    SCORE: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, HALF, 16])
    OUTPUT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, C.HEAD_SIZE_PADDED, 16])
    ROW: gl.constexpr = gl.SliceLayout(1, SCORE)
    WHOLE_ROW: gl.constexpr = gl.SliceLayout(
        1, gl.NVMMADistributedLayout([3, 0], [4, 1], [16, C.TILE_SIZE, 16])
    )
    WEIGHT: gl.constexpr = gl.DotOperandLayout(operand_index=0, parent=OUTPUT, k_width=2)
    key_full, key_empty, value_full, value_empty = barriers
    _, _, scale_in, scale_out = options
    scale = scale_out
    if C.ALIBI:
        scale = 1.0
    stage = used % STAGES
    phase = (used // STAGES) & 1
    mbarrier.wait(key_full.index(stage), phase)
    key = key_tiles.index(stage).slice(0, HALF, dim=0).permute((1, 0))
    scores = warpgroup_mma(
        query, key, gl.zeros([ROWS, HALF], gl.float32, SCORE), use_acc=False, is_async=True
    )
    scores = warpgroup_mma_wait(0, deps=(scores,))
    mbarrier.arrive(key_empty.index(stage), count=1)
    scores = _shape_scores(
        scores,
        kv_start,
        gl.arange(0, HALF, layout=gl.SliceLayout(0, SCORE)),
        gl.convert_layout(row_position, ROW, assert_trivial=True),
        gl.convert_layout(row_end, ROW, assert_trivial=True),
        gl.convert_layout(slope, ROW, assert_trivial=True),
        scale_in,
        scale_out,
        True,
        C,
    )
    new_max = gl.convert_layout(row_max, ROW, assert_trivial=True)
    new_sum = gl.convert_layout(row_sum, ROW, assert_trivial=True)
    weights, new_max, new_sum, _ = _update_softmax(scores, new_max, new_sum, scale)
    weights = gl.convert_layout(weights.to(DTYPE), WEIGHT, assert_trivial=True)
    mbarrier.wait(value_full.index(stage), phase)
    if kv_start + HALF > seq_len:
        _clean_values(value_tiles.index(stage), kv_start, seq_len, C)
    value = value_tiles.index(stage).slice(0, HALF, dim=0)
    acc = warpgroup_mma(weights, value, acc, is_async=True)
    acc = warpgroup_mma_wait(0, deps=(acc,))
    mbarrier.arrive(value_empty.index(stage), count=1)
    new_max = gl.convert_layout(new_max, WHOLE_ROW, assert_trivial=True)
    return new_max, gl.convert_layout(new_sum, WHOLE_ROW, assert_trivial=True), acc


@gluon.jit
def _attend(
    query,
    key_tiles,
    value_tiles,
    barriers,
    outputs,
    options,
    used,
    token,
    num_tokens,
    group,
    position,
    seq_len,
    kv_end,
    first,
    end,
    query_empty,
    ME: gl.constexpr,
    C: gl.constexpr,
):
    """One warpgroup's 64 rows of a tile, from its first scores to its output."""
    ALIBI: gl.constexpr = C.ALIBI
    CAUSAL: gl.constexpr = C.CAUSAL
    HEAD_SIZE: gl.constexpr = C.HEAD_SIZE
    HEAD_SIZE_PADDED: gl.constexpr = C.HEAD_SIZE_PADDED
    PACK: gl.constexpr = C.PACK
    TILE_SIZE: gl.constexpr = C.TILE_SIZE
    WINDOW: gl.constexpr = C.WINDOW
    DTYPE: gl.constexpr = key_tiles.dtype
    # The registers of a score, of an output, and of a weight as the left operand of the second product.
    SCORE: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, TILE_SIZE, 16])
    OUTPUT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, HEAD_SIZE_PADDED, 16])
    WEIGHT: gl.constexpr = gl.DotOperandLayout(operand_index=0, parent=OUTPUT, k_width=2)
    ROW: gl.constexpr = gl.SliceLayout(1, SCORE)
    OUT_ROW: gl.constexpr = gl.SliceLayout(1, OUTPUT)
    # Neighbouring threads store neighbouring 16 bytes.
    STORE: gl.constexpr = gl.BlockedLayout(
        [1, 8], [256 // HEAD_SIZE_PADDED, HEAD_SIZE_PADDED // 8], [4, 1], [1, 0]
    )
    key_full, key_empty, value_full, value_empty = barriers
    out_ptr, lse_ptr, stride_out_token, stride_out_head = outputs
    alibi_slopes_ptr, sinks_ptr, scale_in, scale_out = options
    scale = scale_out
    if ALIBI:
        scale = 1.0

    column = gl.arange(0, TILE_SIZE, layout=gl.SliceLayout(0, SCORE))
    row = ME * ROWS + gl.arange(0, ROWS, layout=ROW)
    row_position = position + row // PACK
    row_end = gl.zeros([ROWS], gl.int32, ROW) + seq_len
    no_mask_end = seq_len // TILE_SIZE  # key tiles before this one are seen to their end by all rows
    if CAUSAL:
        row_end = gl.minimum(row_position + 1, seq_len)
        no_mask_end = gl.minimum(position + 1, seq_len) // TILE_SIZE
    slope = row_position
    if ALIBI:
        slope = gl.load(alibi_slopes_ptr + group * PACK + row % PACK) * LOG2_E
    # The last key tile is left for after the loop; for most sequences it is the first of the sequence.
    no_mask_end = gl.maximum(gl.minimum(no_mask_end, end), first + 1)
    no_mask_start = first + 1
    if WINDOW > 0:
        lowest = gl.maximum(position + num_tokens - WINDOW, 0)  # the last row sees nothing before it
        no_mask_start = gl.maximum(gl.minimum(gl.cdiv(lowest, TILE_SIZE), no_mask_end), first + 1)

    no_scores = gl.zeros([ROWS, TILE_SIZE], gl.float32, SCORE)
    row_max = gl.full([ROWS], NOTHING_SEEN, gl.float32, ROW)
    row_sum = gl.zeros([ROWS], gl.float32, ROW)
    acc = gl.zeros([ROWS, HEAD_SIZE_PADDED], gl.float32, OUTPUT)
    # The last key tile may lie past what these rows see (it is there for later rows), or be seen in its first half only.
    if C.HALF_TILES:
        reach = gl.minimum(position + (ME + 1) * (ROWS // PACK), kv_end)
        if (reach <= (end - 1) * TILE_SIZE) & (end - first > 1):
            _pass(barriers, used, 1)
            used += 1
            end -= 1
        half_end = end * TILE_SIZE - TILE_SIZE // 2
        if (reach <= half_end) & (end - first > 1):
            row_max, row_sum, acc = _attend_half_tile(
                query,
                key_tiles,
                value_tiles,
                barriers,
                options,
                used,
                row_position,
                row_end,
                slope,
                (end - 1) * TILE_SIZE,
                seq_len,
                row_max,
                row_sum,
                acc,
                C,
            )
            used += 1
            end -= 1
    stage = used % STAGES
    phase = (used // STAGES) & 1
    mbarrier.wait(key_full.index(stage), phase)
    key = key_tiles.index(stage).permute((1, 0))
    scores = warpgroup_mma(query, key, no_scores, use_acc=False, is_async=True)
    scores = warpgroup_mma_wait(0, deps=(scores,))
    mbarrier.arrive(key_empty.index(stage), count=1)
    if end * TILE_SIZE > seq_len:
        mbarrier.wait(value_full.index(stage), phase)
        _clean_values(value_tiles.index(stage), (end - 1) * TILE_SIZE, seq_len, C)

    # Key tiles on the diagonal, then those without a mask, then those on the window's edge.
    PARTS: gl.constexpr = 3 if WINDOW > 0 else 2
    for part in gl.static_range(PARTS):
        if part == 0:
            high = end
            low = no_mask_end
        elif part == 1:
            high = no_mask_end
            low = no_mask_start
        else:
            high = no_mask_start
            low = first + 1
        for i in range(high - low):
            kv_start = (high - 1 - i) * TILE_SIZE
            scores = _shape_scores(
                scores, kv_start, column, row_position, row_end, slope, scale_in, scale_out, part != 1, C
            )
            weights, row_max, row_sum, rescale = _update_softmax(scores, row_max, row_sum, scale)
            acc = acc * gl.expand_dims(gl.convert_layout(rescale, OUT_ROW, assert_trivial=True), 1)
            weights = gl.convert_layout(weights.to(DTYPE), WEIGHT, assert_trivial=True)
            value_stage = used % STAGES
            value_phase = (used // STAGES) & 1
            used += 1
            stage = used % STAGES
            phase = (used // STAGES) & 1
            key = key_tiles.index(stage).permute((1, 0))
            if C.CONSUMERS == 3:
                # No registers for two products at once: the other two warpgroups keep the tensor cores busy.
                mbarrier.wait(value_full.index(value_stage), value_phase)
                acc = warpgroup_mma(weights, value_tiles.index(value_stage), acc, is_async=True)
                acc = warpgroup_mma_wait(0, deps=(acc,))
                mbarrier.arrive(value_empty.index(value_stage), count=1)
                mbarrier.wait(key_full.index(stage), phase)
                scores = warpgroup_mma(query, key, no_scores, use_acc=False, is_async=True)
                scores = warpgroup_mma_wait(0, deps=(scores,))
                mbarrier.arrive(key_empty.index(stage), count=1)
            else:
                mbarrier.wait(key_full.index(stage), phase)
                scores = warpgroup_mma(query, key, no_scores, use_acc=False, is_async=True)
                mbarrier.wait(value_full.index(value_stage), value_phase)
                acc = warpgroup_mma(weights, value_tiles.index(value_stage), acc, is_async=True)
                scores = warpgroup_mma_wait(1, deps=(scores,))
                mbarrier.arrive(key_empty.index(stage), count=1)
                acc, weights = warpgroup_mma_wait(0, deps=(acc, weights))
                mbarrier.arrive(value_empty.index(value_stage), count=1)

    mbarrier.arrive(query_empty, count=1)
    scores = _shape_scores(
        scores, first * TILE_SIZE, column, row_position, row_end, slope, scale_in, scale_out, True, C
    )
    weights, row_max, row_sum, rescale = _update_softmax(scores, row_max, row_sum, scale)
    acc = acc * gl.expand_dims(gl.convert_layout(rescale, OUT_ROW, assert_trivial=True), 1)
    weights = gl.convert_layout(weights.to(DTYPE), WEIGHT, assert_trivial=True)
    stage = used % STAGES
    mbarrier.wait(value_full.index(stage), (used // STAGES) & 1)
    acc = warpgroup_mma(weights, value_tiles.index(stage), acc, is_async=True)
    acc = warpgroup_mma_wait(0, deps=(acc,))
    mbarrier.arrive(value_empty.index(stage), count=1)

    finish = gl.where(row_sum > 0, 1.0 / row_sum, 0.0)
    lse = gl.where(row_sum > 0, row_max + gl.log2(row_sum), float("-inf"))
    head = group * PACK + row % PACK
    if C.SINKS:
        # One more score, with no value behind it.
        sink = gl.load(sinks_ptr + head) * LOG2_E
        larger = gl.maximum(row_max, sink)
        total = row_sum * gl.exp2(row_max - larger) + gl.exp2(sink - larger)
        # A sink of minus infinity counts nothing, and a row may have seen nothing else.
        finish = gl.where(total > 0, gl.exp2(row_max - larger) / total, 0.0)
        lse = gl.where(total > 0, larger + gl.log2(total), float("-inf"))
    if C.RETURN_LSE:
        lse_at = (token + row // PACK).to(gl.int64) * C.NUM_HEADS + head
        gl.store(lse_ptr + lse_at, lse * LN_2, mask=row // PACK < num_tokens)
    output = acc * gl.expand_dims(gl.convert_layout(finish, OUT_ROW, assert_trivial=True), 1)
    output = gl.convert_layout(output.to(DTYPE), STORE)
    out_row = ME * ROWS + gl.arange(0, ROWS, layout=gl.SliceLayout(1, STORE))
    dim = gl.arange(0, HEAD_SIZE_PADDED, layout=gl.SliceLayout(0, STORE))
    out_at = (token + out_row // PACK).to(gl.int64) * stride_out_token
    out_at += (group * PACK + out_row % PACK) * stride_out_head
    mask = gl.expand_dims(out_row // PACK < num_tokens, 1)
    if HEAD_SIZE != HEAD_SIZE_PADDED:
        mask = mask & gl.expand_dims(dim < HEAD_SIZE, 0)
    gl.store(out_ptr + gl.expand_dims(out_at, 1) + gl.expand_dims(dim, 0), output, mask=mask)


@gluon.jit
def _pass(barriers, used, num_key_tiles):
    """A tile in which this warpgroup has no rows: let the others' keys and values go by."""
    key_full, key_empty, value_full, value_empty = barriers
    for i in range(num_key_tiles):
        stage = (used + i) % STAGES
        phase = ((used + i) // STAGES) & 1
        mbarrier.wait(key_full.index(stage), phase)
        mbarrier.arrive(key_empty.index(stage), count=1)
        mbarrier.wait(value_full.index(stage), phase)
        mbarrier.arrive(value_empty.index(stage), count=1)


@gluon.jit
def consume(outputs, options, tiles, barriers, ME: gl.constexpr, C: gl.constexpr):
    """One warpgroup: its 64 rows of each tile that the producer announces."""
    query_tiles, key_tiles, value_tiles, messages = tiles
    query_full, query_empty, key_full, key_empty, value_full, value_empty = barriers
    kv_barriers = (key_full, key_empty, value_full, value_empty)
    FIRST_TOKEN: gl.constexpr = ME * (ROWS // C.PACK)
    MESSAGE: gl.constexpr = gl.BlockedLayout([8], [32], [4], [0])
    field = gl.arange(0, 8, layout=MESSAGE)
    used = 0  # key tiles so far, as in the producer
    done = 0  # tiles
    mbarrier.wait(query_full.index(ME), 0)
    message = messages.index(0).load(MESSAGE)
    num_tokens = gl.sum(gl.where(field == 0, message, 0), axis=0)
    while num_tokens > 0:
        token = gl.sum(gl.where(field == 1, message, 0), axis=0)
        group = gl.sum(gl.where(field == 2, message, 0), axis=0)
        position = gl.sum(gl.where(field == 3, message, 0), axis=0)
        seq_len = gl.sum(gl.where(field == 4, message, 0), axis=0)
        kv_end, first, end = find_reach(num_tokens, position, seq_len, C.TILE_SIZE, C.CAUSAL, C.WINDOW)
        if num_tokens > FIRST_TOKEN:
            _attend(
                query_tiles.index(ME),
                key_tiles,
                value_tiles,
                kv_barriers,
                outputs,
                options,
                used,
                token,
                num_tokens,
                group,
                position,
                seq_len,
                kv_end,
                first,
                end,
                query_empty.index(ME),
                ME,
                C,
            )
        else:
            mbarrier.arrive(query_empty.index(ME), count=1)
            _pass(kv_barriers, used, end - first)
        used += end - first
        done += 1
        mbarrier.wait(query_full.index(ME), done & 1)
        message = messages.index(done & 1).load(MESSAGE)
        num_tokens = gl.sum(gl.where(field == 0, message, 0), axis=0)
