"""The table of a graded class: as CSV for a spreadsheet and as text for a terminal."""

import csv
import io
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from autograder.grading.journal import write_whole
from autograder.grading.reasons import NOT_GRADED


@dataclass(frozen=True)
class Row:
    """One learner's result in one exercise.

    points is None where there is no verdict: never a silent 0. was: the points of the last table, where they were others.
    """

    lesson: str
    learner: str
    exercise: str
    points: float | None
    max_points: float
    status: str
    misconception: str
    reason: str
    notes: str
    was: float | None = None


def write_csv(rows: list[Row], path: Path, *, whole_lesson: bool = True) -> None:
    """One line for each learner and exercise; lines of lessons that `rows` does not hold stay.

    whole_lesson: False keeps the lines of a lesson's other learners as well. A text that a spreadsheet would take for a
    formula is quoted.
    """
    names = [field.name for field in fields(Row)]
    replaced = {_place(asdict(row), whole_lesson) for row in rows}
    kept: list[dict[str, str]] = []
    if path.exists():
        with path.open(encoding="utf-8", newline="") as file:
            kept = [line for line in csv.DictReader(file) if _place(line, whole_lesson) not in replaced]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, names, extrasaction="ignore", restval="")
    writer.writeheader()
    writer.writerows(kept)
    for row in rows:
        values = asdict(row)
        for name in ("points", "max_points", "was"):
            values[name] = "" if values[name] is None else f"{values[name]:g}"
        writer.writerow({name: _quoted(value) for name, value in values.items()})
    write_whole(path, text.getvalue())


def _place(line: dict[str, str], whole_lesson: bool) -> tuple[str, str]:
    learner = line.get("learner", "")
    return line.get("lesson", ""), "" if whole_lesson else learner.removeprefix("'")


def _quoted(value: str) -> str:
    return f"'{value}" if value.startswith(("=", "+", "-", "@")) else value


def as_text(rows: list[Row], width: int) -> str:
    """The rows as text, learner by learner, with totals. A learner without a verdict takes one line."""
    by_learner: dict[str, list[Row]] = {}
    for row in rows:
        by_learner.setdefault(row.learner, []).append(row)
    names = max([7, *map(len, by_learner)])
    ids = max([8, *(len(row.exercise) for row in rows)])

    def line(learner: str, exercise: str, points: str, max_points: str, reason: str) -> str:
        text = f"{learner:{names}}  {exercise:{ids}}  {points:>6}  {max_points:>4}  "
        room = max(20, width - len(text))
        return (text + (reason if len(reason) <= room else reason[: room - 1] + "…")).rstrip()

    lines = [line("learner", "exercise", "points", "max", "reason")]
    for learner, own in by_learner.items():
        total = sum(row.max_points for row in own)
        if all(row.status in NOT_GRADED for row in own) and len({row.reason for row in own}) == 1:
            was = sum(row.was or 0.0 for row in own)
            before = f"was {was:g}; " if any(row.was is not None for row in own) else ""
            lines.append(line(learner, "all", "–", f"{total:g}", before + own[0].reason))
            continue
        for i, row in enumerate(own):
            points = "–" if row.points is None else f"{row.points:g}"
            reason = f"{row.misconception}: {row.reason}" if row.misconception else row.reason
            if row.was is not None:
                reason = f"was {row.was:g}; {reason}".removesuffix("; ")
            lines.append(line(learner if i == 0 else "", row.exercise, points, f"{row.max_points:g}", reason))
        got = sum(row.points or 0.0 for row in own)
        lines.append(
            line("", "total", f"{got:g}", f"{total:g}", f"note: {own[0].notes}" if own[0].notes else "")
        )
    return "\n".join(lines)
