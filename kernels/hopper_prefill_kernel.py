"""The Gluon program of `kernels.hopper_prefill`: paged attention of a ragged batch on one Hopper GPU.

What it computes: softmax(query @ key^T * scale) @ value for every query token, keys and values read through the
block table. How work is cut: a tile is BLOCK_Q query tokens times the PACK query heads that share a kv head, so
BLOCK_M = 128 rows; one CTA a multiprocessor takes tiles from a counter until none are left, longest first. In a CTA
one warp (the producer) finds the next tile and lets the copy engine (TMA) fetch queries, keys and values into shared
memory, one box of rows a cache block; two warpgroups (the consumers) own 64 rows each, multiply on the tensor cores
(wgmma) and keep scores, weights and output in registers. They take turns: while one does its softmax, the other
multiplies. A block of 128 keys costs 4 * 128 * 128 * head_size operations and reads 2 * 128 * head_size elements from
the L2 cache: 128 operations a byte, so the tensor cores (or the power that they draw) are the bound, and what has to be
hidden is everything else: the softmax, the fetches, and the end of one tile and the start of the next.
"""

# mypy: allow-untyped-defs

from dataclasses import dataclass

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

__all__ = ["Constants", "describe_tensor", "paged_prefill_kernel"]


@dataclass(frozen=True)
class Constants:
    """What a compiled kernel knows about its launch; another value is another kernel."""

    NUM_HEADS: int
    NUM_QUERIES_PER_KV: int
    HEAD_SIZE: int
    HEAD_SIZE_PADDED: int
    BLOCK_SIZE: int
    PACK: int  # query heads in a tile, all of one kv head
    TILE_SIZE: int  # keys in a tile
    BOX: int  # rows of a cache block that the copy engine fetches at once
    CAUSAL: bool
    WINDOW: int  # 0 for none
    SOFTCAP: bool
    ALIBI: bool
    SINKS: bool
    RETURN_LSE: bool
    HALF_TILES: bool  # whether a last key tile of which a half is seen is multiplied by halves
    CONSUMERS: int  # warpgroups that compute, 2 or 3, each with 64 rows of a tile


def describe_tensor(tensor: torch.Tensor, box: list[int]) -> TensorDescriptor:
    """What the copy engine has to know of `tensor` to fetch boxes of it: shape, strides, and their place in shared
    memory, where 128-byte rows are swizzled so that the tensor cores read them without bank conflicts."""
    dtype = gl.bfloat16 if tensor.dtype == torch.bfloat16 else gl.float16
    layout = gl.NVMMASharedLayout.get_default_for(box, dtype)
    return TensorDescriptor(tensor, list(tensor.shape), list(tensor.stride()), box, layout)


LOG2_E: gl.constexpr = gl.constexpr(1.4426950408889634)
LN_2: gl.constexpr = gl.constexpr(0.6931471805599453)
# Bytes of keys and values that tiles in flight may share in the L2 cache (60 MB in two halves, each with a copy).
L2_BYTES: gl.constexpr = gl.constexpr(20 << 20)
# Finite, so that a row that has seen nothing yet has exp2(-inf - row_max) = 0 and no branch.
NOTHING_SEEN: gl.constexpr = gl.constexpr(-1.0e30)
STAGES: gl.constexpr = gl.constexpr(2)  # key and value tiles in shared memory
ROWS: gl.constexpr = gl.constexpr(64)  # rows of a warpgroup: what one wgmma has
SMALL_ROWS: gl.constexpr = gl.constexpr(128)  # of the small tiles that a request may start with
# Rows of values that are cleaned at once where a request ends inside a tile.
CLEAN_ROWS: gl.constexpr = gl.constexpr(32)

# Triton 3.7 calls it barrier, 3.6 thread_barrier: all threads of this partition of the CTA wait for one another.
_barrier = gl.barrier if hasattr(gl, "barrier") else gl.thread_barrier


