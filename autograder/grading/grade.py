"""`autograder grade`: a whole class judged, taken into nbgrader's gradebook, and a table of who got what and why.

Submissions are accepted, judged in parallel with each verdict journalled as it falls, taken into the gradebook, and shown. A
grading that was killed at any point is gone on with by the same command: nothing is judged twice and nothing is lost. One
submission never costs another anything, and one that cannot be graded is reported with its reason instead of a 0.
"""

from __future__ import annotations

import fcntl
import hashlib
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from autograder import nbgrader_bridge as bridge
from autograder.build import write_instructor_notebook
from autograder.grading import gradebook
from autograder.grading.accept import Submission, accept_all
from autograder.grading.gradings import Gradings
from autograder.grading.jobs import TIME_LIMIT, Done, Job, Setting, instructors_notebook
from autograder.grading.journal import Journal, submission_key, write_whole
from autograder.grading.judge_here import judge_here
from autograder.grading.judging import SECRET, outstanding, usable
from autograder.grading.progress import watched
from autograder.grading.results import Result, write_results
from autograder.grading.rows import remember_shown, rows_of, with_changes
from autograder.grading.secret import read_or_make
from autograder.grading.table import Row, as_text, write_csv
from autograder.judge.rebuild import Unreadable, rebuild
from autograder.judge.sandbox import why_unavailable

WORK = Path(".autograder")  # in the course's root: clean copies, the journal, what was taken in and shown
TABLE = Path("grades.csv")

Judge = Callable[[Setting, list[Job]], Iterator[Done]]


class GradingError(Exception):
    """A lesson cannot be graded at all, for a reason that is not in a submission."""


@dataclass(frozen=True)
class Options:
    """How to grade. The defaults are those of `autograder grade`.

    submissions: a folder in place of the course's own submitted one; only its learners are graded. jobs: submissions at a
    time. force: judge again what the journal has. learners, exercises: judge these again, and nothing else if learners are
    named. unsafe: grade without a sandbox where none can be made. into_gradebook, feedback: what nbgrader does. out: where
    the results go as JSON. judge: who judges; the processes of this machine by default.
    """

    submissions: Path | None = None
    jobs: int = 2
    force: bool = False
    learners: tuple[str, ...] = ()
    exercises: tuple[str, ...] = ()
    unsafe: bool = False
    into_gradebook: bool = True
    feedback: bool = True
    time_limit: float = TIME_LIMIT
    out: Path | None = None
    judge: Judge | None = None

    @property
    def asked(self) -> str:
        """The arguments that tell this grading from others: a killed one is gone on with by the same ones."""
        words = ["--force"] if self.force else []
        words += [word for name in sorted(self.learners) for word in ("--learner", name)]
        words += [word for name in sorted(self.exercises) for word in ("--exercise", name)]
        words += ["--unsafe"] if self.unsafe else []
        words += ["--submissions", str(self.submissions.resolve())] if self.submissions is not None else []
        return shlex.join(words)

    @property
    def again(self) -> bool:
        """Whether verdicts that the journal has are to be replaced."""
        return self.force or bool(self.learners) or bool(self.exercises)


def grade_lesson(lesson: str, options: Options | None = None) -> list[Row]:
    """Grades the submissions of a lesson of the course in the working directory, and prints and writes the table.

    Returns a row for each learner and exercise, sorted by learner. Raises GradingError if the lesson itself is at fault.
    """
    options = options or Options()
    course = Path.cwd()
    with _alone(course):
        return _grade(course, lesson, options)


def _grade(course: Path, lesson: str, options: Options) -> list[Row]:
    api = bridge.open_course()
    folders = bridge.directories(api)
    notebook = _prepare(course, lesson, api if options.into_gradebook else None)
    exercises, tests = _graded_cells(notebook, options)
    if not exercises:
        raise GradingError(f"{lesson} has no graded cell.")
    results = _accepted(course, lesson, api, options, notebook)

    gradings = Gradings(course, lesson)
    grading, begun = gradings.begin(options.asked)
    if begun:
        print(f"{lesson}: going on with grading {grading}, which was not finished", file=sys.stderr)
    for other in gradings.others(options.asked):
        print(f"{lesson}: not finished yet: autograder grade {lesson} {other}".rstrip(), file=sys.stderr)
    setting = Setting(course, lesson, grading, options.unsafe, options.time_limit)
    _judge_all(setting, results, options)

    scores = _take_in_all(setting, api, folders, results, options) if options.into_gradebook else None
    rows = rows_of(setting, results, exercises, scores)
    rows = with_changes(course, lesson, rows)

    print(f"{lesson}\n{as_text(rows, shutil.get_terminal_size((160, 24)).columns)}\n")
    changed = sum(row.was is not None for row in rows)
    if changed:
        print(f"{changed} results are not what the last table said; `was` says what that was.\n")
    write_csv(rows, TABLE, whole_lesson=not options.learners and options.submissions is None)
    if options.out is not None:
        write_results(options.out, lesson, grading, results, tests)
    remember_shown(course, lesson, rows)
    gradings.finish(options.asked)
    return rows


