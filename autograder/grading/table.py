"""The table of a graded class: as CSV for a spreadsheet and as text for a terminal."""

import csv
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from autograder.grading.reasons import NOT_GRADED


@dataclass(frozen=True)
class Row:
    """One learner's result in one exercise. `points` is None where there is no verdict: never a silent 0."""

    lesson: str
    learner: str
    exercise: str
    points: float | None
    max_points: float
    status: str
    misconception: str
    reason: str
    notes: str


def write_csv(rows: list[Row], path: Path) -> None:
    """One line for each learner and exercise; lines of lessons that `rows` does not hold stay.

    A text that a spreadsheet would take for a formula is quoted.
    """
    graded = {row.lesson for row in rows}
    kept: list[dict[str, str]] = []
    if path.exists():
        with path.open(encoding="utf-8", newline="") as file:
            kept = [line for line in csv.DictReader(file) if line.get("lesson") not in graded]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(kept)
        for row in rows:
            values = asdict(row)
            values["points"] = "" if row.points is None else f"{row.points:g}"
            values["max_points"] = f"{row.max_points:g}"
            writer.writerow(
                {key: f"'{v}" if v.startswith(("=", "+", "-", "@")) else v for key, v in values.items()}
            )


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
        if all(row.status == NOT_GRADED for row in own):
            lines.append(line(learner, "all", "–", f"{total:g}", f"not graded: {own[0].reason}"))
            continue
        for i, row in enumerate(own):
            points = "–" if row.points is None else f"{row.points:g}"
            reason = f"{row.misconception}: {row.reason}" if row.misconception else row.reason
            lines.append(line(learner if i == 0 else "", row.exercise, points, f"{row.max_points:g}", reason))
        got = sum(row.points or 0.0 for row in own)
        lines.append(
            line("", "total", f"{got:g}", f"{total:g}", f"note: {own[0].notes}" if own[0].notes else "")
        )
    return "\n".join(lines)
