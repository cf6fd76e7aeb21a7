"""Question 12: a backend for latents, through the conformance suite and under a tiny model.

`LatentImpl.forward_mqa` has to be the answer's own: one that is inherited from TritonMLAImpl, or hands its work to it, does not
count. The kernels and the references in `kernels` may be called, and builder, write and description may be inherited: that is
reuse, which question 12 asks about.
"""

from __future__ import annotations

import torch

from autograder import driven
from autograder.checks.latent_cases import GROUPS, HOLDS, cases, run_model
from autograder.class_collector import text_of_class
from autograder.compare import same_tensors
from autograder.driven import Driven, refuse
from autograder.failure import Problem
from autograder.judge.drive import HandedOn
from autograder.misconceptions import latent_backend as mistakes
from autograder.registry import Answer, Check, Output
from autograder.suite import Case
from kernels import runtime
from kernels.backends.conformance import OPTIONAL, ConformanceError, NotSupported, Setup

_CHECKS = {group.label: group.checks for group in GROUPS}
_OWN = (
    "the exercise is to write it. What kernels has besides (latent_decode, reshape_and_cache) may be called"
)


def validate(answer: Answer) -> str | None:
    for name, part in answer.items():
        if not callable(part):
            return f"{name}: expected a class, got a {type(part).__name__}"
    return None


def run(answer: Answer, case: Case) -> Output:
    """As `_run`. What our own classes give is remembered: a diagnosis tries every mistake, for each learner of a class."""
    parts = tuple(answer[name] for name in driven.PARTS)
    if any(text_of_class(part) is None for part in parts):
        return _run(answer, case)
    key = (parts, case.label, repr(case.inputs))
    if key not in _KNOWN:
        if len(_KNOWN) >= MAX_REMEMBERED:
            _KNOWN.clear()
        _KNOWN[key] = _run(answer, case)
    return _KNOWN[key]


MAX_REMEMBERED = 2000
_KNOWN: dict[object, Output] = {}


def _run(answer: Answer, case: Case) -> Output:
    """What the impls returned, and the first of the case's checks that does not hold; or the tokens of the model."""
    backend = driven.driven(answer)
    _expect_own(backend)
    try:
        return _run_model(backend, case) if "engine" in case.inputs else _run_checks(backend, case)
    except Exception as error:
        if type(error).__name__ == HandedOn.__name__:
            raise refuse(str(error), f"Here {_OWN}.") from error
        raise


def _expect_own(backend: type[Driven]) -> None:
    place = driven.places(backend).get("LatentImpl.forward_mqa", "")
    if place == "kernels.backends.backend":
        raise refuse("LatentImpl has no forward_mqa", "MLAAttentionImpl only declares it.")
    if place.partition(".")[0] == "kernels":
        raise refuse("LatentImpl inherits forward_mqa instead of defining it", f"It is {place}'s; {_OWN}.")
    if not backend.is_mla():
        raise refuse(
            "is_mla says False",
            "Then the layer for latents refuses the backend, and the ordinary layer would hand it keys and values.",
        )


def _run_checks(backend: type[Driven], case: Case) -> Output:
    sizes = {name: case.inputs[name] for name in ("num_heads", "head_size", "block_size", "seed")}
    setup = Setup(backend, runtime.device(), torch.float32, num_kv_heads=1, **sizes)
    failed, message = "", ""
    for check in _CHECKS[case.inputs["group"]]:
        try:
            check(setup)
        except NotSupported as refusal:
            # A feature that the backend says it lacks is no fault; anything else has to be there.
            if check.__name__ in OPTIONAL or check.__name__ == "a_graph_finds_the_next_step":
                continue
            failed, message = check.__name__, str(refusal)
        except ConformanceError as error:
            failed, message = check.__name__, str(error)
        if failed:
            break
    outputs = {f"output {number}": output for number, output in enumerate(backend.outputs)}
    return {"failed": failed, "message": message, **outputs}


def _run_model(backend: type[Driven], case: Case) -> Output:
    tokens, _ = run_model(backend, case.inputs["prompts"], case.inputs["seed"], case.inputs["engine"])
    return {"tokens": tokens}


def inspect(output: Output, case: Case) -> Problem | None:
    if "engine" not in case.inputs:
        failed = output["failed"]
        return (
            Problem(f"{failed} fails. What must hold: {HOLDS[failed]}", output["message"]) if failed else None
        )
    for number, (got, expected) in enumerate(zip(output["tokens"], case.inputs["tokens"], strict=True)):
        if got != expected:
            at = next(i for i, (a, b) in enumerate(zip(got, expected, strict=True)) if a != b)
            return Problem(
                "the model says other tokens than on the dense reference",
                f"Request {number}, new token {at}: expected {expected[at]}, got {got[at]}. Expected {expected}, got {got}",
            )
    return None


def same(a: Output, b: Output, case: Case) -> bool:
    """Whether two answers computed the same up to where the first of the checks failed, and failed in the same."""
    if "engine" in case.inputs:
        return bool(a["tokens"] == b["tokens"])
    outputs = [name for name in a if name.startswith("output")]
    if a.keys() != b.keys() or a["failed"] != b["failed"]:
        return False
    if _aside(a["message"]) != _aside(b["message"]):
        return False
    return all(same_tensors(a[name], b[name]) for name in outputs)


def _aside(message: str) -> str:
    """What a message says beside an output's numbers, which two right ways round differently."""
    return "" if "numbers are off" in message else message


CHECK = Check(
    name="latent_backend",
    grade_id="q12-backend",
    parts=driven.PARTS,
    cases=cases,
    run=run,
    inspect=inspect,
    solution=mistakes.SOLUTION,
    misconceptions=mistakes.MISCONCEPTIONS,
    right_variants=mistakes.RIGHT_VARIANTS,
    hints=mistakes.HINTS,
    validate=validate,
    same=same,
    partial=True,
)
