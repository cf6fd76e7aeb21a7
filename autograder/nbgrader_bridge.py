"""The one file that imports nbgrader: plug-ins that its configuration names, and the calls that grading makes.

The plug-ins are set in `nbgrader_config.py`, so they also hold for `nbgrader autograde`, `nbgrader
generate_feedback` and the formgrader pages:

- `RestoreCells` gives every cell that nbgrader knows its metadata, type and place back, before anything else
  reads them.
- `ExecuteToTheEnd` turns a kernel that dies, or does not stop, into a recorded error instead of a lost
  submission.
- `SaveVerdicts` scores a test cell by its error or its partial credit, not by what was written to stderr.
- `RedactForFeedback` takes hidden tests and widget state out of what a learner is handed back.

`python -m autograder.nbgrader_bridge LESSON SUBMITTED_DIRECTORY` grades, in the course that is the working
directory, the learners whom it is told on standard input (`autograder.grading.process`).
"""

import argparse
import copy
import json
import os
import re
import signal
import sys
import time
import traceback
from datetime import datetime
from pathlib import Path
from typing import Any

from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat.notebooknode import NotebookNode
from nbgrader import utils
from nbgrader.api import Gradebook, MissingEntry
from nbgrader.apps import NbGrader, NbGraderAPI
from nbgrader.preprocessors import Execute, NbGraderPreprocessor, SaveAutoGrades

Resources = dict[str, Any]

SCHEMA_VERSION = 3
REPAIRS = "autograder_repairs"  # notebook metadata: what RestoreCells had to put right
DIED = "KernelDied"  # the ename that ExecuteToTheEnd writes
HIDDEN = re.compile(
    r"^[^\n]*### BEGIN HIDDEN TESTS[^\n]*\n(.*?)^[^\n]*### END HIDDEN TESTS[^\n]*(?:\n|\Z)", re.S | re.M
)
ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class RestoreCells(NbGraderPreprocessor):
    """Gives every cell of the assignment its nbgrader metadata, its type and, where it was deleted, its place back.

    First in `Autograde.sanitize_preprocessors`. nbgrader itself refuses the whole submission for a changed
    flag, and the whole batch for a wrong schema version. A cell is known by its grade id or, where that was
    changed, by its cell id, which is the same word. What had to be put right is listed in the notebook's
    metadata under `autograder_repairs`.
    """

    def preprocess(self, nb: NotebookNode, resources: Resources) -> tuple[NotebookNode, Resources]:
        info = resources["nbgrader"]
        with Gradebook(info["db_url"]) as gradebook:
            known = _known_cells(gradebook, info["assignment"], info["notebook"])
        repairs: list[str] = []
        present: dict[str, NotebookNode] = {}
        for cell in nb.cells:
            name = _name_of(cell, known)
            if name is None:
                if cell.metadata.pop("nbgrader", None):
                    repairs.append(
                        "a cell with nbgrader metadata of no known cell is graded as an ordinary one"
                    )
                continue
            repairs += _restore(cell, name, known[name])
            present[name] = cell  # of several copies the last one counts, as in nbgrader's DeduplicateIds
        previous: str | None = None
        for name, spec in known.items():
            if name not in present:
                cell = _new_cell(name, spec)
                # Cells are compared by identity: copies are equal.
                at = 0 if previous is None else _index(nb.cells, present[previous]) + 1
                nb.cells.insert(at, cell)
                present[name] = cell
                repairs.append(f"cell {name} was missing and was put back")
            previous = name
        nb.metadata[REPAIRS] = list(dict.fromkeys(repairs))
        for line in nb.metadata[REPAIRS]:
            self.log.warning("%s", line)
        return nb, resources


def _known_cells(gradebook: Gradebook, assignment: str, notebook: str) -> dict[str, dict[str, Any]]:
    """Name -> source, cell_type and nbgrader metadata of each cell of the gradebook's notebook, in its order."""
    entry = gradebook.find_notebook(notebook, assignment)
    points = {cell.name: float(cell.max_score) for cell in [*entry.grade_cells, *entry.task_cells]}
    grades = {cell.name for cell in entry.grade_cells}
    solutions = {cell.name for cell in entry.solution_cells}
    tasks = {cell.name for cell in entry.task_cells}
    known = {}
    for cell in entry.source_cells:
        meta: dict[str, Any] = {
            "grade_id": cell.name,
            "grade": cell.name in grades,
            "solution": cell.name in solutions,
            "task": cell.name in tasks,
            "locked": bool(cell.locked),
            "cell_type": str(cell.cell_type),
            "checksum": cell.checksum,
            "schema_version": SCHEMA_VERSION,
        }
        if cell.name in points:
            meta["points"] = points[cell.name]
        known[cell.name] = {"source": cell.source, "cell_type": str(cell.cell_type), "meta": meta}
    return known


