"""`autograder grade`: a whole class with nbgrader, and a table of who got what and why.

What one submission does never costs another its grade: its code runs in processes of its own, and one that cannot
be graded is reported with its reason instead of a 0.
"""

import argparse
import hashlib
import os
import re
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import nbformat

from autograder import nbgrader_bridge as bridge
from autograder.build import write_instructor_notebook
from autograder.grading.accept import Submission, accept_all
from autograder.grading.process import GradingProcess
from autograder.grading.reasons import NOT_GRADED, reason_for
from autograder.grading.table import Row, as_text, write_csv

WORK = ".autograder"  # in the course's root: clean copies, and what was graded last
TABLE = "grades.csv"
TIME_LIMIT = 900.0


class GradingError(Exception):
    """A lesson cannot be graded at all, for a reason that is not in a submission."""


def grade_lesson(
    lesson: str, *, jobs: int = 2, force: bool = False, time_limit: float = TIME_LIMIT
) -> list[Row]:
    """Grades every submission of a lesson of the course in the working directory.

    jobs: how many learners at a time. force: also those whose submission has not changed since it was graded.
    time_limit: seconds for one submission. Returns a row for each learner and exercise, sorted by learner.
    Raises GradingError if the lesson itself is at fault.
    """
    course = Path.cwd()
    api = bridge.open_course()
    folders = bridge.directories(api)
    stamp = _prepare(lesson, api, folders["source"])
    exercises = bridge.exercises(api, lesson)
    if not exercises:
        raise GradingError(f"{lesson} has no graded cell.")

    accepted = course / WORK / "submitted"
    submissions = accept_all(
        folders["submitted"], lesson, accepted, bridge.parse_timestamp, bridge.roster(api)
    )
    if not submissions:
        raise GradingError(f"no submissions: {folders['submitted']} is empty. nbgrader collect fills it.")

    idle: SimpleQueue[GradingProcess] = SimpleQueue()
    processes = [GradingProcess(lesson, accepted, jobs=jobs, time_limit=time_limit) for _ in range(jobs)]
    for process in processes:
        idle.put(process)

    def grade(submission: Submission) -> tuple[str | None, str]:
        """Returns why there is no verdict, or None, and a note."""
        record = course / WORK / "graded" / lesson / f"{submission.learner}.json"
        if submission.refused is None:
            key = f"{stamp} {submission.digest}"
            result = folders["autograded"] / submission.learner / lesson / f"{lesson}.ipynb"
            if not force and result.exists() and _read(record) == key:
                return None, ""
            record.unlink(missing_ok=True)
            process = idle.get()
            try:
                failure, note = _verdict(process, submission.learner, time_limit)
            finally:
                idle.put(process)
            if failure is None:
                record.parent.mkdir(parents=True, exist_ok=True)
                record.write_text("" if note else key, encoding="utf-8")
                return None, note
        else:
            failure = submission.refused
            record.unlink(missing_ok=True)
        for step in ("autograded", "feedback"):
            shutil.rmtree(folders[step] / submission.learner / lesson, ignore_errors=True)
        return failure, ""

    try:
        with ThreadPoolExecutor(jobs) as pool:
            outcomes = list(pool.map(grade, submissions))
    finally:
        for process in processes:
            process.close()
    rows: list[Row] = []
    for submission, (failure, note) in zip(submissions, outcomes, strict=True):
        if failure is not None:
            bridge.withhold(api, lesson, submission.learner)
            rows += [
                Row(lesson, submission.learner, name, None, points, NOT_GRADED, "", failure, "")
                for name, points in exercises.items()
            ]
            continue
        path = folders["autograded"] / submission.learner / lesson / f"{lesson}.ipynb"
        notes = [*submission.notes, *([note] if note else [])]
        got = bridge.grades(api, lesson, submission.learner)
        rows += _rows(lesson, submission.learner, notes, exercises, got, path)
    return rows


