"""The course as the rest of autograder sees it: its folders, its gradebook, and one submission taken through nbgrader.

The working directory is the course's root, as for nbgrader's own commands.
"""

import os
import sys
import traceback
from datetime import datetime
from pathlib import Path
from typing import Any

from nbgrader import utils
from nbgrader.api import Gradebook, MissingEntry
from nbgrader.apps import NbGrader, NbGraderAPI


def open_course(submitted_directory: str | None = None) -> NbGraderAPI:
    """nbgrader's API for the course in the working directory, with its `nbgrader_config.py`."""
    # nbgrader starts `alembic` by name when it makes a gradebook.
    scripts = str(Path(sys.executable).parent)
    if scripts not in os.environ.get("PATH", "").split(os.pathsep):
        os.environ["PATH"] = scripts + os.pathsep + os.environ.get("PATH", "")
    app = NbGrader()
    app.load_config_file()
    api = NbGraderAPI(config=app.config)
    if submitted_directory is not None:
        api.coursedir.submitted_directory = submitted_directory
    return api


def judges(api: NbGraderAPI) -> bool:
    """Whether nbgrader hands submissions to the judge here, as this repository's `nbgrader_config.py` tells it to.

    Without that it would run learners' code itself, outside every sandbox.
    """
    return f"{__package__}.JudgeSubmission" in api.config.Autograde.get("sanitize_preprocessors", [])


def directories(api: NbGraderAPI) -> dict[str, Path]:
    """The folders of nbgrader's steps, as configured, below the course's root."""
    course = api.coursedir
    steps = ("source", "release", "submitted", "autograded", "feedback")
    return {step: Path(course.root) / getattr(course, f"{step}_directory") for step in steps}


def roster(api: NbGraderAPI) -> set[str]:
    """Ids of the learners whom the gradebook knows."""
    with api.gradebook as gradebook:
        return {student.id for student in gradebook.students}


def exercises(api: NbGraderAPI, lesson: str) -> dict[str, float] | None:
    """Grade id -> points of a lesson's graded cells, in order; None if the gradebook has no such lesson."""
    with api.gradebook as gradebook:
        try:
            notebook = gradebook.find_notebook(lesson, lesson)
        except MissingEntry:
            return None
        points = {cell.name: float(cell.max_score) for cell in [*notebook.grade_cells, *notebook.task_cells]}
        return {cell.name: points[cell.name] for cell in notebook.source_cells if cell.name in points}


def generate_assignment(api: NbGraderAPI, lesson: str) -> str | None:
    """Writes the lesson's release and its cells into the gradebook. Returns nbgrader's words if that failed."""
    result = api.generate_assignment(lesson, force=True, create=True)
    return None if result["success"] else _words(result)


def grades(api: NbGraderAPI, lesson: str, learner: str) -> dict[str, tuple[float | None, bool]]:
    """Grade id -> (points, whether a person still has to look); points is None where nobody has given any."""
    with api.gradebook as gradebook:
        try:
            notebook = gradebook.find_submission_notebook(lesson, lesson, learner)
        except MissingEntry:
            return {}
        return {
            grade.name: (
                grade.manual_score if grade.manual_score is not None else grade.auto_score,
                bool(grade.needs_manual_grade),
            )
            for grade in notebook.grades
        }


def withhold(api: NbGraderAPI, lesson: str, learner: str) -> None:
    """Takes back what the gradebook holds of an earlier submission: the present one has no verdict.

    Without this an earlier pass would stay in the gradebook and be exported. A person's own scores are kept.
    """
    with api.gradebook as gradebook:
        withhold_in(gradebook, lesson, lesson, learner)


def withhold_in(gradebook: Gradebook, lesson: str, notebook: str, learner: str) -> None:
    """`withhold` in a gradebook that is open."""
    try:
        submitted = gradebook.find_submission_notebook(notebook, lesson, learner)
    except MissingEntry:
        return
    for grade in submitted.grades:
        grade.auto_score = None
        grade.needs_manual_grade = True
    gradebook.db.commit()


def parse_timestamp(text: str) -> datetime:
    """Reads what `nbgrader submit` writes into timestamp.txt. Raises whatever the date's parser raises."""
    return utils.parse_utc(text.strip())


def grade_one(lesson: str, learner: str, submitted_directory: str) -> dict[str, Any]:
    """Autogrades one submission and writes its feedback. Returns `{"ok", "step", "log"}`, raises nothing."""
    step = "autograde"
    try:
        api = open_course(submitted_directory)
        result = api.autograde(lesson, learner, force=True, create=True)
        if result["success"] and os.environ.get("AUTOGRADER_FEEDBACK") != "0":
            step = "feedback"
            result = api.generate_feedback(lesson, learner, force=True)
        return {"ok": bool(result["success"]), "step": step, "log": _words(result)}
    except (Exception, SystemExit):  # nbgrader ends the process for a configuration that it does not like
        return {"ok": False, "step": step, "log": traceback.format_exc()}


def _words(result: dict[str, Any]) -> str:
    return "\n".join(filter(None, [result.get("log", ""), result.get("error", "")]))
