"""Merging attention over parts of a sequence into attention over the whole.

A part's output is a weighted mean of its values, and its lse says how much weight stands behind it: the whole is
the mean of the outputs with weights exp(lse). There are two kernels: for parts that a caller has, all of a batch
in as many (merge_attn_states), and for the splits that decode.py made, of each request in its own number.
A program of the first takes some rows (a token and a head) over all parts, one of the second one or more query
heads of a request. Both read the parts, float32 from this library's kernels, and write one output and one lse a
row. Reading the parts bounds the first. The second reads little, and the time of a launch and of a few loads in
a row bounds it: so it loads many splits at once. What Hopper decode has cut is merged in hopper_decode_merge.py.
"""

# mypy: allow-untyped-defs

import torch
import triton
import triton.language as tl

from kernels import contract, runtime
from kernels.softmax import LN_2, start_softmax

__all__ = ["merge_attn_states"]


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
    row_max, row_sum, acc = start_softmax(NUM_ROWS, HEAD_SIZE_PADDED)
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
    SPLITS_AT_ONCE: tl.constexpr,  # loaded together
    HEADS_AT_ONCE: tl.constexpr,  # of one program
):
    """One program: HEADS_AT_ONCE query heads of one request, one after the other."""
    request = tl.program_id(0).to(tl.int64)
    first_program = tl.load(plan_ptr + request * 2).to(tl.int64)
    num_splits = tl.load(plan_ptr + request * 2 + 1)
    if num_splits == 1:
        return  # decode.py wrote the output
    for i in range(HEADS_AT_ONCE):
        head = tl.program_id(1) * HEADS_AT_ONCE + i
        kv_head = head // NUM_QUERIES_PER_KV
        row_max, row_sum, acc = start_softmax(1, HEAD_SIZE_PADDED)
        for start in range(0, num_splits, SPLITS_AT_ONCE):
            split = start + tl.arange(0, SPLITS_AT_ONCE)
            at = (
                first_program + split * NUM_KV_HEADS + kv_head
            ) * NUM_QUERIES_PER_KV + head % NUM_QUERIES_PER_KV
            row_max, row_sum, acc = merge_parts(
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
        store_merged(
            row_max, row_sum, acc, out_ptr + out_at, lse_ptr + lse_at, one >= 0, HEAD_SIZE, HEAD_SIZE_PADDED
        )


@triton.jit
def merge_parts(
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
def store_merged(
    row_max, row_sum, acc, out_ptrs, lse_ptrs, mask, HEAD_SIZE: tl.constexpr, HEAD_SIZE_PADDED: tl.constexpr
):
    dim = tl.arange(0, HEAD_SIZE_PADDED)
    empty = row_sum == 0.0
    divisor = tl.where(empty, 1.0, row_sum)
    output = (acc / divisor[:, None]).to(out_ptrs.dtype.element_ty)
    tl.store(out_ptrs[:, None] + dim[None, :], output, mask=mask[:, None] & (dim < HEAD_SIZE)[None, :])
    tl.store(lse_ptrs, tl.where(empty, float("-inf"), (row_max + tl.log2(divisor)) * LN_2), mask=mask)


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
            SPLITS_AT_ONCE=64,
            HEADS_AT_ONCE=heads_at_once,
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
