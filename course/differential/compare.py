"""The same case through two backends, and where their results first differ."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from course.differential.case import Case
from course.differential.tensors import inputs

_WHAT = ("output", "lse")
# What a backend gives for a case: (output, lse) of each step.
Results = Sequence[tuple[torch.Tensor, torch.Tensor]]
Backend = Callable[[Case], Results]

# Roundings that a right backend may make, in units of eps. Measured: over 60 random cases none errs by more than half of the
# budget that these make (tests/course/differential/test_compare.py).
_ULPS = {"float32": 2.0, "float16": 4.0}
_ULPS_OF_LSE = 8.0


@dataclass(frozen=True)
class Difference:
    """The first number in which two results differ by more than the budget.

    what: "output", "lse", or "shape" where the results cannot be compared. request: its number. token: which query token of
    the request. position: where that stands in the sequence. block, slot: where its own key lies, None for length 0. dim: None
    for an lse. error: nan where one of the numbers is NaN. wrong: how many numbers of the step's output differ, and of how many;
    wrong_lse: the same of its lse.
    """

    what: str
    step: int
    request: int = -1
    token: int = 0
    position: int = 0
    block: int | None = None
    slot: int | None = None
    head: int = 0
    dim: int | None = None
    expected: float = 0.0
    got: float = 0.0
    error: float = 0.0
    budget: float = 0.0
    wrong: tuple[int, int] = (0, 0)
    wrong_lse: tuple[int, int] = (0, 0)
    detail: str = ""

    def __str__(self) -> str:
        if self.what == "shape":
            return f"step {self.step}: {self.detail}"
        where = (
            f"step {self.step}, request {self.request}, query token {self.token} (position {self.position}"
        )
        where += f", block {self.block}, slot {self.slot})" if self.block is not None else ", length 0)"
        where += f", head {self.head}" + (f", dim {self.dim}" if self.dim is not None else "")
        far = (
            f"{self.error / self.budget:.3g} budgets away" if math.isfinite(self.error) else "nothing near it"
        )
        (wrong, total), (wrong_lse, total_lse) = self.wrong, self.wrong_lse
        return (
            f"{self.what} at {where}:\n    expected {self.expected:.6g}, got {self.got:.6g}, {far}; in this step {wrong} of "
            f"{total} numbers of the output and {wrong_lse} of {total_lse} of the lse differ"
        )


def compare(backend: Backend, reference: Backend, case: Case) -> Difference | None:
    """The first difference between `backend` and `reference` on the case, or None where all is within the budget.

    Steps come in order; within a step the output before the lse. NaN differs from everything.
    """
    found = backend(case)
    expected = reference(case)
    if (
        not isinstance(found, Sequence)
        or len(found) != len(expected)
        or any(len(each) != 2 for each in found)
    ):
        return Difference("shape", 0, detail=f"expected {len(expected)} results, one for each step")
    for step, (got, right) in enumerate(zip(found, expected, strict=True)):
        allowed = budget(case, step)
        found_in = [_difference(w, step, got[i], right[i], allowed[i]) for i, w in enumerate(_WHAT)]
        counts = [
            (int(wrong.sum()) if isinstance(wrong, torch.Tensor) else 0, one.numel())
            for wrong, one in zip(found_in, right, strict=True)
        ]
        for i, wrong in enumerate(found_in):
            if isinstance(wrong, Difference):
                return wrong
            if bool(wrong.any()):
                return _located(_WHAT[i], case, step, got[i], right[i], wrong, allowed[i], counts)
    return None


@functools.lru_cache(maxsize=8192)
def budget(case: Case, step: int) -> tuple[float, float]:
    """How far a right backend may be from the exact output and lse of a step: (output, lse).

    A score of size s carries a rounding error of s * eps, and so does the logarithm of its weight; the output is then wrong
    by that share of the largest value. eps is float32's, and for a float16 case the output may have been computed from
    float16 weights.
    """
    given = inputs(case, step)
    keys, values = (_owned(case, step, cache) for cache in given.as_nhd())
    keys = keys * (given.k_scale or 1.0)
    values = values * (given.v_scale or 1.0)
    query = given.query.double()
    largest_score = given.scale * _largest(query.norm(dim=-1)) * _largest(keys.norm(dim=-1))
    single = torch.finfo(torch.float32).eps * (8.0 + largest_score)
    of_lse = _ULPS_OF_LSE * single
    eps = torch.finfo(getattr(torch, case.dtype)).eps
    share = _ULPS[case.dtype] * max(eps, single)
    return share * max(_largest(values), 1e-6), of_lse


def _owned(case: Case, step: int, cache: torch.Tensor) -> torch.Tensor:
    """The tokens of a step in a cache [num_blocks, block_size, num_kv_heads, head_size], float64."""
    parts = case.steps[step]
    row_of = {block: row for row, block in enumerate(sorted(b for part in parts for b in part.blocks))}
    rows = [cache.double()[[row_of[b] for b in p.blocks]].flatten(0, 1)[: p.seq_len] for p in parts]
    return torch.cat(rows)


def _largest(numbers: torch.Tensor) -> float:
    return float(numbers.abs().max()) if numbers.numel() else 0.0


def _difference(
    what: str, step: int, got: object, expected: torch.Tensor, allowed: float
) -> torch.Tensor | Difference:
    """Which numbers are further from the expected ones than allowed; a Difference where they cannot be compared."""
    if not isinstance(got, torch.Tensor) or got.shape != expected.shape:
        shape = list(got.shape) if isinstance(got, torch.Tensor) else f"a {type(got).__name__}"
        return Difference("shape", step, detail=f"{what}: expected shape {list(expected.shape)}, got {shape}")
    a, b = got.detach().cpu().double(), expected.double()
    return ~((a == b) | ((a - b).abs() <= allowed))


def _located(
    what: str,
    case: Case,
    step: int,
    got: torch.Tensor,
    expected: torch.Tensor,
    wrong: torch.Tensor,
    allowed: float,
    counts: list[tuple[int, int]],
) -> Difference:
    at = tuple(int(i) for i in wrong.nonzero()[0])
    token, row = at[0], 0
    parts = case.steps[step]
    while token >= parts[row].query_len:
        token, row = token - parts[row].query_len, row + 1
    part = parts[row]
    position = max(0, part.seq_len - part.query_len + token)
    a, b = float(got[at]), float(expected[at])
    return Difference(
        what,
        step,
        request=part.request,
        token=token,
        position=position,
        block=part.blocks[position // case.block_size] if part.seq_len else None,
        slot=position % case.block_size if part.seq_len else None,
        head=at[1],
        dim=at[2] if what == "output" else None,
        expected=b,
        got=a,
        error=abs(a - b),
        budget=allowed,
        wrong=counts[0],
        wrong_lse=counts[1],
    )
