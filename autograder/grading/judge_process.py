"""`python -m autograder.grading.judge_process SETTING`: judges the submissions that it is told on standard input.

It keeps one warm judge. The verdicts go into the journal; the answer to `{"submitted", "only"}` is `{"failure"}`, with why
there is no verdict, or "".
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from autograder import line_process
from autograder.grading.jobs import Job, Setting, open_judging
from autograder.grading.judging import Judging
from autograder.judge.rebuild import Unreadable
from autograder.judge.sandbox import SandboxLost, SandboxUnavailable


def command(setting: Setting) -> list[str]:
    """The command that starts this process."""
    text = json.dumps({**asdict(setting), "course": str(setting.course.resolve())})
    return line_process.command("autograder.grading.judge_process", text)


def question(job: Job) -> dict[str, Any]:
    """What this process is asked for a job."""
    only = None if job.only is None else sorted(job.only)
    return {"submitted": str(job.submitted.resolve()), "only": only}


def main() -> int:
    found = json.loads(sys.argv[1])
    setting = Setting(**{**found, "course": Path(found["course"])})
    with line_process.answering() as (questions, answers), open_judging(setting) as judging:
        for asked in questions:
            print(json.dumps({"failure": _failure(judging, asked)}), file=answers, flush=True)
    return 0


def _failure(judging: Judging, asked: dict[str, Any]) -> str:
    only = None if asked["only"] is None else frozenset(asked["only"])
    try:
        entry = judging.verdict(Path(asked["submitted"]).read_bytes(), only=only)
    except (SandboxLost, SandboxUnavailable, Unreadable, OSError) as error:
        return str(error)
    prevented = [result.message for result in entry.judgement.checks.values() if result.points is None]
    if not prevented and any(entry.grading_of(name) != judging.grading for name in only or ()):
        return "not judged again, for the machine's sake; the earlier verdict stays"
    return prevented[0] if prevented else ""


if __name__ == "__main__":
    sys.exit(main())
