"""What nbgrader holds of a whole class: points from the gradebook, repairs from the autograded notebooks."""

from __future__ import annotations

import json
from pathlib import Path

from nbgrader.api import MissingEntry
from nbgrader.apps import NbGraderAPI

from autograder.nbgrader_bridge.restore import REPAIRS

# Learner -> grade id -> (the judge's points, a person's points).
Scores = dict[str, dict[str, tuple[float | None, float | None]]]


def scores(api: NbGraderAPI, lesson: str) -> Scores:
    """Learner -> grade id -> (the judge's points, a person's points), None where there are none, for all submissions."""
    with api.gradebook as gradebook:
        try:
            assignment = gradebook.find_assignment(lesson)
        except MissingEntry:
            return {}
        return {
            submission.student.id: {
                grade.name: (grade.auto_score, grade.manual_score)
                for notebook in submission.notebooks
                for grade in notebook.grades
            }
            for submission in assignment.submissions
        }


def seconds_late(api: NbGraderAPI, lesson: str) -> dict[str, float]:
    """Learner -> seconds after the lesson's due date, for the submissions that were late."""
    with api.gradebook as gradebook:
        try:
            submissions = gradebook.find_assignment(lesson).submissions
        except MissingEntry:
            return {}
        late = {each.student.id: float(each.total_seconds_late) for each in submissions}
        return {learner: seconds for learner, seconds in late.items() if seconds > 0}


def repairs(course: Path, lesson: str, learner: str) -> list[str]:
    """What had to be put right in a submission before nbgrader could take it, in words, from its autograded notebook."""
    path = course / "autograded" / learner / lesson / f"{lesson}.ipynb"
    try:
        return [str(line) for line in json.loads(path.read_text(encoding="utf-8"))["metadata"][REPAIRS]]
    except (OSError, ValueError, KeyError, TypeError):
        return []
