"""Question 11's checks: one objection for one mistake, and a conclusion as wide as its interval."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest

from autograder import CheckFailed, check, registry
from autograder.checks.conclusion_review import decide
from autograder.checks.q11_plan import ASPECTS
from autograder.examine import examine
from autograder.lesson import read_lesson
from autograder.misconceptions.q11_conclusion import CONCLUSION
from autograder.misconceptions.q11_plan import PLAN, changed
from autograder.suite import open_suite
from course.serving.metrics import Estimate

PLAN_CHECK, CONCLUSION_CHECK = registry.get("q11_plan"), registry.get("q11_conclusion")
LESSON = read_lesson(Path(__file__).parents[2] / "source" / "04_design.py")
# Another claim about the same runs costs no new ones.
SUPPORTED = changed(hypothesis__factor=1.3, refuted_if={"ratio_below": 1.0})


def failing(plan: Any) -> dict[str, str]:
    """Aspect -> headline, of a plan's failures."""
    verdict = examine(PLAN_CHECK, {"q11_plan": plan}, open_suite("visible"))
    return {failure.case_label: failure.problem.headline for failure in verdict.failures}


def said(conclusion: Any, plan: Any = PLAN) -> str:
    verdict = examine(
        CONCLUSION_CHECK, {"q11_plan": plan, "q11_conclusion": conclusion}, open_suite("visible")
    )
    return verdict.failures[0].problem.headline if verdict.failures else ""


def test_the_lessons_solution_is_the_checks() -> None:
    (cell,) = (cell for cell in LESSON.cells if cell.id == "q11-plan-code")
    names: dict[str, Any] = {}
    exec(cell.source, names)
    assert names["q11_plan"] == PLAN
    points = {
        cell.id: cell.metadata.nbgrader["points"]
        for cell in LESSON.cells
        if cell.id in ("q11-plan", "q11-conclusion", "q11-explain")
    }
    assert points == {"q11-plan": 8, "q11-conclusion": 8, "q11-explain": 6}
    assert points["q11-plan"] == len(ASPECTS)


@pytest.mark.parametrize("mistake", PLAN_CHECK.misconceptions, ids=lambda mistake: mistake.name)
def test_one_mistake_costs_one_point(mistake: registry.Misconception) -> None:
    assert len(failing(mistake.parts["q11_plan"])) == 1


def test_the_stub_says_nothing_and_gets_nothing() -> None:
    (cell,) = (cell for cell in LESSON.cells if cell.id == "q11-plan-code")
    names: dict[str, Any] = {}
    exec(cell.source.split("### BEGIN SOLUTION")[0], names)
    for empty in (names["q11_plan"], {}, None):
        with pytest.raises(CheckFailed, match="this is not answered yet: fill in q11_plan"):
            check("q11_plan", empty)
    (cell,) = (cell for cell in LESSON.cells if cell.id == "q11-conclusion-code")
    exec(cell.source.split("### BEGIN SOLUTION")[0], names)
    for empty in (names["q11_conclusion"], {}, None):
        with pytest.raises(CheckFailed, match="this is not answered yet: fill in q11_conclusion"):
            check("q11_conclusion", (PLAN, empty))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ([PLAN], "q11_plan: expected a dict, got a list"),
        (lambda: PLAN, "q11_plan: expected a dict, got a function"),
    ],
)
def test_what_is_no_plan_is_told_so(answer: Any, words: str) -> None:
    with pytest.raises(CheckFailed, match=re.escape(words)):
        check("q11_plan", answer)


def test_a_beginning_gets_what_is_right_of_it() -> None:
    """No aspect is passed by saying nothing about it."""
    for name in (
        "hypothesis",
        "refuted_if",
        "workloads",
        "metrics",
        "warm_up_s",
        "repetitions",
        "contenders",
    ):
        assert any("is missing" in text for text in failing(changed(**{name: None})).values()), name
        alone = failing({name: PLAN[name]})
        assert "" in alone or len(alone) >= len(ASPECTS) - 1, name


