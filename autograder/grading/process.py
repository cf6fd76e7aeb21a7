"""A process that grades one submission after the other, and is replaced when it hangs or ends.

Starting nbgrader takes two seconds of processor time, so a process is used for many learners. What a learner's code
does happens in a kernel, a third process: a death there is a verdict, and one of the grading process costs at most
the submission in hand.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import psutil


class GradingProcess:
    """Grades one submission at a time; `jobs` of these run side by side."""

    def __init__(self, lesson: str, submitted: Path, *, jobs: int, time_limit: float) -> None:
        """submitted: the clean copies. time_limit: seconds for one submission, its kernel's start included."""
        self._command = [sys.executable, "-m", "autograder.nbgrader_bridge", lesson, str(submitted)]
        self._environment = _environment(jobs)
        self._time_limit = time_limit
        self._process: subprocess.Popen[str] | None = None

    def grade(self, learner: str) -> dict[str, Any]:
        """nbgrader's result, `{"ok", "step", "log"}`, or the same with `"expired": True` after the time limit."""
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                errors="replace",
                env=self._environment,
            )
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            _kill(process)

        timer = threading.Timer(self._time_limit, expire)
        timer.start()
        try:
            print(json.dumps(learner), file=process.stdin, flush=True)
            answer = process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        finally:
            timer.cancel()
        try:
            result: dict[str, Any] = json.loads(answer)
        except ValueError:
            self.close()
            log = f"the grading process ended with status {process.returncode}"
            return {"ok": False, "step": "grading", "log": log, "expired": expired.is_set()}
        return result

    def close(self) -> None:
        """Ends the process and all that it started."""
        if self._process is not None:
            _kill(self._process)
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
            self._process = None


def _environment(jobs: int) -> dict[str, str]:
    """For the grading process and its kernels: this package, and threads for their share of the cores."""
    environment = dict(os.environ)
    root = str(Path(__file__).resolve().parents[2])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, environment.get("PYTHONPATH")]))
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        environment.setdefault(name, threads)
    return environment


def _kill(process: subprocess.Popen[str]) -> None:
    """Kills a grading process and its kernels, which have sessions of their own."""
    try:
        family = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    process.kill()
    for child in family:
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue
