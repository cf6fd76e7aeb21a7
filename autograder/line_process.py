"""A helper process that is asked one question a line, and is replaced when it hangs or ends.

Starting one takes seconds of processor time (torch, a sandbox; or nbgrader), so it is used for many submissions. Its death
costs at most the answer in hand.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import psutil

TIDYING = 10.0  # seconds


class Ended(Exception):
    """The process ended, or had to be ended, before it answered."""


class LineProcess:
    """Answers one question at a time, both as JSON. It is started for the first, and again after it has ended."""

    def __init__(self, doing: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """doing: what it does, for its failures: "judging", say."""
        self._doing = doing
        self._command = list(command)
        self._environment = dict(environment)
        self._process: subprocess.Popen[str] | None = None
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  closed with this object
        self._closed = False
        self._busy = False

    def ask(self, question: Any, time_limit: float) -> Any:
        """The answer. Raises Ended, with the reason, when there is none within `time_limit` seconds."""
        if self._closed:
            raise Ended(f"the {self._doing} process is closed")
        if self._process is None or self._process.poll() is not None:
            self._said.seek(0)
            self._said.truncate()
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
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

        timer = threading.Timer(time_limit, expire)
        timer.start()
        self._busy = True
        try:
            print(json.dumps(question), file=process.stdin, flush=True)
            answer = process.stdout.readline()
        except (BrokenPipeError, ValueError):  # ValueError: another thread has closed it
            answer = ""
        finally:
            timer.cancel()
            self._busy = False
        try:
            return json.loads(answer)
        except ValueError:
            self.stop()
            who = f"the {self._doing} process"
            if expired.is_set():
                raise Ended(f"{who} took longer than {time_limit:.0f} s and was stopped") from None
            raise Ended(f"{who} ended with status {process.returncode}{self._last_words()}") from None

    def _last_words(self) -> str:
        """The last line that it wrote to standard error: of a traceback, what happened."""
        self._said.seek(max(0, self._said.seek(0, os.SEEK_END) - 4000))
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        return f": {lines[-1].strip()[:300]}" if lines else ""

    def close(self) -> None:
        """Ends the process for good, whichever thread is waiting for its answer. An idle one may tidy up before."""
        self._closed = True
        process = self._process
        if process is not None and process.stdin is not None and not self._busy:
            with suppress(OSError, subprocess.TimeoutExpired):
                process.stdin.close()
                process.wait(TIDYING)
        self.stop()

    def stop(self) -> None:
        """Ends the process and all that it started; the next question starts another."""
        process, self._process = self._process, None
        if process is not None:
            _kill(process)
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(BrokenPipeError):  # a question that it never read
                        pipe.close()


def command(module: str, *arguments: str) -> list[str]:
    """What `python -m module arguments` does, started quickly."""
    start = f"import runpy; from autograder import quick_start; runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    return [sys.executable, "-c", start, *arguments]


def environment(jobs: int, **more: str) -> dict[str, str]:
    """For a helper process: this package, and threads for its share of the cores when `jobs` of them run side by side."""
    made = dict(os.environ)
    root = str(Path(__file__).resolve().parents[2])
    made["PYTHONPATH"] = os.pathsep.join(filter(None, [root, made.get("PYTHONPATH")]))
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        made.setdefault(name, threads)
    # Triton's interpreter multiplies many small matrices: threads that wait for each other are slower than one.
    made.setdefault("OPENBLAS_NUM_THREADS", "1")
    return made | more


@contextmanager
def answering() -> Iterator[tuple[Iterator[Any], IO[str]]]:
    """In the helper process: the questions, and the stream for the answers.

    Whatever else writes to standard output is not taken for an answer. The process ends with the one that asks.
    """
    parent = os.getppid()
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        yield (json.loads(line) for line in sys.stdin), answers


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        threading.Event().wait(0.5)
    os._exit(1)


def _kill(process: subprocess.Popen[str]) -> None:
    """Kills a process and what it started, which may have sessions of their own."""
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
