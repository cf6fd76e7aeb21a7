"""What judging a submission comes to: a result for each test cell, with its reason. Plain data; nothing here runs anything."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field, fields
from typing import Any

from autograder.verdict import Verdict

PASSED, WRONG, ERROR, MISSING, INFRASTRUCTURE = "passed", "wrong", "error", "missing", "infrastructure"
TIMEOUT, CRASHED, MEMORY = "timeout", "crashed", "memory"
STATUSES = (PASSED, WRONG, ERROR, TIMEOUT, CRASHED, MEMORY, MISSING, INFRASTRUCTURE)

# Why a person may want to look at a submission. None of them costs points.
NO_KERNEL, TORCH_ATTENTION = "no-kernel-launched", "torch-attention"
TAMPERED, SUSPICIOUS_OBJECT, SUSPICIOUS_TEXT = "tampered-notebook", "suspicious-object", "suspicious-text"
FLAGS = (CRASHED, TIMEOUT, MEMORY, NO_KERNEL, TORCH_ATTENTION, TAMPERED, SUSPICIOUS_OBJECT, SUSPICIOUS_TEXT)


@dataclass(frozen=True)
class CheckResult:
    """What came of one test cell. `points` is None where no verdict could be reached; status is one of STATUSES.

    launches: Triton kernels launched by calls of this test, with their numbers; the learner's own by their name, those of a
    library with its module before it. attention_calls: calls of torch's own attention. Both are what the learner's worker
    says, and it may lie. needs_kernel: the exercise is to write a Triton kernel.
    """

    points: float | None
    max_points: float
    status: str
    message: str
    misconception: str | None
    seconds: float
    launches: dict[str, int] = field(default_factory=dict)
    attention_calls: int = 0
    needs_kernel: bool = False
    verdicts: tuple[Verdict, ...] = field(default=(), repr=False)

    @property
    def flags(self) -> tuple[str, ...]:
        """Those of FLAGS that hold for this test."""
        # Without an answer that runs there is nothing that could have launched one.
        ran = self.status in (PASSED, WRONG)
        own_kernel = any("." not in name for name in self.launches)
        found = {
            CRASHED: self.status == CRASHED,
            TIMEOUT: self.status == TIMEOUT,
            MEMORY: self.status == MEMORY,
            NO_KERNEL: ran and self.needs_kernel and not own_kernel,
            TORCH_ATTENTION: self.attention_calls > 0,
        }
        return tuple(name for name, holds in found.items() if holds)

    def as_dict(self) -> dict[str, Any]:
        """As `autograder grade --out` writes it."""
        return {
            "points": self.points,
            "max_points": self.max_points,
            "status": self.status,
            "message": self.message,
            "misconception": self.misconception,
            "seconds": round(self.seconds, 3),
        }

    def to_json(self) -> dict[str, Any]:
        """Everything but the verdicts behind it."""
        names = ("launches", "attention_calls", "needs_kernel")
        return {**self.as_dict(), "evidence": {name: getattr(self, name) for name in names}}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> CheckResult:
        """What `to_json` made, also before there was evidence."""
        names = [each.name for each in fields(cls) if each.name in found]
        return cls(**{name: found[name] for name in names}, **found.get("evidence", {}))


@dataclass(frozen=True)
class Judgement:
    """A submission's results.

    seed: of the hidden cases; judging again with it repeats them; None where it is not told. refused: why there are no results
    at all, or "". notes: what was missing or changed. cells: what each of the learner's cells printed, and the errors that
    they ended with, by cell; what is printed while tests run is left out, because it may tell of hidden cases. images: PNG
    pictures that the learner's own cells showed, by cell. remarks: flag -> places in the text that raised it.
    workers_started: 1, and one more for each that ended before its time. cpu_seconds, peak_memory: of the learner's code;
    bytes, Python and torch included. None where it was judged before that was measured.
    """

    seed: int | None
    checks: dict[str, CheckResult]
    refused: str = ""
    notes: tuple[str, ...] = ()
    cells: dict[str, tuple[str, str]] = field(default_factory=dict)
    seconds: float = 0.0
    images: dict[str, tuple[bytes, ...]] = field(default_factory=dict)
    remarks: dict[str, tuple[str, ...]] = field(default_factory=dict)
    workers_started: int | None = None
    cpu_seconds: float | None = None
    peak_memory: int | None = None

    @property
    def flags(self) -> tuple[str, ...]:
        """Those of FLAGS that hold for the submission."""
        raised = {flag for result in self.checks.values() for flag in result.flags} | self.remarks.keys()
        return tuple(flag for flag in FLAGS if flag in raised)

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
            "checks": {name: result.to_json() for name, result in self.checks.items()},
            "refused": self.refused,
            "notes": list(self.notes),
            "cells": {name: list(ran) for name, ran in self.cells.items()},
            "seconds": round(self.seconds, 3),
            "images": {
                name: [base64.b64encode(image).decode() for image in images]
                for name, images in self.images.items()
            },
            "remarks": {flag: list(places) for flag, places in self.remarks.items()},
            "flags": list(self.flags),
            "workers_started": self.workers_started,
            "cpu_seconds": self.cpu_seconds and round(self.cpu_seconds, 3),
            "peak_memory": self.peak_memory,
        }

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Judgement:
        """What `to_json` made, also before it wrote what a later version knows. Raises KeyError, TypeError, ValueError."""
        return cls(
            None,
            {name: CheckResult.from_json(result) for name, result in found["checks"].items()},
            refused=found["refused"],
            notes=tuple(found["notes"]),
            cells={name: (printed, error) for name, (printed, error) in found["cells"].items()},
            seconds=found["seconds"],
            images={
                name: tuple(base64.b64decode(image, validate=True) for image in images)
                for name, images in found.get("images", {}).items()
            },
            remarks={flag: tuple(places) for flag, places in found.get("remarks", {}).items()},
            workers_started=found.get("workers_started"),
            cpu_seconds=found.get("cpu_seconds"),
            peak_memory=found.get("peak_memory"),
        )
