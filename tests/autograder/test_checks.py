"""Every check tells every mistake from every right answer, and names the mistake."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

import kernels
from autograder import CheckFailed, check, hint, registry
from autograder.examine import examine
from autograder.failure import AnswerProblem, Problem
from autograder.known_mistakes import KnownMistakes
from autograder.registry import Answer, Check, Misconception, Output, RightVariant
from autograder.suite import Case, Suite, open_suite
from autograder.verdict import Verdict
from course.vllm.refs import objection, references

CHECKS = [registry.get(name) for name in registry.names()]
SEEDS = [0, 1, 20261122]
# Every case of these goes through the recorder, or through Triton's interpreter: one hidden suite for right answers, none
# for mistakes, whose cases are those of the exercise in torch (of `attend`, those of build_metadata).
SLOW = {
    "attend",
    "is_faulty",
    "minimise",
    "paged_online_attention_triton",
    "kv_bytes",
    "paged_causal_attention_triton",
    "paged_split_kv_attention",
    "split_kv_race",
    "latent_backend",
}


def _suites(found: Check, *, right: bool = True) -> Iterator[Suite]:
    yield open_suite("visible")
    several = 1 if found.name.startswith("paged_") else len(SEEDS) - (not right)
    for seed in SEEDS[: int(right) if found.name in SLOW else several]:
        yield Suite("hidden", seed)


_MISTAKES = KnownMistakes(elsewhere=True)


def _verdict(found: Check, mistake: Misconception, suite: Suite) -> Verdict:
    answer = found.complete(mistake.parts)
    if kernels.INTERPRET:
        return examine(found, answer, suite)
    return examine(_elsewhere(found, mistake, suite), answer, suite, _MISTAKES)


def _elsewhere(found: Check, mistake: Misconception, suite: Suite) -> Check:
    """`found` with the mistake's outcomes in a process of its own: on a GPU its kernel may break the process that it runs in."""
    labels = [case.label for case in found.cases(suite)]

    def run(answer: Answer, case: Case) -> Output:
        outcome = _MISTAKES.outcome(found, mistake, suite, [], labels.index(case.label))
        if outcome.output is None:
            raise AnswerProblem(Problem(outcome.obstacle))
        return outcome.output

    return replace(found, run=run)


def _mistakes() -> list[object]:
    return [pytest.param(c, m, id=f"{c.name}-{m.name}") for c in CHECKS for m in c.misconceptions]


def _variants() -> list[object]:
    return [pytest.param(c, v, id=f"{c.name}-{v.name}") for c in CHECKS for v in c.right_variants]


@pytest.mark.parametrize("found", CHECKS, ids=lambda found: found.name)
def test_the_solution_passes(found: Check) -> None:
    for suite in _suites(found):
        verdict = examine(found, found.solution, suite)
        assert verdict.passed, verdict.message()


@pytest.mark.parametrize(("found", "variant"), _variants())
def test_right_answers_by_another_road_pass(found: Check, variant: RightVariant) -> None:
    for suite in _suites(found):
        verdict = examine(found, found.complete(variant.parts), suite)
        assert verdict.passed, verdict.message()


@pytest.mark.parametrize(("found", "mistake"), _mistakes())
def test_mistakes_fail_with_their_own_message(found: Check, mistake: Misconception) -> None:
    """It is short, and that of a hidden suite holds no numbers. (One test: the verdicts are most of the work.)"""
    for suite in _suites(found, right=False):
        verdict = _verdict(found, mistake, suite)
        assert not verdict.passed
        assert verdict.misconception == mistake.name, verdict.message()
        assert verdict.exact
        if suite.name == "visible":
            assert len(verdict.message().splitlines()) <= 10
        else:
            details = [failure.problem.detail for failure in verdict.failures if failure.problem.detail]
            assert not any(detail in verdict.message() for detail in details)


@pytest.mark.usefixtures("released_source")
@pytest.mark.parametrize("found", CHECKS, ids=lambda found: found.name)
def test_what_messages_and_hints_say_about_vllm_holds(found: Check) -> None:
    texts = [mistake.message for mistake in found.misconceptions]
    said = [reference for text in (*texts, *found.hints) for reference in references(text)]
    assert {str(reference): objection(reference) for reference in said if objection(reference)} == {}


@pytest.mark.parametrize("found", CHECKS, ids=lambda found: found.name)
def test_misconceptions_and_variants_have_names_of_their_own(found: Check) -> None:
    names = [item.name for item in (*found.misconceptions, *found.right_variants)]
    assert len(names) == len(set(names))
    assert len(found.misconceptions) >= 5
    assert found.right_variants
    assert len(found.hints) >= 3


def test_check_raises_for_the_learner_and_prints_when_right(capsys: pytest.CaptureFixture[str]) -> None:
    found = registry.get("merge_states")
    assert check("merge_states", tuple(found.solution.values())) is None
    assert "✓ merge_states: all 12 visible cases pass" in capsys.readouterr().out
    wrong = {**found.solution, **found.misconceptions[0].parts}
    with pytest.raises(CheckFailed, match="This is exactly what you get when") as caught:
        check("q3-merge", wrong)
    assert caught.value._render_traceback_() == str(caught.value).splitlines()


def test_hints_come_in_stages(capsys: pytest.CaptureFixture[str]) -> None:
    hint("merge_states")
    hint("q3-merge")
    printed = capsys.readouterr().out
    assert "Hint 1 of 3" in printed
    assert "Hint 2 of 3" in printed
