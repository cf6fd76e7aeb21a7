"""Right backends are never accused; the first difference is where it was put."""

import math
from collections.abc import Callable

import pytest
import torch

from course import differential
from course.closed_backends.engine import Spec, run
from course.closed_backends.right import RIGHT
from course.differential import Case, Results
from tests.course.differential.random_cases import random_case


def _used(case: Case, results: Results) -> float:
    """The largest share of the budget that a result uses."""
    used = 0.0
    for step, (got, exact) in enumerate(zip(results, differential.reference(case), strict=True)):
        for which, allowed in enumerate(differential.budget(case, step)):
            error = (got[which].double() - exact[which].double()).nan_to_num(0.0, 0.0, 0.0).abs()
            used = max([used, *(error / allowed).flatten().tolist()])
    return used


@pytest.mark.parametrize("base", [name for name in RIGHT if name not in ("triton", "in_double")])
def test_right_backends_use_half_of_the_budget_at_most(base: str) -> None:
    shares = []
    for seed in range(60):
        case = random_case(seed)
        results = run(Spec(base), case)
        assert differential.compare(lambda _, got=results: got, differential.reference, case) is None, seed  # type: ignore[misc]
        shares.append(_used(case, results))
    assert 0 < max(shares) < 0.5


def test_triton_agrees_too() -> None:
    for case in (random_case(3), Case.of([9, 0, 13], [4, 1, 0], num_heads=6, num_kv_heads=2, layout="HND")):
        assert _used(case, run(Spec("triton"), case)) < 0.5


CASE = Case.of([9, 6], [4, 1], num_heads=2, num_kv_heads=1).then({0: 10, 1: 7})


def _bent(bend: Callable[[Results], None]) -> differential.Difference | None:
    results = differential.reference(CASE)
    bend(results)
    return differential.compare(lambda _: results, differential.reference, CASE)


@pytest.mark.parametrize("value", [7.0, math.nan, math.inf])
def test_a_wrong_number_of_the_output_is_located(value: float) -> None:
    def bend(results: Results) -> None:
        results[1][0][1, 1, 5] = value
        results[1][0][1, 1, 6] = value

    found = _bent(bend)
    assert found is not None
    assert (found.what, found.step, found.request, found.token, found.position) == ("output", 1, 1, 0, 6)
    assert (found.head, found.dim, found.wrong, found.wrong_lse) == (1, 5, (2, 32), (0, 4))
    assert (found.block, found.slot) == (CASE.steps[1][1].blocks[1], 2)
    assert found.expected == float(differential.reference(CASE)[1][0][1, 1, 5])
    assert ("budgets away" in str(found)) == math.isfinite(value)


def test_a_wrong_lse_alone_is_found() -> None:
    def bend(results: Results) -> None:
        results[0][1][2, 0] += 0.01

    found = _bent(bend)
    assert found is not None
    assert (found.what, found.step, found.request, found.token, found.head, found.dim) == (
        "lse",
        0,
        0,
        2,
        0,
        None,
    )
    assert "0 of 80 numbers of the output and 1 of 10 of the lse" in str(found)


def test_results_of_another_shape_differ() -> None:
    short = differential.compare(lambda case: differential.reference(case)[:1], differential.reference, CASE)
    assert short is not None
    assert "expected 2 results" in str(short)
    flat = differential.compare(
        lambda case: [(out.flatten(), lse) for out, lse in differential.reference(case)],
        differential.reference,
        CASE,
    )
    assert flat is not None
    assert "output: expected shape [5, 2, 8], got [80]" in str(flat)
    named = differential.compare(lambda case: [("x", 1), ("y", 2)], differential.reference, CASE)  # type: ignore[list-item]
    assert named is not None
    assert "got a str" in str(named)


def test_a_table_has_a_mark_for_every_backend_and_case() -> None:
    def wrong(case: Case) -> Results:
        return [(torch.zeros_like(out), lse) for out, lse in differential.reference(case)]

    cases = {"one": Case.of([4]), "none": Case.of([0])}
    lines = differential.table(
        {"right": differential.reference, "wrong": wrong}, cases, differential.reference
    )
    assert lines.splitlines()[-2:] == ["right   .   .", "wrong   X   ."]