@contextmanager
def _alone(course: Path) -> Iterator[None]:
    """One grading at a time in a course. The lock goes with the process, however that ends."""
    (course / WORK).mkdir(exist_ok=True)
    with (course / WORK / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise GradingError("another `autograder grade` is at work in this course.") from None
        yield


# The lesson


def _prepare(course: Path, lesson: str, api: Any) -> nbformat.NotebookNode:
    """The instructor's notebook; with nbgrader's `api` the gradebook's lesson is brought up to date as well."""
    if api is not None and not bridge.judges(api):
        raise GradingError(
            f"--course-dir: {course} has no nbgrader_config.py of this course, and nbgrader alone would run learners' code "
            "without a sandbox: copy nbgrader_config.py from the course's repository, or give --no-gradebook"
        )
    script = course / "source" / f"{lesson}.py"
    path = instructors_notebook(course, lesson)
    if script.exists():
        try:
            write_instructor_notebook(course, lesson)
        except ValueError as error:
            raise GradingError(str(error)) from error
    if not path.exists():
        known = ", ".join(sorted({path.stem for path in script.parent.glob("[0-9]*")}))
        raise GradingError(
            f"LESSON: expected one of {known or 'none, source/ is empty'}, got {lesson}: neither {script} nor {path} exists."
        )
    if api is not None:
        bridge.make_gradebook(api)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        record = course / gradebook.RECORDS / f"{lesson}.source"
        if bridge.exercises(api, lesson) is None or _read(record) != digest:
            problem = bridge.generate_assignment(api, lesson)
            if problem is not None:
                raise GradingError(f"nbgrader could not generate {lesson}:\n{problem}")
            record.parent.mkdir(parents=True, exist_ok=True)
            write_whole(record, digest)
    return nbformat.read(path, as_version=4)


def _graded_cells(
    notebook: nbformat.NotebookNode, options: Options
) -> tuple[dict[str, float], dict[str, float]]:
    """Grade id -> points of all graded cells, in order, and of those that the judge tests."""
    exercises, tests = {}, {}
    for cell in notebook.cells:
        meta = cell.metadata.get("nbgrader", {})
        if meta.get("grade") or meta.get("task"):
            exercises[meta["grade_id"]] = float(meta["points"])
            if cell.cell_type == "code" and meta.get("grade") and not meta.get("solution"):
                tests[meta["grade_id"]] = float(meta["points"])
    for name in options.exercises:
        if name not in tests:
            raise GradingError(f"--exercise: expected one of {', '.join(tests)}, got {name}")
    return exercises, tests


# The submissions


def _accepted(
    course: Path, lesson: str, api: Any, options: Options, notebook: nbformat.NotebookNode
) -> list[Result]:
    """Every submission in scope as a clean copy, with its key in the journal."""
    submitted = options.submissions or bridge.directories(api)["submitted"]
    known = bridge.roster(api) if options.into_gradebook and options.submissions is None else set()
    submissions = accept_all(submitted, lesson, course / WORK / "submitted", bridge.parse_timestamp, known)
    if not submissions:
        raise GradingError(
            f"no submissions: {submitted} is empty. It holds LEARNER/{lesson}/{lesson}.ipynb; nbgrader collect fills it."
        )
    set_aside = course / bridge.SET_ASIDE / f"{lesson}.txt"
    if options.submissions is None and set_aside.exists():
        print(
            f"{lesson}: some of what was handed in was set aside when it was collected: {set_aside}",
            file=sys.stderr,
        )
    if options.learners:
        names = {submission.learner for submission in submissions}
        unknown = sorted(set(options.learners) - names)
        if unknown:
            raise GradingError(f"--learner: expected a learner in {submitted}, got {unknown[0]}")
        submissions = [one for one in submissions if one.learner in options.learners]
    results = []
    for submission in submissions:
        result = Result(submission)
        if submission.refused is None:
            try:
                rebuilt = rebuild(notebook, _clean_copy(course, lesson, submission.learner).read_bytes())
            except Unreadable as error:
                result.submission = Submission(submission.learner, refused=str(error))
            else:
                result.key = submission_key(rebuilt)
                result.sources = {cell.name: cell.source for cell in rebuilt.cells}
        results.append(result)
    return results


def _clean_copy(course: Path, lesson: str, learner: str) -> Path:
    return course / WORK / "submitted" / learner / lesson / f"{lesson}.ipynb"


# Judging


def _judge_all(setting: Setting, results: list[Result], options: Options) -> None:
    """Gives every result its entry. Equal submissions are judged once, and what the journal has is not judged at all."""
    journal = Journal(setting.course, setting.lesson)
    jobs: dict[str, Job] = {}
    for result in results:
        if result.refused or result.key in jobs:
            continue
        known = usable(journal.read(result.key), unsafe=options.unsafe)
        only = None
        if known is not None:
            asked = frozenset(options.exercises) or frozenset(known.judgement.checks)
            prevented = {name for name, check in known.judgement.checks.items() if check.points is None}
            wanted = asked if options.again else frozenset()
            only = outstanding(known, setting.grading, wanted | prevented)
            if not only:
                continue
        path = _clean_copy(setting.course, setting.lesson, result.submission.learner)
        jobs[result.key] = Job(result.key, path, only)
    failures = {}
    if jobs:
        try:
            read_or_make(setting.course / SECRET)
        except ValueError as error:
            raise GradingError(str(error)) from error
        if options.judge is None and not options.unsafe and (reason := why_unavailable()) is not None:
            raise GradingError(
                f"learners' code cannot be isolated on this machine: {reason}. --unsafe grades without isolation: their "
                "code can then read and change what you can, its own points included, and every verdict says so."
            )
        judged = (
            judge_here(setting, list(jobs.values()), options.jobs)
            if options.judge is None
            else options.judge(setting, list(jobs.values()))
        )
        for done in watched(judged, len(jobs), "judged"):
            failures[done.job.key] = done.failure
    for result in results:
        if not result.refused:
            result.entry = usable(journal.read(result.key), unsafe=options.unsafe)
            result.failure = failures.get(result.key, "")
            if result.entry is None:
                result.failure = result.failure or "there is no verdict"


# The gradebook


def _take_in_all(
    setting: Setting, api: Any, folders: dict[str, Path], results: list[Result], options: Options
) -> bridge.Scores:
    """Brings the gradebook up to date with the results. Returns what it holds then."""
    course, lesson = setting.course, setting.lesson
    stamp = _stamp(course, lesson)
    scores = bridge.scores(api, lesson)
    wanted = []
    for result in results:
        learner = result.submission.learner
        if result.entry is None:
            gradebook.forget(course, lesson, learner)
            for step in ("autograded", "feedback"):
                shutil.rmtree(folders[step] / learner / lesson, ignore_errors=True)
            bridge.withhold(api, lesson, learner)
            continue
        item = gradebook.Import(learner, gradebook.digest_of(stamp, result.submission.digest, result.entry))
        there = (folders["autograded"] / learner / lesson / f"{lesson}.ipynb").exists()
        if options.feedback:
            there = there and (folders["feedback"] / learner / lesson / f"{lesson}.html").exists()
        if not (
            there
            and _disagreement(result, scores) == ""
            and gradebook.is_taken_in(course, lesson, item, feedback=options.feedback)
        ):
            wanted.append(item)
    if wanted:
        done = gradebook.take_in(
            course,
            lesson,
            course / WORK / "submitted",
            wanted,
            processes=options.jobs,
            feedback=options.feedback,
            grading=setting.grading,
            unsafe=options.unsafe,
        )
        by_learner = {result.submission.learner: result for result in results}
        for learner, failure in watched(done, len(wanted), "taken into the gradebook"):
            if failure:
                by_learner[learner].failure = failure
    scores = bridge.scores(api, lesson)
    for result in results:
        if result.entry is not None and (problem := _disagreement(result, scores)):
            gradebook.forget(course, lesson, result.submission.learner)
            result.failure = result.failure or problem
    return scores


def _disagreement(result: Result, scores: bridge.Scores) -> str:
    """Where the gradebook does not hold the verdict's points, or ""."""
    held = scores.get(result.submission.learner, {})
    assert result.entry is not None
    for name, check in result.entry.judgement.checks.items():
        auto, _ = held.get(name, (None, None))
        if name not in held or auto != check.points:
            return f"the gradebook holds {auto} for {name}, and the verdict is {check.points}"
    return ""


def _stamp(course: Path, lesson: str) -> str:
    """Changes when the gradebook and the feedback may show the same verdict in another way."""
    digest = hashlib.sha256(instructors_notebook(course, lesson).read_bytes())
    configuration = course / "nbgrader_config.py"
    if configuration.exists():
        digest.update(configuration.read_bytes())
    for path in sorted(Path(bridge.__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""
