"""When and where each program of a split-KV decode ran on this GPU: the multiprocessor, its first and its last nanosecond.

    record(pieces, query, key_cache, value_cache, block_table, seq_lens, scale)

A piece is one program's work: some tokens of one request, for one kv head. Any schedule can be recorded, for the
pieces are given and not computed: the kernel here is a plain one for that, with the steps of `kernels.decode`'s and
two looks at the clock that all multiprocessors share. Each program adds two barriers and three stores of 8 bytes.
"""

# mypy: allow-untyped-defs

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import globaltimer, smid

import kernels
from kernels.paging import find_slots, load_tile
from kernels.softmax import LOG2_E, finish_softmax, start_softmax, update_softmax

__all__ = ["Piece", "Recorded", "attend_pieces", "record"]


@dataclass(frozen=True)
class Piece:
    """One program's work: tokens start to stop, stop excluded, of a request, for one kv head."""

    request: int
    kv_head: int
    start: int
    stop: int


@dataclass(frozen=True)
class Recorded:
    """Where and when a piece ran: nanoseconds since the first program of its launch began."""

    piece: Piece
    multiprocessor: int
    start_ns: int
    end_ns: int


@triton.jit
def _piece_kernel(
    query_ptr,  # [num_reqs, num_heads, head_size]
    key_cache_ptr,  # [num_blocks, block_size, num_kv_heads, head_size], as value_cache contiguous
    value_cache_ptr,
    block_table_ptr,  # [num_reqs, max_num_blocks]
    piece_ptr,  # [num_pieces, 4]: request, kv head, start, stop
    out_ptr,  # [num_pieces, NUM_QUERIES_PER_KV, HEAD_SIZE] float32
    lse_ptr,  # [num_pieces, NUM_QUERIES_PER_KV] float32
    time_ptr,  # [num_pieces, 3] int64: multiprocessor, first and last nanosecond
    factor,  # scale * log2(e)
    stride_table_req,
    NUM_KV_HEADS: tl.constexpr,
    NUM_QUERIES_PER_KV: tl.constexpr,
    HEAD_SIZE: tl.constexpr,
    HEAD_SIZE_PADDED: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    TILE_SIZE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    HAS_CLOCK: tl.constexpr,
):
    """One program, one piece. Row i is the i-th query head of the kv head."""
    program = tl.program_id(0).to(tl.int64)
    if HAS_CLOCK:
        began = globaltimer()
        tl.debug_barrier()
    request = tl.load(piece_ptr + program * 4).to(tl.int64)
    kv_head = tl.load(piece_ptr + program * 4 + 1).to(tl.int64)
    start = tl.load(piece_ptr + program * 4 + 2)
    stop = tl.load(piece_ptr + program * 4 + 3)

    row = tl.arange(0, BLOCK_M)
    dim = tl.arange(0, HEAD_SIZE_PADDED)
    mask = (row < NUM_QUERIES_PER_KV)[:, None] & (dim < HEAD_SIZE)[None, :]
    head = request * NUM_KV_HEADS * NUM_QUERIES_PER_KV + kv_head * NUM_QUERIES_PER_KV + row
    query = tl.load(query_ptr + head[:, None] * HEAD_SIZE + dim[None, :], mask=mask, other=0.0)
    row_max, row_sum, acc = start_softmax(BLOCK_M, HEAD_SIZE_PADDED)
    stride_slot = NUM_KV_HEADS * HEAD_SIZE
    for tile_start in range(start, stop, TILE_SIZE):
        position = tile_start + tl.arange(0, TILE_SIZE)
        in_piece = position < stop
        block, offset = find_slots(
            block_table_ptr + request * stride_table_req, position, in_piece, BLOCK_SIZE
        )
        key = load_tile(
            key_cache_ptr + kv_head * HEAD_SIZE, block, offset, BLOCK_SIZE * stride_slot, stride_slot,
            in_piece, HEAD_SIZE, HEAD_SIZE_PADDED,
        )  # fmt: skip
        value = load_tile(
            value_cache_ptr + kv_head * HEAD_SIZE, block, offset, BLOCK_SIZE * stride_slot, stride_slot,
            in_piece, HEAD_SIZE, HEAD_SIZE_PADDED,
        )  # fmt: skip
        scores = tl.dot(query, tl.trans(key), input_precision="ieee") * factor
        scores = tl.where(in_piece[None, :], scores, float("-inf"))
        row_max, row_sum, acc = update_softmax(row_max, row_sum, acc, scores, value)
    output, lse = finish_softmax(row_max, row_sum, acc)
    at = program * NUM_QUERIES_PER_KV + row
    tl.store(out_ptr + at[:, None] * HEAD_SIZE + dim[None, :], output, mask=mask)
    tl.store(lse_ptr + at, lse, mask=row < NUM_QUERIES_PER_KV)
    if HAS_CLOCK:
        # The barrier stands between: the clock is read when every warp has stored.
        tl.debug_barrier()
        ended = globaltimer()
        tl.store(time_ptr + program * 3, smid().to(tl.int64))
        tl.store(time_ptr + program * 3 + 1, began)
        tl.store(time_ptr + program * 3 + 2, ended)


