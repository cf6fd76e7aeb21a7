"""Question 1: which backend vLLM 0.22.1 picks for each of eight deployments. One point for each.

The truth is `course.vllm.rules.select`, which a test holds against vLLM's own code. A message says what vLLM's own
rules have against the learner's choice; it does not say what the right one is.
"""

from __future__ import annotations

import difflib
from typing import Any

from autograder.failure import AnswerProblem, Problem
from autograder.misconceptions import q1_verdicts as mistakes
from autograder.registry import Answer, Check, Output
from autograder.suite import Case, Suite
from course.deployments import CANDIDATES, DEPLOYMENTS, SCENARIOS
from course.vllm.rules import NONE, Deployment, explain, select

ANSWER = "q1_verdicts"
HINTS = (
    "Two questions for each deployment: in which order does vLLM ask the backends on this GPU, for this kind of model? "
    "And what does each of them answer? The first that has nothing against the deployment is the choice.",
    "The order depends on two columns only: MLA, and whether the capability is 10.x "
    "(vllm/platforms/cuda.py, _get_backend_priorities). Then go down the list and hold every other column against the "
    "backend's supports_... methods: dtype, head size, KV dtype, block size, sinks, capability. "
    "deployments.walk(...) shows this for a deployment that you make up yourself.",
    "One column decides nothing: the batch. And a list may end without a valid backend: then the verdict is "
    '"none". FlashAttention wants capability 8.0, 16-bit numbers and blocks of a multiple of 16; FlashInfer has head sizes '
    "64, 128, 256 and 512, and sinks on 10.x only; Triton's kernel wants heads of at least 32; FlexAttention has no sinks; not every MLA backend reads an fp8 cache.",
)


def cases(suite: Suite) -> list[Case]:
    """The eight deployments, in both suites: nothing about them is secret."""
    return [
        Case(f"{name} ({SCENARIOS[name].model} on {SCENARIOS[name].gpu})", {"name": name})
        for name in DEPLOYMENTS
    ]


def validate(answer: Answer) -> str | None:
    """What keeps the whole answer from being looked at: it is no dict, or says nothing about any deployment."""
    given = answer[ANSWER]
    if not isinstance(given, dict):
        return f"{ANSWER}: expected a dict from deployment to backend, got {_kind(given)}"
    if not any(name in _texts(given) for name in DEPLOYMENTS):
        got = ", ".join(repr(name)[:40] for name in list(dict.keys(given))[:4]) or "nothing"
        return f"{ANSWER} names none of the eight deployments ({', '.join(DEPLOYMENTS)}); its keys are {got}"
    if all(_is_blank(_texts(given).get(name)) for name in DEPLOYMENTS):
        return f"{ANSWER} has no verdict yet: write the name of a backend for each deployment"
    return None


def read(answer: Answer, case: Case) -> Output:
    """The verdict on one deployment, in capitals. Raises AnswerProblem when there is none, or none of the candidates."""
    name = case.inputs["name"]
    given = _texts(answer[ANSWER])
    if name not in given:
        unknown = difflib.get_close_matches(name, set(given) - set(DEPLOYMENTS), n=1)
        instead = f'; "{unknown[0]}" is not one of the deployments' if unknown else ""
        raise AnswerProblem(Problem(f"{name}: no verdict is given{instead}"))
    value = given[name]
    if _is_blank(value):
        raise AnswerProblem(Problem(f"{name}: no verdict is given yet"))
    # Exactly str: an object that equals everything, or a text that changes, is no verdict.
    if type(value) is not str:
        raise AnswerProblem(Problem(f"{name}: expected a backend's name as text, got {_kind(value)}"))
    verdict = value.strip().upper()
    if verdict == NONE.upper():
        verdict = NONE
    if verdict not in CANDIDATES:
        near = difflib.get_close_matches(verdict, CANDIDATES, n=1)
        guess = f"; did you mean {near[0]}?" if near else ""
        raise AnswerProblem(Problem(f"{name}: {value.strip()[:40]!r} is not one of the candidates{guess}"))
    return {"verdict": verdict, "answer": given}


def inspect(output: Output, case: Case) -> Problem | None:
    name = case.inputs["name"]
    objection = _objection(DEPLOYMENTS[name], output["verdict"])
    if objection is None:
        return None
    return Problem(f"{name}: {objection}", _others(output["answer"], name))


def same(a: Output, b: Output, case: Case) -> bool:
    return bool(a["verdict"] == b["verdict"])


def _objection(deployment: Deployment, verdict: str) -> str | None:
    """What vLLM's rules have against this verdict, or None if it is right."""
    if verdict == select(deployment):
        return None
    asked = explain(deployment)
    if verdict == NONE:
        return "at least one backend in its priority list has nothing against it"
    if verdict not in asked:
        kind = "a model with MLA" if deployment.use_mla else "a model without MLA"
        major, minor = deployment.capability
        return f"{verdict} is not asked at all for {kind} on capability {major}.{minor}"
    if reasons := asked[verdict]:
        place = "is asked first and refuses" if verdict == next(iter(asked)) else "is asked and refuses"
        return f"{verdict} {place}: " + "; ".join(f'"{reason}"' for reason in reasons)
    return f"{verdict} would be valid, but a backend that is asked before it is valid too"


def _others(given: dict[str, Any], first: str) -> str:
    """The deployments after `first` that are wrong too, by name."""
    wrong = []
    for case in cases(Suite("visible", 0)):
        name = case.inputs["name"]
        try:
            right = _objection(DEPLOYMENTS[name], read({ANSWER: given}, case)["verdict"]) is None
        except AnswerProblem:
            right = False
        if not right and name != first:
            wrong.append(name)
    return f"Wrong too: {', '.join(wrong)}." if wrong else ""


def _texts(given: dict[Any, Any]) -> dict[str, Any]:
    """The entries whose key is a plain text, without asking the dict's own methods."""
    return {name.strip(): value for name, value in dict.items(given) if type(name) is str}


def _is_blank(value: Any) -> bool:
    return value is None or value is ... or (type(value) is str and not value.strip())


def _kind(value: Any) -> str:
    name = type(value).__name__
    return ("an " if name[:1].lower() in "aeiou" else "a ") + name


CHECK = Check(
    name=ANSWER,
    grade_id="q1-verdicts",
    parts=(ANSWER,),
    cases=cases,
    run=read,
    inspect=inspect,
    solution={ANSWER: mistakes.TRUTH},
    misconceptions=mistakes.MISCONCEPTIONS,
    right_variants=mistakes.RIGHT_VARIANTS,
    hints=HINTS,
    validate=validate,
    same=same,
    partial=True,
)
