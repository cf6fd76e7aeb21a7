"""`autograder grade`: a whole class with nbgrader, and a table of who got what and why.

What one submission does never costs another its grade: each is graded by a process of its own, and one that
cannot be graded is reported with its reason instead of a 0.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nbformat
import psutil

from autograder import nbgrader_bridge as bridge
from autograder.accept import Submission, accept_all
from autograder.build import write_instructor_notebook
from autograder.reasons import NOT_GRADED, reason_for
from autograder.table import Row, as_text, write_csv

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

    def grade(submission: Submission) -> str | None:
        """Returns why there is no verdict, or None."""
        record = course / WORK / "graded" / lesson / f"{submission.learner}.json"
        if submission.refused is None:
            key = f"{stamp} {submission.digest}"
            result = folders["autograded"] / submission.learner / lesson / f"{lesson}.ipynb"
            if not force and result.exists() and _read(record) == key:
                return None
            record.unlink(missing_ok=True)
            failure = _grade_one(lesson, submission.learner, accepted, jobs, time_limit)
            if failure is None:
                record.parent.mkdir(parents=True, exist_ok=True)
                record.write_text(key, encoding="utf-8")
                return None
        else:
            failure = submission.refused
            record.unlink(missing_ok=True)
        for step in ("autograded", "feedback"):
            shutil.rmtree(folders[step] / submission.learner / lesson, ignore_errors=True)
        return failure

    with ThreadPoolExecutor(jobs) as pool:
        failures = list(pool.map(grade, submissions))
    rows: list[Row] = []
    for submission, failure in zip(submissions, failures, strict=True):
        if failure is not None:
            bridge.withhold(api, lesson, submission.learner)
            rows += [
                Row(lesson, submission.learner, name, None, points, NOT_GRADED, "", failure, "")
                for name, points in exercises.items()
            ]
            continue
        path = folders["autograded"] / submission.learner / lesson / f"{lesson}.ipynb"
        rows += _rows(lesson, submission, exercises, bridge.grades(api, lesson, submission.learner), path)
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
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _grade_one(lesson: str, learner: str, accepted: Path, jobs: int, time_limit: float) -> str | None:
    """Runs the grading process for one learner. Returns why it gave no verdict, or None.

    What fails for the machine's sake (a busy gradebook, a kernel that did not start) is tried once more.
    """
    command = [sys.executable, "-m", "autograder.nbgrader_bridge", lesson, learner, str(accepted)]
    failure = ""
    for _ in range(2):
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=_environment(jobs),
        )
        try:
            output, errors = process.communicate(timeout=time_limit)
        except subprocess.TimeoutExpired:
            _end(process)
            return f"grading took longer than {time_limit:.0f} s and was stopped"
        if process.returncode == 0:
            return None
        failure = _failure(output, errors, process.returncode)
    return failure


def _environment(jobs: int) -> dict[str, str]:
    """For the grading process and its kernel: this package, and threads for its share of the cores."""
    environment = dict(os.environ)
    root = str(Path(__file__).resolve().parents[1])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, environment.get("PYTHONPATH")]))
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        environment.setdefault(name, threads)
    return environment


def _end(process: subprocess.Popen[str]) -> None:
    """Kills a grading process and the kernel that it started, which has a process group of its own."""
    try:
        family = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    process.kill()
    for child in family:
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue
    process.communicate()


def _failure(output: str, errors: str, status: int) -> str:
    """The most telling line of what a grading process left."""
    try:
        result = json.loads(output.strip().splitlines()[-1])
        text = f"{result['log']}"
        step = result["step"]
    except (IndexError, KeyError, TypeError, ValueError):
        text, step = errors, "grading"
    lines = [line.strip() for line in text.splitlines()]
    # A traceback ends with "module.SomeError: what happened"; nbgrader adds its own exception.
    telling = [
        line
        for line in lines
        if "Error: " in line and "NbGraderException" not in line and "[" not in line[:1]
    ]
    last = (
        telling[-1] if telling else next((line for line in reversed(lines) if line), f"exit status {status}")
    )
    return f"{step} failed: {last[:300]}"


def _rows(
    lesson: str,
    submission: Submission,
    exercises: dict[str, float],
    grades: dict[str, tuple[float | None, bool]],
    path: Path,
) -> Iterator[Row]:
    notebook = nbformat.read(path, as_version=4)
    repairs = [str(line) for line in notebook.metadata.get("autograder_repairs", [])]
    notes = "; ".join([*submission.notes, *repairs])
    for name, max_points in exercises.items():
        points, _ = grades.get(name, (None, True))
        reason = reason_for(notebook.cells, name, points, max_points)
        yield Row(
            lesson,
            submission.learner,
            name,
            points,
            max_points,
            reason.status,
            reason.misconception,
            reason.text,
            notes,
        )


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
        from autograder import sample_class

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
    parser = argparse.ArgumentParser(prog="python -m autograder.grade", description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
