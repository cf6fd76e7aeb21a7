"""What `autograder grade --out` writes: every learner's verdicts as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autograder.grading.accept import Submission
from autograder.grading.journal import Entry, write_whole
from autograder.grading.reasons import REFUSED
from autograder.judge.judgement import INFRASTRUCTURE


@dataclass
class Result:
    """What came of a learner's submission.

    entry: the journal's, None where there is no verdict. failure: why there is none, or why not all of it is of this
    grading; "" when nothing went wrong. sources: the text of each cell that ran, by name.
    """

    submission: Submission
    key: str = ""
    entry: Entry | None = None
    failure: str = ""
    sources: dict[str, str] = field(default_factory=dict)

    @property
    def refused(self) -> str:
        """Why the submission cannot be graded whatever the machine does, or ""."""
        return self.submission.refused or ""


def write_results(
    path: Path, lesson: str, grading: int, results: list[Result], tests: dict[str, float]
) -> None:
    """Writes the file, whole or not at all. tests: grade id -> points of the lesson's test cells."""
    entries = [result.entry for result in results if result.entry is not None]
    gradings = {entry.grading for entry in entries}
    found = {
        "lesson": lesson,
        "device": ", ".join(sorted({entry.device for entry in entries})) or None,
        "sandbox": ", ".join(sorted({entry.sandbox for entry in entries})) or None,
        # Public: the hidden cases are drawn from it and the instructor's secret.
        "seed": gradings.pop() if len(gradings) == 1 else grading,
        "submissions": {result.submission.learner: _as_dict(result, tests) for result in results},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(found, indent=1, ensure_ascii=False) + "\n")


def _as_dict(result: Result, tests: dict[str, float]) -> dict[str, Any]:
    if result.entry is not None:
        return {**result.entry.judgement.as_dict(), "seed": result.entry.grading}
    status, why = (REFUSED, result.refused) if result.refused else (INFRASTRUCTURE, result.failure)
    checks = {
        name: {
            "points": None,
            "max_points": points,
            "status": status,
            "message": why,
            "misconception": None,
            "seconds": 0.0,
        }
        for name, points in tests.items()
    }
    made: dict[str, Any] = {"score": None, "max_score": float(sum(tests.values())), "checks": checks}
    return {**made, status: why}
