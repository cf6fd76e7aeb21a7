"""Merging attention over parts of a sequence into attention over the whole.

A part's output is a weighted mean of its values, and its lse says how much weight stands behind it: the whole is
the mean of the outputs with weights exp(lse). There are three kernels: for parts that a caller has, all of a batch
in as many (merge_attn_states), for the splits that decode.py made, of each request in its own number, and for the
shares of hopper_decode.py. All read the parts, float32 from decode, and write one output and one lse a row. Reading
the parts bounds the first. The others read little, and the time of a launch and of a few loads in a row bounds them:
so they load many parts at once, and the last one is there before decode ends.
"""

# mypy: allow-untyped-defs

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from kernels import contract, runtime
from kernels.softmax import LN_2, LOWEST

__all__ = ["merge_attn_states"]

# Of a thread: programs of 4 warps then fit beside two of hopper_decode.py's, and wait on the multiprocessors for their end.
MERGE_REGISTERS = 128


@triton.jit
def _merge_attn_states_kernel(
    outputs_ptr,  # [num_splits, num_tokens, num_heads, head_size]
    lses_ptr,  # [num_splits, num_tokens, num_heads]
    out_ptr,  # [num_tokens, num_heads, head_size]
    lse_ptr,  # [num_tokens, num_heads], contiguous
    num_splits,
    num_rows,
    stride_outputs_split,
    stride_outputs_token,
    stride_outputs_head,
    stride_lses_split,
    stride_lses_token,
    stride_out_token,
    stride_out_head,
    NUM_HEADS: tl.constexpr,
    HEAD_SIZE: tl.constexpr,
    HEAD_SIZE_PADDED: tl.constexpr,
    NUM_ROWS: tl.constexpr,
):
    """One program: NUM_ROWS pairs of a token and a head, over all splits."""
    row = tl.program_id(0).to(tl.int64) * NUM_ROWS + tl.arange(0, NUM_ROWS)
    in_range = row < num_rows
    token = row // NUM_HEADS
    head = row % NUM_HEADS
    dim = tl.arange(0, HEAD_SIZE_PADDED)
    in_head = dim < HEAD_SIZE

    # As in softmax.py, but a whole split takes the place of one key: its score is its lse.
    row_max = tl.full([NUM_ROWS], LOWEST, dtype=tl.float32)
    row_sum = tl.zeros([NUM_ROWS], dtype=tl.float32)
    acc = tl.zeros([NUM_ROWS, HEAD_SIZE_PADDED], dtype=tl.float32)
    for i in range(0, num_splits):
        split = tl.full([], i, dtype=tl.int64)
        lse_at = split * stride_lses_split + token * stride_lses_token + head
        score = tl.load(lses_ptr + lse_at, mask=in_range, other=float("-inf")) / LN_2
        seen = score != float("-inf")
        output_at = split * stride_outputs_split + token * stride_outputs_token + head * stride_outputs_head
        # The output of an empty split may be NaN, and 0 * NaN is NaN: do not load it.
        output = tl.load(
            outputs_ptr + output_at[:, None] + dim[None, :], mask=seen[:, None] & in_head[None, :], other=0.0
        )
        new_max = tl.maximum(row_max, score)
        rescale = tl.exp2(row_max - new_max)
        weight = tl.exp2(score - new_max)
        row_sum = row_sum * rescale + weight
        acc = acc * rescale[:, None] + weight[:, None] * output.to(tl.float32)
        row_max = new_max

    empty = row_sum == 0.0
    divisor = tl.where(empty, 1.0, row_sum)
    out_at = token * stride_out_token + head * stride_out_head
    merged = (acc / divisor[:, None]).to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + out_at[:, None] + dim[None, :], merged, mask=in_range[:, None] & in_head[None, :])
    lse = tl.where(empty, float("-inf"), (row_max + tl.log2(divisor)) * LN_2)
    tl.store(lse_ptr + row, lse, mask=in_range)


