"""What may happen to a tile of scores between the product of queries and keys and the softmax.

The order is vLLM's: scale, softcap, ALiBi, mask. A tile is [NUM_ROWS, TILE_SIZE]; a row is a query of one head at a
position of its sequence, a column is a key's position. Results are in log2 units, as softmax.py wants them.
"""

# mypy: allow-untyped-defs

import triton
import triton.language as tl

__all__ = ["alibi", "hide", "softcap"]


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
