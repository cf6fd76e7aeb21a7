"""Grades a lesson's submissions through the judge: `python -m bench.grading.submissions 03_build` writes the table.

No wrong one may get the points of what it breaks, no right one may lose any; the table says what each was told.
"""

from __future__ import annotations

import argparse
import atexit
import multiprocessing
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path

import nbformat

import kernels
from autograder import registry
from autograder.judge.judge import Judge
from autograder.judge.judgement import CheckResult
from bench.grading import submissions_03_build, submissions_04_design
from bench.grading.submission import ROOT, Submission, lesson

LESSONS = {each.LESSON: each.submissions for each in (submissions_03_build, submissions_04_design)}


@cache
def warm_judge(lesson_name: str) -> Judge:
    """This process's judge; its sandbox ends with the process."""
    judge = Judge(lesson(lesson_name))
    atexit.register(judge.close)
    return judge


def graded(lesson_name: str, submission: Submission) -> CheckResult:
    """The verdict on the one test that a submission is about."""
    data = nbformat.writes(submission.notebook).encode()
    judged = warm_judge(lesson_name).judge(data, only=frozenset({submission.test}), to_the_end=False)
    return judged.checks[submission.test]


def all_graded(
    lesson_name: str, submissions: list[Submission], jobs: int
) -> Iterator[tuple[Submission, CheckResult]]:
    """In their order, judged in that many processes."""
    # A forked process could not use the GPU.
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        results = pool.map(graded, [lesson_name] * len(submissions), submissions)
        yield from zip(submissions, results, strict=True)


def is_as_wanted(submission: Submission, result: CheckResult) -> bool:
    if submission.misconception is None:
        return result.points == result.max_points
    if registry.get(submission.test).partial:  # each case is a point, and a mistake shows in some of them
        return result.points < result.max_points
    return result.points == 0


def table(
    lesson_name: str, rows: list[tuple[Submission, CheckResult]], num_chosen: int, seconds: float
) -> str:
    """Markdown: what was handed in, what it got, what was said. A run that is cut short leaves what it has."""
    wrong = [row for row in rows if row[0].misconception is not None]
    named = [row for row in wrong if row[1].misconception and row[1].misconception == row[0].misconception]
    kept = sum(is_as_wanted(*row) for row in wrong)
    right = [row for row in rows if row[0].misconception is None]
    lines = [
        f"# Submissions of lesson {lesson_name}",
        "",
        f"Judged on {kernels.describe()} by `python -m bench.grading.submissions {lesson_name}`, hidden suites, {len(rows)} of "
        f"{num_chosen} submissions in {seconds:.0f} s.",
        "",
        f"- {len(wrong)} wrong: {kept} lose the points of what they break; {len(named)} ({100 * len(named) // max(1, len(wrong))} %) are told "
        "their mistake by name.",
        f"- {len(right)} right by other roads: {sum(is_as_wanted(*row) for row in right)} lose nothing.",
        "",
        "| test | submission | points | told |",
        "| --- | --- | --- | --- |",
    ]
    for submission, result in rows:
        kind = "" if submission.misconception is not None else "right: "
        told = result.misconception or result.message.splitlines()[0].removeprefix("✗ ").replace("|", "\\|")
        lines.append(
            f"| {submission.test} | {kind}{submission.name} | {result.points:g} of {result.max_points:g} | {told} |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.grading.submissions", description=__doc__)
    parser.add_argument("lesson", choices=LESSONS)
    parser.add_argument("--out", type=Path, help="default: bench/results/submissions_LESSON_{cpu,gpu}.md")
    parser.add_argument(
        "--only", nargs="*", default=[""], help="submissions whose test or name holds one of these texts"
    )
    parser.add_argument("--jobs", type=int, default=1, help="processes that judge side by side")
    arguments = parser.parse_args()
    place = "cpu" if kernels.INTERPRET else "gpu"
    out = arguments.out or ROOT / "bench" / "results" / f"submissions_{arguments.lesson}_{place}.md"
    chosen = [
        s for s in LESSONS[arguments.lesson]() if any(text in f"{s.test} {s.name}" for text in arguments.only)
    ]
    chosen.sort(
        key=lambda submission: submission.misconception is not None
    )  # a run that is cut short has the right ones
    started = time.monotonic()
    rows = []
    for row in all_graded(arguments.lesson, chosen, arguments.jobs):
        rows.append(row)
        out.write_text(
            table(arguments.lesson, rows, len(chosen), time.monotonic() - started), encoding="utf-8"
        )
        if not is_as_wanted(*row):
            print(f"NOT AS WANTED: {row[0].test} {row[0].name}: {row[1]}", file=sys.stderr, flush=True)
    print(out.read_text(encoding="utf-8").split("| test |")[0])
    return 0 if all(is_as_wanted(*row) for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