def launch_merge(outputs: torch.Tensor, lses: torch.Tensor, out: torch.Tensor, lse: torch.Tensor) -> None:
    """Merge `outputs` and `lses` into `out` (any dtype) and the contiguous `lse`."""
    num_splits, num_tokens, num_heads, head_size = outputs.shape
    if num_tokens == 0:
        return
    num_rows = 256 if runtime.INTERPRET else 8
    with torch.cuda.device_of(outputs):
        _merge_attn_states_kernel[(triton.cdiv(num_tokens * num_heads, num_rows),)](
            outputs,
            lses,
            out,
            lse,
            num_splits,
            num_tokens * num_heads,
            *outputs.stride()[:3],
            *lses.stride()[:2],
            *out.stride()[:2],
            NUM_HEADS=num_heads,
            HEAD_SIZE=head_size,
            HEAD_SIZE_PADDED=triton.next_power_of_2(head_size),
            NUM_ROWS=num_rows,
        )


@triton.jit
def _merge_splits_kernel(
    split_out_ptr,  # [programs, NUM_QUERIES_PER_KV, HEAD_SIZE] float32, contiguous
    split_lse_ptr,  # [programs, NUM_QUERIES_PER_KV]
    plan_ptr,  # [num_reqs, 2]: a request's first program and its splits
    out_ptr,  # [num_reqs, num_heads, head_size]
    lse_ptr,  # [num_reqs, num_heads], contiguous
    stride_out_token,
    stride_out_head,
    NUM_KV_HEADS: tl.constexpr,
    NUM_QUERIES_PER_KV: tl.constexpr,
    HEAD_SIZE: tl.constexpr,
    HEAD_SIZE_PADDED: tl.constexpr,
    NUM_SPLITS: tl.constexpr,  # loaded at once
    NUM_HEADS: tl.constexpr,  # of this program
):
    """One program: NUM_HEADS query heads of one request, one after the other."""
    request = tl.program_id(0).to(tl.int64)
    first_program = tl.load(plan_ptr + request * 2).to(tl.int64)
    num_splits = tl.load(plan_ptr + request * 2 + 1)
    if num_splits == 1:
        return  # decode.py wrote the output
    for i in range(NUM_HEADS):
        head = tl.program_id(1) * NUM_HEADS + i
        kv_head = head // NUM_QUERIES_PER_KV
        row_max, row_sum, acc = _start_merge(1, HEAD_SIZE_PADDED)
        for start in range(0, num_splits, NUM_SPLITS):
            split = start + tl.arange(0, NUM_SPLITS)
            at = (
                first_program + split * NUM_KV_HEADS + kv_head
            ) * NUM_QUERIES_PER_KV + head % NUM_QUERIES_PER_KV
            row_max, row_sum, acc = _merge_parts(
                row_max,
                row_sum,
                acc,
                split_out_ptr,
                split_lse_ptr,
                at[None, :],
                (split < num_splits)[None, :],
                HEAD_SIZE,
                HEAD_SIZE_PADDED,
            )
        one = head + tl.arange(0, 1)
        out_at = request * stride_out_token + one * stride_out_head
        lse_at = request * (NUM_KV_HEADS * NUM_QUERIES_PER_KV) + one
        _store_merged(
            row_max, row_sum, acc, out_ptr + out_at, lse_ptr + lse_at, one >= 0, HEAD_SIZE, HEAD_SIZE_PADDED
        )