def _name_of(cell: NotebookNode, known: dict[str, Any]) -> str | None:
    meta = cell.metadata.get("nbgrader")
    for name in (meta.get("grade_id") if isinstance(meta, dict) else None, cell.get("id")):
        if isinstance(name, str) and name in known:
            return name
    return None


def _restore(cell: NotebookNode, name: str, spec: dict[str, Any]) -> list[str]:
    """Overwrites a cell's type and metadata with the assignment's. Returns what was different, in words."""
    repairs = []
    meta = cell.metadata.get("nbgrader")
    meta = meta if isinstance(meta, dict) else {}
    if cell.cell_type != spec["cell_type"]:
        repairs.append(f"cell {name} was of type {cell.cell_type}, not {spec['cell_type']}")
        cell.cell_type = spec["cell_type"]
        if cell.cell_type == "code":
            cell.setdefault("outputs", [])
            cell.setdefault("execution_count", None)
            cell.pop("attachments", None)
        else:
            cell.pop("outputs", None)
            cell.pop("execution_count", None)
    for key in ("grade_id", "grade", "solution", "task", "locked", "points", "schema_version"):
        if key in spec["meta"] and meta.get(key, False) != spec["meta"][key]:
            repairs.append(f"cell {name} said {key} = {meta.get(key)!r}, not {spec['meta'][key]!r}")
    if spec["meta"]["locked"] and cell.source.rstrip() != HIDDEN.sub("", spec["source"]).rstrip():
        repairs.append(f"cell {name} was edited; the assignment's own text is used")
        cell.source = spec["source"]
    tags = cell.metadata.get("tags")
    if tags:  # nbclient would leave out a cell that is tagged skip-execution
        repairs.append(f"cell {name} had tags {tags!r}")
    cell.metadata = NotebookNode({"nbgrader": NotebookNode(spec["meta"])})
    return repairs


def _new_cell(name: str, spec: dict[str, Any]) -> NotebookNode:
    cell = NotebookNode(id=name, cell_type=spec["cell_type"], source=spec["source"])
    cell.metadata = NotebookNode({"nbgrader": NotebookNode(spec["meta"])})
    if cell.cell_type == "code":
        cell.update(outputs=[], execution_count=None)
    return cell


def _index(cells: list[NotebookNode], wanted: NotebookNode) -> int:
    return next(i for i, cell in enumerate(cells) if cell is wanted)


class ExecuteToTheEnd(Execute):
    """nbgrader's Execute for which a dead kernel is an error of a cell, not the end of the submission.

    Cells before the death keep their outputs, and so their points. The cell itself and every later one get an
    error output that says where the kernel died. A kernel that goes on after an interrupt is killed and
    treated the same. A kernel that could not start at all still raises: that is the machine's fault, not the
    learner's.
    """

    _death: str | None = None

    def preprocess(self, nb: NotebookNode, *args: Any, **kwargs: Any) -> tuple[NotebookNode, Resources]:
        self._death = None
        return super().preprocess(nb, *args, **kwargs)

    def preprocess_cell(
        self, cell: NotebookNode, resources: Resources, index: int
    ) -> tuple[NotebookNode, Resources]:
        if self._death is not None:
            _append_death(cell, f"not run: the {self._death}")
            return cell, resources
        started = time.monotonic()
        try:
            return super().preprocess_cell(cell, resources, index)
        except DeadKernelError:
            self._death = f"kernel died in cell {_title(cell, index)}"
        except CellTimeoutError:
            # Raised when the kernel did not even answer the interrupt that nbclient sends after the time limit.
            if self.timeout is None or time.monotonic() - started < self.timeout:
                raise  # a message of the kernel was lost: not the learner's fault
            self._death = f"kernel was killed: cell {_title(cell, index)} did not stop after {self.timeout} s"
            assert self.km is not None
            os.kill(self.km.provisioner.pid, signal.SIGKILL)
        _append_death(cell, self._death)
        return cell, resources


def _title(cell: NotebookNode, index: int) -> str:
    grade_id = cell.metadata.get("nbgrader", {}).get("grade_id")
    return str(grade_id or cell.get("id") or f"number {index + 1}")


def _append_death(cell: NotebookNode, message: str) -> None:
    if cell.cell_type != "code" or not cell.source.strip():
        return
    message = message[0].upper() + message[1:] + "."
    cell.setdefault("outputs", [])
    cell.outputs.append(
        NotebookNode(output_type="error", ename=DIED, evalue=message, traceback=[f"{DIED}: {message}"])
    )


