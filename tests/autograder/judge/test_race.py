"""The race of question 10b: each timed run has a query of its own, so that an output is worth nothing for the next."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import kernels
from autograder import watched
from autograder.checks import paged_cases, split_kv_race
from autograder.failure import AnswerProblem
from autograder.judge.session import Session
from autograder.suite import Suite
from course import gpu_timing

QUERIES = torch.arange(12.0).view(6, 1, 2)


@pytest.fixture(autouse=True)
def timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock for machines without a GPU."""

    def times_us(
        call: Callable[[], Any], *, runs: int, before: Callable[[int], Any]
    ) -> tuple[list[float], list[Any]]:
        call()  # to warm up
        results = []
        for run in range(runs):
            before(run)
            results.append(call())
        return [1.0] * runs, results

    monkeypatch.setattr(gpu_timing, "times_us", times_us)


def race(function: Callable[..., Any]) -> tuple[dict[str, Any], torch.Tensor]:
    query = torch.full((1, 2), -1.0)
    return watched.race(function, lambda query: query, {"query": query}, [3], QUERIES), query


def test_each_run_has_its_own_query_and_the_caller_gets_his_back() -> None:
    seen, query = race(lambda query, num_splits: num_splits * query)
    assert torch.equal(torch.stack(seen["outputs"]), 3 * QUERIES)
    assert len(seen["us"]) == len(seen["rival_us"]) == len(QUERIES)
    assert query.eq(-1.0).all()


def test_an_output_that_is_remembered_is_wrong() -> None:
    known: dict[int, torch.Tensor] = {}

    def remembers(query: torch.Tensor, num_splits: int) -> torch.Tensor:
        return known.setdefault(query.data_ptr(), num_splits * query)

    seen, _ = race(remembers)
    assert not any(
        torch.equal(output, 3 * query) for output, query in zip(seen["outputs"], QUERIES, strict=True)
    )


def test_it_is_the_same_in_the_judges_worker(session: Callable[[str], Session]) -> None:
    made = session(
        "from course import gpu_timing\n"
        "def times_us(call, *, runs, before):\n"
        "    results = [(before(run), call())[1] for run in range(runs)]\n"
        "    return [1.0] * runs, results\n"
        "gpu_timing.times_us = times_us\n"
        "def function(query, num_splits):\n    return num_splits * query\n"
        "def rival(query):\n    return query\n"
    )
    query = torch.full((1, 2), -1.0)
    seen = watched.race(made.get("function"), made.get("rival"), {"query": query}, [3], QUERIES)
    assert torch.equal(torch.stack(seen["outputs"]), 3 * QUERIES)
    assert query.eq(-1.0).all()


def test_what_is_no_race_is_refused() -> None:
    with pytest.raises(AnswerProblem, match="no answer to the judge"):
        watched.race(
            lambda query, num_splits: query,
            lambda query: query,
            {"query": torch.zeros(1, 2)},
            [3],
            QUERIES[:5],
        )


def test_every_timed_output_is_held_against_the_truth_of_its_query(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_gpu = SimpleNamespace(INTERPRET=False, device=kernels.device, describe=kernels.describe)
    monkeypatch.setattr(split_kv_race, "kernels", on_a_gpu)
    (case,) = split_kv_race.cases(Suite("visible", 0))
    queries = case.inputs["timed"]
    assert len(queries) == split_kv_race.NUM_RUNS
    truths = split_kv_race.truths(case, torch.float64)
    one = replace(case, inputs={**case.inputs, "query": queries[2]})
    assert torch.allclose(truths[2:3], paged_cases.truth(one), rtol=0, atol=1e-12)
    right = list(truths.to(queries.dtype)[:, None])
    output = {"output": paged_cases.truth(case).to(queries.dtype), "evidence": "", "detail": "", "reads": ""}

    def problem(outputs: list[torch.Tensor], ratio: float) -> str:
        found = split_kv_race.inspect({**output, "outputs": outputs, "ratio": ratio}, case)
        return found.headline if found else ""

    assert "does not beat" in problem(right, 1.4)
    assert "wrong values" in problem([*right[:-1], right[0]], 2.0)
