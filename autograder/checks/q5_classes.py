"""Question 5: the three base classes of a backend, the job of each, and the line at which each begins.

Whose job a method is, is read off the index of vLLM's source: a base class has it if the class itself, one that it
derives from, or one derived from it defines a method of that name.
"""

from __future__ import annotations

import functools
from typing import Any

from autograder.checks.plain_answers import entries, listed, refuse, text, unanswered, words
from autograder.failure import Problem
from autograder.misconceptions import q5_classes as mistakes
from autograder.registry import Answer, Check, Output
from autograder.suite import Case, Suite
from course.candidates import METHODS
from course.vllm import index as vllm_index
from course.vllm.symbols import derives

ROLES, LINES = PARTS = ("q5_roles", "q5_lines")
BASES = {
    name: f"vllm.v1.attention.backend:{name}"
    for name in ("AttentionBackend", "AttentionImpl", "AttentionMetadataBuilder")
}
_SHORT = {
    "backend": "AttentionBackend",
    "impl": "AttentionImpl",
    "metadatabuilder": "AttentionMetadataBuilder",
    "builder": "AttentionMetadataBuilder",
}
HINTS = (
    "Ask of each method when it runs. Before there is a model, to learn what fits: the backend. Once a step, before the "
    "model runs: the builder. In every layer of every step: the impl. Four of the candidates belong to none of them.",
    "The three classes stand in vllm/v1/attention/backend.py; look for 'class Attention' at the beginning of a line. A "
    "method that a base class does not declare may be one that every impl brings along: look into "
    "backends/flash_attn.py.",
    "AttentionBackend: what get_... and supports_... promise about the backend, and validate_configuration. AttentionImpl: "
    "forward, the write before it, and what follows the loading of weights. AttentionMetadataBuilder: whatever begins "
    "with build, and what concerns finished metadata or CUDA graphs.",
)


@functools.cache
def roles() -> dict[str, frozenset[str]]:
    """For each base class the candidates that are its job."""
    found: dict[str, set[str]] = {name: set() for name in BASES}
    for method in METHODS:
        for symbol in vllm_index.find(method):
            owner = symbol.qualname.rpartition(".")[0]
            if symbol.kind != "method" or not symbol.path.startswith("vllm/v1/attention/"):
                continue
            for name, base in BASES.items():
                if _related(f"{symbol.module}:{owner}", base):
                    found[name].add(method)
    return {name: frozenset(methods) for name, methods in found.items()}


def _related(owner: str, base: str) -> bool:
    return owner == base or derives(owner, base) or derives(base, owner)


def cases(suite: Suite) -> list[Case]:
    """The job and the line of each class, in both suites: nothing about them is secret."""
    jobs = [Case(f"the job of {name}", {"part": ROLES, "class": name}) for name in BASES]
    return jobs + [Case(f"where {name} begins", {"part": LINES, "class": name}) for name in BASES]


def validate(answer: Answer) -> str | None:
    if said := unanswered(dict(answer)):
        return said
    for part, values in ((ROLES, "its methods"), (LINES, '"file:line"')):
        if type(answer[part]) is not dict:
            kind = type(answer[part]).__name__
            return f"{part}: expected a dict from class to {values}, got a {kind}"
    return None


def read(answer: Answer, case: Case) -> Output:
    """One class's methods or place, the same for equivalent answers. Raises AnswerProblem for what is no answer."""
    part, name = case.inputs["part"], case.inputs["class"]
    given = {_class(key): value for key, value in entries(part, answer[part], "a dict by class").items()}
    if name not in given:
        raise refuse(
            f"{part} has no entry for {name}; its keys are {', '.join(map(repr, answer[part])) or 'none'}"[
                :200
            ]
        )
    if part == ROLES:
        return {"methods": sorted(words(f"{part}[{name!r}]", given[name], METHODS))}
    place = text(f"{part}[{name!r}]", given[name], '"file:line", the path as short as you like').replace(
        " ", ""
    )
    objection = vllm_index.objection(place, BASES[name])
    return {"place": place if objection else BASES[name], "objection": objection}


def _class(key: str) -> str:
    """A class under its own name: "Impl" and "vllm.v1.attention.backend:AttentionImpl" are AttentionImpl."""
    last = key.replace(":", ".").rpartition(".")[2].strip()
    return _SHORT.get(last.replace("_", "").lower(), last)


def inspect(output: Output, case: Case) -> Problem | None:
    name = case.inputs["class"]
    if case.inputs["part"] == LINES:
        return Problem(f"{name}: {output['objection']}") if output["objection"] else None
    given, right = frozenset(output["methods"]), roles()[name]
    if extra := given - right:
        return Problem(f"{name}: {_whose(extra)}")
    if missing := right - given:
        return Problem(
            f"{name}: {len(missing)} more of the candidates {'is' if len(missing) == 1 else 'are'} its job"
        )
    return None


def _whose(extra: frozenset[str]) -> str:
    """What is wrong with the first of these: it has its place elsewhere, or is no method of the three."""
    first = min(extra)
    others = f" (and so with {listed(extra - {first})})" if len(extra) > 1 else ""
    nobody = not any(first in methods for methods in roles().values())
    if nobody:
        places = [symbol for symbol in vllm_index.find(first) if symbol.kind == "function"]
        where = f": it is a function of {places[0].module}" if places else ""
        return f"{first} is a method of none of the three{where}{others}"
    return f"neither it nor a class derived from it defines {first}{others}"


def same(a: Output, b: Output, case: Case) -> bool:
    return {k: a.get(k) for k in ("methods", "place")} == {k: b.get(k) for k in ("methods", "place")}


SOLUTION: dict[str, Any] = mistakes.TRUTH
CHECK = Check(
    name="q5_classes",
    grade_id="q5-classes",
    parts=PARTS,
    cases=cases,
    run=read,
    inspect=inspect,
    solution=SOLUTION,
    misconceptions=mistakes.MISCONCEPTIONS,
    right_variants=mistakes.RIGHT_VARIANTS,
    hints=HINTS,
    validate=validate,
    same=same,
    partial=True,
)
