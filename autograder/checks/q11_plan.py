"""Question 11, the plan: a benchmark that can be wrong, on equal terms, at a load that tells.

Eight aspects, a point each (`plan_review`). What depends on the server's capacity is replayed here, so that a rate is judged
by what it means for this workload and not by its size.
"""

from __future__ import annotations

from autograder.checks import objections, plan_review
from autograder.checks.plain_answers import refuse
from autograder.misconceptions import q11_plan as mistakes
from autograder.registry import Answer, Check, Output
from autograder.suite import Case, Suite
from course.serving.plan import PlanError

ANSWER = "q11_plan"
ASPECTS = {
    "one claim, with a size": plan_review.hypothesis,
    "what would refute it": plan_review.refutation,
    "how requests come": plan_review.traffic,
    "how many come": plan_review.load,
    "which figures": plan_review.figures,
    "warm-up and cache": plan_review.steady,
    "how many runs": plan_review.runs,
    "equal terms": plan_review.same_terms,
}
HINTS = (
    "Write the claim first, and after it what you would have to see to give it up. A ratio of 1 means no difference: a claim of "
    '"at least 1.5 times" that only a ratio below 0.5 refutes cannot lose.',
    "Ask course.serving.capacity(q11_plan) what the server can do, and choose the rate from that: a latency wants between a fifth "
    "and nine tenths of the smaller capacity. Then the warm-up: longer than a request lives, shorter than half of the run.",
    "Six repetitions are the fewest with a 95 % interval; a p99 of TTFT needs a hundred counted requests in a run. contenders: "
    "{} for each, because everything else belongs into held_fixed. metrics: the claimed statistic, and one of another kind.",
)


def cases(suite: Suite) -> list[Case]:
    """The eight aspects, in both suites: nothing about them is secret."""
    return [Case(aspect, {"aspect": aspect}) for aspect in ASPECTS]


def validate(answer: Answer) -> str | None:
    return objections.not_a_dict(ANSWER, answer[ANSWER])


def run(answer: Answer, case: Case) -> Output:
    """The objection to one aspect, if there is one; raises AnswerProblem where the plan cannot be read there."""
    try:
        found = ASPECTS[case.inputs["aspect"]](answer[ANSWER])
    except PlanError as error:
        raise refuse(f"{ANSWER}: {error}") from None
    return objections.output(found)


CHECK = Check(
    name="q11_plan",
    grade_id="q11-plan",
    parts=(ANSWER,),
    cases=cases,
    run=run,
    inspect=objections.inspect,
    solution=mistakes.TRUTH,
    misconceptions=mistakes.MISCONCEPTIONS,
    right_variants=mistakes.RIGHT_VARIANTS,
    hints=HINTS,
    validate=validate,
    same=objections.same,
    partial=True,
)
