"""What may happen to a tile of scores between the product of queries and keys and the softmax.

The order is vLLM's: scale, softcap, ALiBi, mask. A tile is [NUM_ROWS, TILE_SIZE]; a row is a query of one head at a
position of its sequence, a column is a key's position. Results are in log2 units, as softmax.py wants them.
`score_numbers` makes what launchers hand to their kernels for it.
"""

# mypy: allow-untyped-defs

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from kernels.options import ScoreOptions, split_scale
from kernels.softmax import LOG2_E

__all__ = ["ScoreNumbers", "alibi", "hide", "score_numbers", "softcap"]


@triton.jit
def softcap(scores, cap_log2):
    """cap * tanh(score / cap) for scores that came multiplied with 2 * log2(e) / cap; cap_log2 = cap * log2(e).

    tanh(x) is 1 - 2 / (exp(2x) + 1), which holds when exp overflows: exp(x) / exp(x) would be infinity by infinity.
    """
    return cap_log2 * (1.0 - 2.0 / (tl.exp2(scores) + 1.0))


@triton.jit
def alibi(scores, slopes_log2, query_position, key_position):
    """A penalty that grows with the distance of query and key; slopes_log2 [NUM_ROWS] = slope * log2(e)."""
    distance = tl.abs(query_position[:, None] - key_position[None, :])
    return scores - slopes_log2[:, None] * distance.to(tl.float32)


@triton.jit
def hide(scores, first, last, key_position, HAS_FIRST: tl.constexpr):
    """Minus infinity for keys after the last [NUM_ROWS] that a row sees, and before the first with HAS_FIRST."""
    visible = key_position[None, :] <= last[:, None]
    if HAS_FIRST:
        visible = visible & (key_position[None, :] >= first[:, None])
    return tl.where(visible, scores, float("-inf"))


class ScoreNumbers(NamedTuple):
    """What a kernel is given for `scale` and `ScoreOptions`."""

    factor: float  # what a score is multiplied with: scale * log2(e), or 2 / softcap times that
    cap_log2: float  # softcap * log2(e)
    value_factor: float  # what an output is multiplied with
    k_scale: torch.Tensor | None  # [1] or [num_kv_heads], where it lies on the device
    v_scale: torch.Tensor | None
    stride_k_scale_head: int
    stride_v_scale_head: int
    scale_first: bool  # scores have to be multiplied before the softmax, not in it


def score_numbers(scale: float, options: ScoreOptions) -> ScoreNumbers:
    """Of arguments that were checked."""
    k_scale, k_number, stride_k_scale_head = split_scale(options.k_scale)
    v_scale, v_number, stride_v_scale_head = split_scale(options.v_scale)
    factor, cap_log2 = scale * LOG2_E * k_number, 0.0
    if options.softcap is not None:
        factor *= 2.0 / options.softcap
        cap_log2 = options.softcap * LOG2_E
    return ScoreNumbers(
        factor,
        cap_log2,
        v_number,
        k_scale,
        v_scale,
        stride_k_scale_head,
        stride_v_scale_head,
        # A maximum commutes with a positive factor, and with nothing in between: update_scaled_softmax.
        scale_first=options.softcap is not None or options.alibi_slopes is not None or scale <= 0,
    )
