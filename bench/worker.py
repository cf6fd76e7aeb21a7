"""Measuring in a process of its own, because a contender can hang or leave the GPU unusable for its process.

The worker says which contender it is about to run. When it dies or is silent for too long, `Session` starts another worker
and asks it again, without that contender.
"""

import gc
import multiprocessing
from collections import defaultdict
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

from bench.cases import Case

# Reasons to leave a contender out: case -> contender -> why.
Excluded = defaultdict[str, dict[str, str]]


class WorkerLost(Exception):
    """The worker died or hung. contender: whom it was running; "" for nobody."""

    def __init__(self, contender: str, why: str) -> None:
        super().__init__(contender, why)
        self.contender, self.why = contender, why


class Worker:
    """A process that has the GPU and runs these contenders. After WorkerLost it is gone."""

    def __init__(self, contenders: Sequence[str]) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, list(contenders)), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, task: str, *arguments: Any, silence: float) -> Any:
        """What a task of `_serve` returns. Raises WorkerLost after `silence` seconds without a word, RuntimeError for what
        the task raised."""
        contender = ""
        try:
            self._connection.send((task, arguments))
            while self._connection.poll(silence):
                word, content = self._connection.recv()
                if word == "done":
                    return content
                if word == "failed":
                    raise RuntimeError(content)
                if word == "lost":
                    self.stop()
                    raise WorkerLost(*content)
                contender = content
        except (EOFError, BrokenPipeError, ConnectionResetError):
            self.stop()
            raise WorkerLost(contender, f"its process died (exit code {self._process.exitcode})") from None
        self.stop()
        raise WorkerLost(contender, f"no answer for {silence:.0f} s")

    def stop(self) -> None:
        self._process.kill()
        self._process.join()
        self._connection.close()


class Session:
    """Asks a worker about one case after the other. `excluded` may be shared by several sessions."""

    def __init__(self, contenders: Sequence[str], excluded: Excluded) -> None:
        self._contenders, self._excluded = contenders, excluded
        self._worker: Worker | None = None

    def ask(self, task: str, *arguments: Any, silence: float) -> Any:
        """The answer of a worker, the next one if this one is lost; raises WorkerLost if the next is too."""
        for attempts_left in (1, 0):
            self._worker = self._worker or self._start()
            try:
                return self._worker.ask(task, *arguments, silence=silence)
            except WorkerLost:
                self._worker = None
                if not attempts_left:
                    raise
        raise AssertionError

    def ask_about(self, task: str, case: Case, *, silence: float) -> Any:
        """The same about a case, without the contenders that workers were lost to."""
        excluded = self._excluded[case.name]
        while True:
            self._worker = self._worker or self._start()
            try:
                return self._worker.ask(task, case, dict(excluded), silence=silence)
            except WorkerLost as lost:
                self._worker = None
                if not lost.contender or lost.contender in excluded:
                    raise
                excluded[lost.contender] = lost.why

    def _start(self) -> Worker:
        return Worker(self._contenders)

    def stop(self) -> None:
        if self._worker:
            self._worker.stop()
            self._worker = None


def _serve(connection: Connection, names: list[str]) -> None:
    import torch

    from bench import machine, timing
    from bench.all_contenders import CONTENDERS
    from bench.measure import ContextLost, check_context, compile_only, measure

    contenders = [contender for contender in CONTENDERS if contender.name in names]

    running = ""

    def report(name: str) -> None:
        nonlocal running
        running = name
        connection.send(("runs", name))

    tasks: dict[str, Callable[..., Any]] = {
        "measure": lambda case, excluded: measure(case, contenders, excluded, report),
        "compile": lambda case, excluded: compile_only(case, contenders, excluded, report),
        "ceilings": timing.measure_ceilings,
        "environment": machine.environment,
    }
    while True:
        try:
            task, arguments = connection.recv()
        except EOFError:
            return
        try:
            connection.send(("done", tasks[task](*arguments)))
        except ContextLost as lost:
            connection.send(("lost", (lost.contender, lost.why)))
            return
        except Exception as error:
            try:
                check_context(running, error)
            except ContextLost as lost:
                connection.send(("lost", (lost.contender, lost.why)))
                return
            connection.send(("failed", f"{type(error).__name__}: {error}"))
        gc.collect()
        torch.cuda.empty_cache()
