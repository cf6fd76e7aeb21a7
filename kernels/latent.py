"""Decode over a cache of latents: multi-head latent attention (MLA), as DeepSeek's models have it.

What: attention of one query token a request over a cache that keeps, for each token, one row of head_size numbers for
all heads together: a latent of kv_lora_rank numbers and a key part for the position. The row is the key, its first
kv_lora_rank numbers are the value; what once led from the latent to keys and values of each head has been multiplied
into the query and the output projection ("absorbed").
Work: a program takes BLOCK_H heads of one request and one split of its sequence; merge.py joins splits.
Reads each row once and uses it twice, so that it moves half the bytes of ordinary decode; with more than BLOCK_H heads
several programs read it, all but the first from the L2 cache. Writes an output and an lse for each head and split.
Bound: a row of 576 numbers of 2 bytes serves 2 * (576 + 512) * num_heads operations, 30 a byte with 16 heads and 240
with 128: bandwidth for few heads, the matrix units for many. With many a program fills a multiprocessor, and what it does
one after the other adds up: scores, softmax, and the part of the next tile's load that nothing hides.
"""

# mypy: allow-untyped-defs

import torch
import triton
import triton.language as tl

from kernels import contract, hopper_latent, runtime
from kernels.contract import AttentionResult
from kernels.merge import launch_merge
from kernels.options import Scale, split_scale
from kernels.paging import load_tile
from kernels.schedule import choose_num_splits
from kernels.softmax import LOG2_E, finish_softmax, start_softmax, update_softmax
from kernels.tiers import HOPPER_LATENT_IS_PROVEN

__all__ = ["latent_decode"]


