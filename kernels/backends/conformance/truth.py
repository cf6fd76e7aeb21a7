"""What an output should be, and how far from it a right one may be. Measured on the case, not chosen.

The truth is dense attention in float64 over the very numbers that the cache holds. With u the unit roundoff of the
model's dtype, an output may be off by its own rounding (u * |output|), by the rounding of the softmax weights before
they are multiplied with the values (u * attention over |value|, in 16-bit types only), and by float32 arithmetic in
another order: SLACK times the error of dense attention in float32 on the same numbers, and the rounding of a score as large
as the case can have, which is an exponent (its error times attention over |value|).
"""

from dataclasses import dataclass
from typing import Any

import torch

from kernels import reference

__all__ = ["Truth", "attend"]

UNIT_ROUNDOFF = {
    torch.float64: 2.0**-53,
    torch.float32: 2.0**-24,
    torch.float16: 2.0**-11,
    torch.bfloat16: 2.0**-8,
}
# Half the smallest step of a dtype: what a tiny weight may lose.
SMALLEST = {torch.float64: 0.0, torch.float32: 0.0, torch.float16: 2.0**-25, torch.bfloat16: 2.0**-134}
SLACK = 16.0


@dataclass(frozen=True)
class Truth:
    """output, tolerance: float64, [n_q, num_heads, size of a value]."""

    output: torch.Tensor
    tolerance: torch.Tensor


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    dtype: torch.dtype,
    value_size: int,
    **options: Any,
) -> Truth:
    """The truth of one request. query, key, value: float64, as `kernels.reference.dense_attention` takes them.

    dtype: the model's. value_size: how many of a value's numbers count. options: those of dense_attention.
    """

    def dense(kind: torch.dtype, values: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = reference.dense_attention(
            query.to(kind), key.to(kind), values.to(kind), scale, **options
        )
        return result.double()[..., :value_size]

    output = dense(torch.float64, value)
    # A float64 model computes in float64; all others in float32.
    working = torch.float64 if dtype == torch.float64 else torch.float32
    largest = value.abs().max().item() if value.numel() else 0.0
    error = (dense(torch.float32, value) - output).abs().max().item() if output.numel() else 0.0
    arithmetic = max(
        error * UNIT_ROUNDOFF[working] / UNIT_ROUNDOFF[torch.float32], UNIT_ROUNDOFF[working] * largest
    )
    tolerance = UNIT_ROUNDOFF[dtype] * output.abs() + SLACK * arithmetic
    if len(query) and len(key):
        largest_score = abs(scale) * query.norm(dim=-1).max().item() * key.norm(dim=-1).max().item()
        tolerance = tolerance + 2 * UNIT_ROUNDOFF[working] * largest_score * dense(torch.float64, value.abs())
    if dtype not in (torch.float32, torch.float64):
        tolerance = tolerance + UNIT_ROUNDOFF[dtype] * dense(torch.float64, value.abs())
        tolerance = tolerance + SMALLEST[dtype] * len(key) * largest
    softcap = options.get("softcap")
    if softcap is not None:
        # A tanh by exponentials is off by a rounding of 1, not of itself: a score by that times the cap.
        tolerance = tolerance + 8 * UNIT_ROUNDOFF[working] * softcap * dense(torch.float64, value.abs())
    return Truth(output, tolerance)
