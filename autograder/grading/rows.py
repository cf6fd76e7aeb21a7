"""The table's rows: points and reasons from the verdicts, a person's points from the gradebook, and what has changed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from autograder.grading.gradebook import RECORDS
from autograder.grading.jobs import Setting
from autograder.grading.journal import write_whole
from autograder.grading.reasons import AGAIN, BY_HAND, REFUSED, Reason, by_hand, reason_for
from autograder.grading.results import Result
from autograder.grading.table import Row
from autograder.judge.judgement import INFRASTRUCTURE
from autograder.nbgrader_bridge import Scores, repairs


def rows_of(
    setting: Setting,
    results: list[Result],
    exercises: dict[str, float],
    scores: Scores | None,
) -> list[Row]:
    """A row for each learner and exercise. exercises: grade id -> points. scores: the gradebook's, None without one."""
    rows = []
    for result in results:
        learner = result.submission.learner
        held = None if scores is None else scores.get(learner, {})
        notes = "; ".join(_notes(setting, result, scores is not None))
        for name, most in exercises.items():
            points, why = _points(result, name, held)
            rows.append(
                Row(
                    setting.lesson,
                    learner,
                    name,
                    points,
                    most,
                    why.status,
                    why.misconception,
                    why.text,
                    notes,
                )
            )
    return rows


def _points(
    result: Result, name: str, held: dict[str, tuple[float | None, float | None]] | None
) -> tuple[float | None, Reason]:
    """An exercise's points, a person's before the judge's, and why. held: what the gradebook has of the learner."""
    auto, manual = (held or {}).get(name, (None, None))
    if result.refused or result.entry is None:
        status = REFUSED if result.refused else INFRASTRUCTURE
        text = f"not graded: {result.refused or f'{result.failure}; {AGAIN}'}"
        if manual is not None:
            return manual, Reason(BY_HAND, f"graded by hand; {text}")
        return None, Reason(status, text)
    check = result.entry.judgement.checks.get(name)
    if held is not None and (name not in held or (check is not None and auto != check.points)):
        return manual, Reason(INFRASTRUCTURE, f"not graded: {result.failure}; {AGAIN}")
    if check is None:
        waits = Reason(BY_HAND, "needs manual grading")
        return (auto if manual is None else manual), waits if held is None else by_hand(auto, manual)
    why = reason_for(result.entry, name, result.sources)
    if manual is not None:
        judged = "nothing" if check.points is None else f"{check.points:g}"
        return manual, Reason(BY_HAND, f"graded by hand; the judge gives {judged}", why.misconception)
    return check.points, why


def _notes(setting: Setting, result: Result, into_gradebook: bool) -> list[str]:
    """What was left out or put right in a submission, and what went wrong with an entry that stands all the same."""
    notes = list(result.submission.notes)
    if result.entry is not None:
        notes += result.entry.judgement.notes
        notes += [result.failure] if result.failure else []
        if result.entry.sandbox == "none":
            notes.append("judged without isolation (--unsafe)")
        if into_gradebook:
            notes += repairs(setting.course, setting.lesson, result.submission.learner)
    return list(dict.fromkeys(notes))


def with_changes(course: Path, lesson: str, rows: list[Row]) -> list[Row]:
    """The rows, with the points that the last table gave where they were others: no regrade changes anything silently.

    Points from a person are no news to that person.
    """
    shown = _shown(course, lesson)
    made = []
    for row in rows:
        was = shown.get(row.learner, {}).get(row.exercise)
        if was is not None and was != row.points and row.status != BY_HAND:
            row = replace(row, was=was)
        made.append(row)
    return made


def _shown(course: Path, lesson: str) -> dict[str, dict[str, float | None]]:
    """Learner -> exercise -> points of the last table."""
    try:
        found = json.loads((course / RECORDS / f"{lesson}.shown").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def remember_shown(course: Path, lesson: str, rows: list[Row]) -> None:
    shown = _shown(course, lesson)
    for row in rows:
        shown.setdefault(row.learner, {})[row.exercise] = row.points
    path = course / RECORDS / f"{lesson}.shown"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(shown) + "\n")
