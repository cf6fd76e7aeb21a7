"""The sandbox that learner's code runs in: bubblewrap around a warm parent (`zygote`), which makes one worker at a time."""

from __future__ import annotations

import functools
import os
import shutil
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from autograder.judge import plain
from autograder.judge.bubblewrap import (
    PRELOAD,
    SandboxUnavailable,
    below_scratch,
    command,
    environment,
    gpu_nodes,
    require,
    why_unavailable,
)
from autograder.judge.limits import Limits
from autograder.judge.processes import Usage
from autograder.judge.warm_parent import SandboxLost, WarmParent

__all__ = [
    "PRELOAD",
    "Ended",
    "Limits",
    "Sandbox",
    "SandboxLost",
    "SandboxUnavailable",
    "Worker",
    "environment",
    "gpu_nodes",
    "require",
    "why_unavailable",
]

_ANSWER_SECONDS = 30.0


class Worker:
    """A worker as the judge sees it: a socket for messages, a pipe with what it prints, its number at the zygote."""

    def __init__(self, number: int, connection: socket.socket, output: int, scratch: str | None) -> None:
        self.number = number
        self.connection = connection
        self.output = output
        self.scratch = scratch

    def close(self) -> None:
        self.connection.close()
        os.close(self.output)
        if self.scratch is not None:
            shutil.rmtree(self.scratch, ignore_errors=True)


@dataclass(frozen=True)
class Ended:
    """How a worker ended, in the words of its parent, whom it cannot reach.

    status: as a shell counts (137: killed by somebody else), or None when it was alive and had to be killed. cpu_seconds,
    peak_memory: of it and of the processes that it waited for; bytes, Python and torch included.
    """

    status: int | None
    cpu_seconds: float
    peak_memory: int


class Sandbox:
    """A running sandbox. One worker at a time; starting another is cheap, because it is forked from a warm parent.

    Where the kernel allows no namespaces inside namespaces, `nested` turns False by itself: then one sandbox serves one
    worker, and the next is started ahead while that one works. With a GPU it is so from the start: CUDA's cuInit answers
    304 in a process-id namespace whose /proc belongs to another one, and a nested namespace can mount no /proc of its own.
    Keep the thread that made it alive: the sandbox ends with it.

    name: "bubblewrap", or "none" where no sandbox can be made and `unsafe` permits that.
    """

    def __init__(
        self,
        preload: Sequence[str] = PRELOAD,
        limits: Limits | None = None,
        *,
        threads: int = 1,
        nested: bool | None = None,
        unsafe: bool = False,
        start_seconds: float = 180.0,
    ) -> None:
        if not unsafe:
            require()
        self.limits = limits or Limits()
        self.name = "none" if why_unavailable() is not None else "bubblewrap"
        self.nested = self.name != "none" and (not gpu_nodes() if nested is None else nested)
        self._preload, self._threads, self._start_seconds = tuple(preload), threads, start_seconds
        self._folder: plain.Folder | None = None
        self._ahead: WarmParent | None = None
        self._closed = False
        self._parent = self._launch()
        try:
            self._parent.wait_until_ready(start_seconds)
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """The outermost process of the sandbox."""
        return self._parent.process.pid

    def _launch(self) -> WarmParent:
        tasks = self.limits.processes + 64
        if self.name == "none":
            self._folder = self._folder or plain.Folder()
            make = functools.partial(plain.command, preload=self._preload)
            return WarmParent(make, tasks=tasks, environment=self._folder.environment(self._threads), depth=0)
        make = functools.partial(
            command, preload=self._preload, nested=self.nested, tmp=self.limits.tmp, threads=self._threads
        )
        # The zygote is the child of the bwrap that is started.
        return WarmParent(make, tasks=tasks, depth=1)

    def start_worker(self) -> Worker:
        """A new worker. The one before must have been ended. Raises SandboxLost when there can be none."""
        if self._closed:
            raise SandboxLost("the sandbox has been closed")
        if self._parent.spent:
            self.reopen()
        scratch = str(self._folder.scratch()) if self._folder is not None else None
        ours, theirs = socket.socketpair()
        read_end, write_end = os.pipe()
        request = {
            "do": "start",
            "nested": self.nested,
            "keep": [str(path) for path in below_scratch()] if self.nested else [],
            "scratch": scratch,
            "has_gpu": bool(gpu_nodes()),
            "limits": self.limits.for_worker(),
        }
        try:
            reply = self._parent.ask(request, _ANSWER_SECONDS, [theirs.fileno(), write_end])
        except BaseException:
            ours.close()
            os.close(read_end)
            raise
        finally:
            theirs.close()
            os.close(write_end)
        if "error" not in reply:
            if not self.nested and self.name != "none":
                self._parent.spent = True
                self._ahead = self._ahead or self._launch()
            os.set_blocking(read_end, False)
            return Worker(reply["id"], ours, read_end, scratch)
        ours.close()
        os.close(read_end)
        if self.nested:
            # Namespaces inside namespaces are refused here: one sandbox for each worker isolates as well.
            self.nested = False
            self.reopen()
            return self.start_worker()
        raise SandboxLost(f"no worker could be started: {reply['error']}")

    def end_worker(self, worker: Worker, patience: float = 0.0) -> Ended:
        """Kills a worker and everything that it started. patience: seconds to wait for it to end by itself first."""
        try:
            request = {"do": "end", "id": worker.number, "patience": patience}
            reply = self._parent.ask(request, _ANSWER_SECONDS + patience)
        finally:
            worker.close()
            if self._parent.spent:
                self._parent.close()  # what it may have left running dies with the sandbox
        return Ended(reply["status"], reply["cpu"], reply["peak"])

    def reopen(self) -> None:
        """Ends this sandbox and puts another in its place. Raises SandboxLost when that does not start."""
        self._closed = False
        self._parent.close()
        self._parent, self._ahead = self._ahead or self._launch(), None
        self._parent.wait_until_ready(self._start_seconds)

    def usage(self) -> Usage:
        """What the worker and everything that it started use now. Zeros when there is none."""
        return self._parent.usage(self.limits.processes, self.limits.memory)

    def close(self) -> None:
        """Ends the sandbox with everything in it. May be called twice."""
        self._closed = True
        self._parent.close()
        if self._ahead is not None:
            self._ahead.close()
            self._ahead = None
        if self._folder is not None:
            self._folder.remove()
            self._folder = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