def attend_pieces(
    pieces: Sequence[Piece],
    query: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Each piece's partial state, and on a GPU its times.

    query [num_reqs, num_heads, head_size]; caches [num_blocks, block_size, num_kv_heads, head_size], contiguous; block_table
    [num_reqs, max_num_blocks] and seq_lens [num_reqs] int32. Returns output [num_pieces, num_queries_per_kv, head_size] and
    lse [num_pieces, num_queries_per_kv] in float32, and times [num_pieces, 3] int64 (multiprocessor, first and last
    nanosecond of the GPU's clock), zeros in the interpreter.

    Raises ValueError for a piece of no request, no kv head, or tokens that its request does not have.
    """
    num_kv_heads, head_size = key_cache.shape[2:]
    lengths = seq_lens.tolist()
    for index, piece in enumerate(pieces):
        known = 0 <= piece.request < len(lengths) and 0 <= piece.kv_head < num_kv_heads
        if not known or not 0 <= piece.start < piece.stop <= lengths[piece.request]:
            raise ValueError(
                f"pieces[{index}]: expected one of {len(lengths)} requests, one of {num_kv_heads} kv heads and "
                f"tokens that the request has, got {piece}"
            )
    for name, cache in (("key_cache", key_cache), ("value_cache", value_cache), ("query", query)):
        if not cache.is_contiguous():
            raise ValueError(f"{name}: expected a contiguous tensor")
    num_queries_per_kv = query.shape[1] // num_kv_heads
    device = query.device
    table = [[piece.request, piece.kv_head, piece.start, piece.stop] for piece in pieces]
    plan = torch.tensor(table, dtype=torch.int32, device=device).view(-1, 4)
    output = torch.empty(len(pieces), num_queries_per_kv, head_size, device=device)
    lse = torch.empty(len(pieces), num_queries_per_kv, device=device)
    times = torch.zeros(len(pieces), 3, dtype=torch.int64, device=device)
    if pieces:
        _piece_kernel[(len(pieces),)](
            query,
            key_cache,
            value_cache,
            block_table,
            plan,
            output,
            lse,
            times,
            scale * LOG2_E,
            block_table.stride(0),
            NUM_KV_HEADS=num_kv_heads,
            NUM_QUERIES_PER_KV=num_queries_per_kv,
            HEAD_SIZE=head_size,
            HEAD_SIZE_PADDED=triton.next_power_of_2(head_size),
            BLOCK_SIZE=key_cache.shape[1],
            TILE_SIZE=64,
            BLOCK_M=max(16, triton.next_power_of_2(num_queries_per_kv)),
            HAS_CLOCK=not kernels.INTERPRET,
        )
    return output, lse, times


def record(
    pieces: Sequence[Piece],
    query: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    scale: float,
) -> list[Recorded]:
    """Where and when each piece ran, after one run to warm up. Arguments as in `attend_pieces`.

    Raises RuntimeError without a GPU: the interpreter runs one program after another, and its times say nothing.
    """
    if kernels.INTERPRET:
        raise RuntimeError("recording programs on their multiprocessors needs a CUDA GPU")
    arguments = (query, key_cache, value_cache, block_table, seq_lens, scale)
    attend_pieces(pieces, *arguments)
    times = attend_pieces(pieces, *arguments)[2].tolist()
    first = min((start for _, start, _ in times), default=0)
    return [
        Recorded(piece, multiprocessor, start - first, end - first)
        for piece, (multiprocessor, start, end) in zip(pieces, times, strict=True)
    ]
