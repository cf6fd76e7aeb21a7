"""What a check consists of, and the list of all checks.

A check is data: cases, a way to run an answer on a case, the truth to hold its output against, and the mistakes that
people really make. One list of mistakes does three jobs: tests prove that the cases tell each of them from the right
answer, feedback names the one whose output equals the learner's, and reports count them over a class.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch

from autograder.compare import same_tensors
from autograder.failure import Problem, UnknownCheck
from autograder.suite import Case, Suite

# A learner's answer: the parts by name, e.g. {"online_softmax_update": f, "finalize": g}.
Answer = Mapping[str, Any]
# What an answer gives on a case: tensors or plain values by name.
Output = dict[str, Any]


@dataclass(frozen=True)
class Misconception:
    """A mistake that people make. `parts` replace the same parts of the solution and give the wrong answer whole."""

    name: str
    message: str
    parts: Answer


@dataclass(frozen=True)
class RightVariant:
    """A right answer by another road than the solution's; `parts` as in `Misconception`."""

    name: str
    parts: Answer


def callable_parts(answer: Answer) -> str | None:
    """The usual `Check.validate`: every part is a function."""
    for name, part in answer.items():
        if not callable(part):
            return f"{name}: expected a function, got a {type(part).__name__}. Hand over the name without parentheses."
    return None


def same_output(a: Output, b: Output, case: Case) -> bool:
    """The usual `Check.same`: the same names with the same tensors or values."""
    if a.keys() != b.keys():
        return False
    for name, value in a.items():
        other = b[name]
        if isinstance(value, torch.Tensor) and isinstance(other, torch.Tensor):
            if not same_tensors(value, other):
                return False
        elif type(value) is not type(other) or value != other:
            return False
    return True


@dataclass(frozen=True)
class Check:
    """One exercise's check.

    name        what the learner calls it by, usually the name of the function to write
    grade_id    the nbgrader test cell
    parts       the names of what is handed over, in order
    cases       draws the cases of a suite
    run         gives an answer's output on a case; may raise what the answer raises
    inspect     what is wrong with an output on a case, or None
    solution    our own right answer
    validate    a sentence about an answer that cannot be run at all, or None
    same        whether two outputs on a case are the same, up to rounding
    fallbacks   other answers to try when this one fails, where a mistake in an earlier exercise is not to cost twice
    partial     whether each case that passes is worth one point
    """

    name: str
    grade_id: str
    parts: tuple[str, ...]
    cases: Callable[[Suite], list[Case]]
    run: Callable[[Answer, Case], Output]
    inspect: Callable[[Output, Case], Problem | None]
    solution: Answer
    misconceptions: tuple[Misconception, ...]
    right_variants: tuple[RightVariant, ...]
    hints: tuple[str, ...]
    validate: Callable[[Answer], str | None] = callable_parts
    same: Callable[[Output, Output, Case], bool] = same_output
    fallbacks: Callable[[Answer], list[Answer]] = field(default=lambda answer: [])
    partial: bool = False

    def complete(self, parts: Answer) -> Answer:
        """A whole answer: `parts`, and the solution's for the rest. Parts that this check does not use are dropped."""
        return {name: parts.get(name, self.solution[name]) for name in self.parts}


# Modules of autograder.checks, in the order of the lessons. A module is read when one of its checks is asked for.
_MODULES = {
    "q1_verdicts": "q1-verdicts",
    "build_metadata": "q2-metadata",
    "attend": "q2-attend",
    "online_softmax_update": "q3-update",
    "merge_states": "q3-merge",
    "q4_forward": "q4-forward",
    "q5_classes": "q5-classes",
    "q6_paths": "q6-paths",
    "q7_selector": "q7-selector",
    "self_path": "self-path",
    "relocate_blocks": "q8-relocate",
    "find_contract_breach": "q8-contract",
    "paged_online_attention": "q9-torch",
    "paged_online_attention_triton": "q9-triton",
    "kv_bytes": "q9-bytes",
    "paged_causal_attention": "q10-torch",
    "paged_causal_attention_triton": "q10-triton",
    "paged_split_kv_attention": "q10b-split",
    "split_kv_race": "q10b-race",
    "q11_plan": "q11-plan",
    "q11_conclusion": "q11-conclusion",
    "latent_backend": "q12-backend",
    "q12_reuse": "q12-reuse",
    "is_faulty": "q13-detect",
    "minimise": "q13-minimise",
    "q13_diagnosis": "q13-name",
}


def names() -> list[str]:
    """The names of all checks, in the order of the lessons."""
    return list(_MODULES)


def get(name: str) -> Check:
    """The check called `name`; a grade id is accepted too. Raises UnknownCheck and names the nearest ones."""
    by_grade_id = {grade_id: known for known, grade_id in _MODULES.items()}
    known = by_grade_id.get(name, name) if isinstance(name, str) else None
    if known not in _MODULES:
        near = difflib.get_close_matches(str(name), [*_MODULES, *by_grade_id], n=1, cutoff=0.5)
        guess = f' Did you mean "{near[0]}"?' if near else ""
        raise UnknownCheck(
            f"There is no check called {name!r}.{guess} The checks are: {', '.join(_MODULES)}."
        )
    module: ModuleType = importlib.import_module(f"autograder.checks.{known}")
    check: Check = module.CHECK
    return check
