"""`python -m autograder.mistake_process`: runs known mistakes where they cannot break the process that asks.

On a GPU a wrong kernel may read where nothing is, and then its process cannot use the GPU any more: the notebook's, or the
judge's. So it runs here, in code of ours alone, and its outcome goes back. A process that a mistake broke, ended or kept busy
for too long is replaced for the next one.
"""

from __future__ import annotations

import base64
import copy
import functools
import json
import os
import pickle
import pkgutil
import signal
import threading
from dataclasses import asdict, dataclass
from typing import Any

from autograder import line_process
from autograder.line_process import Ended, LineProcess
from autograder.outcome import Outcome, outcome_of
from autograder.registry import Check
from autograder.suite import Case, Suite

START_SECONDS = 180.0
ATTEMPTS = 3  # in a row that may fail for the machine's sake; each costs seconds, and a verdict does without


@dataclass(frozen=True)
class Question:
    """Which mistake on which case. find: "module:function", which gives a check by its name."""

    find: str
    check: str
    suite: str
    seed: int
    misconception: str
    case: int


class MistakeProcess:
    """Asks such a process; it is started for the first question."""

    def __init__(self, seconds: float) -> None:
        """seconds: for one mistake on one case, compiling its kernel included."""
        command = line_process.command("autograder.mistake_process")
        self._process = LineProcess("mistakes'", command, line_process.environment(os.cpu_count() or 1))
        self._seconds = seconds
        self._warm = False
        self._failed = 0
        self._lock = threading.Lock()
        self.started = 0

    def ask(self, question: Question) -> Outcome | None:
        """The outcome, an empty one where the mistake has none (it ends its process), None where it cannot be had here."""
        with self._lock:
            try:
                return self._ask(question)
            except BaseException:  # interrupted: its answer would be taken for the next question's
                self._stop()
                raise

    def close(self) -> None:
        self._process.close()
        self._warm, self._failed = False, ATTEMPTS

    def _ask(self, question: Question) -> Outcome | None:
        if self._failed >= ATTEMPTS or not self._start():
            return None
        try:
            answer = self._process.ask(asdict(question), self._seconds)
        except Ended:
            self._stop()
            return Outcome()
        if not answer["usable"]:
            self._stop()
        if answer["outcome"] is None:
            self._failed += 1
            return None
        self._failed = 0
        try:
            outcome: Outcome = pickle.loads(base64.b64decode(answer["outcome"]))  # from our own code
        except RuntimeError:  # a tensor for a GPU that this process has lost
            return None
        return outcome

    def _start(self) -> bool:
        if not self._warm:
            try:
                self._process.ask(None, START_SECONDS)
                self._warm = True
                self.started += 1
            except Ended:
                self._failed += 1
        return self._warm

    def _stop(self) -> None:
        self._process.stop()
        self._warm = False


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # meant for the notebook, whose group this process is in
    with line_process.answering() as (questions, answers):
        for asked in questions:
            answer = {} if asked is None else _answer(Question(**asked))
            print(json.dumps(answer), file=answers, flush=True)


def _answer(question: Question) -> dict[str, Any]:
    """outcome: pickled, which makes copies of tensors, on a GPU too; None where there is none for the machine's sake.

    usable: whether this process can go on.
    """
    from autograder.judge import gpu

    try:
        check, cases = _drawn(question.find, question.check, question.suite, question.seed)
        (mistake,) = (each for each in check.misconceptions if each.name == question.misconception)
        # As in the judge: what it writes into its inputs is gone for the next mistake.
        case = Case(cases[question.case].label, copy.deepcopy(cases[question.case].inputs))
    except RuntimeError:  # no memory on the GPU, or no GPU
        return {"outcome": None, "usable": gpu.trouble() is None}
    outcome = outcome_of(check, check.complete(mistake.parts), case).compact()
    usable = gpu.trouble() is None
    if "OutOfMemoryError" in outcome.obstacle:  # others have the memory now; that says nothing of the mistake
        return {"outcome": None, "usable": usable}
    return {"outcome": base64.b64encode(pickle.dumps(outcome)).decode(), "usable": usable}


@functools.lru_cache(maxsize=2)
def _drawn(find: str, name: str, suite: str, seed: int) -> tuple[Check, list[Case]]:
    check: Check = pkgutil.resolve_name(find)(name)
    return check, check.cases(Suite(suite, seed))


if __name__ == "__main__":
    main()
