"""Grading on a Dask cluster of two worker processes, whose deaths cost nobody anything."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pytest

from autograder.grading.jobs import Done, Job, Setting, open_judging
from autograder.grading.journal import Entry, Journal, submission_key
from autograder.grading.scheduler import ClusterError, _Grading, judge_on_cluster
from autograder.judge.judgement import CheckResult, Judgement
from autograder.judge.rebuild import rebuild
from autograder.judge.sandbox import why_unavailable

distributed = pytest.importorskip("distributed", reason="needs Dask: pip install -e '.[cluster]'")

pytestmark = pytest.mark.xdist_group("dask")  # one cluster for all of them

LESSON = "01_tiny"
SLEEPY = "import time\n\n\ndef triple(x):\n    time.sleep(1.5)\n    return 3 * x"
ANSWERS = {
    "right": {},
    "wrong": {"double_code": "def double(x):\n    return 4"},
    "crashes": {"triple_code": "import os\n\n\ndef triple(x):\n    os._exit(3)"},
    "sleepy": {"triple_code": SLEEPY},
    "stub": {"double_code": "def double(x):\n    raise NotImplementedError"},
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a scheduler with two workers of one thread each, started as docs/grading.md says."""
    if (reason := why_unavailable()) is not None:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("dask")
    found = folder / "scheduler.json"
    base = [sys.executable, "-m", "dask"]
    common = ["--scheduler-file", str(found), "--no-dashboard"]
    host = ["--host", "127.0.0.1"]
    commands = [[*base, "scheduler", "--port", "0", *host, *common]] + [
        [*base, "worker", *common, "--nthreads", "1", "--local-directory", str(folder), *host]
    ] * 2
    with ExitStack() as stack:
        for command in commands:
            process = subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL, start_new_session=True)
            stack.callback(_end, process)
        with distributed.Client(scheduler_file=str(found), timeout=60, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
            address: str = client.scheduler.address
        yield address


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def jobs(tiny_course: Any) -> dict[str, Job]:
    """A job for each of the answers, by name."""
    made = {}
    with open_judging(_setting(tiny_course.root)) as judging:
        for name, answers in ANSWERS.items():
            path = tiny_course.submit(name, **answers) / f"{LESSON}.ipynb"
            made[name] = Job(submission_key(rebuild(judging.notebook, path.read_bytes())), path)
    return made


def _setting(course: Path) -> Setting:
    return Setting(course, LESSON, grading=7)


def _results(done: list[Done], jobs: dict[str, Job]) -> dict[str, Any]:
    """Name -> what the judge said, without how long it took; the failure where there is no verdict."""
    names = {job.key: name for name, job in jobs.items()}
    found: dict[str, Any] = {}
    for each in done:
        assert names[each.job.key] not in found
        if each.failure:
            found[names[each.job.key]] = each.failure
        else:
            assert each.entry is not None
            checks = each.entry.judgement.checks.items()
            found[names[each.job.key]] = {n: (r.points, r.status, r.message) for n, r in checks}
    return found


def _here(course: Path, jobs: dict[str, Job]) -> dict[str, Any]:
    """The same from this process, in a journal that is removed again."""
    with open_judging(_setting(course)) as judging:
        done = [Done(job, judging.verdict(job.submitted.read_bytes())) for job in jobs.values()]
    journal = Journal(course, LESSON)
    for job in jobs.values():
        journal.path(job.key).unlink()
    return _results(done, jobs)


@contextmanager
def _killing(address: str, job: Job, times: int) -> Iterator[Counter[str]]:
    """Kills the worker process that begins with `job`, up to so many times. Yields how often each job has begun."""
    starts: Counter[str] = Counter()
    over = threading.Event()

    def watch() -> None:
        with distributed.Client(address, set_as_default=False) as client:
            before = _starts(client)
            killed = 0
            while not over.wait(0.1):
                new = _starts(client)[len(before) :]
                starts.clear()
                starts.update(start["job"] for start in new)
                own = [start for start in new if start["job"] == job.key]
                if killed < times and len(own) > killed:
                    time.sleep(0.3)  # so that it is in the midst of it
                    killed += 1
                    pids = client.run(os.getpid, workers=[own[-1]["worker"]], on_error="ignore")
                    for pid in pids.values():
                        os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield starts
        time.sleep(0.3)
    finally:
        over.set()
        thread.join()


def _starts(client: Any) -> list[dict[str, str]]:
    """The starts that were reported to the scheduler, in order."""
    topics = client.get_events()
    found = [event for topic, events in topics.items() if topic.startswith("judging-") for event in events]
    return [message for _, message in sorted(found, key=lambda event: event[0])]


def test_verdicts_are_those_of_this_machine_though_a_worker_is_killed(
    cluster: str, tiny_course: Any, jobs: dict[str, Job]
) -> None:
    expected = _here(tiny_course.root, jobs)
    assert [expected[name]["triple"][1] for name in ANSWERS] == [
        "passed",
        "passed",
        "crashed",
        "passed",
        "passed",
    ]
    with _killing(cluster, jobs["sleepy"], times=1) as starts:
        done = list(judge_on_cluster(cluster, _setting(tiny_course.root), list(jobs.values())))
    assert _results(done, jobs) == expected
    assert starts[jobs["sleepy"].key] == 2
    journal = Journal(tiny_course.root, LESSON)
    assert {entry.key for entry in journal.entries()} == {job.key for job in jobs.values()}


def test_a_submission_that_kills_its_machine_is_tried_twice_and_blames_nobody(
    cluster: str, tiny_course: Any, jobs: dict[str, Job]
) -> None:
    with _killing(cluster, jobs["sleepy"], times=9) as starts:
        done = list(judge_on_cluster(cluster, _setting(tiny_course.root), list(jobs.values())))
    results = _results(done, jobs)
    assert "the worker died while it judged this submission" in results.pop("sleepy")
    assert starts[jobs["sleepy"].key] == 2
    assert {name: result["double"][0] for name, result in results.items()} == {
        "right": 2,
        "wrong": 0,
        "crashes": 2,
        "stub": 0,
    }
    assert Journal(tiny_course.root, LESSON).read(jobs["sleepy"].key) is None


def test_what_the_cluster_lacks_is_said(
    cluster: str, tiny_course: Any, jobs: dict[str, Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = _setting(tiny_course.root)
    run: Callable[..., Iterator[Done]] = judge_on_cluster
    (done,) = run(cluster, setting, [jobs["right"]], gpus=True, patience=1.0)
    assert done.failure == "the cluster had no worker with --resources GPU=1 for 1 s"
    assert done.entry is None
    stranger = Job("0" * 64, jobs["right"].submitted)
    (done,) = run(cluster, setting, [stranger])
    assert "install the same commit" in done.failure
    monkeypatch.setattr("autograder.grading.scheduler.CONNECT", 1.0)
    with pytest.raises(ClusterError, match="no Dask scheduler answers at tcp://127.0.0.1:1"):
        list(run("tcp://127.0.0.1:1", setting, [jobs["right"]]))


class _Cluster:
    """A client of two workers that answer as told: (worker, question) -> the answer, or an exception."""

    def __init__(self, answer: Callable[[str, dict[str, Any]], dict[str, Any]]) -> None:
        self._answer = answer
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def run_on_scheduler(self, function: Any) -> None:
        function(SimpleNamespace())

    def scheduler_info(self) -> dict[str, Any]:
        return {"workers": {name: {"nthreads": 1, "resources": {}} for name in ("one", "two")}}

    def submit(self, function: Any, question: str, *rest: Any, workers: list[str], **options: Any) -> Any:
        asked = json.loads(question)
        self.asked.append((workers[0], asked))
        answer = {**self._answer(workers[0], asked), "worker": workers[0]}
        future = SimpleNamespace(result=lambda: answer, release=lambda: None)
        return _Future(future)


class _Future:
    def __init__(self, future: Any) -> None:
        self.result, self.release = future.result, future.release

    def add_done_callback(self, function: Any) -> None:
        function(self)


def _verdict(key: str, **points: float | None) -> str:
    """A verdict as the journal writes it."""
    with TemporaryDirectory() as folder:
        checks = {
            name: CheckResult(p, 3.0, "passed" if p else "infrastructure", "gone", None, 0.1)
            for name, p in points.items()
        }
        journal = Journal(Path(folder), LESSON)
        journal.write(
            Entry(key, LESSON, 7, "CPU", "bubblewrap", "", Judgement(None, checks)), b'{"cells": []}'
        )
        return journal.path(key).read_text()


def test_what_a_machine_prevented_is_judged_elsewhere_and_nothing_else(tiny_course: Any) -> None:
    path = tiny_course.submit("ada") / f"{LESSON}.ipynb"
    job = Job("k" * 64, path)

    def answer(worker: str, asked: dict[str, Any]) -> dict[str, Any]:
        if worker == "one":
            return {"verdict": _verdict(asked["key"], double=2.0, triple=None), "failure": "the GPU is gone"}
        return {"verdict": _verdict(asked["key"], double=2.0, triple=3.0), "failure": ""}

    cluster = _Cluster(answer)
    (done,) = _Grading(cluster, _setting(tiny_course.root), [job], False, 1.0).run()
    assert [(worker, asked["only"]) for worker, asked in cluster.asked] == [
        ("one", None),
        ("two", ["triple"]),
    ]
    # The second machine starts from what the first one found out.
    assert '"infrastructure"' in cluster.asked[1][1]["verdict"]
    assert done.failure == ""
    assert done.entry == Journal(tiny_course.root, LESSON).read(job.key)
    assert done.entry is not None
    assert done.entry.judgement.score == 5.0


def test_a_broken_machine_is_left_alone(tiny_course: Any) -> None:
    path = tiny_course.submit("ada") / f"{LESSON}.ipynb"
    jobs = [Job(f"{i:064}", path) for i in range(12)]

    def answer(worker: str, asked: dict[str, Any]) -> dict[str, Any]:
        if worker == "one":
            return {"verdict": None, "failure": "no sandbox"}
        return {"verdict": _verdict(asked["key"], double=2.0), "failure": ""}

    cluster = _Cluster(answer)
    done = list(_Grading(cluster, _setting(tiny_course.root), jobs, False, 1.0).run())
    assert sorted(each.job.key for each in done) == [job.key for job in jobs]
    assert all(each.entry is not None and not each.failure for each in done)
    assert 3 <= [worker for worker, _ in cluster.asked].count("one") <= 5


def test_nothing_but_a_verdict_on_this_submission_is_journalled(tiny_course: Any) -> None:
    job = Job("k" * 64, tiny_course.submit("ada") / f"{LESSON}.ipynb")
    for text in ("{", "[]", _verdict("another", double=2.0)):
        cluster = _Cluster(lambda worker, asked, text=text: {"verdict": text, "failure": ""})
        (done,) = _Grading(cluster, _setting(tiny_course.root), [job], False, 1.0).run()
        assert "no verdict on this submission" in done.failure
        assert len(cluster.asked) == 2
        assert list(Journal(tiny_course.root, LESSON).entries()) == []
