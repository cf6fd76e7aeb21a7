"""`check` and `hint`, as a learner calls them in a notebook."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autograder import registry
from autograder.examine import examine
from autograder.failure import CheckFailed
from autograder.registry import Answer, Check
from autograder.suite import VISIBLE, open_suite

_hints_shown: dict[str, int] = {}


class Points(float):
    """Points of a check that gives partial credit, "6 of 8 points" in a notebook.

    As a cell's last value its plain text, a number, is what nbgrader reads as the score.
    """

    def __new__(cls, points: float, out_of: int) -> Points:
        self = super().__new__(cls, points)
        self.out_of = out_of
        return self

    out_of: int

    def _repr_html_(self) -> str:
        return f"<p>{self:g} of {self.out_of} points</p>"


def check(name: str, answer: Any, suite: str = VISIBLE) -> Points | None:
    """Holds `answer` against the check called `name` and prints a line when it passes.

    answer: what the exercise asks for. Where it asks for several functions, a tuple of them in the order of the
    exercise, or a dict by name. suite: "visible", or "hidden" in grading.
    Returns None, or the points so far for a check with partial credit (to be the cell's last value).
    Raises CheckFailed with a message for the learner when the answer is wrong (with partial credit: when nothing of
    it is right), UnknownCheck for an unknown name, ValueError for an unknown suite.
    """
    found = registry.get(name)
    verdict = examine(found, parts_of(found, answer), open_suite(suite))
    if not verdict.passed and not (found.partial and verdict.points):
        raise CheckFailed(verdict.message())
    print(verdict.message())
    return Points(verdict.points, verdict.out_of) if found.partial else None


def hint(name: str) -> None:
    """Prints the next hint for the check called `name`; after the last it starts again with the first."""
    found = registry.get(name)
    stage = _hints_shown.get(found.name, 0) % len(found.hints)
    _hints_shown[found.name] = stage + 1
    print(f"Hint {stage + 1} of {len(found.hints)} for {found.name}: {found.hints[stage]}")


def parts_of(found: Check, answer: Any) -> Answer:
    """The answer's parts by name; a single part may be handed over bare."""
    if len(found.parts) == 1:
        return {found.parts[0]: answer}
    kind = "functions" if all(map(callable, found.solution.values())) else "answers"
    if all(isinstance(part, type) for part in found.solution.values()):
        kind = "classes"
    expected = (
        f'check("{found.name}") takes the {len(found.parts)} {kind} ({", ".join(found.parts)}), in this order'
    )
    if isinstance(answer, Mapping):
        if set(answer) != set(found.parts):
            raise CheckFailed(f"{expected} or by name; got the names {', '.join(map(str, answer))}.")
        return dict(answer)
    if not isinstance(answer, tuple | list) or len(answer) != len(found.parts):
        got = f"{len(answer)} values" if isinstance(answer, tuple | list) else f"a {type(answer).__name__}"
        raise CheckFailed(f"{expected}; got {got}.")
    return dict(zip(found.parts, answer, strict=True))
