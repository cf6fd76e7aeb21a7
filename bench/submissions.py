"""Grades the submissions of lesson 3 through the judge: `python -m bench.submissions` writes the table.

No wrong one may get the points of what it breaks, no right one may lose any; the table says what each was told.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import nbformat

import kernels
from autograder.judge.judge import Judge
from autograder.judge.judgement import CheckResult
from bench.submissions_03_build import LESSON, ROOT, Submission, lesson, submissions


def graded(judge: Judge, submission: Submission) -> CheckResult:
    """The verdict on the one test that a submission is about."""
    data = nbformat.writes(submission.notebook()).encode()
    return judge.judge(data, only=frozenset({submission.test})).checks[submission.test]


def is_as_wanted(submission: Submission, result: CheckResult) -> bool:
    if submission.misconception is None:
        return result.points == result.max_points
    return result.points == 0


def table(rows: list[tuple[Submission, CheckResult]], seconds: float) -> str:
    """Markdown: what was handed in, what it got, what was said."""
    wrong = [row for row in rows if row[0].misconception is not None]
    named = [row for row in wrong if row[1].misconception and row[1].misconception == row[0].misconception]
    kept = sum(is_as_wanted(*row) for row in wrong)
    right = [row for row in rows if row[0].misconception is None]
    lines = [
        f"# Submissions of lesson {LESSON}",
        "",
        f"Judged on {kernels.describe()} by `python -m bench.submissions`, hidden suites, in {seconds:.0f} s.",
        "",
        f"- {len(wrong)} wrong: {kept} get no points for what they break; {len(named)} ({100 * len(named) // len(wrong)} %) are told "
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
    parser = argparse.ArgumentParser(prog="python -m bench.submissions", description=__doc__)
    parser.add_argument("--out", type=Path, help="default: bench/results/submissions_03_build_{cpu,gpu}.md")
    parser.add_argument("--only", default="", help="submissions whose test or name holds this text")
    arguments = parser.parse_args()
    place = "cpu" if kernels.INTERPRET else "gpu"
    out = arguments.out or ROOT / "bench" / "results" / f"submissions_{LESSON}_{place}.md"
    chosen = [s for s in submissions() if arguments.only in f"{s.test} {s.name}"]
    started = time.monotonic()
    with Judge(lesson()) as judge:
        rows = []
        for submission in chosen:
            rows.append((submission, graded(judge, submission)))
            if not is_as_wanted(*rows[-1]):
                print(f"NOT AS WANTED: {submission.test} {submission.name}: {rows[-1][1]}", file=sys.stderr)
    out.write_text(table(rows, time.monotonic() - started), encoding="utf-8")
    print(out.read_text(encoding="utf-8").split("| test |")[0])
    return 0 if all(is_as_wanted(*row) for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
