"""Grading on a Dask cluster of two worker processes, whose deaths cost nobody anything."""

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
from typing import Any

import pytest

from autograder.grading.jobs import Done, Job, Setting, open_judging
from autograder.grading.journal import Journal, submission_key
from autograder.grading.scheduler import ClusterError, judge_on_cluster
from autograder.judge.rebuild import rebuild
from autograder.judge.sandbox import why_unavailable

distributed = pytest.importorskip("distributed", reason="needs Dask: pip install -e '.[cluster]'")

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
