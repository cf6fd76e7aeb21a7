"""Paged decode on Hopper GPUs: the launcher of the Gluon program in hopper_decode_kernel.py.

Decode reads much and computes little, and a plain Triton program (decode.py) comes close to the memory's speed.
What is left are the moments in which a program does not read: when it starts, and between one request and the next.
Here programs live as long as the kernel, and a warp of its own fetches ahead of the arithmetic. There is no
interpreter for Gluon: decode.py stays the twin for every other machine, and `objection` says when this one applies.
"""

import torch
import triton

from kernels import runtime
from kernels.hopper_decode_merge import launch_merge_shares
from kernels.options import Scale, ScoreOptions
from kernels.scores import score_numbers

__all__ = ["launch_decode", "objection"]

_HEAD_SIZES = (64, 128, 256)
_MAX_REQS = 4096  # whose lengths a program adds up in its registers


def objection(
    query: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    *,
    k_scale: Scale = None,
    v_scale: Scale = None,
    batch_invariant: bool = False,
) -> str | None:
    """Why the Hopper program cannot serve these arguments; None when it can. From shapes, dtypes and strides alone."""
    reason = runtime.hopper_objection(query.device, "hopper_decode_kernel")
    if reason is not None:
        return reason
    num_reqs, num_heads, head_size = query.shape
    num_blocks, block_size, num_kv_heads, _ = key_cache.shape
    if batch_invariant:
        return "it cuts sequences where the batch's lengths say"
    if query.dtype not in (torch.float16, torch.bfloat16) or key_cache.dtype != query.dtype:
        return f"it takes queries and caches of one 16-bit type, got {query.dtype} and {key_cache.dtype}"
    if k_scale is not None or v_scale is not None:
        return "it has no scales for the cache"
    if head_size not in _HEAD_SIZES:
        return f"it takes head sizes {', '.join(map(str, _HEAD_SIZES))}, got {head_size}"
    if block_size < 8 or block_size & (block_size - 1):
        return f"it takes blocks of a power of two from 8 on, got {block_size}"
    if num_heads > 64 * num_kv_heads:
        return "a tile has 64 rows, fewer than the query heads of a kv head"
    if num_reqs > _MAX_REQS or num_blocks == 0:
        return f"it takes up to {_MAX_REQS} requests, and a cache with blocks"
    for name, cache in (("key_cache", key_cache), ("value_cache", value_cache)):
        stride_block, stride_slot, stride_head, _ = cache.stride()
        if cache.data_ptr() % 16 or stride_slot % 8 or stride_head % 8:
            return f"{name}: the copy engine wants 16-byte addresses"
        rows_of_head, columns_of_head = divmod(stride_head, stride_slot)
        if stride_slot < head_size or stride_block % stride_slot or (rows_of_head and columns_of_head):
            return f"{name}: its strides {cache.stride()} are no rows of equal distance"
    return None


def launch_decode(
    query: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    scale: float,
    options: ScoreOptions,
    out: torch.Tensor,
    lse: torch.Tensor,
) -> None:
    """`paged_decode` of checked arguments to which there is no `objection`, into `out` and `lse`."""
    from kernels.hopper_decode_kernel import describe_rows, paged_decode_hopper_kernel

    num_reqs, num_heads, head_size = query.shape
    _, block_size, num_kv_heads, _ = key_cache.shape
    num_queries_per_kv = num_heads // num_kv_heads
    # A stage of the ring is 16 KB. Five of them and the queries leave room for a second program on the
    # multiprocessor: while one computes, the other's keys arrive. Outputs of 256 columns need too many registers.
    # 96 a thread leave a quarter of them to the merge, whose programs are there before these end: see hopper_decode_merge.py.
    tile_size = 8192 // head_size
    programs_together, num_stages, max_registers = (2, 5, 96) if head_size <= 128 else (1, 10, None)
    # As many shares as fill the multiprocessors, each with a program for every kv head.
    num_shares = max(1, programs_together * runtime.num_multiprocessors(query.device) // num_kv_heads)
    num_programs = num_shares * num_kv_heads
    box = min(block_size, tile_size)
    key_desc, *key_rows = describe_rows(key_cache, box)
    value_desc, *value_rows = describe_rows(value_cache, box)
    part_outs = query.new_empty(num_programs, 2, num_queries_per_kv, head_size, dtype=torch.float32)
    part_lses = query.new_empty(num_programs, 2, num_queries_per_kv, dtype=torch.float32)
    window = 2**31 - 1 if options.sliding_window is None else options.sliding_window
    numbers = score_numbers(scale, options)
    with torch.cuda.device_of(query):
        paged_decode_hopper_kernel[(num_programs,)](
            key_desc,
            value_desc,
            query,
            block_table,
            seq_lens,
            options.alibi_slopes,
            options.sinks,
            out,
            lse,
            part_outs,
            part_lses,
            num_reqs,
            window,
            numbers.factor,
            numbers.cap_log2,
            *key_rows,
            *value_rows,
            *query.stride()[:2],
            block_table.stride(0),
            *out.stride()[:2],
            NUM_KV_HEADS=num_kv_heads,
            NUM_QUERIES_PER_KV=num_queries_per_kv,
            HEAD_SIZE=head_size,
            BLOCK_SIZE=block_size,
            TILE_SIZE=tile_size,
            BOX=box,
            STAGES=num_stages,
            LANES=max(128, triton.next_power_of_2(num_reqs)),
            HAS_SOFTCAP=options.softcap is not None,
            HAS_ALIBI=options.alibi_slopes is not None,
            HAS_SINKS=options.sinks is not None,
            num_warps=4,
            maxnreg=max_registers,
            launch_pdl=True,
        )
    launch_merge_shares(part_outs, part_lses, seq_lens, out, lse, window=window, tile_size=tile_size)
