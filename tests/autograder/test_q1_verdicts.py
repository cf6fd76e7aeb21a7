"""Question 1's check: the truth is the model's, every way to be wrong has its words, and part of it earns part."""

import re

import pytest

from autograder import CheckFailed, check, registry
from autograder.examine import examine
from autograder.suite import Suite, open_suite
from autograder.verdict import Verdict
from course.deployments import CANDIDATES, DEPLOYMENTS, SCENARIOS, table, walk
from course.vllm.rules import NONE, explain, select

CHECK = registry.get("q1_verdicts")
TRUTH = {name: select(deployment) for name, deployment in DEPLOYMENTS.items()}
ONE = "t4-llama1b-fp16"


class EqualToEverything(str):
    def __eq__(self, other):
        return True

    __hash__ = str.__hash__

    def strip(self, *_):
        return self

    def upper(self):
        return self


def verdict_on(answer: object, suite: Suite | None = None) -> Verdict:
    return examine(CHECK, {"q1_verdicts": answer}, suite or open_suite("visible"))


def test_the_eight_teach_different_things():
    assert len(DEPLOYMENTS) == 8
    assert {"FLASH_ATTN", "FLASHINFER", "TRITON_ATTN", "FLEX_ATTENTION", "FLASHMLA", NONE} == set(
        TRUTH.values()
    )
    assert {scenario.batch.split(":")[0] for scenario in SCENARIOS.values()} == {"decode", "prefill", "mixed"}


def test_the_truth_earns_everything(capsys):
    assert check("q1_verdicts", TRUTH) == 8
    assert float(check("q1-verdicts", TRUTH, suite="hidden")) == 8.0
    assert "✓ q1_verdicts: all 8" in capsys.readouterr().out


@pytest.mark.parametrize("variant", CHECK.right_variants, ids=lambda variant: variant.name)
def test_right_answers_by_another_road_earn_everything(variant):
    assert examine(CHECK, CHECK.complete(variant.parts), open_suite("visible")).passed


@pytest.mark.parametrize("mistake", CHECK.misconceptions, ids=lambda mistake: mistake.name)
@pytest.mark.parametrize("suite", ["visible", "hidden"])
def test_each_way_to_pick_loses_points_and_is_named(mistake, suite):
    verdict = examine(CHECK, CHECK.complete(mistake.parts), open_suite(suite))
    assert 0 < verdict.num_passed < 8
    assert verdict.misconception == mistake.name
    assert verdict.exact
    assert len(verdict.message().splitlines()) <= 10


def test_no_two_mistakes_give_the_same_answer():
    dicts = [tuple(mistake.parts["q1_verdicts"].items()) for mistake in CHECK.misconceptions]
    assert len(set(dicts)) == len(dicts) >= 12


@pytest.mark.parametrize("name", DEPLOYMENTS)
@pytest.mark.parametrize("candidate", CANDIDATES)
def test_a_deployments_point_depends_on_its_verdict_and_no_message_gives_the_right_one_away(name, candidate):
    verdict = verdict_on(TRUTH | {name: candidate})
    if candidate == TRUTH[name]:
        assert verdict.passed
        return
    assert verdict.num_passed == 7
    (failure,) = verdict.failures
    assert failure.problem.headline.startswith(f"{name}: ")
    said = failure.problem.headline.removeprefix(f"{name}: ") + failure.problem.detail
    assert not re.search(rf"\b{TRUTH[name]}\b", said)


def test_messages_quote_vllms_own_reasons(capsys):
    points = check("q1_verdicts", TRUTH | {ONE: "FLASH_ATTN"})
    assert points == 7
    message = capsys.readouterr().out
    assert f'{ONE}: FLASH_ATTN is asked first and refuses: "compute capability not supported"' in message
    assert "a backend that is asked before it is valid too" in headline({ONE: "TRITON_ATTN"})
    assert "is not asked at all for a model without MLA on capability 7.5" in headline({ONE: "TRITON_MLA"})
    assert "nothing against it" in headline({ONE: "none"})
    assert "did you mean FLASHINFER?" in headline({ONE: "FlashInfer2"})


def headline(wrong: dict[str, object]) -> str:
    return verdict_on(TRUTH | wrong).failures[0].problem.headline


def test_every_wrong_deployment_is_listed_beside_the_learner():
    verdict = verdict_on(dict.fromkeys(DEPLOYMENTS, "FLASH_ATTN"))
    wrong = [name for name, truth in TRUTH.items() if truth != "FLASH_ATTN"]
    assert len(verdict.failures) == len(wrong)
    assert all(name in verdict.message() for name in wrong)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (None, "expected a dict from deployment to backend, got a NoneType"),
        (["FLASH_ATTN"] * 8, "expected a dict from deployment to backend, got a list"),
        (lambda: TRUTH, "expected a dict from deployment to backend, got a function"),
        ({}, "names none of the eight deployments"),
        ({0: "FLASH_ATTN"}, "its keys are 0"),
        (dict.fromkeys(DEPLOYMENTS, ""), "has no verdict yet"),
        (dict.fromkeys(DEPLOYMENTS), "has no verdict yet"),
        (dict.fromkeys(DEPLOYMENTS, ...), "has no verdict yet"),
        (dict.fromkeys(DEPLOYMENTS, 3), "expected a backend's name as text, got an int"),
        ({name: ["FLASH_ATTN"] for name in DEPLOYMENTS}, "expected a backend's name as text, got a list"),
        (
            dict.fromkeys(DEPLOYMENTS, EqualToEverything("x")),
            "expected a backend's name as text, got an Equal",
        ),
        (dict.fromkeys(DEPLOYMENTS, "VLLM"), "'VLLM' is not one of the candidates"),
    ],
)
def test_an_answer_that_is_none_earns_nothing_and_is_told_why(answer, said):
    with pytest.raises(CheckFailed, match=re.escape(said)):
        check("q1_verdicts", answer)


def test_a_missing_or_misspelt_deployment_costs_its_own_point_only():
    without = {name: verdict for name, verdict in TRUTH.items() if name != ONE}
    assert verdict_on(without).num_passed == 7
    assert "no verdict is given" in verdict_on(without).failures[0].problem.headline
    misspelt = without | {"t4-llama-1b-fp16": TRUTH[ONE]}
    assert (
        '"t4-llama-1b-fp16" is not one of the deployments'
        in verdict_on(misspelt).failures[0].problem.headline
    )
    assert headline({ONE: None}) == f"{ONE}: no verdict is given yet"


def test_the_answer_is_not_changed():
    answer = TRUTH | {ONE: " flash_attn "}
    before = dict(answer)
    verdict_on(answer)
    assert answer == before


def test_tables_say_the_same_in_a_notebook_and_elsewhere():
    shown = table()
    for name, scenario in SCENARIOS.items():
        for text in (repr(shown), shown._repr_html_()):
            assert name in text
            assert scenario.batch in text
    assert shown._repr_html_().count("<tr>") == 9
    assert "<caption" in shown._repr_html_()
    asked = walk(DEPLOYMENTS["a100-gptoss-bf16"])
    assert [row[0] for row in asked.rows] == list(explain(DEPLOYMENTS["a100-gptoss-bf16"]))
    assert "capability &lt; 9.0" in asked._repr_html_()
