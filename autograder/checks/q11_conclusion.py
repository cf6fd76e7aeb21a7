"""Question 11, the conclusion: held against the intervals of the learner's own plan, run again here.

A replay is the same wherever it runs, to the last digit but for a libm: the plan holds its seed. So the judge needs no
result from the learner, and none can be forged: it runs the plan that was handed in and compares. What was run on a
learner's GPU is for the learner; it is not graded.
"""

from __future__ import annotations

from autograder.checks import conclusion_review, objections
from autograder.checks.plain_answers import refuse
from autograder.misconceptions import q11_conclusion as mistakes
from autograder.registry import Answer, Check, Output
from autograder.suite import Case, Suite
from course import serving

PLAN, CONCLUSION = PARTS = ("q11_plan", "q11_conclusion")
QUESTIONS = {
    "the verdict": conclusion_review.verdict,
    "who was better": conclusion_review.better,
    "the effect and its interval": conclusion_review.effect,
    "the figures": conclusion_review.figures,
    "the scope": conclusion_review.scope,
}
HINTS = (
    "Three numbers decide: the interval's two ends, and the line. Supported: the low end is at least the claimed factor. Refuted: "
    "the high end is below refuted_if. Anything else is undecided. What the middle is does not matter.",
    "result.effect() has .middle and .interval, result.figure(name) the figure of a contender; plain numbers are asked for. A "
    "claim can be refuted while its contender is better: it then is better by less than was claimed.",
    'The scope is what ran: the names of the workloads, "replay", and the GPU whose kernels were timed (result.gpu). If you '
    "changed the plan, run it again: the conclusion is about the plan that you hand in.",
)


def cases(suite: Suite) -> list[Case]:
    """The five questions, in both suites: the plan holds the seed."""
    return [Case(question, {"question": question}) for question in QUESTIONS]


def validate(answer: Answer) -> str | None:
    return objections.not_a_dict(CONCLUSION, answer[CONCLUSION])


def run(answer: Answer, case: Case) -> Output:
    """The objection to one part of the conclusion, if there is one; raises AnswerProblem where it cannot be looked at."""
    try:
        result = serving.run(answer[PLAN])
    except serving.PlanError as error:
        raise refuse(f"{PLAN} cannot be run, so nothing follows from it: {error}") from None
    given = {key: value for key, value in answer[CONCLUSION].items() if type(key) is str}
    found = QUESTIONS[case.inputs["question"]](given, result)
    return objections.output(found)


CHECK = Check(
    name="q11_conclusion",
    grade_id="q11-conclusion",
    parts=PARTS,
    cases=cases,
    run=run,
    inspect=objections.inspect,
    solution=mistakes.TRUTH,
    misconceptions=mistakes.MISCONCEPTIONS,
    right_variants=mistakes.RIGHT_VARIANTS,
    hints=HINTS,
    validate=validate,
    same=objections.same,
)
