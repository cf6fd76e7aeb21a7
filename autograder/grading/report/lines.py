"""The report as CSV: a line for each learner and exercise, to sort and to count in a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from autograder.grading.journal import FOLDER
from autograder.grading.report.summary import REFUSED, Summary, evidence, headline

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
    "launches",
    "seconds",
    "submission_seconds",
    "submission_cpu_seconds",
    "submission_peak_memory",
    "seconds_late",
    "look",
    "verdict",
)
ABSENT, NOT_JUDGED = "never handed in", "not judged"
BY_HAND, WAITING = "by hand", "to be graded by hand"


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
                judgement = learner.entry.judgement
                line |= {
                    "points": _number(learner.points(exercise)),
                    "status": result.status,
                    "misconception": result.misconception or "",
                    "message": headline(result.message),
                    "evidence": "; ".join(evidence(result)),
                    "seconds": f"{result.seconds:.3f}",
                    "launches": "; ".join(f"{name} {times}" for name, times in result.launches.items()),
                    "submission_seconds": f"{judgement.seconds:.3f}",
                    "submission_cpu_seconds": _number(judgement.cpu_seconds),
                    "submission_peak_memory": _number(judgement.peak_memory),
                    "verdict": str(FOLDER / summary.lesson / f"{learner.entry.key}.json"),
                }
            elif not learner.handed_in:
                line["status"] = ABSENT
            elif learner.entry is None:
                line["status"] = REFUSED if learner.refused else NOT_JUDGED
            elif exercise.by_hand:
                points = learner.points(exercise)
                line |= {"status": WAITING if points is None else BY_HAND, "points": _number(points)}
            yield line


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.12g}"


def _harmless(value: str) -> str:
    """A text that a spreadsheet does not take for a formula."""
    return f"'{value}" if value.startswith(("=", "+", "-", "@", "\t", "\r")) else value
