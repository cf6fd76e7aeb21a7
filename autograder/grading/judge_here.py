"""Judges submissions on this machine, in processes that each keep a warm judge."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from queue import SimpleQueue

from autograder.grading import judge_process
from autograder.grading.jobs import Done, Job, Setting
from autograder.grading.journal import Journal
from autograder.line_process import Ended, LineProcess, environment

ATTEMPTS = 2
# Failures one after the other, without a verdict in between, after which the machine is called broken: no more is tried.
HOPELESS = 6
# Beside what the learner's code may take: starting a sandbox, loading torch, the judge's own part of the checks.
OVERHEAD = 300.0


def judge_here(setting: Setting, jobs: list[Job], processes: int) -> Iterator[Done]:
    """Judges each job in one of that many processes; yields what came of it as soon as it is in the journal.

    A process that dies or hangs is replaced, and its job tried once more: after that it is the machine's fault.
    """
    processes = min(processes, len(jobs))
    idle: SimpleQueue[LineProcess] = SimpleQueue()
    started = [
        LineProcess("judging", judge_process.command(setting), environment(processes))
        for _ in range(processes)
    ]
    for process in started:
        idle.put(process)

    failures: list[str] = []  # since the last verdict

    def judge(job: Job) -> Done:
        if len(failures) >= HOPELESS:
            return Done(job, None, f"not tried after {HOPELESS} failures in a row: {failures[-1]}")
        process = idle.get()
        try:
            done = _judge(process, setting, job)
        finally:
            idle.put(process)
        if done.failure:
            failures.append(done.failure)
        else:
            failures.clear()
        return done

    pool = ThreadPoolExecutor(max(1, processes))
    try:
        for future in as_completed([pool.submit(judge, job) for job in jobs]):
            yield future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in started:
            process.close()
        pool.shutdown()


def _judge(process: LineProcess, setting: Setting, job: Job) -> Done:
    journal = Journal(setting.course, setting.lesson)
    failure = ""
    for _ in range(ATTEMPTS):
        try:
            failure = process.ask(judge_process.question(job), setting.time_limit + OVERHEAD)["failure"]
        except Ended as ended:
            failure = str(ended)
            continue
        if not failure:
            break
        process.stop()  # and its sandbox: the next attempt is made in a new one
    return Done(job, journal.read(job.key), failure)
