"""Online softmax, one tile of scores at a time: the three steps of every attention kernel here.

Kernels in Triton with a tile of queries call them; single_query.py and the Gluon programs write them out.

A row's state is (row_max, row_sum, acc): the largest score so far, and the sums of exp2(score - row_max) and
of exp2(score - row_max) * value. Scores are in log2 units (scale * log2(e) is folded into them), because exp2
is the hardware's exponential. A score that a row must not see is -inf; a row's maximum is always finite, so
that exp2(-inf - row_max) is 0 and never NaN, even for a tile that is hidden altogether.
"""

# mypy: allow-untyped-defs

import math

import triton
import triton.language as tl

LOG2_E = math.log2(math.e)

# The lowest finite float32: no finite score is below it.
LOWEST = tl.constexpr(-3.4028234663852886e38)
LN_2 = tl.constexpr(math.log(2))


@triton.jit
def start_softmax(NUM_ROWS: tl.constexpr, HEAD_SIZE_PADDED: tl.constexpr):
    """The state of rows that have seen nothing."""
    row_max = tl.full([NUM_ROWS], LOWEST, dtype=tl.float32)
    row_sum = tl.zeros([NUM_ROWS], dtype=tl.float32)
    acc = tl.zeros([NUM_ROWS, HEAD_SIZE_PADDED], dtype=tl.float32)
    return row_max, row_sum, acc


@triton.jit
def start_softmax_at_sinks(sinks, NUM_ROWS: tl.constexpr, HEAD_SIZE_PADDED: tl.constexpr):
    """The state of rows that have seen one score each, sinks [NUM_ROWS] in log2 units, with a value of zeros."""
    row_max = tl.maximum(sinks, LOWEST)
    row_sum = tl.exp2(sinks - row_max)
    acc = tl.zeros([NUM_ROWS, HEAD_SIZE_PADDED], dtype=tl.float32)
    return row_max, row_sum, acc


@triton.jit
def update_softmax(row_max, row_sum, acc, scores, value):
    """The state after one more tile: scores [NUM_ROWS, TILE_SIZE], value [TILE_SIZE, HEAD_SIZE_PADDED]."""
    new_max = tl.maximum(row_max, tl.max(scores, axis=1))
    rescale = tl.exp2(row_max - new_max)
    weights = tl.exp2(scores - new_max[:, None])
    row_sum = row_sum * rescale + tl.sum(weights, axis=1)
    acc = tl.dot(weights.to(value.dtype), value, acc * rescale[:, None], input_precision="ieee")
    return new_max, row_sum, acc


@triton.jit
def update_scaled_softmax(row_max, row_sum, acc, scores, factor, value):
    """As update_softmax, for scores that are yet to be multiplied with factor > 0.

    A maximum commutes with a positive factor, so that the multiplication of every score becomes part of the
    subtraction of the maximum, one fused multiply-add.
    """
    new_max = tl.maximum(row_max, tl.max(scores, axis=1) * factor)
    rescale = tl.exp2(row_max - new_max)
    weights = tl.exp2(scores * factor - new_max[:, None])
    row_sum = row_sum * rescale + tl.sum(weights, axis=1)
    acc = tl.dot(weights.to(value.dtype), value, acc * rescale[:, None], input_precision="ieee")
    return new_max, row_sum, acc


@triton.jit
def finish_softmax(row_max, row_sum, acc):
    """(output, lse): lse in natural logarithm. A row that saw nothing gets zeros and -inf."""
    empty = row_sum == 0.0
    divisor = tl.where(empty, 1.0, row_sum)
    lse = tl.where(empty, float("-inf"), (row_max + tl.log2(divisor)) * LN_2)
    return acc / divisor[:, None], lse
