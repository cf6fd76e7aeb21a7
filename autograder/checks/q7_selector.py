"""Question 7: what vLLM's selector takes, which backend it arrives at, and how a user has a say.

What it takes are the fields of `AttentionSelectorConfig`, read off the index of vLLM's source. Which backend it arrives
at is `course.vllm.rules`' answer, which a test holds against vLLM's own code, with and without --attention-backend. In
grading a function is asked about ten more configurations, drawn afresh; a table of the ten is as good an answer.
"""

from __future__ import annotations

import difflib
import functools
import re
from typing import Any

import torch

from autograder.checks.plain_answers import is_blank, kind, listed, refuse, text, unanswered, words
from autograder.failure import Problem
from autograder.misconceptions import q7_selector as mistakes
from autograder.registry import Answer, Check, Output
from autograder.suite import Case, Suite
from course.candidates import CONFIGURATIONS, INPUTS, USUAL, deployment_of
from course.vllm import index as vllm_index
from course.vllm.rules import NONE, candidates, priorities, refusals, select

INPUTS_PART, PREDICT, OVERRIDE = PARTS = ("q7_inputs", "q7_predict", "q7_override")
VARIABLE = "VLLM_ATTENTION_BACKEND"
HINTS = (
    "The selector knows the model and the cache as they are built, before any request is there. So nothing about the "
    "traffic can be among its inputs. And a user's word is not one more wish: look at what happens to it first: "
    "selected_backend (platforms/cuda.py:303).",
    "AttentionSelectorConfig (v1/attention/selector.py:21) has its fields one on each line. For the prediction you need four cases: a "
    "backend is named and has nothing against the configuration; it has; none is named and some backend is valid; none is "
    "valid. The environment belongs to none of them.",
    "q7_predict in words: take attention_backend; None and 'auto' mean that none is named, whatever the case of the "
    "letters. If one is named, its refusals decide between that name and 'none': vLLM stops and does not go on to the next. "
    "Otherwise go down vllm_rules.priorities and take the first without refusals, or 'none'.",
)
_RIGHT_WAYS = (
    r"(^|\s)--attention-backend(?![\w-])",
    r"\battention_backend\s*=",
    r"^attention_backend$",
    r"--attention-config\b.*\bbackend\b",
    r"(^|\s)-ac\b.*\bbackend\b",
    r"\battention_config\b.*\bbackend\b",
    r"\bAttentionConfig\b.*\bbackend\b",
)


@functools.cache
def inputs() -> frozenset[str]:
    """The candidates that are fields of AttentionSelectorConfig."""
    members = vllm_index.members("vllm.v1.attention.selector:AttentionSelectorConfig")
    return frozenset(INPUTS) & {member.qualname.rpartition(".")[2] for member in members}


def predicted(configuration: dict[str, Any]) -> str:
    """The backend that vLLM arrives at for a configuration, "none" where it stops instead."""
    deployment = deployment_of(configuration)
    named = configuration["attention_backend"]
    if named is None or named.lower() == "auto":
        return select(deployment)
    return NONE if refusals(named.upper(), deployment) else str(named.upper())


def cases(suite: Suite) -> list[Case]:
    """The inputs, the override and ten configurations; in the hidden suite each of these with another one, drawn."""
    made = [
        Case("what the selector takes", {"part": INPUTS_PART}),
        Case("the user's word", {"part": OVERRIDE}),
    ]
    for name, configuration in CONFIGURATIONS.items():
        asked = {name: configuration}
        if suite.hidden:
            asked["another, drawn for this grading"] = _draw(suite.generator(name))
        made.append(Case(f"the configuration {name}", {"part": PREDICT, "name": name, "asked": asked}))
    return made


def _draw(generator: torch.Generator) -> dict[str, Any]:
    def one_of(*values: Any) -> Any:
        return values[int(torch.randint(len(values), (1,), generator=generator))]

    use_mla = one_of(False, False, True)
    drawn: dict[str, Any] = {
        "capability": one_of((7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0)),
        "dtype": one_of("bfloat16", "float16", "float32"),
        "head_size": 576 if use_mla else one_of(16, 64, 80, 96, 128, 256),
        "kv_cache_dtype": one_of("auto", "auto", "fp8"),
        "block_size": one_of(None, None, 8, 16, 64),
        "use_mla": use_mla,
        "has_sink": one_of(False, False, True),
        "sliding_window": one_of(None, 128, 4096),
    }
    order = priorities(deployment_of({**USUAL, **drawn}))
    named = one_of(
        None, None, "auto", order[int(torch.randint(len(order), (1,), generator=generator))].lower()
    )
    environment = {VARIABLE: one_of(*order)} if one_of(False, True) else {}
    return {**USUAL, **drawn, "attention_backend": named, "environment": environment}


def validate(answer: Answer) -> str | None:
    others = {part: answer[part] for part in (INPUTS_PART, OVERRIDE)}
    predict = answer[PREDICT]
    if all(map(is_blank, others.values())) and (is_blank(predict) or _is_stub(predict)):
        return unanswered(dict.fromkeys(PARTS))
    if not callable(predict) and type(predict) is not dict and not is_blank(predict):
        return (
            f"{PREDICT}: expected a function of a configuration, or a dict with the ten, got {kind(predict)}"
        )
    return None


