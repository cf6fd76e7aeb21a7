"""The producer of hopper_prefill_kernel.py: one warp that takes tiles and fetches what they need.

It runs ahead of the consumers as far as shared memory allows, over the end of one tile into the next: it finds the next
tile, tells the consumers which one it is, and lets the copy engine (TMA) bring its queries, keys and values, a box of
rows for each cache block. It waits for the consumers only where they still read what it would overwrite.
"""

# mypy: allow-untyped-defs

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier, tma

from kernels.hopper_prefill_tiles import ROWS, STAGES, find_reach, find_tile, is_mixed, wait_for_all

__all__ = ["produce"]


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
def produce(descriptors, requests, work, tiles, barriers, C: gl.constexpr):
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
    both_ends = is_mixed(query_start_loc_ptr, num_reqs)
    back = gl.where(both_ends, program % 2, 0)
    place = gl.where(both_ends, program // 2, program)
    taken = program
    while taken < num_tickets:
        ticket = gl.where(back == 1, num_tickets - 1 - place, place)
        is_tile, request, token, num_tokens, group, position, seq_len = find_tile(
            query_start_loc_ptr, seq_lens_ptr, num_reqs, num_small, ticket, C
        )
        if is_tile:
            kv_end, first, end = find_reach(num_tokens, position, seq_len, TILE_SIZE, C.CAUSAL, C.WINDOW)
            # Its place held the message before the last one, which all have read: they had to for the last one's queries.
            message = gl.where(field == 0, num_tokens, seq_len)
            message = gl.where(field == 1, token, message)
            message = gl.where(field == 2, group, message)
            message = gl.where(field == 3, position, message)
            messages.index(done & 1).store(message)
            wait_for_all()
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
        # Only who has a ticket takes a place for it: one taken for nothing would be missing among the others'.
        if both_ends & (taken < num_tickets):
            place = (num_programs + 1 - back) // 2 + gl.atomic_add(counter_ptr + 2 + back, 1)

    # No tile is left: a message with no tokens.
    messages.index(done & 1).store(gl.zeros([8], gl.int32, MESSAGE))
    wait_for_all()
    for i in gl.static_range(CONSUMERS):
        mbarrier.wait(query_empty.index(i), (done & 1) ^ 1)
        mbarrier.arrive(query_full.index(i), count=1)
    # The last program to come here puts the counters back to zero for the next launch.
    if gl.atomic_add(counter_ptr + 1, 1) == num_programs - 1:
        for i in gl.static_range(4):
            gl.store(counter_ptr + i, 0)
