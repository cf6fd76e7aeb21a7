"""Merging what the programs of Hopper decode share: the kernel behind hopper_decode_kernel.py.

What it computes is what merge.py computes, of the parts that each program of decode left of the sequences at its share's
start and end. One program merges a sequence (a kv head of a request), or some of its query heads: it finds which
programs have a part of it, loads their outputs and lses, many at once, and writes the output in the caller's dtype. A
sequence that one program had alone is written already.

What bounds it is the time from decode's end to the output, a few loads in a row, which stands in every decode. So the
programs are launched while decode runs (launch_pdl), and decode leaves them registers: they wait on the multiprocessors.
Which parts there are follows from seq_lens, which was there before decode began. They work that out meanwhile, and then
the parts are one load away.
"""

# mypy: allow-untyped-defs

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from kernels.merge import merge_parts, store_merged
from kernels.softmax import start_softmax

__all__ = ["launch_merge_shares"]

# Of a thread: programs of 4 warps then fit beside two of decode's. With fewer it spills, and decode ends later than before.
MAX_REGISTERS = 128


@triton.jit
def _count_steps(seq_lens, window, TILE_SIZE: tl.constexpr):
    """Steps of a request, as hopper_decode_kernel.py counts them."""
    return tl.maximum(tl.cdiv(seq_lens, TILE_SIZE) - tl.maximum(seq_lens - window, 0) // TILE_SIZE, 1)


@triton.jit(do_not_specialize=["num_reqs", "window"])
def _merge_shares_kernel(
    part_out_ptr,  # [programs, 2, NUM_QUERIES_PER_KV, HEAD_SIZE] float32, contiguous
    part_lse_ptr,  # [programs, 2, NUM_QUERIES_PER_KV]
    seq_lens_ptr,  # [num_reqs]
    out_ptr,  # [num_reqs, num_heads, head_size]
    lse_ptr,  # [num_reqs, num_heads], contiguous
    num_reqs,
    window,
    stride_out_token,
    stride_out_head,
    NUM_SHARES: tl.constexpr,  # of the decode
    TILE_SIZE: tl.constexpr,  # of the decode
    NUM_KV_HEADS: tl.constexpr,
    NUM_QUERIES_PER_KV: tl.constexpr,
    HEAD_SIZE: tl.constexpr,
    LANES: tl.constexpr,  # at least num_reqs
    NUM_PARTS: tl.constexpr,  # loaded at once
    NUM_ROWS: tl.constexpr,
):
    """One program: one kv head's sequence of one request, for NUM_ROWS query heads."""
    sequence = tl.program_id(0)
    request = sequence // NUM_KV_HEADS
    kv_head = sequence % NUM_KV_HEADS
    lane = tl.arange(0, LANES)
    exists = lane < num_reqs
    seq_lens = tl.load(seq_lens_ptr + lane, mask=exists, other=0)
    steps = tl.where(exists, _count_steps(seq_lens, window, TILE_SIZE), 0)
    num_steps = tl.sum(tl.where(lane == request, steps, 0))
    first_step = tl.sum(tl.where(lane < request, steps, 0))
    steps_a_share = tl.cdiv(tl.sum(steps), NUM_SHARES)
    first_share = first_step // steps_a_share
    num_parts = (first_step + num_steps - 1) // steps_a_share - first_share + 1
    row = tl.program_id(1) * NUM_ROWS + tl.arange(0, NUM_ROWS)
    in_group = row < NUM_QUERIES_PER_KV
    row_max, row_sum, acc = start_softmax(NUM_ROWS, HEAD_SIZE)

    gdc_wait()
    gdc_launch_dependents()
    if num_parts == 1:
        return  # that program wrote the output
    for start in range(0, num_parts, NUM_PARTS):
        part = start + tl.arange(0, NUM_PARTS)
        # Of a program's slots, 1 is for what it began and 0 for what it went on with.
        program = (first_share + part) * NUM_KV_HEADS + kv_head
        slot = program * 2 + (part == 0).to(tl.int32)
        at = slot.to(tl.int64)[None, :] * NUM_QUERIES_PER_KV + row[:, None]
        row_max, row_sum, acc = merge_parts(
            row_max,
            row_sum,
            acc,
            part_out_ptr,
            part_lse_ptr,
            at,
            (part < num_parts)[None, :] & in_group[:, None],
            HEAD_SIZE,
            HEAD_SIZE,
        )
    request = request.to(tl.int64)
    head = kv_head * NUM_QUERIES_PER_KV + row
    out_at = request * stride_out_token + head * stride_out_head
    lse_at = request * (NUM_KV_HEADS * NUM_QUERIES_PER_KV) + head
    store_merged(row_max, row_sum, acc, out_ptr + out_at, lse_ptr + lse_at, in_group, HEAD_SIZE, HEAD_SIZE)


def launch_merge_shares(
    part_outs: torch.Tensor,
    part_lses: torch.Tensor,
    seq_lens: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    *,
    window: int,
    tile_size: int,
) -> None:
    """Put together what the shares of hopper_decode_kernel.py have cut."""
    num_programs, _, num_queries_per_kv, head_size = part_outs.shape
    num_reqs, num_heads, _ = out.shape
    num_kv_heads = num_heads // num_queries_per_kv
    num_sequences = num_reqs * num_kv_heads
    num_shares = num_programs // num_kv_heads
    # Parts of a sequence where all are of equal length; a ragged batch's longest needs a few rounds. What a program
    # loads at once, in 32 KB, is divided between parts and rows.
    even_parts = triton.cdiv(num_shares, num_reqs) + 1
    most = min(64, 8192 // head_size)
    num_parts = max(8, min(most, triton.next_power_of_2(even_parts)))
    num_rows = min(most // num_parts, triton.next_power_of_2(num_queries_per_kv))
    with torch.cuda.device_of(out):
        _merge_shares_kernel[(num_sequences, triton.cdiv(num_queries_per_kv, num_rows))](
            part_outs,
            part_lses,
            seq_lens,
            out,
            lse,
            num_reqs,
            window,
            *out.stride()[:2],
            NUM_SHARES=num_shares,
            TILE_SIZE=tile_size,
            NUM_KV_HEADS=num_kv_heads,
            NUM_QUERIES_PER_KV=num_queries_per_kv,
            HEAD_SIZE=head_size,
            LANES=max(128, triton.next_power_of_2(num_reqs)),
            NUM_PARTS=num_parts,
            NUM_ROWS=num_rows,
            num_warps=4,
            maxnreg=MAX_REGISTERS,
            launch_pdl=True,
        )
