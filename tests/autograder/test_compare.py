"""The comparison: a budget that is measured, and the place of the first wrong value."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autograder.compare import error_budget, same_tensors, tensor_problem, value_problem
from autograder.guard import AnswerProblem, unchanged


def _place(index: tuple[int, ...]) -> str:
    return f"at {index}"


@given(st.integers(0, 2**32), st.sampled_from([torch.float16, torch.float32]))
def test_rounding_stays_within_the_budget_and_a_wrong_value_does_not(seed: int, dtype: torch.dtype) -> None:
    expected = torch.randn(4, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    rounded = expected.to(dtype)
    budget = error_budget(expected, [rounded], dtype)
    assert value_problem("x", rounded, expected, budget, _place) is None
    wrong = rounded.clone()
    wrong[2, 3] += 0.5
    problem = value_problem("x", wrong, expected, budget, _place)
    assert problem is not None
    assert "at (2, 3)" in problem.detail
    assert "1 of 20 values" in problem.detail


def test_nan_never_passes_and_infinities_must_agree() -> None:
    expected = torch.tensor([1.0, -torch.inf], dtype=torch.float64)
    assert value_problem("x", expected.float(), expected, 1e9, _place) is None
    for got in ([torch.nan, -torch.inf], [1.0, torch.nan], [1.0, torch.inf], [1.0, 0.0]):
        assert value_problem("x", torch.tensor(got), expected, 1e9, _place) is not None


def test_the_kind_of_a_tensor() -> None:
    x = torch.zeros(2, 3)
    assert tensor_problem("x", x, (2, 3), (torch.float32,), torch.device("cpu")) is None
    assert "is a Parameter" in tensor_problem("x", torch.nn.Parameter(x), (2, 3), (torch.float32,)).headline  # type: ignore[union-attr]
    assert "int32 or int64" in tensor_problem("x", x, (2, 3), (torch.int32, torch.int64)).headline  # type: ignore[union-attr]
    assert tensor_problem("x", x, (3, 2), (torch.float32,)).detail == "expected [3, 2], got [2, 3]"  # type: ignore[union-attr]


def test_the_same_up_to_rounding() -> None:
    x = torch.tensor([1.0, torch.nan, -torch.inf])
    assert same_tensors(x, x * (1 + 1e-6))
    assert not same_tensors(x, x + 0.01)
    assert not same_tensors(x, torch.nan_to_num(x))
    assert not same_tensors(x, x.double())


def test_changes_in_place_are_noticed() -> None:
    tensor, rows = torch.tensor([1.0, torch.nan]), [[1], [2]]
    with unchanged(tensor=tensor, rows=rows):
        pass
    with pytest.raises(AnswerProblem, match="changes its input `rows`"), unchanged(tensor=tensor, rows=rows):
        rows[1].append(3)
    with pytest.raises(AnswerProblem, match="changes its input `tensor`"), unchanged(tensor=tensor):
        tensor[0] = 2.0
