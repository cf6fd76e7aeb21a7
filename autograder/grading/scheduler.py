"""`autograder grade --scheduler ADDRESS`: the same jobs, judged by the machines of a Dask cluster.

A machine of the cluster needs this environment and a sandbox, and no folder of the course: a task brings the instructor's
notebook, the hidden seed and one submission, and takes the verdict back; the machine that grades writes the journal. All of
that crosses the network, so it has to be a trusted one, or the cluster one with TLS (docs/grading.md).

A worker that dies costs the submission that it was judging one of its two attempts, and no other submission anything. Dask
alone would blame whatever waited there, and try a submission that kills its machine on four of them.
"""

from __future__ import annotations

import base64
import json
import logging
import secrets
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from tempfile import TemporaryDirectory
from typing import Any

from autograder.grading.jobs import Done, Job, Setting, instructors_notebook
from autograder.grading.journal import Entry, Journal, read_entry
from autograder.grading.judge_here import OVERHEAD
from autograder.grading.judging import SECRET
from autograder.grading.secret import hidden_seed, read_or_make
from autograder.line_process import Ended, LineProcess, environment

ATTEMPTS = 2  # of which each ended with a failure of a machine
SENDINGS = 10  # of a job whose workers died before they began with it
FAILURES = 3  # in a row, after which a worker is given nothing more while there are others
PATIENCE = 60.0  # seconds without any worker
CONNECT = 30.0  # seconds for the scheduler to answer
GPU = "GPU"  # the resource that a worker with a GPU says it has: dask worker --resources "GPU=1"


class ClusterError(Exception):
    """The cluster cannot be used. The text says what to do."""


def judge_on_cluster(
    address: str, setting: Setting, jobs: list[Job], *, gpus: bool = False, patience: float = PATIENCE
) -> Iterator[Done]:
    """Judges each job on a machine of the cluster; yields what came of it as soon as it is in the journal.

    address: of Dask's scheduler, "tcp://HOST:8786" or "tls://HOST:8786". gpus: only on workers with a GPU, one submission
    on each. patience: how many seconds to wait for a worker where there is none. Raises ClusterError.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise ClusterError(
            f"--scheduler needs Dask: pip install -c constraints.txt -e '.[cluster]' ({error})"
        ) from None
    for name in (
        "distributed",
        "distributed.client",
    ):  # what matters of their log is said here, in a sentence
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        client = Client(address, timeout=CONNECT, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ClusterError(f"--scheduler: no Dask scheduler answers at {address}: {error}") from None
    with client:
        try:
            yield from _Grading(client, setting, jobs, gpus, patience).run()
        except OSError as error:
            raise ClusterError(
                f"the connection to {address} was lost ({error}). What was judged is in the journal: grade again."
            ) from None


@dataclass
class _Sent:
    """A job and what has become of it so far. only: the tests that are still to be judged. bad: workers on which it failed."""

    job: Job
    only: frozenset[str] | None
    token: str = field(default_factory=lambda: secrets.token_hex(8))
    num_sendings: int = 0
    num_starts: int = 0
    num_attempts: int = 0
    bad: set[str] = field(default_factory=set)


class _Grading:
    """One run over a cluster. Everything here runs in the thread that asks for the results."""

    def __init__(self, client: Any, setting: Setting, jobs: list[Job], gpus: bool, patience: float) -> None:
        self._client, self._gpus, self._patience = client, gpus, patience
        self._journal = Journal(setting.course, setting.lesson)
        secret = read_or_make(setting.course / SECRET)
        self._setting = {
            "lesson": setting.lesson,
            "grading": setting.grading,
            "unsafe": setting.unsafe,
            "time_limit": setting.time_limit,
            "seed": hidden_seed(secret, setting.lesson, setting.grading),
            "notebook": instructors_notebook(setting.course, setting.lesson).read_text(encoding="utf-8"),
        }
        self._topic = f"judging-{secrets.token_hex(8)}"  # of the events that say which job has begun
        self._waiting = deque(_Sent(job, job.only) for job in jobs)
        self._running: dict[Any, _Sent] = {}
        self._finished: SimpleQueue[Any] = SimpleQueue()
        self._failures: Counter[str] = Counter()  # of each worker, since its last verdict

    def run(self) -> Iterator[Done]:
        # A worker's death ends what it held; what is to be tried again is decided here, where it is known what had begun.
        self._client.run_on_scheduler(_allow_no_failures)
        seen = time.monotonic()
        while self._waiting or self._running:
            slots = self._slots()
            if slots:
                seen = time.monotonic()
            elif time.monotonic() - seen > self._patience:
                yield from self._give_up()
                return
            while self._waiting and len(self._running) < sum(slots.values()):
                self._send(self._waiting.popleft(), slots)
            try:
                future = self._finished.get(timeout=1.0)
            except Empty:
                continue
            done = self._take(self._running.pop(future), future)
            if done is not None:
                yield done

    def _slots(self) -> dict[str, int]:
        """Worker -> how many submissions it judges at a time, without the workers that only fail."""
        slots = {}
        for address, worker in self._client.scheduler_info()["workers"].items():
            number = worker["resources"].get(GPU, 0) if self._gpus else worker["nthreads"]
            if number >= 1:
                slots[address] = int(number)
        good = {address: number for address, number in slots.items() if self._failures[address] < FAILURES}
        return good or slots

    def _send(self, sent: _Sent, slots: dict[str, int]) -> None:
        job = sent.job
        path = self._journal.path(job.key)
        question = {
            "setting": self._setting,
            "key": job.key,
            "submitted": base64.b64encode(job.submitted.read_bytes()).decode("ascii"),
            "only": None if sent.only is None else sorted(sent.only),
            "verdict": path.read_text(encoding="utf-8") if path.exists() else None,
        }
        sent.num_sendings += 1
        future = self._client.submit(
            judge_in_worker,
            json.dumps(question),
            self._topic,
            sent.token,
            key=f"judge-{job.key[:12]}-{sent.token}-{sent.num_sendings}",
            pure=False,
            workers=[address for address in slots if address not in sent.bad] or list(slots),
            allow_other_workers=True,
            resources={GPU: 1} if self._gpus else None,
        )
        self._running[future] = sent
        future.add_done_callback(self._finished.put)

    def _take(self, sent: _Sent, future: Any) -> Done | None:
        """What came of a job, its verdict in the journal; None where it is to be tried once more."""
        worker, verdict, failure, had_begun = self._result(sent, future)
        future.release()
        entry = None if verdict is None else self._entry(sent.job, verdict)
        if not failure and entry is None:
            failure = "its answer is no verdict on this submission"
        if worker:
            self._failures[worker] = self._failures[worker] + 1 if failure else 0
        if entry is not None:
            self._journal.write(entry, sent.job.submitted.read_bytes())
            checks = entry.judgement.checks
            sent.only = frozenset(name for name, result in checks.items() if result.points is None)
        if not failure:
            return Done(sent.job, entry)
        where = f" (on {worker})" if worker else ""
        sent.num_attempts += had_begun
        if sent.num_attempts < ATTEMPTS and sent.num_sendings < SENDINGS:
            sent.bad.add(worker)
            self._waiting.append(sent)
            return None
        return Done(sent.job, self._journal.read(sent.job.key), f"{failure}{where}")

    def _result(self, sent: _Sent, future: Any) -> tuple[str, str | None, str, bool]:
        """The worker's address, the verdict's text or None, a failure or "", and whether judging had begun."""
        from distributed import KilledWorker

        try:
            found = future.result()
        except KilledWorker as error:
            events = self._client.get_events(self._topic) or ()
            starts = sum(message["token"] == sent.token for _, message in events)
            had_begun = starts > sent.num_starts  # otherwise it only waited there
            sent.num_starts = starts
            failure = "the worker died while it judged this submission"
            return error.last_worker.address, None, failure, had_begun
        except (OSError, CancelledError) as error:
            raise OSError("its scheduler ended") from error
        except Exception as error:  # whatever a worker with another environment comes up with
            return "", None, f"{type(error).__name__}: {error}", True
        sent.num_starts += 1
        return found["worker"], found["verdict"], found["failure"], True

    def _entry(self, job: Job, verdict: str) -> Entry | None:
        with TemporaryDirectory() as folder:
            path = Path(folder) / "verdict"
            path.write_text(verdict, encoding="utf-8")
            entry = read_entry(path)
        return entry if entry is not None and entry.key == job.key else None

    def _give_up(self) -> Iterator[Done]:
        what = f"worker with --resources {GPU}=1" if self._gpus else "worker"
        failure = f"the cluster had no {what} for {self._patience:.0f} s"
        for sent in [*self._running.values(), *self._waiting]:
            yield Done(sent.job, self._journal.read(sent.job.key), failure)


def _allow_no_failures(dask_scheduler: Any) -> None:
    dask_scheduler.allowed_failures = 0


# --- In a worker of the cluster ---------------------------------------------------------------------------------------

# A worker's tasks run in threads, which come and go; the judge is in a process, whose death costs the worker nothing.
_idle: SimpleQueue[LineProcess] = SimpleQueue()


def judge_in_worker(question: str, topic: str, token: str) -> dict[str, Any]:
    """Judges one submission; the answer of `autograder.grading.cluster_process`, and which worker this was."""
    from distributed import get_worker

    worker = get_worker()
    asked = json.loads(question)
    worker.log_event(topic, {"token": token, "job": asked["key"], "worker": worker.address})
    try:
        process = _idle.get_nowait()
    except Empty:
        command = [sys.executable, "-m", "autograder.grading.cluster_process"]
        process = LineProcess("judging", command, environment(worker.state.nthreads))
    try:
        answer: dict[str, Any] = process.ask(asked, asked["setting"]["time_limit"] + OVERHEAD)
    except Ended as ended:
        answer = {"verdict": None, "failure": str(ended)}
    if answer["failure"]:
        process.stop()  # and its sandbox: the next submission gets a new one
    _idle.put(process)
    return {**answer, "worker": worker.address}
