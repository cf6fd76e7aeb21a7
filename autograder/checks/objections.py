"""A dict that is looked at part by part, as question 11's are: an objection to a part is the check's output there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from autograder.checks.plain_answers import kind, unanswered
from autograder.failure import Problem
from autograder.registry import Output
from autograder.suite import Case


@dataclass(frozen=True)
class Objection:
    """code: names the mistake. said: why it is one. figures: numbers of the answer in hand."""

    code: str
    said: str
    figures: str = ""


def not_a_dict(name: str, value: Any) -> str | None:
    """A sentence about an answer that is blank or no dict, or None."""
    if said := unanswered({name: value}):
        return said
    return None if type(value) is dict else f"{name}: expected a dict, got {kind(value)}"


def output(found: Objection | None) -> Output:
    if found is None:
        return {"objection": "", "said": "", "figures": ""}
    return {"objection": found.code, "said": found.said, "figures": found.figures}


def inspect(output: Output, case: Case) -> Problem | None:
    return Problem(output["said"], output["figures"]) if output["objection"] else None


def same(a: Output, b: Output, case: Case) -> bool:
    """Whether two answers make the same mistake: their numbers may differ."""
    return bool(a["objection"] == b["objection"])