@pytest.mark.parametrize(
    ("rate", "aspect"), [(1.7, True), (2.2, False), (8.0, False), (8.6, True), (1e4, True)]
)
def test_the_load_is_judged_by_the_slower_ones_capacity(rate: float, aspect: bool) -> None:
    """About 9.1 requests a second: from 1.8 to 8.2."""
    plan = changed(workloads__traffic__arrivals__rate=rate, workloads__traffic__num_requests=120)
    assert ("how many come" in failing(plan)) == aspect


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), -1, True, "5", 10**400, [5], {"rate": 5}, object()]
)
def test_odd_values_are_told_what_was_expected(value: Any) -> None:
    for path in ("warm_up_s", "repetitions", "workloads__traffic__arrivals__rate", "hypothesis__factor"):
        found = failing(changed(**{path: value}))
        assert found, path
        assert all("expected" in text for text in found.values()), found


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (1.5, 1.7, "supported"),
        (2.0, 2.5, "supported"),
        (1.49, 1.7, "undecided"),
        (1.0, 1.2, "undecided"),
        (0.9, 1.0999, "refuted"),
        (0.9, 1.1, "undecided"),
        (None, None, "undecided"),
    ],
)
def test_the_whole_interval_decides(low: float | None, high: float | None, verdict: str) -> None:
    assert decide(Estimate(1.6, low, high), factor=1.5, ratio_below=1.1) == verdict


def test_each_verdict_is_right_for_one_claim_about_the_same_run() -> None:
    """More than it shows fails, and less fails."""
    plans = {
        "refuted": PLAN,
        "supported": SUPPORTED,
        "undecided": changed(hypothesis__factor=1.6, refuted_if={"ratio_below": 1.2}),
    }
    for right, plan in plans.items():
        for verdict in plans:
            headline = said({**CONCLUSION, "verdict": verdict}, plan)
            assert bool(headline) == (verdict != right), (right, verdict)
            if right == "undecided" != verdict:
                assert "says more than the run shows" in headline
            if verdict == "undecided" != right:
                assert "shows more than you say" in headline


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("verdict", "maybe", "expected one of supported, refuted, undecided, got 'maybe'"),
        ("verdict", None, 'q11_conclusion["verdict"] is empty'),
        ("better", "FlashInfer", "expected one of ours, vLLM Triton, neither, got 'FlashInfer'"),
        ("effect", "1.6", "expected the ratio that the run found, a number, got a str"),
        ("effect", float("nan"), "the effect is not the median"),
        ("interval", 0.1, "expected two numbers, low and high, got a float"),
        ("interval", (1.535, None), "is empty; expected two numbers"),
        ("interval", (1.0, 3.0), "the interval is not that of the median"),
        ("figures", {}, "ours is missing"),
        ("figures", [90, 141], "expected a dict with p50 ttft_ms of ours and of vLLM Triton, got a list"),
        ("scope", None, "expected a dict with workloads, source and gpu, got a NoneType"),
        ("scope", {"workloads": [], "source": "replay", "gpu": "H200"}, "leaves out the workload"),
        ("scope", {"workloads": [1], "source": "replay", "gpu": "H200"}, "expected a list of names"),
        ("scope", {"workloads": ["long prompts"], "source": "replay", "gpu": "H100"}, "another GPU"),
    ],
)
def test_what_is_wrong_with_a_conclusion_is_named(path: str, value: Any, words: str) -> None:
    assert words in said({**copy.deepcopy(CONCLUSION), path: value})


def test_other_workloads_may_be_in_the_scope_where_the_run_says_the_same() -> None:
    short = copy.deepcopy(PLAN["workloads"]["long prompts"])
    short.update(num_requests=40)
    tiny = {"distribution": "fixed", "tokens": 16}
    plan = changed(workloads__more=short, repetitions=6, warm_up_s=0.5)
    plan["workloads"]["short prompts"] = {**short, "prompt_tokens": tiny}
    plan["hypothesis"]["workload"] = "more"
    plan["hypothesis"].update(metric="itl_ms", statistic="p90", factor=1.3)
    plan["refuted_if"] = {"ratio_below": 1.3}
    del plan["workloads"]["long prompts"]
    from course import serving

    result = serving.run(plan)
    conclusion = {
        "verdict": "supported" if (result.effect().low or 0) >= 1.3 else "undecided",
        "better": "ours",
        "effect": result.effect().middle,
        "interval": result.effect().interval,
        "figures": {name: result.figure(name).middle for name in plan["contenders"]},
        "scope": {"workloads": ["more"], "source": "replay", "gpu": result.gpu},
    }
    assert said(conclusion, plan) == ""
    conclusion["scope"]["workloads"].append("short prompts")
    assert result.effect("short prompts").high < 1.3
    assert "and there the run says otherwise" in said(conclusion, plan)


def test_a_plan_that_cannot_run_has_no_conclusion() -> None:
    assert "q11_plan cannot be run, so nothing follows from it: repetitions is missing" in said(
        CONCLUSION, changed(repetitions=None)
    )
    assert "q11_plan cannot be run" in said(CONCLUSION, None)
    assert "block_size 64 was never measured" in said(
        CONCLUSION, changed(contenders={"ours": {"block_size": 64}, "vLLM Triton": {}})
    )
