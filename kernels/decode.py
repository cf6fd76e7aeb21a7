"""Paged decode: one query token a request, the last of its sequence, against all that the cache holds for it.

The third rung. As in gqa_decode.py a program takes one kv head, the query heads that it serves are the rows of
one tile, and an online softmax (softmax.py) walks over tiles of keys and values. New is how work is cut: long
sequences are cut into splits that run side by side (schedule.py), so that the GPU is full and no program is much
longer than another. A program reads its queries, its part of the block table, and the keys and values of its
split. A request in one split is done then. Otherwise a split's output goes to a buffer, in float32 with its lse,
and a second kernel puts the request's splits together (merge.py).

Each key and value is read once, and nothing else is large: reading them bounds the speed. A load takes most of a
microsecond, in which a multiprocessor of an H200 could read some 35 KB: so much has to be on its way in each, all
the time. Hence several programs on each, the next tile on its way in each (num_stages; two with an fp8 cache), and
the block table read a tile ahead.
The fourth rung, hopper_decode.py, has a warp of its own for that; tiers.py says when paged_decode takes it.
"""

# mypy: allow-untyped-defs

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from kernels import contract, hopper_decode, runtime
from kernels.contract import AttentionResult
from kernels.merge import launch_merge_splits
from kernels.options import Scale, ScoreOptions
from kernels.paging import find_slots, load_tile
from kernels.schedule import find_split
from kernels.scores import alibi, score_numbers, softcap
from kernels.softmax import (
    LOG2_E,
    finish_softmax,
    start_softmax,
    start_softmax_at_sinks,
    update_softmax,
)
from kernels.tiers import SHORTEST_SPLIT, choose_decode_tier

__all__ = ["paged_decode"]

_LOG2_E = tl.constexpr(LOG2_E)


@triton.jit
def _as_float16(query):
    """(query in float16, what each row's scores are to be multiplied with, [BLOCK_M, 1]).

    A row is brought to a largest element between 1 and 2 by a power of two, so that float16 holds all that matters.
    """
    largest = tl.max(tl.abs(query.to(tl.float32)), axis=1)
    exponent = tl.floor(tl.log2(tl.where(largest > 0.0, largest, 1.0)))
    scaled = query.to(tl.float32) * tl.exp2(-exponent)[:, None]
    return scaled.to(tl.float16), tl.exp2(exponent)[:, None]


