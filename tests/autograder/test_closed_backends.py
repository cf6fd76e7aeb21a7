"""What is_faulty and minimise are tested on: drawn by the suite, right ones with faulty ones, in an order that tells nothing."""

import random
from dataclasses import replace
from typing import Any

import pytest

from autograder import registry
from autograder.closed_backends import _ALL, _HIDDEN_VARIANTS, HiddenBackend, faulty_ones, right_ones
from autograder.examine import examine
from autograder.misconceptions.q13_diagnosis import TRUTH
from autograder.suite import Suite
from autograder.verdict import Verdict
from course import differential
from course.closed_backends.engine import Spec, run
from course.closed_backends.faults import FAULTS, VARIANTS

VISIBLE, HIDDEN = Suite("visible", 0), [Suite("hidden", seed) for seed in range(6)]
of = differential.Case.of


def test_every_suite_has_every_fault_and_right_backends() -> None:
    for suite in (VISIBLE, *HIDDEN):
        assert faulty_ones(suite).keys() == FAULTS.keys()
        assert len({spec.base for spec in right_ones(suite)}) >= 5
        for kind, specs in faulty_ones(suite).items():
            assert {_ALL[spec.variant].fault for spec in specs} == {kind}
    drawn = [faulty_ones(suite) for suite in HIDDEN]
    assert len({str(each) for each in drawn}) == len(HIDDEN)
    assert "triton" in {spec.base for suite in HIDDEN for spec in right_ones(suite)}
    variants = {spec.variant for each in drawn for specs in each.values() for spec in specs}
    assert variants == VARIANTS.keys() | _HIDDEN_VARIANTS.keys()


@pytest.mark.parametrize(
    ("variant", "amount", "shows", "hides"),
    [
        ("past-a-full-block", 1, of([8]), of([7])),
        ("window-from-the-end", 1, of([9], [3], window=4), of([9], window=4)),
        ("wrapped-unsigned", 1, of([4], lowest_block=2**27 + 4), of([4], lowest_block=2**26 + 4)),
        ("interleaved-heads", 1, of([4], num_kv_heads=2), of([4])),
        ("last-tokens-only", 16, of([17]), of([16])),
        ("lse-of-zero", 1, of([0]), of([1])),
        ("rows-by-place", 1, of([4, 4]).then({1: 4}), of([4, 4]).then({0: 4, 1: 4})),
    ],
)
def test_a_hidden_fault_shows_where_it_says_and_only_there(
    variant: str, amount: int, shows: differential.Case, hides: differential.Case
) -> None:
    spec = Spec("padded", variant, amount)
    assert differential.compare(lambda case: run(spec, case, _ALL), differential.reference, shows) is not None
    assert differential.compare(lambda case: run(spec, case, _ALL), differential.reference, hides) is None


def _verdict(name: str, answer: object, suite: Suite) -> Verdict:
    """Without asking which known mistake it is, which takes its time."""
    found = replace(registry.get(name), misconceptions=())
    return examine(found, {name: answer}, suite)


def _points(is_faulty: object, suite: Suite) -> int:
    return _verdict("is_faulty", is_faulty, suite).points


def test_testers_that_do_not_test_get_nothing() -> None:
    rng = random.Random(0)
    calls: list[object] = []

    def counts(backend: object) -> bool:
        """Right ones first, faulty ones then, as a suite in order would have it."""
        calls.append(backend)
        return len(calls) > 7

    for suite in (VISIBLE, *HIDDEN[:2]):
        for lazy in (
            lambda b: True,
            lambda b: False,
            lambda b: rng.random() < 0.5,
            lambda b: "slate" in repr(b),
        ):
            assert _points(lazy, suite) == 0
        calls.clear()
        assert _points(counts, suite) == 0


def test_what_is_no_verdict_is_told() -> None:
    verdict = _verdict("is_faulty", lambda backend: 1, VISIBLE)
    assert "is_faulty must return True or False, got a int" in verdict.message()
    verdict = _verdict("minimise", lambda backend, case: None, VISIBLE)
    assert "minimise must return a Case, got a NoneType" in verdict.message()


def test_a_backend_answers_so_often_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autograder.closed_backends.MAX_CALLS", 2)
    backend = HiddenBackend(Spec("padded"))
    backend(of([1]))
    backend(of([1]))
    with pytest.raises(RuntimeError, match="called 2 times"):
        backend(of([1]))
    assert repr(backend) == "<closed backend>"


def test_a_right_backend_that_is_accused_costs_all_points() -> None:
    found = registry.get("q13_diagnosis")
    accused = {**TRUTH, next(name for name in TRUTH if TRUTH[name] == "right"): "window"}
    verdict = examine(found, {"q13_diagnosis": accused}, VISIBLE)
    assert (verdict.num_passed, verdict.points, verdict.out_of) == (6, 0, 6)
    one_wrong = {**TRUTH, next(name for name in TRUTH if TRUTH[name] != "right"): "right"}
    assert examine(found, {"q13_diagnosis": one_wrong}, VISIBLE).points == 5
    unknown = examine(found, {"q13_diagnosis": {**TRUTH, "agate": "gremlins"}}, VISIBLE)
    assert "none of the words" in unknown.failures[0].problem.headline


@pytest.mark.slow
def test_no_draw_of_the_hidden_suite_lets_a_wrong_tester_through() -> None:
    """It once did in three draws of ten: a fault with another amount showed on inputs that it should not."""
    said: dict[tuple[str, Spec], bool] = {}
    suites = [Suite("hidden", seed) for seed in range(12)]
    found = registry.get("is_faulty")
    for mistake in found.misconceptions:
        is_faulty = found.complete(mistake.parts)["is_faulty"]

        def accuses(spec: Spec, name: str = mistake.name, is_faulty: Any = is_faulty) -> bool:
            if (name, spec) not in said:
                said[name, spec] = _accuses(is_faulty, spec)
            return said[name, spec]

        for suite in suites:
            right = [spec for spec in right_ones(suite) if spec.base != "triton"]
            faulty = [spec for specs in faulty_ones(suite).values() for spec in specs]
            assert any(map(accuses, right)) or not all(map(accuses, faulty)), (mistake.name, suite.seed)


def _accuses(is_faulty: Any, spec: Spec) -> bool:
    try:
        return bool(is_faulty(HiddenBackend(spec)))
    except Exception:
        return False