def _is_stub(predict: Any) -> bool:
    if not callable(predict):
        return False
    try:
        predict(dict(USUAL))
    except NotImplementedError:
        return True
    except Exception:
        return False
    return False


def run(answer: Answer, case: Case) -> Output:
    """The part in question. Raises AnswerProblem for what is no answer, and what the learner's function raises."""
    part = case.inputs["part"]
    if part == INPUTS_PART:
        return {"given": sorted(words(part, answer[part], INPUTS))}
    if part == OVERRIDE:
        return {"given": _spoken(text(part, answer[part], "the flag or argument that a user writes"))}
    name, predict = case.inputs["name"], answer[part]
    if is_blank(predict):
        raise refuse(f"{part} is empty; expected a function of a configuration")
    if type(predict) is dict:
        if name not in predict:
            raise refuse(f"{part} has no entry for {name}")
        return {"given": {name: _backend(name, predict[name])}}
    asked = case.inputs["asked"]
    copies = {label: {**one, "environment": dict(one["environment"])} for label, one in asked.items()}
    return {"given": {label: _backend(label, predict(one)) for label, one in copies.items()}}


def _backend(label: str, value: Any) -> str:
    said = text(f"{PREDICT} for {label}", value, 'the name of a backend, or "none"')
    verdict = NONE if said.upper() == NONE.upper() else said.upper()
    if verdict not in candidates():
        near = difflib.get_close_matches(verdict, candidates(), n=1)
        guess = f"; did you mean {near[0]}?" if near else ""
        raise refuse(
            f"{PREDICT} for {label}: {said[:40]!r} is no backend that vLLM asks on an NVIDIA GPU{guess}"
        )
    return verdict


def _spoken(said: str) -> str:
    """What a user's words come to: "right", or the words with blanks and capitals out of the way."""
    if VARIABLE in said.upper():
        return VARIABLE
    if any(re.search(way, said) for way in _RIGHT_WAYS):
        return "right"
    return " ".join(said.split())


def inspect(output: Output, case: Case) -> Problem | None:
    part, given = case.inputs["part"], output["given"]
    if part == INPUTS_PART:
        objection = _not_the_inputs(frozenset(given))
    elif part == OVERRIDE:
        objection = _not_an_override(given)
    else:
        for label, verdict in given.items():
            configuration = case.inputs["asked"][label]
            if said := _not_the_choice(configuration, verdict):
                shown = f"asked was {_differences(configuration)}" if label != case.inputs["name"] else ""
                return Problem(f"{PREDICT}, {label}: {said}", shown)
        return None
    return Problem(f"{part}: {objection}") if objection else None


def _not_the_inputs(given: frozenset[str]) -> str | None:
    if extra := given - inputs():
        verb = "are no fields" if len(extra) > 1 else "is no field"
        return f"{listed(extra)} {verb} of AttentionSelectorConfig (v1/attention/selector.py:21)"
    if missing := inputs() - given:
        return f"{len(missing)} more of the candidates {'is a field' if len(missing) == 1 else 'are fields'} of it"
    return None


def _not_an_override(given: str) -> str | None:
    if given == "right":
        return None
    if given == VARIABLE:
        return (
            f"{VARIABLE} is in none of vLLM 0.22.1's files: the server starts with one warning and ignores it"
        )
    near = difflib.get_close_matches(given.split()[0].split("=")[0], ["--attention-backend"], n=1, cutoff=0.5)
    guess = "; it is nearly the flag's name" if near else ""
    return f"{given[:60]!r} is no flag or argument of vLLM 0.22.1 that names a backend{guess}"


def _not_the_choice(configuration: dict[str, Any], verdict: str) -> str | None:
    right = predicted(configuration)
    if verdict == right:
        return None
    named = configuration["attention_backend"]
    deployment = deployment_of(configuration)
    if named is not None and named.lower() != "auto":
        reasons = refusals(named.upper(), deployment)
        if not reasons:
            return f"the user names {named.upper()}, which has nothing against this configuration"
        said = "; ".join(f'"{reason}"' for reason in reasons)
        if verdict == named.upper():
            return f"the user names {verdict}, which refuses: {said}"
        return f"the user names {named.upper()}, which refuses ({said}): vLLM does not go on to another"
    if configuration["environment"].get(VARIABLE) == verdict:
        return f"{verdict} is what {VARIABLE} says, and nobody reads that variable"
    if verdict == NONE:
        return "at least one backend in the priority list has nothing against it"
    if verdict not in priorities(deployment):
        return f"{verdict} is not in the priority list here"
    if reasons := refusals(verdict, deployment):
        return f"{verdict} refuses: " + "; ".join(f'"{reason}"' for reason in reasons)
    return f"{verdict} would be valid, but a backend that is asked before it is valid too"


def _differences(configuration: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value!r}" for key, value in configuration.items() if value != USUAL[key])


CHECK = Check(
    name="q7_selector",
    grade_id="q7-selector",
    parts=PARTS,
    cases=cases,
    run=run,
    inspect=inspect,
    solution=mistakes.TRUTH,
    misconceptions=mistakes.MISCONCEPTIONS,
    right_variants=mistakes.RIGHT_VARIANTS,
    hints=HINTS,
    validate=validate,
    partial=True,
)