@triton.jit(do_not_specialize=["num_reqs", "wanted", "window", "stride_table_req"])
def _paged_decode_kernel(
    query_ptr,  # [num_reqs, num_heads, head_size]
    key_cache_ptr,  # [num_blocks, block_size, num_kv_heads, head_size]
    value_cache_ptr,  # [num_blocks, block_size, num_kv_heads, head_size]
    block_table_ptr,  # [num_reqs, max_num_blocks]
    seq_lens_ptr,  # [num_reqs]
    alibi_slopes_ptr,  # [num_heads], with HAS_ALIBI
    sinks_ptr,  # [num_heads], with HAS_SINKS
    k_scale_ptr,  # [1] or [num_kv_heads], with HAS_K_SCALE
    v_scale_ptr,  # [1] or [num_kv_heads], with HAS_V_SCALE
    out_ptr,  # [num_reqs, num_heads, head_size]
    lse_ptr,  # [num_reqs, num_heads], contiguous
    split_out_ptr,  # [programs, NUM_QUERIES_PER_KV, HEAD_SIZE] float32, contiguous
    split_lse_ptr,  # [programs, NUM_QUERIES_PER_KV]
    plan_ptr,  # [num_reqs, 2]: a request's first program and its splits, for the merge
    num_reqs,
    wanted,
    window,  # positions that a query sees at most
    factor,  # what a score is multiplied with: scale * log2(e), or 2 / softcap times that
    cap_log2,  # softcap * log2(e)
    value_factor,  # what an output is multiplied with
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
    stride_out_token,
    stride_out_head,
    NUM_KV_HEADS: tl.constexpr,
    NUM_QUERIES_PER_KV: tl.constexpr,
    HEAD_SIZE: tl.constexpr,
    HEAD_SIZE_PADDED: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    BLOCK_M: tl.constexpr,  # NUM_QUERIES_PER_KV padded to what tl.dot takes
    TILE_SIZE: tl.constexpr,
    MIN_SPLIT_SIZE: tl.constexpr,
    FIXED_SPLIT_SIZE: tl.constexpr,
    MAY_CUT: tl.constexpr,  # False where the block table has no room for a sequence that is longer than a split
    LANES: tl.constexpr,
    NUM_GROUPS: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    HAS_ALIBI: tl.constexpr,
    HAS_SINKS: tl.constexpr,
    HAS_K_SCALE: tl.constexpr,
    HAS_V_SCALE: tl.constexpr,
    AS_FLOAT16: tl.constexpr,  # the queries are multiplied as float16: see decode's launcher
):
    """One program: one request, one kv head, one split. Row i is the i-th query head of that kv head."""
    program = tl.program_id(0)
    if MAY_CUT:
        request, number, num_splits, seq_len = find_split(
            program,
            seq_lens_ptr,
            num_reqs,
            wanted,
            window,
            NUM_KV_HEADS,
            MIN_SPLIT_SIZE,
            FIXED_SPLIT_SIZE,
            LANES,
            NUM_GROUPS,
        )
    else:  # whole sequences: nothing has to be added up
        request, number, num_splits = program // NUM_KV_HEADS, program % NUM_KV_HEADS, 1
        seq_len = tl.load(seq_lens_ptr + request)
    if request >= num_reqs:
        return
    request = request.to(tl.int64)
    if MAY_CUT and number == 0:
        tl.store(plan_ptr + request * 2, program)
        tl.store(plan_ptr + request * 2 + 1, num_splits)

    # Neighbours take the kv heads of one split: their keys lie side by side in a block.
    kv_head = (number % NUM_KV_HEADS).to(tl.int64)
    split = number // NUM_KV_HEADS
    first = tl.maximum(seq_len - window, 0)  # position that the query sees
    first_tile = first // TILE_SIZE
    num_tiles = tl.cdiv(seq_len, TILE_SIZE) - first_tile
    split_start = tl.maximum((first_tile + split * num_tiles // num_splits) * TILE_SIZE, first)
    split_end = tl.minimum((first_tile + (split + 1) * num_tiles // num_splits) * TILE_SIZE, seq_len)

    row = tl.arange(0, BLOCK_M)
    dim = tl.arange(0, HEAD_SIZE_PADDED)
    head = kv_head * NUM_QUERIES_PER_KV + row
    in_group = row < NUM_QUERIES_PER_KV
    mask = in_group[:, None] & (dim < HEAD_SIZE)[None, :]
    query_at = request * stride_query_token + head * stride_query_head
    query = tl.load(query_ptr + query_at[:, None] + dim[None, :], mask=mask, other=0.0)
    row_factor = 1.0
    if AS_FLOAT16:
        query, row_factor = _as_float16(query)

    block_table_row_ptr = block_table_ptr + request * stride_table_req
    key_ptr = key_cache_ptr + kv_head * stride_key_head
    value_ptr = value_cache_ptr + kv_head * stride_value_head
    slopes_log2 = 0.0
    if HAS_ALIBI:
        slopes_log2 = tl.load(alibi_slopes_ptr + head, mask=in_group, other=0.0) * _LOG2_E
    if HAS_K_SCALE:
        factor *= tl.load(k_scale_ptr + kv_head * stride_k_scale_head)
    if HAS_V_SCALE:
        value_factor *= tl.load(v_scale_ptr + kv_head * stride_v_scale_head)
    if HAS_SINKS:
        sinks = tl.load(sinks_ptr + head, mask=in_group, other=0.0).to(tl.float32) * _LOG2_E
        sinks = tl.where(split == 0, sinks, float("-inf"))  # a sink counts once
        row_max, row_sum, acc = start_softmax_at_sinks(sinks, BLOCK_M, HEAD_SIZE_PADDED)
    else:
        row_max, row_sum, acc = start_softmax(BLOCK_M, HEAD_SIZE_PADDED)

    position = split_start + tl.arange(0, TILE_SIZE)
    block, offset = find_slots(block_table_row_ptr, position, position < split_end, BLOCK_SIZE)
    for tile_start in range(split_start, split_end, TILE_SIZE):
        position = tile_start + tl.arange(0, TILE_SIZE)
        in_split = position < split_end
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
        # The next tile's slots, so that its loads will not have to wait for the block table.
        next_position = position + TILE_SIZE
        block, offset = find_slots(block_table_row_ptr, next_position, next_position < split_end, BLOCK_SIZE)

        scores = tl.dot(query, tl.trans(key.to(query.dtype)), input_precision="ieee") * (factor * row_factor)
        if HAS_SOFTCAP:
            scores = softcap(scores, cap_log2)
        if HAS_ALIBI:
            scores = alibi(scores, slopes_log2, tl.zeros_like(row) + (seq_len - 1), position)
        scores = tl.where(in_split[None, :], scores, float("-inf"))
        row_max, row_sum, acc = update_softmax(row_max, row_sum, acc, scores, value.to(query.dtype))

    output, lse = finish_softmax(row_max, row_sum, acc)
    output *= value_factor
    if num_splits == 1:
        out_at = request * stride_out_token + head * stride_out_head
        out_ptrs = out_ptr + out_at[:, None] + dim[None, :]
        tl.store(out_ptrs, output.to(out_ptr.dtype.element_ty), mask=mask)
        lse_at = request * (NUM_KV_HEADS * NUM_QUERIES_PER_KV) + head
        tl.store(lse_ptr + lse_at, lse, mask=in_group)
    else:
        split_at = program.to(tl.int64) * NUM_QUERIES_PER_KV + row
        tl.store(split_out_ptr + split_at[:, None] * HEAD_SIZE + dim[None, :], output, mask=mask)
        tl.store(split_lse_ptr + split_at, lse, mask=in_group)


class Config(NamedTuple):
    """How a launch is cut."""

    tile_size: int  # positions
    num_warps: int
    num_stages: int
    wanted_splits: int  # of all requests and kv heads together
    min_split_size: int  # positions


def choose_config(row_bytes: int, num_sequences: int, device: torch.device, *, fp8: bool = False) -> Config:
    """From shapes alone: reading seq_lens would wait for the GPU, and a CUDA graph fits every batch of its shapes.

    row_bytes: one key of one kv head. num_sequences: requests times kv heads. fp8: of the cache.
    """
    # A tile of 16 KB of keys and one of values on their way make 32 KB a program, and several programs fit into a
    # multiprocessor. Larger tiles leave room for fewer programs, smaller ones have too few bytes for each wait.
    # Measured, with others, in bench/results/tuning-h100.md.
    tile_size = max(16, min(128, 16384 // row_bytes))
    # Fewer splits than programs fit at once: a program that starts when others have ended, and reads when they
    # are done, costs more than the few long ones that the rest waits for. With more sequences than that, none is
    # cut that is shorter than 1.25 times the mean: an even batch stays whole, and of a ragged one the long ones are cut.
    wanted_splits = max(3 * runtime.num_multiprocessors(device), num_sequences * 4 // 5)
    num_stages = 3 if fp8 else 2  # what is read is converted, and waits for that as well
    return Config(tile_size, 4, num_stages, wanted_splits, SHORTEST_SPLIT)


FIXED_SPLIT_SIZE = 1024  # positions, in the batch-invariant mode


def paged_decode(
    query: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    scale: float,
    *,
    sliding_window: int | None = None,
    softcap: float | None = None,
    alibi_slopes: torch.Tensor | None = None,
    sinks: torch.Tensor | None = None,
    k_scale: Scale = None,
    v_scale: Scale = None,
    batch_invariant: bool = False,
    tier: str | None = None,
    out: torch.Tensor | None = None,
    return_lse: bool = False,
) -> AttentionResult:
    """Attention of one query token a request, the last of its sequence, over a paged cache.

    query: [num_reqs, num_heads, head_size], float16, bfloat16 (GPU only) or float32.
    key_cache, value_cache: [num_blocks, block_size, num_kv_heads, head_size], query's dtype, float8_e4m3fn or
        float8_e5m2; num_heads is a multiple of num_kv_heads, and query head h reads kv head
        h // (num_heads // num_kv_heads). Strides are free but for the last dimension's, which is 1.
    block_table: [num_reqs, max_num_blocks] int32; entries past a request's end are never read.
    seq_lens: [num_reqs] int32, tokens in the cache, this step's included; 0 is legal.
    scale: what scores are multiplied with, usually head_size ** -0.5.

    sliding_window: the number of keys that a query sees, its own included.
    softcap: scores become softcap * tanh(score / softcap).
    alibi_slopes: [num_heads] float32; slope * distance of query and key is taken off each score, after softcap.
    sinks: [num_heads] float32, one more logit for each head in the softmax's denominator, with no value. lse
        counts it.
    k_scale, v_scale: what the cache's numbers are to be multiplied with: a number, or a float32 tensor on the
        device with one element or one for each kv head. Positive.
    batch_invariant: cut every sequence at fixed places, so that a request's output has the same bits in any
        batch. Without it, where sequences are cut depends on the batch, and sums are rounded differently.
    tier: "triton" for this file's kernel, "hopper" for hopper_decode.py's; None takes what
        `kernels.explain_decode` says.
    out: where to write the output, like query; made when None.

    Returns the output [num_reqs, num_heads, head_size] and, with `return_lse`, the natural logarithm of the
    sum of exponentials [num_reqs, num_heads] in float32. A request of length 0 gets zeros and -inf (its sink, if
    there are sinks). Raises ValueError when an argument breaks the contract.
    """
    causal = True  # or not: the query is its sequence's last, and sees all of it either way
    options = ScoreOptions(
        causal, sliding_window, softcap, alibi_slopes, sinks, k_scale, v_scale, batch_invariant
    )
    contract.check_paged(
        query, key_cache, value_cache, block_table, seq_lens, None, scale, out, options, fp8=True
    )
    runtime.check_launch("query", query)
    if out is None:
        out = torch.empty_like(query, memory_format=torch.contiguous_format)
    lse = query.new_empty(query.shape[:2], dtype=torch.float32)
    if len(query) == 0:
        return (out, lse) if return_lse else out

    if tier not in ("hopper", "triton", None):
        raise ValueError(f'tier: expected "hopper", "triton" or None, got {tier!r}')
    if tier is None:
        tier = choose_decode_tier(query, key_cache, value_cache, block_table, options).tier
    elif tier == "hopper" and (
        objection := hopper_decode.objection(
            query, key_cache, value_cache, k_scale=k_scale, v_scale=v_scale, batch_invariant=batch_invariant
        )
    ):
        raise ValueError(f"tier: hopper cannot serve these arguments: {objection}")
    launch = hopper_decode.launch_decode if tier == "hopper" else launch_decode
    launch(query, key_cache, value_cache, block_table, seq_lens, scale, options, out, lse)
    return (out, lse) if return_lse else out


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
    """Fill `out`, like query, and `lse`, [num_reqs, num_heads] float32 and contiguous. Arguments were checked, and there
    is a request.
    """
    num_reqs, num_heads, head_size = query.shape
    _, block_size, num_kv_heads, _ = key_cache.shape
    num_queries_per_kv = num_heads // num_kv_heads
    head_size_padded = max(16, triton.next_power_of_2(head_size))
    max_seq_len = block_table.shape[1] * block_size
    most_seen = options.most_seen(max_seq_len)
    block_m = max(16, triton.next_power_of_2(num_queries_per_kv))
    element_size = key_cache.element_size()
    config = choose_config(
        head_size_padded * element_size, num_reqs * num_kv_heads, query.device, fp8=element_size == 1
    )
    tile_size = config.tile_size
    if runtime.INTERPRET:
        tile_size = runtime.interpreter_tile(block_m, head_size_padded, max_seq_len)

    # One program for each split that there can be: see schedule.py.
    fixed_split_size = FIXED_SPLIT_SIZE if options.batch_invariant else 0
    if options.batch_invariant:
        max_splits = triton.cdiv(most_seen, FIXED_SPLIT_SIZE)
        num_programs = num_reqs * num_kv_heads * max(1, max_splits)
    else:
        max_splits = triton.cdiv(most_seen, config.min_split_size)
        num_programs = num_reqs * num_kv_heads + (config.wanted_splits if max_splits > 1 else 0)
    lanes = max(128, min(1024, triton.next_power_of_2(num_reqs)))  # a warp group wide at least

    numbers = score_numbers(scale, options)
    plan = query.new_empty(num_reqs, 2, dtype=torch.int32)
    num_slots = num_programs if max_splits > 1 else 0
    split_outs = query.new_empty(num_slots, num_queries_per_kv, head_size, dtype=torch.float32)
    split_lses = query.new_empty(num_slots, num_queries_per_kv, dtype=torch.float32)
    with torch.cuda.device_of(query):
        _paged_decode_kernel[(num_programs,)](
            query,
            key_cache,
            value_cache,
            block_table,
            seq_lens,
            options.alibi_slopes,
            options.sinks,
            numbers.k_scale,
            numbers.v_scale,
            out,
            lse,
            split_outs,
            split_lses,
            plan,
            num_reqs,
            config.wanted_splits,
            2**31 - 1 if options.sliding_window is None else options.sliding_window,
            numbers.factor,
            numbers.cap_log2,
            numbers.value_factor,
            *query.stride()[:2],
            *key_cache.stride()[:3],
            *value_cache.stride()[:3],
            block_table.stride(0),
            numbers.stride_k_scale_head,
            numbers.stride_v_scale_head,
            *out.stride()[:2],
            NUM_KV_HEADS=num_kv_heads,
            NUM_QUERIES_PER_KV=num_queries_per_kv,
            HEAD_SIZE=head_size,
            HEAD_SIZE_PADDED=head_size_padded,
            BLOCK_SIZE=block_size,
            BLOCK_M=block_m,
            TILE_SIZE=tile_size,
            MIN_SPLIT_SIZE=config.min_split_size,
            FIXED_SPLIT_SIZE=fixed_split_size,
            # The same compiled code whatever the table's width, where the same bits are promised.
            MAY_CUT=max_splits > 1 or options.batch_invariant,
            LANES=lanes,
            NUM_GROUPS=triton.cdiv(num_reqs, lanes),
            HAS_SOFTCAP=options.softcap is not None,
            HAS_ALIBI=options.alibi_slopes is not None,
            HAS_SINKS=options.sinks is not None,
            HAS_K_SCALE=numbers.k_scale is not None,
            HAS_V_SCALE=numbers.v_scale is not None,
            # Hopper turns fp8 into float16 in one instruction, into bfloat16 in four, and float16 holds every fp8 number.
            AS_FLOAT16=query.dtype == torch.bfloat16 and key_cache.element_size() == 1,
            num_warps=config.num_warps,
            num_stages=config.num_stages,
        )
    if max_splits > 1:
        launch_merge_splits(split_outs, split_lses, plan, out, lse, num_kv_heads)
