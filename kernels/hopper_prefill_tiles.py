"""Where the work of hopper_prefill_kernel.py is: which tile a ticket stands for, and how far its rows see.

A tile is some query tokens of one request, for query heads that share a kv head. All of it is arithmetic on the batch's
starts and lengths, done by whoever needs it: the producer finds tiles, producer and consumers agree on their reach.
"""

# mypy: allow-untyped-defs

from dataclasses import dataclass

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

__all__ = ["ROWS", "STAGES", "Constants", "find_reach", "find_tile", "is_mixed", "wait_for_all"]

# Bytes of keys and values that tiles in flight may share in the L2 cache (60 MB in two halves, each with a copy).
L2_BYTES: gl.constexpr = gl.constexpr(20 << 20)
STAGES: gl.constexpr = gl.constexpr(2)  # key and value tiles in shared memory
ROWS: gl.constexpr = gl.constexpr(64)  # rows of a warpgroup: what one wgmma has
SMALL_ROWS: gl.constexpr = gl.constexpr(128)  # of the small tiles that a request may start with

# Triton 3.7 calls it barrier, 3.6 thread_barrier: all threads of this partition of the CTA wait for one another.
wait_for_all = gl.barrier if hasattr(gl, "barrier") else gl.thread_barrier


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


@gluon.jit
def find_tile(query_start_loc_ptr, seq_lens_ptr, num_reqs, num_small, ticket, C: gl.constexpr):
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
def find_reach(
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
def is_mixed(query_start_loc_ptr, num_reqs):
    """Whether the batch has decode at one end and prefill at the other, as engines order them."""
    first = gl.load(query_start_loc_ptr + 1) - gl.load(query_start_loc_ptr)
    last = gl.load(query_start_loc_ptr + num_reqs) - gl.load(query_start_loc_ptr + (num_reqs - 1))
    return gl.where(first > 1, 1, 0) + gl.where(last > 1, 1, 0) == 1
