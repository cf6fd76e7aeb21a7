"""The report as CSV: a line for each learner and exercise, to sort and to count in a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from autograder.grading.journal import FOLDER
from autograder.grading.report.summary import NOT_JUDGED, REFUSED, Summary, evidence, headline

COLUMNS = (
    "lesson",
    "learner",
    "exercise",
    "points",
    "max_points",
    "status",
    "misconception",
    "message",
    "evidence",
    "seconds",
    "launches",
    "memory",
    "seconds_late",
    "look",
    "verdict",
)
ABSENT, BY_HAND, WAITING = "never handed in", "by hand", "to be graded by hand"


def as_csv(summary: Summary) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n", restval="")
    writer.writeheader()
    for line in _lines(summary):
        writer.writerow({name: _harmless(value) for name, value in line.items()})
    return text.getvalue()


def _lines(summary: Summary) -> Iterator[dict[str, str]]:
    for learner in summary.learners:
        reasons = summary.reasons(learner.name)
        for each in summary.exercises:
            exercise = each.exercise
            line = {
                "lesson": summary.lesson,
                "learner": learner.name,
                "exercise": exercise.name,
                "max_points": f"{exercise.max_points:g}",
                "seconds_late": f"{learner.seconds_late:.0f}" if learner.seconds_late else "",
                "look": "; ".join(
                    f"{r.kind}: {r.text}" for r in reasons if r.exercise in ("", exercise.name)
                ),
            }
            result = learner.checks.get(exercise.name)
            if result is not None:
                assert learner.entry is not None
                line |= {
                    "points": "" if result.points is None else f"{result.points:g}",
                    "status": result.status,
                    "misconception": result.misconception or "",
                    "message": headline(result.message),
                    "evidence": "; ".join(evidence(result)),
                    "seconds": f"{result.seconds:.3f}",
                    "launches": _number(getattr(result, "launches", None)),
                    "memory": _number(getattr(result, "memory", None)),
                    "verdict": str(FOLDER / summary.lesson / f"{learner.entry.key}.json"),
                }
            elif not learner.handed_in:
                line["status"] = ABSENT
            elif learner.entry is None:
                line["status"] = REFUSED if learner.refused else NOT_JUDGED
            elif exercise.by_hand:
                points = learner.by_hand.get(exercise.name)
                line |= (
                    {"status": WAITING} if points is None else {"status": BY_HAND, "points": f"{points:g}"}
                )
            yield line


def _number(value: object) -> str:
    return str(value) if isinstance(value, int) else ""


def _harmless(value: str) -> str:
    """A text that a spreadsheet does not take for a formula."""
    return f"'{value}" if value.startswith(("=", "+", "-", "@", "\t", "\r")) else value
