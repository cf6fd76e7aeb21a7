"""Merging attention over parts of a sequence into attention over the whole."""

# mypy: allow-untyped-defs

import torch
import triton
import triton.language as tl

from kernels import contract, runtime
from kernels.softmax import LN_2, LOWEST

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
