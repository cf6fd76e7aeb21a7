"""`autograder replay`: draws the hidden cases of a verdict again and judges the same submission on them.

The journal keeps what was judged, and of the hidden cases a public number: with the instructor's secret they are drawn again
exactly. A verdict is the same when every test has the same points, status, message and misconception.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import nbformat

from autograder.grading.jobs import TIME_LIMIT, instructors_notebook
from autograder.grading.journal import Entry, Journal, read_entry, submission_key
from autograder.grading.judging import SECRET
from autograder.grading.secret import hidden_seed, read_or_make
from autograder.judge.judgement import CheckResult
from autograder.judge.rebuild import Unreadable, rebuild
from autograder.judge.sandbox import Limits, SandboxLost, SandboxUnavailable


class ReplayError(Exception):
    """There is no verdict to replay, or nothing to replay it with."""


def replay(
    course: Path, entry: Entry, submitted: bytes, *, unsafe: bool = False
) -> Iterator[tuple[str, CheckResult, CheckResult]]:
    """Judges a verdict's tests again on the hidden cases that it was reached on. Yields (test, result then, result now).

    submitted: the notebook file. Raises ReplayError, SandboxUnavailable, SandboxLost.
    """
    from autograder.judge.judge import Judge

    path = course / SECRET
    if not path.exists():
        raise ReplayError(f"{path} is missing: the hidden cases were drawn from it and cannot be drawn again")
    secret = read_or_make(path)
    notebook = nbformat.read(instructors_notebook(course, entry.lesson), as_version=4)
    tests: dict[int, list[str]] = {}
    for name in entry.judgement.checks:
        tests.setdefault(entry.grading_of(name), []).append(name)
    limits = replace(Limits(), total=TIME_LIMIT)
    for grading, names in tests.items():
        seed = hidden_seed(secret, entry.lesson, grading)
        with Judge(notebook, limits, seed=seed, unsafe=unsafe) as judge:
            judgement = judge.judge(submitted, only=frozenset(names))
        if judgement.refused:
            raise ReplayError(judgement.refused)
        for name in names:
            if name in judgement.checks:
                yield name, entry.judgement.checks[name], judgement.checks[name]


def same(then: CheckResult, now: CheckResult) -> bool:
    """Whether two results say the same; how long they took may differ."""
    return replace(then, seconds=0.0, verdicts=()) == replace(now, seconds=0.0, verdicts=())


def find(course: Path, words: list[str]) -> Entry:
    """The verdict that the arguments name: a file of the journal, or a learner and a lesson. Raises ReplayError."""
    if len(words) == 1:
        entry = read_entry(Path(words[0]))
        if entry is None:
            raise ReplayError(
                f"VERDICT: expected a file of the journal, .autograder/journal/LESSON/KEY.json, got {words[0]}"
            )
        return entry
    if len(words) != 2:
        raise ReplayError(
            f"VERDICT: expected a file of the journal, or LEARNER LESSON, got {' '.join(words)}"
        )
    learner, lesson = words
    path = course / ".autograder" / "submitted" / learner / lesson / f"{lesson}.ipynb"
    source = instructors_notebook(course, lesson)
    for needed, what in (
        (source, f"there is no lesson {lesson}"),
        (path, f"{learner} has no accepted submission for {lesson}"),
    ):
        if not needed.exists():
            raise ReplayError(f"{what}: {needed} is missing")
    key = submission_key(rebuild(nbformat.read(source, as_version=4), path.read_bytes()))
    entry = Journal(course, lesson).read(key)
    if entry is None:
        raise ReplayError(
            f"the journal has no verdict on what {learner} handed in last. It was not graded yet, or the lesson or the code "
            f"that judges has changed since; an older verdict is replayed by its file in {Journal(course, lesson).folder}"
        )
    return entry


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `autograder replay`."""
    add = parser.add_argument
    text = "a file of the journal (.autograder/journal/LESSON/KEY.json), or LEARNER LESSON"
    add("verdict", nargs="+", metavar="VERDICT", help=text)
    add("--notebook", type=Path, metavar="FILE", help="the submission; the copy in the journal by default")
    add(
        "--course-dir",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="nbgrader's course root (here by default)",
    )
    text = "without bubblewrap, run the learner's code as your own user"
    add("--unsafe", action="store_true", help=text)


def run(arguments: argparse.Namespace) -> int:
    """Does what `arguments` say. Returns 0 when the verdict is the same, 1 when it differs, 2 when it cannot be replayed."""
    course = arguments.course_dir.resolve()
    try:
        entry = find(course, arguments.verdict)
        path = arguments.notebook or Journal(course, entry.lesson).submission(entry.key)
        if not path.exists():
            raise ReplayError(f"{path} is missing: give the submission with --notebook FILE")
        submitted = path.read_bytes()
        source = instructors_notebook(course, entry.lesson)
        if not source.exists():
            raise ReplayError(f"there is no lesson {entry.lesson}: {source} is missing")
        key = submission_key(rebuild(nbformat.read(source, as_version=4), submitted))
        print(
            f"{entry.lesson}, grading {entry.grading}, {entry.moment}, {entry.device}, sandbox {entry.sandbox}"
        )
        if key != entry.key:
            print(
                "The submission, the lesson or the code that judges is not that of the verdict: it may differ for that."
            )
        differs = False
        for name, then, now in replay(course, entry, submitted, unsafe=arguments.unsafe):
            equal = same(then, now)
            differs = differs or not equal
            print(f"{name}: {'the same' if equal else 'DIFFERENT'}, {_shown(now)}")
            if not equal:
                print(f"  the verdict was {_shown(then)}")
        print("The verdict is not the same." if differs else "The verdict is the same.")
        return int(differs)
    except (ReplayError, SandboxUnavailable, SandboxLost, Unreadable, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2


def _shown(result: CheckResult) -> str:
    points = "no points" if result.points is None else f"{result.points:g} of {result.max_points:g}"
    message = result.message.strip().replace("\n", "\n    ")
    return f"{points}, {result.status}" + (f"\n    {message}" if message else "")
