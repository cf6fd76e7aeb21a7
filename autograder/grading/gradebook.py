"""Takes verdicts from the journal into nbgrader's gradebook, with nbgrader's own autograde and feedback for each learner.

nbgrader's plug-ins find the verdict in the journal and judge nothing. A record of what was taken in lets the next run leave
alone what has not changed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from autograder.grading.journal import Entry, write_whole
from autograder.line_process import Ended, LineProcess, command, environment

RECORDS = Path(".autograder") / "graded"  # in the course's root
ATTEMPTS = 2
TIME_LIMIT = 300.0  # seconds for one learner; nothing of theirs runs
MOST_PROCESSES = 4  # more do not help one SQLite gradebook


@dataclass(frozen=True)
class Import:
    """A learner whose verdict is to be taken in. digest: of all that the gradebook and the feedback show of it."""

    learner: str
    digest: str


def digest_of(stamp: str, submission: str, entry: Entry) -> str:
    """Changes with what the gradebook and the feedback show of a verdict.

    stamp: of the lesson, the configuration and the plug-ins. submission: of the clean copy, explanations and date included.
    """
    judgement = entry.judgement.to_json()
    for timed in (judgement, *judgement["checks"].values()):
        del timed["seconds"]
    return hashlib.sha256(json.dumps([stamp, submission, judgement]).encode()).hexdigest()


def is_taken_in(course: Path, lesson: str, wanted: Import, *, feedback: bool) -> bool:
    """Whether the record says that this very verdict was taken in, and its feedback written if that is wanted."""
    try:
        found = json.loads(_record(course, lesson, wanted.learner).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if not isinstance(found, dict) or found.get("digest") != wanted.digest:
        return False
    return bool(found.get("feedback")) or not feedback


def forget(course: Path, lesson: str, learner: str) -> None:
    """The next run takes the learner's verdict in again."""
    _record(course, lesson, learner).unlink(missing_ok=True)


def take_in(
    course: Path,
    lesson: str,
    accepted: Path,
    wanted: list[Import],
    *,
    processes: int,
    feedback: bool,
    grading: int,
    unsafe: bool,
) -> Iterator[tuple[str, str]]:
    """Takes each verdict in, several at a time. Yields (learner, what went wrong or "") as they are done."""
    processes = min(processes, len(wanted), MOST_PROCESSES)
    surroundings = environment(
        max(1, processes),
        AUTOGRADER_GRADING=str(grading),
        AUTOGRADER_UNSAFE="1" if unsafe else "0",
        AUTOGRADER_FEEDBACK="1" if feedback else "0",
    )
    line = command("autograder.nbgrader_bridge", lesson, str(accepted))
    idle: SimpleQueue[LineProcess] = SimpleQueue()
    started = [LineProcess("nbgrader", line, surroundings) for _ in range(processes)]
    for process in started:
        idle.put(process)

    def one(item: Import) -> tuple[str, str]:
        forget(course, lesson, item.learner)
        process = idle.get()
        try:
            failure, step = _ask(process, item.learner)
        finally:
            idle.put(process)
        if not failure or step == "feedback":
            record = _record(course, lesson, item.learner)
            record.parent.mkdir(parents=True, exist_ok=True)
            written = {"digest": item.digest, "feedback": feedback and not failure}
            write_whole(record, json.dumps(written) + "\n")
        return item.learner, failure

    pool = ThreadPoolExecutor(max(1, processes))
    try:
        for future in as_completed([pool.submit(one, item) for item in wanted]):
            yield future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in started:
            process.close()
        pool.shutdown()


def _ask(process: LineProcess, learner: str) -> tuple[str, str]:
    """What went wrong, or "", and in which step. What fails for the machine's sake, a busy gradebook say, is tried twice."""
    failure, step = "", ""
    for _ in range(ATTEMPTS):
        try:
            result: dict[str, Any] = process.ask(learner, TIME_LIMIT)
        except Ended as ended:
            result = {"ok": False, "step": "the import", "log": str(ended)}
        if result["ok"]:
            return "", ""
        step = result["step"]
        failure = f"nbgrader's {step} failed: {_telling(result['log'])}"
    return failure, step


def _telling(log: str) -> str:
    """The line of nbgrader's log that says most: a traceback's last, "module.SomeError: what happened"."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"[\w.]+(Error|Exception): ", line)]
    causes = [line for line in errors if "NbGraderException" not in line]
    return (causes or errors or lines or ["no reason was given"])[-1][:300]


def _record(course: Path, lesson: str, learner: str) -> Path:
    return course / RECORDS / lesson / f"{learner}.json"