@triton.jit
def _count_steps(seq_lens, window, TILE_SIZE: tl.constexpr):
    """Steps of one kv head, as hopper_decode_kernel.py counts them."""
    return tl.maximum(tl.cdiv(seq_lens, TILE_SIZE) - tl.maximum(seq_lens - window, 0) // TILE_SIZE, 1)


@triton.jit
def _find_program(step, num_steps, NUM_PROGRAMS: tl.constexpr):
    """The program whose share has this step, where shares are equal and the first ones may have one step more."""
    num_programs = tl.minimum(NUM_PROGRAMS, num_steps)
    steps = num_steps // num_programs
    num_longer = num_steps % num_programs
    behind = step - num_longer * (steps + 1)
    return tl.where(behind < 0, step // (steps + 1), num_longer + behind // steps)


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
    NUM_PROGRAMS: tl.constexpr,  # of the decode
    TILE_SIZE: tl.constexpr,  # of the decode
    NUM_KV_HEADS: tl.constexpr,
    NUM_QUERIES_PER_KV: tl.constexpr,
    HEAD_SIZE: tl.constexpr,
    HEAD_SIZE_PADDED: tl.constexpr,
    LANES: tl.constexpr,  # at least num_reqs
    NUM_PARTS: tl.constexpr,  # loaded at once
    NUM_ROWS: tl.constexpr,
):
    """One program: a kv head's sequence of one request that programs of hopper_decode_kernel.py share, for NUM_ROWS query heads.

    Programs are launched while decode's last ones run (launch_pdl). Which parts there are follows from seq_lens, which was
    there before decode began: so that is worked out while decode runs, and then the parts are one load away.
    """
    sequence = tl.program_id(0)
    request = sequence // NUM_KV_HEADS
    kv_head = sequence % NUM_KV_HEADS
    lane = tl.arange(0, LANES)
    exists = lane < num_reqs
    seq_lens = tl.load(seq_lens_ptr + lane, mask=exists, other=0)
    steps = tl.where(exists, _count_steps(seq_lens, window, TILE_SIZE), 0)
    of_head = tl.sum(tl.where(lane == request, steps, 0))
    first_step = tl.sum(tl.where(lane < request, steps, 0)) * NUM_KV_HEADS + kv_head * of_head
    num_steps = tl.sum(steps) * NUM_KV_HEADS
    first_program = _find_program(first_step, num_steps, NUM_PROGRAMS)
    num_parts = _find_program(first_step + of_head - 1, num_steps, NUM_PROGRAMS) - first_program + 1
    row = tl.program_id(1) * NUM_ROWS + tl.arange(0, NUM_ROWS)
    in_group = row < NUM_QUERIES_PER_KV
    row_max, row_sum, acc = _start_merge(NUM_ROWS, HEAD_SIZE_PADDED)

    gdc_wait()
    gdc_launch_dependents()
    if num_parts == 1:
        return  # that program wrote the output
    for start in range(0, num_parts, NUM_PARTS):
        part = start + tl.arange(0, NUM_PARTS)
        # Slot 1 is for what a program began, slot 0 for what it went on with.
        slot = (first_program + part) * 2 + (part == 0).to(tl.int32)
        at = slot.to(tl.int64)[None, :] * NUM_QUERIES_PER_KV + row[:, None]
        row_max, row_sum, acc = _merge_parts(
            row_max,
            row_sum,
            acc,
            part_out_ptr,
            part_lse_ptr,
            at,
            (part < num_parts)[None, :] & in_group[:, None],
            HEAD_SIZE,
            HEAD_SIZE_PADDED,
        )
    request = request.to(tl.int64)
    head = kv_head * NUM_QUERIES_PER_KV + row
    out_at = request * stride_out_token + head * stride_out_head
    lse_at = request * (NUM_KV_HEADS * NUM_QUERIES_PER_KV) + head
    _store_merged(
        row_max, row_sum, acc, out_ptr + out_at, lse_ptr + lse_at, in_group, HEAD_SIZE, HEAD_SIZE_PADDED
    )


@triton.jit
def _start_merge(NUM_ROWS: tl.constexpr, HEAD_SIZE_PADDED: tl.constexpr):
    """The state of rows that have seen no parts: as in softmax.py, with a part in the place of a key."""
    row_max = tl.full([NUM_ROWS], LOWEST, dtype=tl.float32)
    row_sum = tl.zeros([NUM_ROWS], dtype=tl.float32)
    acc = tl.zeros([NUM_ROWS, HEAD_SIZE_PADDED], dtype=tl.float32)
    return row_max, row_sum, acc


@triton.jit
def _merge_parts(
    row_max,
    row_sum,
    acc,
    outs_ptr,
    lses_ptr,
    at,
    mask,
    HEAD_SIZE: tl.constexpr,
    HEAD_SIZE_PADDED: tl.constexpr,
):
    """The rows' state after their parts, which lie at `at` [NUM_ROWS, NUM_PARTS] of contiguous outputs and lses: those
    of `mask`, loaded together."""
    dim = tl.arange(0, HEAD_SIZE_PADDED)
    score = tl.load(lses_ptr + at, mask=mask, other=float("-inf")) / LN_2
    output = tl.load(
        outs_ptr + at[:, :, None] * HEAD_SIZE + dim[None, None, :],
        mask=mask[:, :, None] & (dim < HEAD_SIZE)[None, None, :],
        other=0.0,
    )
    new_max = tl.maximum(row_max, tl.max(score, axis=1))
    rescale = tl.exp2(row_max - new_max)
    weight = tl.exp2(score - new_max[:, None])
    row_sum = row_sum * rescale + tl.sum(weight, axis=1)
    acc = acc * rescale[:, None] + tl.sum(weight[:, :, None] * output, axis=1)
    return new_max, row_sum, acc


@triton.jit
def _store_merged(
    row_max, row_sum, acc, out_ptrs, lse_ptrs, mask, HEAD_SIZE: tl.constexpr, HEAD_SIZE_PADDED: tl.constexpr
):
    dim = tl.arange(0, HEAD_SIZE_PADDED)
    empty = row_sum == 0.0
    divisor = tl.where(empty, 1.0, row_sum)
    output = (acc / divisor[:, None]).to(out_ptrs.dtype.element_ty)
    tl.store(out_ptrs[:, None] + dim[None, :], output, mask=mask[:, None] & (dim < HEAD_SIZE)[None, :])
    tl.store(lse_ptrs, tl.where(empty, float("-inf"), (row_max + tl.log2(divisor)) * LN_2), mask=mask)


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
    head_size_padded = triton.next_power_of_2(head_size)
    # Parts of a sequence where all are of equal length; a ragged batch's longest needs a few rounds. What a program
    # loads at once, in 32 KB, is divided between parts and rows.
    even_parts = triton.cdiv(num_programs, num_sequences) + 1
    most = min(64, 8192 // head_size_padded)
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
            NUM_PROGRAMS=num_programs,
            TILE_SIZE=tile_size,
            NUM_KV_HEADS=num_kv_heads,
            NUM_QUERIES_PER_KV=num_queries_per_kv,
            HEAD_SIZE=head_size,
            HEAD_SIZE_PADDED=head_size_padded,
            LANES=max(128, triton.next_power_of_2(num_reqs)),
            NUM_PARTS=num_parts,
            NUM_ROWS=num_rows,
            num_warps=4,
            maxnreg=MERGE_REGISTERS,
            launch_pdl=True,
        )


def launch_merge_splits(
    split_outs: torch.Tensor,
    split_lses: torch.Tensor,
    plan: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    num_kv_heads: int,
) -> None:
    """Put decode's splits together, for the requests that have more than one."""
    num_reqs, num_heads, head_size = out.shape
    # With few requests a program for each query head; with many, most of which were not cut, fewer programs.
    heads_at_once = 1 if num_reqs * num_heads <= 1024 else num_heads // num_kv_heads
    with torch.cuda.device_of(out):
        _merge_splits_kernel[(num_reqs, num_heads // heads_at_once)](
            split_outs,
            split_lses,
            plan,
            out,
            lse,
            *out.stride()[:2],
            NUM_KV_HEADS=num_kv_heads,
            NUM_QUERIES_PER_KV=num_heads // num_kv_heads,
            HEAD_SIZE=head_size,
            HEAD_SIZE_PADDED=triton.next_power_of_2(head_size),
            NUM_SPLITS=64,
            NUM_HEADS=heads_at_once,
            num_warps=4,
        )


def merge_attn_states(outputs: torch.Tensor, lses: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Combine attention over disjoint parts of a sequence into attention over the whole.

    outputs: [num_splits, num_tokens, num_heads, head_size], float16, bfloat16 (GPU only) or float32.
    lses: [num_splits, num_tokens, num_heads] float32, natural logarithm of each split's sum of exponentials.

    A split that saw nothing has lse -inf, and its output may hold anything, NaN included. Returns (output,
    lse): output [num_tokens, num_heads, head_size] in outputs' dtype, lse [num_tokens, num_heads] float32;
    zeros and -inf where every split is empty. Raises ValueError when an argument breaks the contract.
    """
    contract.check_states(outputs, lses)
    runtime.check_launch("outputs", outputs)
    out = outputs.new_empty(outputs.shape[1:])
    lse = lses.new_empty(lses.shape[1:])
    launch_merge(outputs, lses, out, lse)
    return out, lse