class SaveVerdicts(SaveAutoGrades):
    """nbgrader's SaveAutoGrades, which gives 0 for any text on stderr and full points for a cell that never ran.

    Here a warning costs nothing, a test cell that was not executed earns nothing, and partial credit that
    nbgrader cannot use (above the cell's points, or a result without text) earns nothing instead of losing
    the submission.
    """

    def _add_score(self, cell: NotebookNode, resources: Resources) -> None:
        judged = copy.deepcopy(cell)
        if judged.cell_type == "code" and not utils.is_solution(judged):
            judged.outputs = [
                o for o in judged.outputs if not (o.output_type == "stream" and o.name == "stderr")
            ]
            try:
                utils.determine_grade(judged, self.log)
                lost = "" if judged.execution_count is not None else "the cell did not run"
            except (KeyError, ValueError) as error:
                lost = f"the partial credit cannot be read: {error}"
            if lost:
                name = judged.metadata.nbgrader.grade_id
                message = f"{name}: {lost}."
                if not any(output.output_type == "error" for output in cell.outputs):
                    cell.outputs.append(
                        NotebookNode(
                            output_type="error", ename="NotScored", evalue=message, traceback=[message]
                        )
                    )
                judged.outputs = [
                    NotebookNode(output_type="error", ename="NotScored", evalue="", traceback=[])
                ]
        super()._add_score(judged, resources)


class RedactForFeedback(NbGraderPreprocessor):
    """First in `GenerateFeedback.preprocessors`: no hidden test and no widget state reaches the learner.

    The hidden region leaves the test cell's source, and every line of it leaves every text output of the
    notebook, tracebacks included. Widgets go because feedback is a file without the widgets' scripts: with
    their state removed nbconvert shows the `text/html` that stands beside them.
    """

    def preprocess(self, nb: NotebookNode, resources: Resources) -> tuple[NotebookNode, Resources]:
        nb.metadata.pop("widgets", None)
        nb.metadata.pop(REPAIRS, None)
        hidden: set[str] = set()
        for cell in nb.cells:
            if cell.cell_type == "code" and utils.is_grade(cell):
                for body in HIDDEN.findall(cell.source):
                    hidden.update(line.strip() for line in body.splitlines() if line.strip())
                cell.source = HIDDEN.sub("", cell.source).rstrip("\n")
        for cell in nb.cells:
            for output in cell.get("outputs", []):
                _redact_output(output, hidden)
        return nb, resources


def _redact_output(output: NotebookNode, hidden: set[str]) -> None:
    if output.output_type == "stream":
        output.text = _without(output.text, hidden)
    elif output.output_type == "error":
        output.evalue = _without(output.evalue, hidden)
        output.traceback = [_without(entry, hidden) for entry in output.traceback]
    elif "data" in output:
        output.data.pop("application/vnd.jupyter.widget-view+json", None)
        for kind, text in output.data.items():
            if isinstance(text, str) and not kind.startswith("image/"):
                output.data[kind] = _without(text, hidden)


def _without(text: str, hidden: set[str]) -> str:
    """`text` without the lines that hold a hidden line or a hidden region's delimiter. Colours do not hide them."""

    def shown(line: str) -> bool:
        plain = ANSI.sub("", line)
        return "HIDDEN TESTS" not in plain and not any(secret in plain for secret in hidden)

    return "\n".join(line for line in text.split("\n") if shown(line))


# What autograder.grading.grade calls. The working directory is the course's root, as for nbgrader's own commands.


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
        try:
            notebook = gradebook.find_submission_notebook(lesson, lesson, learner)
        except MissingEntry:
            return
        for grade in notebook.grades:
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
        if result["success"]:
            step = "feedback"
            result = api.generate_feedback(lesson, learner, force=True)
        return {"ok": bool(result["success"]), "step": step, "log": _words(result)}
    except (Exception, SystemExit):  # nbgrader ends the process for a configuration that it does not like
        return {"ok": False, "step": step, "log": traceback.format_exc()}


def _words(result: dict[str, Any]) -> str:
    return "\n".join(filter(None, [result.get("log", ""), result.get("error", "")]))


def main(argv: list[str] | None = None) -> int:
    """Reads learners from standard input, one JSON string a line, and answers each with a line of JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m autograder.nbgrader_bridge", description="Grades submissions, one after the other."
    )
    parser.add_argument("lesson")
    parser.add_argument("submitted_directory", help="where the clean copies of the submissions are")
    arguments = parser.parse_args(argv)
    # Kernels inherit standard output. What they write there must not be taken for an answer.
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        for line in sys.stdin:
            result = grade_one(arguments.lesson, json.loads(line), arguments.submitted_directory)
            print(json.dumps(result), file=answers, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
