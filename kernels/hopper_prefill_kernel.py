"""The Gluon program of `kernels.hopper_prefill`: paged attention of a ragged batch on one Hopper GPU.

What it computes: softmax(query @ key^T * scale) @ value for every query token, keys and values read through the
block table. How work is cut: a tile is BLOCK_Q query tokens times the PACK query heads that share a kv head, 128 rows,
or 192 where a program has many tiles (hopper_prefill.py); one CTA a multiprocessor takes tiles from a counter until
none are left, longest first. In a CTA one warp (the producer) finds the next tile and lets the copy engine (TMA) fetch
queries, keys and values into shared memory, one box of rows a cache block; two or three warpgroups (the consumers) own
64 rows each, multiply on the tensor cores (wgmma), keep scores, weights and output in registers, and write output and
lse. Of two, each has the next tile's scores multiplied beside this tile's output; of three, one multiplies while
others take their softmax. A block of 128 keys costs 4 * 128 * 128 * head_size operations and reads
2 * 128 * head_size elements from the L2 cache: 128 operations a byte, so the tensor cores (or the power that they draw)
are the bound, and what has to be hidden is everything else: the softmax, the fetches, and the end of one tile and the
start of the next.
"""

# mypy: allow-untyped-defs

import torch
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared, mbarrier
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from kernels.hopper_prefill_consumer import consume
from kernels.hopper_prefill_producer import produce
from kernels.hopper_prefill_tiles import ROWS, STAGES, Constants

__all__ = ["Constants", "describe_tensor", "paged_prefill_kernel"]


def describe_tensor(tensor: torch.Tensor, box: list[int]) -> TensorDescriptor:
    """What the copy engine has to know of `tensor` to fetch boxes of it: shape, strides, and their place in shared
    memory, where 128-byte rows are swizzled so that the tensor cores read them without bank conflicts."""
    dtype = gl.bfloat16 if tensor.dtype == torch.bfloat16 else gl.float16
    layout = gl.NVMMASharedLayout.get_default_for(box, dtype)
    return TensorDescriptor(tensor, list(tensor.shape), list(tensor.stride()), box, layout)


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
    counter_ptr,  # [4]: see produce; zeros before and after a launch
    scale_in,  # with SOFTCAP 2 * log2(e) * scale / softcap, else unused
    scale_out,  # with SOFTCAP softcap * log2(e), else scale * log2(e)
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
                (consume, (outputs, options, tiles, barriers, 0, C)),
                (consume, (outputs, options, tiles, barriers, 1, C)),
                (consume, (outputs, options, tiles, barriers, 2, C)),
                (produce, (descriptors, requests, work, tiles, barriers, C)),
            ],
            [4, 4, 1],
            [160, 160, 32],
        )
    else:
        gl.warp_specialize(
            [
                (consume, (outputs, options, tiles, barriers, 0, C)),
                (consume, (outputs, options, tiles, barriers, 1, C)),
                (produce, (descriptors, requests, work, tiles, barriers, C)),
            ],
            [4, 1],
            [232, 40],
        )
