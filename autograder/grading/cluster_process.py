"""`python -m autograder.grading.cluster_process`: judges submissions on a machine that has no course.

A Dask worker starts it (`autograder.grading.scheduler`) and tells it on standard input all that a verdict takes: the
instructor's notebook, the seed of the hidden cases, a submission, and the verdict that the journal has on it. It keeps one warm
judge, and a journal of its own in a temporary folder, from which the new verdict goes back.
"""

from __future__ import annotations

import base64
import json
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat

from autograder.grading.journal import submission_key, write_whole
from autograder.grading.judging import Judging
from autograder.judge.rebuild import Unreadable, rebuild
from autograder.judge.sandbox import Limits, SandboxLost, SandboxUnavailable
from autograder.line_process import answering


def main() -> int:
    opened: dict[str, Any] | None = None
    with answering() as (questions, answers), ExitStack() as stack:
        for asked in questions:
            if asked["setting"] != opened:
                stack.close()
                judging = _open(asked["setting"], stack)
                opened = asked["setting"]
            print(json.dumps(_answer(judging, asked)), file=answers, flush=True)
    return 0


def _open(setting: dict[str, Any], stack: ExitStack) -> Judging:
    course = Path(stack.enter_context(TemporaryDirectory(prefix="autograder-")))
    judging = Judging(
        course,
        setting["lesson"],
        nbformat.reads(setting["notebook"], as_version=4),
        setting["grading"],
        unsafe=setting["unsafe"],
        limits=replace(Limits(), total=setting["time_limit"]),
        seed=setting["seed"],
    )
    return stack.enter_context(judging)


def _answer(judging: Judging, asked: dict[str, Any]) -> dict[str, Any]:
    """The verdict as the journal writes it, None where there is none, and why not all of it was judged, or ""."""
    submitted = base64.b64decode(asked["submitted"])
    journal, key = judging.journal, asked["key"]
    only = None if asked["only"] is None else frozenset(asked["only"])
    try:
        if submission_key(rebuild(judging.notebook, submitted)) != key:
            return {
                "verdict": None,
                "failure": "its checks are not those of the machine that grades: install the same commit",
            }
        if asked["verdict"] is not None:
            journal.folder.mkdir(parents=True, exist_ok=True)
            write_whole(journal.path(key), asked["verdict"])
        entry = judging.verdict(submitted, only=only)
        prevented = [result.message for result in entry.judgement.checks.values() if result.points is None]
        verdict = journal.path(key).read_text(encoding="utf-8")
        return {"verdict": verdict, "failure": prevented[0] if prevented else ""}
    except (SandboxLost, SandboxUnavailable, Unreadable, OSError) as error:
        return {"verdict": None, "failure": str(error)}
    finally:
        for path in (journal.path(key), journal.submission(key)):
            path.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
