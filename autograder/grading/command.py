"""The arguments of `autograder grade`, and what is done with them."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from autograder.grading.grade import TABLE, GradingError, Judge, Options, grade_lesson
from autograder.grading.jobs import TIME_LIMIT
from autograder.grading.scheduler import ClusterError, judge_on_cluster
from autograder.grading.table import Row
from autograder.judge.judgement import INFRASTRUCTURE

MOST_JOBS = 8  # by default: each takes up to 2 GB


def default_jobs() -> int:
    """One submission for each core, at most eight."""
    return min(len(os.sched_getaffinity(0)), MOST_JOBS)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `autograder grade`."""
    add = parser.add_argument
    add("lessons", nargs="*", metavar="LESSON", help="such as 01_warm_up; all in source/ by default")
    text = "nbgrader's course root, where it is not the current folder"
    add("--course-dir", type=Path, metavar="DIR", help=text)
    text = "grade DIR/LEARNER/LESSON/LESSON.ipynb, in place of the course's own submitted/"
    add("--submissions", type=Path, metavar="DIR", help=text)
    add(
        "--jobs",
        type=int,
        default=default_jobs(),
        metavar="N",
        help="submissions at a time (here %(default)s)",
    )
    add("--out", type=Path, metavar="FILE", help="write every verdict as JSON; takes one LESSON")
    text = "judge this learner again, and nobody else; may be given several times"
    add("--learner", action="append", default=[], metavar="NAME", help=text)
    text = "judge this exercise (its grade id) again; may be given several times; takes one LESSON"
    add("--exercise", action="append", default=[], metavar="ID", help=text)
    add("--force", action="store_true", help="judge everything again")
    text = "without bubblewrap, run learners' code as your own user; the verdicts say so"
    add("--unsafe", action="store_true", help=text)
    text = "no nbgrader: only verdicts, the table and --out"
    add("--no-gradebook", dest="gradebook", action="store_false", help=text)
    add("--no-feedback", dest="feedback", action="store_false", help="write no feedback pages")
    text = "seconds that one submission's code may run (%(default)g)"
    add("--time-limit", type=float, default=TIME_LIMIT, metavar="S", help=text)
    text = "judge on the Dask cluster of this scheduler, tcp://HOST:8786 or tls://HOST:8786 (docs/grading.md)"
    add("--scheduler", metavar="ADDRESS", help=text)
    text = "with --scheduler: only on workers with a GPU, one submission on each"
    add("--gpus", action="store_true", help=text)
    text = "make a sample class in build/sample_class and grade that"
    add("--sample-class", action="store_true", help=text)


def run(arguments: argparse.Namespace) -> int:
    """Does what `arguments` say.

    Returns 0 when every learner has a verdict or is refused with a reason, 1 when a lesson could not be graded or the machine
    kept a verdict from falling, 2 for arguments that make no sense, 130 after Ctrl-C.
    """
    if arguments.jobs < 1:
        return _refuse(f"--jobs: expected at least 1, got {arguments.jobs}")
    if not arguments.time_limit > 0:
        return _refuse(f"--time-limit: expected more than 0 seconds, got {arguments.time_limit:g}")
    if arguments.submissions is not None and not arguments.submissions.is_dir():
        return _refuse(f"--submissions: {arguments.submissions} is not a folder")
    if arguments.gpus and arguments.scheduler is None:
        return _refuse("--gpus: expected --scheduler ADDRESS with it")
    course = arguments.course_dir or Path()
    if arguments.sample_class:
        from autograder.grading import sample_class

        course = sample_class.make()
    if not course.is_dir():
        return _refuse(f"--course-dir: {course} is not a folder")
    options = Options(
        submissions=arguments.submissions and arguments.submissions.resolve(),
        jobs=arguments.jobs,
        force=arguments.force,
        learners=tuple(arguments.learner),
        exercises=tuple(arguments.exercise),
        unsafe=arguments.unsafe,
        into_gradebook=arguments.gradebook,
        feedback=arguments.feedback,
        time_limit=arguments.time_limit,
        out=arguments.out and arguments.out.resolve(),
        judge=_on_cluster(arguments.scheduler, gpus=arguments.gpus) if arguments.scheduler else None,
    )
    os.chdir(course)
    lessons = arguments.lessons or sorted({path.stem for path in Path("source").glob("[0-9]*")})
    if not lessons:
        return _refuse(
            f"--course-dir: expected a course with lessons, got {course}: {Path('source').resolve()} has none"
        )
    for given, name in ((options.out, "--out"), (options.exercises, "--exercise")):
        if given and len(lessons) > 1:
            return _refuse(f"{name}: expected one LESSON, got {', '.join(lessons)}")
    try:
        return _grade(lessons, options)
    except KeyboardInterrupt:
        again = f"autograder grade --course-dir {course}" if arguments.sample_class else "the same command"
        print(f"\nstopped; {again} goes on where it was", file=sys.stderr)
        return 130


def _grade(lessons: list[str], options: Options) -> int:
    rows: list[Row] = []
    status = 0
    for lesson in lessons:
        try:
            rows += grade_lesson(lesson, options)
        except (GradingError, ClusterError) as error:
            print(f"{lesson}: {error}", file=sys.stderr)
            status = 1
    if rows:
        learners = {row.learner for row in rows}
        print(f"{len(learners)} learners, {len(rows)} results: {TABLE.resolve()}")
    prevented = {row.learner for row in rows if row.status == INFRASTRUCTURE}
    if prevented:
        names = ", ".join(sorted(prevented))
        print(
            f"not graded for the machine's sake: {names}. Run it again, without --force, --learner or --exercise: only these are "
            "judged.",
            file=sys.stderr,
        )
        status = 1
    return status


def _on_cluster(address: str, *, gpus: bool) -> Judge:
    return lambda setting, jobs: judge_on_cluster(address, setting, jobs, gpus=gpus)


def _refuse(message: str) -> int:
    print(message, file=sys.stderr)
    return 2