@triton.jit
def _find_blocks(block_table_row_ptr, tile_start, end, BLOCK_SIZE: tl.constexpr, TILE_SIZE: tl.constexpr):
    """The block of each position of a tile; one number where blocks hold whole tiles. 0 from `end` on."""
    if BLOCK_SIZE % TILE_SIZE == 0:
        position = tile_start
    else:
        position = tile_start + tl.arange(0, TILE_SIZE)
    return tl.load(block_table_row_ptr + position // BLOCK_SIZE, mask=position < end, other=0)


@triton.jit
def _find_rows(
    cache_ptr,
    block,
    tile_start,
    stride_block,
    stride_slot,
    BLOCK_SIZE: tl.constexpr,
    TILE_SIZE: tl.constexpr,
):
    """(pointer, block, offset): a tile's rows for load_tile. Where one block holds them, only the pointer changes."""
    column = tl.arange(0, TILE_SIZE)
    block = block.to(tl.int64)  # as in find_slots: a cache can hold more than 2**31 elements
    if BLOCK_SIZE % TILE_SIZE == 0:
        first = tl.zeros_like(block) + tile_start % BLOCK_SIZE
        return cache_ptr + block * stride_block + first * stride_slot, 0, column.to(tl.int64)
    else:
        return cache_ptr, block, ((tile_start + column) % BLOCK_SIZE).to(tl.int64)


@triton.jit
def _latent_decode_kernel(
    query_ptr,  # [num_reqs, num_heads, head_size]
    latent_cache_ptr,  # [num_blocks, block_size, head_size]
    block_table_ptr,  # [num_reqs, max_num_blocks]
    seq_lens_ptr,  # [num_reqs]
    kv_scale_ptr,  # [1], or None
    out_ptr,  # [NUM_SPLITS, num_reqs, num_heads, kv_lora_rank]
    lse_ptr,  # [NUM_SPLITS, num_reqs, num_heads], contiguous
    factor,  # scale * log2(e) * kv_scale
    value_factor,  # kv_scale
    num_reqs,
    stride_query_req,
    stride_query_head,
    stride_cache_block,
    stride_cache_slot,
    stride_table_req,
    stride_out_split,
    stride_out_req,
    stride_out_head,
    NUM_HEADS: tl.constexpr,
    RANK: tl.constexpr,  # kv_lora_rank
    RANK_PADDED: tl.constexpr,
    REST: tl.constexpr,  # head_size - kv_lora_rank
    REST_PADDED: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    BLOCK_H: tl.constexpr,
    TILE_SIZE: tl.constexpr,
    NUM_SPLITS: tl.constexpr,
):
    """One program: BLOCK_H heads of one request, one split of its sequence."""
    # A request's programs follow each other, so that they read its rows at the same time.
    NUM_HEAD_BLOCKS: tl.constexpr = (NUM_HEADS + BLOCK_H - 1) // BLOCK_H
    request = (tl.program_id(0) // NUM_HEAD_BLOCKS).to(tl.int64)
    head = tl.program_id(0) % NUM_HEAD_BLOCKS * BLOCK_H + tl.arange(0, BLOCK_H)
    split = tl.program_id(1)
    head_mask = head < NUM_HEADS
    if kv_scale_ptr is not None:
        kv_scale = tl.load(kv_scale_ptr)
        factor *= kv_scale
        value_factor *= kv_scale

    seq_len = tl.load(seq_lens_ptr + request)
    tiles_per_split = tl.cdiv(tl.cdiv(seq_len, TILE_SIZE), NUM_SPLITS)
    split_start = split * tiles_per_split * TILE_SIZE
    split_end = tl.minimum(split_start + tiles_per_split * TILE_SIZE, seq_len)

    dim = tl.arange(0, RANK_PADDED)
    rest = tl.arange(0, REST_PADDED)
    query_row_ptr = query_ptr + request * stride_query_req + head[:, None] * stride_query_head
    query = tl.load(query_row_ptr + dim[None, :], mask=head_mask[:, None] & (dim < RANK)[None, :], other=0.0)
    if REST > 0:
        query_rest = tl.load(
            query_row_ptr + RANK + rest[None, :], mask=head_mask[:, None] & (rest < REST)[None, :], other=0.0
        )

    block_table_row_ptr = block_table_ptr + request * stride_table_req
    row_max, row_sum, acc = start_softmax(BLOCK_H, RANK_PADDED)
    block = _find_blocks(block_table_row_ptr, split_start, split_end, BLOCK_SIZE, TILE_SIZE)
    for tile_start in range(split_start, split_end, TILE_SIZE):
        in_split = tile_start + tl.arange(0, TILE_SIZE) < split_end
        tile_ptr, tile_block, offset = _find_rows(
            latent_cache_ptr, block, tile_start, stride_cache_block, stride_cache_slot, BLOCK_SIZE, TILE_SIZE
        )
        latent = load_tile(
            tile_ptr, tile_block, offset, stride_cache_block, stride_cache_slot, in_split, RANK, RANK_PADDED
        ).to(query.dtype)
        if REST > 0:
            key_rest = load_tile(
                tile_ptr + RANK,
                tile_block,
                offset,
                stride_cache_block,
                stride_cache_slot,
                in_split,
                REST,
                REST_PADDED,
            ).to(query.dtype)
        # The next tile's blocks, so that its loads will not have to wait for the block table.
        block = _find_blocks(block_table_row_ptr, tile_start + TILE_SIZE, split_end, BLOCK_SIZE, TILE_SIZE)

        scores = tl.dot(query, tl.trans(latent), input_precision="ieee") * factor
        if REST > 0:
            scores += tl.dot(query_rest, tl.trans(key_rest), input_precision="ieee") * factor
        # A branch, and two products that are summed after the multiplication, for the compiler's sake. Where it sees
        # one product feed another it gives each warp whole rows, and with 64 rows for 8 warps half of them would
        # compute what the other half computes. It does not look beyond a branch.
        if tile_start + TILE_SIZE > split_end:
            scores = tl.where(in_split[None, :], scores, float("-inf"))
        row_max, row_sum, acc = update_softmax(row_max, row_sum, acc, scores, latent)

    output, lse = finish_softmax(row_max, row_sum, acc)
    out_at = split.to(tl.int64) * stride_out_split + request * stride_out_req + head * stride_out_head
    tl.store(
        out_ptr + out_at[:, None] + dim[None, :],
        (output * value_factor).to(out_ptr.dtype.element_ty),
        mask=head_mask[:, None] & (dim < RANK)[None, :],
    )
    lse_at = (split.to(tl.int64) * num_reqs + request) * NUM_HEADS + head
    tl.store(lse_ptr + lse_at, lse, mask=head_mask)


def _choose_tile(
    query: torch.Tensor, rank_padded: int, rest_padded: int, max_seq_len: int
) -> tuple[int, int, int, int, int | None]:
    """(BLOCK_H, TILE_SIZE, num_warps, num_stages, maxnreg), from shapes and dtypes alone."""
    heads = triton.next_power_of_2(query.shape[1])
    block_h = max(16, min(heads, 64))
    if runtime.INTERPRET:
        return block_h, runtime.interpreter_tile(block_h, rank_padded, max_seq_len), 4, 1, None
    if query.element_size() == 4 or rank_padded > 512:
        return 16, 16, 8, 1, None
    if block_h < 64:
        return block_h, 32, 4, 3, None
    # Queries of 64 heads and two tiles of 64 rows of 576 numbers take 216 of the 227 KB that a program can have.
    return 64, 64 if rank_padded + rest_padded <= 576 else 32, 8, 2, None


def latent_decode(
    query: torch.Tensor,
    latent_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    scale: float,
    *,
    kv_lora_rank: int,
    kv_scale: Scale = None,
    tier: str | None = None,
    out: torch.Tensor | None = None,
    return_lse: bool = False,
) -> AttentionResult:
    """Decode of one query token a request over a cache of latents that all heads share (MLA, absorbed).

    query: [num_reqs, num_heads, head_size], float16, bfloat16 (GPU only) or float32; head_size is kv_lora_rank and the
        key part for the position together, 512 + 64 in DeepSeek's models.
    latent_cache: [num_blocks, block_size, head_size], query's dtype, float8_e4m3fn or float8_e5m2: a token's key; its
        first kv_lora_rank numbers are its value.
    block_table: [num_reqs, max_num_blocks] int32; entries past a request's end are never read.
    seq_lens: [num_reqs] int32, tokens in the cache, this step's included; 0 is legal.
    scale: what scores are multiplied with: the heads' own size before absorption ** -0.5, 192 ** -0.5 say.
    kv_scale: what the cache's numbers are to be multiplied with: a number or a float32 tensor of one element. Positive.
    tier: "triton" for this file's kernel, "hopper" for hopper_latent.py's; None takes hopper's where there is no
        `hopper_latent.objection` and heads are many, once it is proven (tiers.py).
    out: where to write the output, [num_reqs, num_heads, kv_lora_rank] in query's dtype; made when None.

    Returns the output and, with `return_lse`, the natural logarithm of the sum of exponentials [num_reqs, num_heads]
    in float32. A request of length 0 gets zeros and -inf. Raises ValueError when an argument breaks the contract.
    """
    contract.check_latent(query, latent_cache, block_table, seq_lens, scale, kv_lora_rank, kv_scale, out)
    runtime.check_launch("query", query)
    num_reqs, num_heads, head_size = query.shape
    block_size = latent_cache.shape[1]
    if out is None:
        out = query.new_empty(num_reqs, num_heads, kv_lora_rank)
    lse = query.new_empty(num_reqs, num_heads, dtype=torch.float32)
    if num_reqs == 0:
        return (out, lse) if return_lse else out

    objection = hopper_latent.objection(
        query, latent_cache, scale, kv_lora_rank=kv_lora_rank, kv_scale=kv_scale
    )
    if tier is None:
        # The Hopper program multiplies for 64 heads, however many there are.
        wanted = HOPPER_LATENT_IS_PROVEN and num_heads > 32
        tier = "hopper" if wanted and objection is None else "triton"
    if tier not in ("hopper", "triton"):
        raise ValueError(f'tier: expected "hopper", "triton" or None, got {tier!r}')
    if tier == "hopper" and objection is not None:
        raise ValueError(f"tier: hopper cannot serve these arguments: {objection}")
    if tier == "hopper":
        hopper_latent.launch_latent_decode(query, latent_cache, block_table, seq_lens, scale, out, lse)
        return (out, lse) if return_lse else out

    rest = head_size - kv_lora_rank
    rank_padded = max(16, triton.next_power_of_2(kv_lora_rank))
    rest_padded = max(16, triton.next_power_of_2(rest)) if rest else 16
    max_seq_len = block_table.shape[1] * block_size
    tile = _choose_tile(query, rank_padded, rest_padded, max_seq_len)
    block_h, tile_size, num_warps, num_stages, maxnreg = tile
    num_programs = num_reqs * triton.cdiv(num_heads, block_h)
    room = runtime.num_multiprocessors(query.device) * (1 if block_h == 64 else 2)
    num_splits = choose_num_splits(num_programs, room, max_seq_len)
    kv_scale, value_factor, _ = split_scale(kv_scale)
    factor = scale * LOG2_E * value_factor

    outputs, lses = out[None], lse[None]
    if num_splits > 1:
        outputs = query.new_empty(num_splits, *out.shape, dtype=torch.float32)
        lses = query.new_empty(num_splits, *lse.shape, dtype=torch.float32)
    with torch.cuda.device_of(query):
        _latent_decode_kernel[(num_programs, num_splits)](
            query,
            latent_cache,
            block_table,
            seq_lens,
            kv_scale,
            outputs,
            lses,
            factor,
            value_factor,
            num_reqs,
            *query.stride()[:2],
            *latent_cache.stride()[:2],
            block_table.stride(0),
            *outputs.stride()[:3],
            NUM_HEADS=num_heads,
            RANK=kv_lora_rank,
            RANK_PADDED=rank_padded,
            REST=rest,
            REST_PADDED=rest_padded,
            BLOCK_SIZE=block_size,
            BLOCK_H=block_h,
            TILE_SIZE=tile_size,
            NUM_SPLITS=num_splits,
            num_warps=num_warps,
            num_stages=num_stages,
            maxnreg=maxnreg,
        )
    if num_splits > 1:
        launch_merge(outputs, lses, out, lse)
    return (out, lse) if return_lse else out
