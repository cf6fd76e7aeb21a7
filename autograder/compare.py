"""Comparing an answer's tensors with the truth, and saying where the first difference is.

The truth is float64. How far an answer may be from it is measured, not chosen: `error_budget` takes what the right
implementations of a check (the solution and the right variants) get wrong on the very same case by rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from autograder.failure import Problem

# An answer may err this many times more than the worst right implementation measured on the case, and by this many
# units in the last place of the largest expected value: orders of summation differ between right answers.
BUDGET_FACTOR = 8.0
BUDGET_ULPS = 8.0


def error_budget(expected: torch.Tensor, right_outputs: Iterable[torch.Tensor], dtype: torch.dtype) -> float:
    """The largest absolute error allowed, from what right implementations of `dtype` get wrong.

    expected: float64, any shape. right_outputs: tensors of the same shape.
    """
    finite = torch.isfinite(expected)
    largest = expected[finite].abs().max().item() if finite.any() else 0.0
    worst = 0.0
    for output in right_outputs:
        error = (output.detach().cpu().double() - expected)[finite].abs()
        worst = max(worst, error.max().item() if error.numel() else 0.0)
    return BUDGET_FACTOR * worst + BUDGET_ULPS * torch.finfo(dtype).eps * max(largest, 1e-30)


def tensor_problem(
    name: str,
    got: object,
    shape: tuple[int, ...],
    dtypes: tuple[torch.dtype, ...],
    device: torch.device | None = None,
) -> Problem | None:
    """What is wrong with the kind of tensor that `got` is, or None. Subclasses are refused: they can lie."""
    if type(got) is not torch.Tensor:
        kind = type(got).__name__
        return Problem(f"{name} is a {kind}; expected a torch.Tensor")
    if got.dtype not in dtypes:
        wanted = " or ".join(_short(dtype) for dtype in dtypes)
        return Problem(f"{name} has dtype {_short(got.dtype)}; expected {wanted}")
    if tuple(got.shape) != tuple(shape):
        return Problem(f"{name} has the wrong shape", f"expected {list(shape)}, got {list(got.shape)}")
    if device is not None and got.device.type != device.type:
        return Problem(
            f"{name} is on the device {got.device.type}; expected {device.type}, where the inputs are"
        )
    return None


def value_problem(
    name: str,
    got: torch.Tensor,
    expected: torch.Tensor,
    budget: float,
    describe: Callable[[tuple[int, ...]], str],
) -> Problem | None:
    """The first value of `got` further than `budget` from the float64 `expected`, or None.

    `describe` turns an index into words ("request 1, head 3"). Infinities must agree exactly and NaN never does.
    """
    values = got.detach().cpu().double()
    error = (values - expected).abs()
    wrong = ~((values == expected) | (error <= budget))
    count = int(wrong.sum())
    if not count:
        return None
    index = tuple(int(i) for i in wrong.nonzero()[0])
    place = describe(index)
    nan = int(torch.isnan(values).sum())
    headline = f"{name} holds NaN" if nan else f"{name} has wrong values"
    detail = f"first at {place}: expected {_number(expected[index])}, got {_number(values[index])}"
    detail += f" ({count} of {values.numel()} values are wrong"
    detail += f", {nan} of them NaN)" if nan else f", by at most {_number(error[wrong].max())})"
    return Problem(headline, detail)


def same_tensors(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two outputs are the same up to rounding; NaN equals NaN. Tells one misconception from another."""
    if type(a) is not torch.Tensor or type(b) is not torch.Tensor:
        return False
    if a.shape != b.shape or a.dtype != b.dtype or a.device != b.device:
        return False
    x, y = a.detach().cpu().double(), b.detach().cpu().double()
    finite = torch.isfinite(x)
    scale = x[finite].abs().max().item() if finite.any() else 0.0
    epsilon = torch.finfo(a.dtype).eps if a.dtype.is_floating_point else 0.0
    return torch.allclose(x, y, rtol=0.0, atol=256 * epsilon * scale, equal_nan=True)


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _number(value: torch.Tensor) -> str:
    number = float(value)
    return str(int(number)) if number.is_integer() and abs(number) < 2**53 else f"{number:.6g}"