def _prepare(lesson: str, api: Any, source: Path) -> str:
    """Brings the gradebook's lesson up to date. Returns a stamp that changes when verdicts may change."""
    notebook = source / lesson / f"{lesson}.ipynb"
    script = source / f"{lesson}.py"
    if script.exists():
        try:
            write_instructor_notebook(source.parent, lesson)
        except ValueError as error:
            raise GradingError(str(error)) from error
    if not notebook.exists():
        raise GradingError(f"there is no lesson {lesson}: neither {script} nor {notebook} exists.")
    digest = hashlib.sha256(notebook.read_bytes())
    record = Path(WORK) / "graded" / f"{lesson}.source"
    if bridge.exercises(api, lesson) is None or _read(record) != digest.hexdigest():
        problem = bridge.generate_assignment(api, lesson)
        if problem is not None:
            raise GradingError(f"nbgrader could not generate {lesson}:\n{problem}")
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(digest.hexdigest(), encoding="utf-8")
    # A change to the checks changes verdicts too.
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _verdict(process: GradingProcess, learner: str, time_limit: float) -> tuple[str | None, str]:
    """Has one submission graded. Returns why there is no verdict, or None, and a note on the verdict, or "".

    What fails for the machine's sake (a busy gradebook, a kernel that did not start) is tried once more.
    """
    failure = ""
    for _ in range(2):
        result = process.grade(learner)
        if result["ok"]:
            return None, ""
        if result.get("expired"):
            return f"grading took longer than {time_limit:.0f} s and was stopped", ""
        failure = _telling(result["log"])
    if result["step"] == "feedback":
        return None, f"no feedback could be written: {failure}"
    return f"{result['step']} failed: {failure}", ""


def _telling(log: str) -> str:
    """The line of nbgrader's log that says most: a traceback's last, "module.SomeError: what happened"."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"[\w.]+(Error|Exception): ", line)]
    causes = [line for line in errors if "NbGraderException" not in line]
    return (causes or errors or lines or ["no reason was given"])[-1][:300]


def _rows(
    lesson: str,
    learner: str,
    notes: list[str],
    exercises: dict[str, float],
    grades: dict[str, tuple[float | None, bool]],
    path: Path,
) -> Iterator[Row]:
    """A graded submission's rows: points from the gradebook, reasons from the autograded notebook at `path`."""
    notebook = nbformat.read(path, as_version=4)
    text = "; ".join([*notes, *(str(line) for line in notebook.metadata.get(bridge.REPAIRS, []))])
    for name, most in exercises.items():
        points, _ = grades.get(name, (None, True))
        why = reason_for(notebook.cells, name, points, most)
        yield Row(lesson, learner, name, points, most, why.status, why.misconception, why.text, text)


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def default_jobs() -> int:
    """One submission for each core, at most four: more do not help one SQLite gradebook."""
    return min(len(os.sched_getaffinity(0)), 4)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `autograder grade`."""
    add = parser.add_argument
    add("lessons", nargs="*", metavar="LESSON", help="such as 01_warm_up; all in source/ by default")
    add(
        "--course-dir",
        type=Path,
        metavar="DIR",
        help="nbgrader's course root, where it is not the current folder",
    )
    add("--jobs", type=int, default=default_jobs(), metavar="N", help="learners at a time (here %(default)s)")
    add("--force", action="store_true", help="also grade what has not changed since it was graded")
    add("--time-limit", type=float, default=TIME_LIMIT, metavar="S", help="seconds a learner (%(default)g)")
    add(
        "--sample-class", action="store_true", help="make a sample class in build/sample_class and grade that"
    )


def run(arguments: argparse.Namespace) -> int:
    """Does what `arguments` say.

    Returns 0 when every learner has a verdict or a recorded reason, 1 when a lesson could not be graded at all, 2 for
    arguments that make no sense.
    """
    if arguments.jobs < 1:
        return _refuse(f"--jobs: expected at least 1, got {arguments.jobs}")
    course = arguments.course_dir or Path()
    if arguments.sample_class:
        from autograder.grading import sample_class

        course = sample_class.make()
    if not course.is_dir():
        return _refuse(f"--course-dir: {course} is not a folder")
    os.chdir(course)
    lessons = arguments.lessons or sorted({path.stem for path in Path("source").glob("[0-9]*")})
    if not lessons:
        return _refuse(f"there is no lesson in {Path('source').resolve()}")
    rows: list[Row] = []
    status = 0
    for lesson in lessons:
        try:
            graded = grade_lesson(
                lesson, jobs=arguments.jobs, force=arguments.force, time_limit=arguments.time_limit
            )
        except GradingError as error:
            print(f"{lesson}: {error}", file=sys.stderr)
            status = 1
            continue
        print(f"{lesson}\n{as_text(graded, shutil.get_terminal_size((160, 24)).columns)}\n")
        rows += graded
    if rows:
        write_csv(rows, Path(TABLE))
        learners = {row.learner for row in rows}
        print(f"{len(learners)} learners, {len(rows)} results: {Path(TABLE).resolve()}")
    return status


def _refuse(message: str) -> int:
    print(message, file=sys.stderr)
    return 2


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m autograder.grading.grade", description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