@gluon.jit
def _find_tile(query_start_loc_ptr, seq_lens_ptr, num_reqs, num_small, ticket, C: gl.constexpr):
    """(is a tile, request, first token, number of tokens, head group, position, sequence length).

    Request r has room for tiles query_start_loc[r] // BLOCK_Q + r and following, each for HEAD_GROUPS groups of
    heads: that needs no sum over requests, and a ticket beyond its last tile is no tile. In a request as many kv
    heads as fit the L2 cache go together; among them the tiles with the longest reach come first, so that what is
    left for the end is short. A request that is alone may start with num_small tiles of 128 rows.
    """
    SMALL_Q: gl.constexpr = SMALL_ROWS // C.PACK
    BLOCK_Q: gl.constexpr = C.CONSUMERS * ROWS // C.PACK
    HEAD_GROUPS: gl.constexpr = C.NUM_HEADS // C.PACK
    GROUPS_PER_KV: gl.constexpr = C.NUM_QUERIES_PER_KV // C.PACK
    BYTES_PER_KEY: gl.constexpr = C.HEAD_SIZE * 4
    slot = ticket // HEAD_GROUPS
    low = 0
    high = num_reqs
    while low < high:
        middle = (low + high) // 2
        if gl.load(query_start_loc_ptr + middle) // BLOCK_Q + middle <= slot:
            low = middle + 1
        else:
            high = middle
    request = low - 1
    query_start = gl.load(query_start_loc_ptr + request)
    num_queries = gl.load(query_start_loc_ptr + request + 1) - query_start
    seq_len = gl.load(seq_lens_ptr + request)
    num_small = gl.minimum(num_small, gl.cdiv(num_queries, SMALL_Q))
    num_tiles = num_small + gl.cdiv(gl.maximum(num_queries - num_small * SMALL_Q, 0), BLOCK_Q)
    rest = ticket - (query_start // BLOCK_Q + request) * HEAD_GROUPS
    is_tile = rest < num_tiles * HEAD_GROUPS

    kv_heads_in_l2 = gl.maximum(L2_BYTES // gl.maximum(seq_len * BYTES_PER_KEY, 1), 1)
    section_groups = gl.minimum(kv_heads_in_l2 * GROUPS_PER_KV, HEAD_GROUPS)
    section_size = gl.maximum(num_tiles, 1) * section_groups
    section = rest // section_size
    rest = rest - section * section_size
    # The last section may have fewer heads.
    groups = gl.maximum(gl.minimum(section_groups, HEAD_GROUPS - section * section_groups), 1)
    tile = num_tiles - 1 - rest // groups
    group = section * section_groups + rest % groups
    first_query = gl.minimum(tile, num_small) * SMALL_Q + gl.maximum(tile - num_small, 0) * BLOCK_Q
    num_tokens = gl.minimum(num_queries - first_query, gl.where(tile < num_small, SMALL_Q, BLOCK_Q))
    position = seq_len - num_queries + first_query
    return is_tile, request, query_start + first_query, num_tokens, group, position, seq_len


@gluon.jit
def _find_reach(
    num_tokens, position, seq_len, TILE_SIZE: gl.constexpr, CAUSAL: gl.constexpr, WINDOW: gl.constexpr
):
    """(kv_end, first key tile, number past the last key tile) that a tile's rows see. At least one key tile."""
    kv_end = seq_len
    if CAUSAL:
        kv_end = gl.minimum(position + num_tokens, seq_len)
    first = 0
    if WINDOW > 0:
        first = gl.maximum(position - WINDOW + 1, 0) // TILE_SIZE
    return kv_end, first, gl.maximum(gl.cdiv(kv_end, TILE_SIZE), first + 1)


@gluon.jit
def _fetch_tile(
    descriptor,
    table_row_ptr,
    num_blocks,
    kv_head,
    kv_start,
    kv_end,
    tile,
    full,
    BLOCK_SIZE: gl.constexpr,
    TILE_SIZE: gl.constexpr,
    BOX: gl.constexpr,
):
    """Fetch TILE_SIZE rows from position kv_start on, a box of BOX rows at a time; zeros for boxes past kv_end.

    Block num_blocks does not exist, and the copy engine fills what lies outside a tensor with zeros.
    """
    for i in gl.static_range(TILE_SIZE // BOX):
        position = kv_start + i * BOX
        in_reach = position < kv_end
        block = gl.load(table_row_ptr + position // BLOCK_SIZE, mask=in_reach, other=0)
        block = gl.where(in_reach, block, num_blocks)
        offset = 0
        if BLOCK_SIZE > TILE_SIZE:
            offset = position % BLOCK_SIZE
        elif BLOCK_SIZE > BOX:
            offset = (i * BOX) % BLOCK_SIZE
        tma.async_copy_global_to_shared(
            descriptor,
            [kv_head, block, offset, 0],
            full,
            tile.slice(i * BOX, BOX, dim=0),
        )


@gluon.jit
def _is_mixed(query_start_loc_ptr, num_reqs):
    """Whether the batch has decode at one end and prefill at the other, as engines order them."""
    first = gl.load(query_start_loc_ptr + 1) - gl.load(query_start_loc_ptr)
    last = gl.load(query_start_loc_ptr + num_reqs) - gl.load(query_start_loc_ptr + (num_reqs - 1))
    return gl.where(first > 1, 1, 0) + gl.where(last > 1, 1, 0) == 1


@gluon.jit
def _producer(descriptors, requests, work, tiles, barriers, C: gl.constexpr):
    """One warp: takes tickets, tells the consumers which tile each is, and fetches what the tile needs."""
    BLOCK_SIZE: gl.constexpr = C.BLOCK_SIZE
    BOX: gl.constexpr = C.BOX
    CONSUMERS: gl.constexpr = C.CONSUMERS
    HEAD_SIZE_PADDED: gl.constexpr = C.HEAD_SIZE_PADDED
    PACK: gl.constexpr = C.PACK
    TILE_SIZE: gl.constexpr = C.TILE_SIZE
    QUERY_BYTES: gl.constexpr = ROWS * HEAD_SIZE_PADDED * 2
    KV_BYTES: gl.constexpr = TILE_SIZE * HEAD_SIZE_PADDED * 2
    GROUPS_PER_KV: gl.constexpr = C.NUM_QUERIES_PER_KV // PACK
    MESSAGE: gl.constexpr = gl.BlockedLayout([1], [32], [1], [0])
    query_desc, key_desc, value_desc = descriptors
    block_table_ptr, stride_table_req, seq_lens_ptr, query_start_loc_ptr, num_reqs = requests
    counter_ptr, num_tickets, num_small, num_blocks = work
    query_tiles, key_tiles, value_tiles, messages = tiles
    query_full, query_empty, key_full, key_empty, value_full, value_empty = barriers
    field = gl.arange(0, 8, layout=MESSAGE)
    num_programs = gl.num_programs(0)
    fetched = 0  # key tiles so far: their stage and the phase of its barriers follow from it
    done = 0  # tiles
    # Decode waits for memory and prefill for the tensor cores: in a mixed batch every other program takes its tickets
    # from the back, so that the two run side by side. counter_ptr: tickets taken, programs done, taken from front and back.
    program = gl.program_id(0)
    both_ends = _is_mixed(query_start_loc_ptr, num_reqs)
    back = gl.where(both_ends, program % 2, 0)
    place = gl.where(both_ends, program // 2, program)
    taken = program
    while taken < num_tickets:
        ticket = gl.where(back == 1, num_tickets - 1 - place, place)
        is_tile, request, token, num_tokens, group, position, seq_len = _find_tile(
            query_start_loc_ptr, seq_lens_ptr, num_reqs, num_small, ticket, C
        )
        if is_tile:
            kv_end, first, end = _find_reach(num_tokens, position, seq_len, TILE_SIZE, C.CAUSAL, C.WINDOW)
            # Its place held the message before the last one, which all have read: they had to for the last one's queries.
            message = gl.where(field == 0, num_tokens, seq_len)
            message = gl.where(field == 1, token, message)
            message = gl.where(field == 2, group, message)
            message = gl.where(field == 3, position, message)
            messages.index(done & 1).store(message)
            _barrier()
            for i in gl.static_range(CONSUMERS):
                mbarrier.wait(query_empty.index(i), (done & 1) ^ 1)
                mbarrier.expect(query_full.index(i), QUERY_BYTES)
                tma.async_copy_global_to_shared(
                    query_desc,
                    [token + i * (ROWS // PACK), group * PACK, 0],
                    query_full.index(i),
                    query_tiles.index(i)._reinterpret(
                        query_tiles.dtype, [ROWS // PACK, PACK, HEAD_SIZE_PADDED], query_desc.layout
                    ),
                )
            kv_head = group // GROUPS_PER_KV
            table_row_ptr = block_table_ptr + request.to(gl.int64) * stride_table_req
            # From the diagonal back to the start: the key tiles that need a mask come first.
            for i in range(end - first):
                kv_start = (end - 1 - i) * TILE_SIZE
                stage = fetched % STAGES
                free = ((fetched // STAGES) & 1) ^ 1
                mbarrier.wait(key_empty.index(stage), free)
                full = key_full.index(stage)
                mbarrier.expect(full, KV_BYTES)
                tile = key_tiles.index(stage)
                _fetch_tile(
                    key_desc,
                    table_row_ptr,
                    num_blocks,
                    kv_head,
                    kv_start,
                    kv_end,
                    tile,
                    full,
                    BLOCK_SIZE,
                    TILE_SIZE,
                    BOX,
                )
                mbarrier.wait(value_empty.index(stage), free)
                full = value_full.index(stage)
                mbarrier.expect(full, KV_BYTES)
                tile = value_tiles.index(stage)
                _fetch_tile(
                    value_desc,
                    table_row_ptr,
                    num_blocks,
                    kv_head,
                    kv_start,
                    kv_end,
                    tile,
                    full,
                    BLOCK_SIZE,
                    TILE_SIZE,
                    BOX,
                )
                fetched += 1
            done += 1
        taken = num_programs + gl.atomic_add(counter_ptr, 1)
        place = taken
        if both_ends:
            place = (num_programs + 1 - back) // 2 + gl.atomic_add(counter_ptr + 2 + back, 1)

    # No tile is left: a message with no tokens.
    messages.index(done & 1).store(gl.zeros([8], gl.int32, MESSAGE))
    _barrier()
    for i in gl.static_range(CONSUMERS):
        mbarrier.wait(query_empty.index(i), (done & 1) ^ 1)
        mbarrier.arrive(query_full.index(i), count=1)
    # The last program to come here puts the counters back to zero for the next launch.
    if gl.atomic_add(counter_ptr + 1, 1) == num_programs - 1:
        for i in gl.static_range(4):
            gl.store(counter_ptr + i, 0)


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

    Both consumers do it, each before its own product; they write the same.
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
    _barrier()


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
        finish = gl.exp2(row_max - larger) / total
        lse = larger + gl.log2(total)
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
def _consumer(outputs, options, tiles, barriers, ME: gl.constexpr, C: gl.constexpr):
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
        kv_end, first, end = _find_reach(num_tokens, position, seq_len, C.TILE_SIZE, C.CAUSAL, C.WINDOW)
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


@gluon.jit(do_not_specialize=["stride_table_req", "num_reqs", "num_tickets", "num_small", "num_blocks"])
def paged_prefill_kernel(
    query_desc,  # [num_tokens, num_heads, head_size], boxes of 64 rows
    key_desc,  # [num_kv_heads, num_blocks, block_size, head_size], boxes of BOX rows
    value_desc,  # like key_desc
    out_ptr,  # [num_tokens, num_heads, head_size]
    lse_ptr,  # [num_tokens, num_heads], contiguous
    block_table_ptr,  # [num_reqs, max_num_blocks]
    seq_lens_ptr,  # [num_reqs]
    query_start_loc_ptr,  # [num_reqs + 1]
    alibi_slopes_ptr,  # [num_heads]
    sinks_ptr,  # [num_heads]
    counter_ptr,  # [4]: see _producer; zeros before and after a launch
    scale_in,
    scale_out,
    stride_table_req,
    stride_out_token,
    stride_out_head,
    num_reqs,
    num_tickets,
    num_small,
    num_blocks,
    C: gl.constexpr,
):
    HEAD_SIZE_PADDED: gl.constexpr = C.HEAD_SIZE_PADDED
    TILE_SIZE: gl.constexpr = C.TILE_SIZE
    CONSUMERS: gl.constexpr = C.CONSUMERS
    DTYPE: gl.constexpr = query_desc.dtype
    QUERY: gl.constexpr = gl.NVMMASharedLayout.get_default_for([ROWS, HEAD_SIZE_PADDED], DTYPE)
    KV: gl.constexpr = gl.NVMMASharedLayout.get_default_for([TILE_SIZE, HEAD_SIZE_PADDED], DTYPE)
    query_tiles = gl.allocate_shared_memory(DTYPE, [CONSUMERS, ROWS, HEAD_SIZE_PADDED], QUERY)
    key_tiles = gl.allocate_shared_memory(DTYPE, [STAGES, TILE_SIZE, HEAD_SIZE_PADDED], KV)
    value_tiles = gl.allocate_shared_memory(DTYPE, [STAGES, TILE_SIZE, HEAD_SIZE_PADDED], KV)
    messages = gl.allocate_shared_memory(gl.int32, [2, 8], gl.SwizzledSharedLayout(1, 1, 1, [0]))
    BARRIER: gl.constexpr = mbarrier.MBarrierLayout()
    query_full = gl.allocate_shared_memory(gl.int64, [CONSUMERS, 1], BARRIER)
    query_empty = gl.allocate_shared_memory(gl.int64, [CONSUMERS, 1], BARRIER)
    key_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], BARRIER)
    key_empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], BARRIER)
    value_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], BARRIER)
    value_empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], BARRIER)
    for i in gl.static_range(CONSUMERS):
        mbarrier.init(query_full.index(i), count=1)
        mbarrier.init(query_empty.index(i), count=1)
    for i in gl.static_range(STAGES):
        mbarrier.init(key_full.index(i), count=1)
        mbarrier.init(key_empty.index(i), count=CONSUMERS)
        mbarrier.init(value_full.index(i), count=1)
        mbarrier.init(value_empty.index(i), count=CONSUMERS)
    fence_async_shared()
    barriers = (query_full, query_empty, key_full, key_empty, value_full, value_empty)
    tiles = (query_tiles, key_tiles, value_tiles, messages)
    outputs = (out_ptr, lse_ptr, stride_out_token, stride_out_head)
    options = (alibi_slopes_ptr, sinks_ptr, scale_in, scale_out)
    descriptors = (query_desc, key_desc, value_desc)
    requests = (block_table_ptr, stride_table_req, seq_lens_ptr, query_start_loc_ptr, num_reqs)
    work = (counter_ptr, num_tickets, num_small, num_blocks)
    # All warps start with the same share of the 65536 registers; the producer gives most of its own to the consumers.
    if CONSUMERS == 3:
        gl.warp_specialize(
            [
                (_consumer, (outputs, options, tiles, barriers, 0, C)),
                (_consumer, (outputs, options, tiles, barriers, 1, C)),
                (_consumer, (outputs, options, tiles, barriers, 2, C)),
                (_producer, (descriptors, requests, work, tiles, barriers, C)),
            ],
            [4, 4, 1],
            [160, 160, 32],
        )
    else:
        gl.warp_specialize(
            [
                (_consumer, (outputs, options, tiles, barriers, 0, C)),
                (_consumer, (outputs, options, tiles, barriers, 1, C)),
                (_producer, (descriptors, requests, work, tiles, barriers, C)),
            ],
            [4, 1],
            [232, 40],
        )
