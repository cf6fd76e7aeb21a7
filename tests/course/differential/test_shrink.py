"""Cuts are smaller, legal, and leave the case as it was; a minimal case stays minimal."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autograder.checks.minimise import crowded, failing, fails
from autograder.closed_backends import faulty_ones
from autograder.misconceptions.minimise import minimise
from autograder.suite import Suite
from course import differential
from course.closed_backends.engine import Spec
from course.closed_backends.faults import FAULTS
from tests.course.differential.random_cases import random_case


@given(st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_every_cut_is_a_smaller_case(seed: int) -> None:
    case = random_case(seed)
    before = case.to_plain()
    sizes = [differential.size(less) for less in differential.smaller(case)]
    assert case.to_plain() == before
    assert all(size < differential.size(case) for size in sizes)


def test_the_smallest_case_has_no_cut_left() -> None:
    case = random_case(1)
    while (less := next(differential.smaller(case), None)) is not None:
        case = less
    assert differential.size(case) == 1 + 1 + 1 + 1  # a step, a request without tokens, two heads
    assert differential.odd_fields(case) == []


@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("seed", [5, 6])
def test_a_minimal_case_fails_and_is_its_own_minimum(kind: str, seed: int) -> None:
    spec: Spec = faulty_ones(Suite("hidden", seed))[kind][0]
    calls = []

    def backend(case: differential.Case) -> differential.Results:
        from autograder.closed_backends import compute

        calls.append(case)
        return compute(spec, case)

    given_case = failing(spec, 7)
    least = minimise(backend, given_case)
    assert fails(spec, least)
    assert len(calls) < 1000
    assert differential.size(least) < differential.size(given_case)
    assert minimise(backend, least) == least


def test_descriptions_say_what_is_not_plain() -> None:
    said = differential.describe(crowded(3))
    assert "not plain: " in said
    assert "no tokens in the cache" in said
    assert differential.describe(differential.Case.of([4], unowned="zeros")).endswith("not plain: nothing")
