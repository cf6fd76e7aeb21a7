"""What judging a submission comes to: a result for each test cell, with its reason. Plain data; nothing here runs anything."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from autograder.verdict import Verdict

PASSED, WRONG, ERROR, MISSING, INFRASTRUCTURE = "passed", "wrong", "error", "missing", "infrastructure"
TIMEOUT, CRASHED, MEMORY = "timeout", "crashed", "memory"
STATUSES = (PASSED, WRONG, ERROR, TIMEOUT, CRASHED, MEMORY, MISSING, INFRASTRUCTURE)


@dataclass(frozen=True)
class CheckResult:
    """What came of one test cell. `points` is None where no verdict could be reached; status is one of STATUSES."""

    points: float | None
    max_points: float
    status: str
    message: str
    misconception: str | None
    seconds: float
    verdicts: tuple[Verdict, ...] = field(default=(), repr=False)

    def as_dict(self) -> dict[str, Any]:
        return {
            "points": self.points,
            "max_points": self.max_points,
            "status": self.status,
            "message": self.message,
            "misconception": self.misconception,
            "seconds": round(self.seconds, 3),
        }

    @classmethod
    def from_dict(cls, found: dict[str, Any]) -> CheckResult:
        """A result written by `as_dict`; the verdicts behind it are not kept."""
        return cls(**{each.name: found[each.name] for each in fields(cls) if each.name != "verdicts"})


@dataclass(frozen=True)
class Judgement:
    """A submission's results.

    seed: of the hidden cases; judging again with it repeats them; None where it is not told. refused: why there are no results at all, or "".
    notes: what was missing or changed. cells: what each of the learner's cells printed, and the errors that they ended with,
    by cell; what is printed while tests run is left out, because it may tell of hidden cases.
    """

    seed: int | None
    checks: dict[str, CheckResult]
    refused: str = ""
    notes: tuple[str, ...] = ()
    cells: dict[str, tuple[str, str]] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def score(self) -> float | None:
        """The points so far; None when one of the results is the machine's failure."""
        points = [result.points for result in self.checks.values()]
        return None if any(p is None for p in points) else float(sum(p for p in points if p is not None))

    @property
    def max_score(self) -> float:
        return float(sum(result.max_points for result in self.checks.values()))

    def as_dict(self) -> dict[str, Any]:
        """As `autograder grade --out` writes a learner."""
        made: dict[str, Any] = {
            "score": self.score,
            "max_score": self.max_score,
            "checks": {name: result.as_dict() for name, result in self.checks.items()},
        }
        return {**made, "refused": self.refused} if self.refused else made

    def to_json(self) -> dict[str, Any]:
        """Everything but the seed, which would tell the hidden cases, as the journal keeps it."""
        return {
            "checks": {name: result.as_dict() for name, result in self.checks.items()},
            "refused": self.refused,
            "notes": list(self.notes),
            "cells": {name: list(ran) for name, ran in self.cells.items()},
            "seconds": round(self.seconds, 3),
        }

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Judgement:
        """What `to_json` made. Raises KeyError or TypeError for anything else."""
        return cls(
            None,
            {name: CheckResult.from_dict(result) for name, result in found["checks"].items()},
            refused=found["refused"],
            notes=tuple(found["notes"]),
            cells={name: (printed, error) for name, (printed, error) in found["cells"].items()},
            seconds=found["seconds"],
        )
