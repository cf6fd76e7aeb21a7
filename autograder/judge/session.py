"""One submission's conversation with its worker: deadlines, new workers after faults, proxies for what cannot travel.

A *fault* is the learner's: a time limit, a crash, memory. It costs the call in hand; a new worker replays the cells that ran
before and goes on. A sandbox that is *lost* is the machine's fault: everything is tried again in a new one.
"""

from __future__ import annotations

import math
import secrets
import selectors
import time
from collections import Counter
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from autograder.judge import faults, png, shown, wire
from autograder.judge.faults import Fault
from autograder.judge.judgement import CRASHED, TIMEOUT
from autograder.judge.printed import Printed
from autograder.judge.proxy import Proxy, Tell, clean, proxy_class, remote_error, write_back
from autograder.judge.reply import is_question, is_reply
from autograder.judge.sandbox import Limits, Sandbox, SandboxLost, Worker

ATTEMPTS = 3  # sandboxes that are tried before the machine is called broken
_WATCH_SECONDS = 0.1
# How often one call may ask the judge something, however quickly it is answered.
MAX_QUESTIONS = 5000


class MissingName(NameError):
    """The learner's cells define no such name."""


@dataclass(frozen=True)
class CellResult:
    """What came of a cell: what it printed, the PNG pictures that it showed, an exception's text or a fault."""

    name: str
    output: str = ""
    error: str = ""
    fault: Fault | None = None
    images: tuple[bytes, ...] = ()


class Session:
    """Runs the cells of one submission in workers of `sandbox`.

    faults      those since `begin`, which the judge calls before each test cell
    lost        why the machine could not go on, or ""
    output      what the cells printed, up to the limit; `output_lost` counts the bytes after that
    launches    Triton kernels that the worker says it has launched since `begin`, with their numbers
    attention_calls     how often it says it has called torch's own attention since then
    workers_started, cpu_seconds, peak_memory   of all workers that have ended; bytes, Python and torch included
    """

    def __init__(self, sandbox: Sandbox, limits: Limits | None = None) -> None:
        self._sandbox = sandbox
        self.limits = limits or sandbox.limits
        self._worker: Worker | None = None
        self._frames = wire.Frames()
        self._generation = 0
        self._history: list[tuple[str, str]] = []
        self._left = self.limits.total
        self._deadline = math.inf
        self._printed = Printed(self.limits.output)
        self.cell_faults: dict[str, Fault] = {}
        self.faults: list[Fault] = []
        self._faults_of: dict[str | int, list[Fault]] = {}
        self._met_a_limit = False
        self.lost = ""
        self.workers_started = 0
        self.cpu_seconds = 0.0
        self.peak_memory = 0
        self.launches: Counter[str] = Counter()
        self.attention_calls = 0

    @property
    def output(self) -> str:
        return self._printed.text()

    @property
    def output_lost(self) -> int:
        return self._printed.lost

    def begin(self) -> None:
        """A new cell: faults of earlier ones no longer count, but a function that had too many has one try left."""
        self.faults = []
        self.launches = Counter()
        self.attention_calls = 0
        self._deadline = time.monotonic() + self.limits.test
        for name, earlier in self._faults_of.items():
            self._faults_of[name] = earlier[: max(0, self.limits.faults - 1)]

    def run_cell(self, name: str, source: str, *, demo: bool = False) -> CellResult:
        """Runs a cell in the worker. Never raises for what the cell does; raises SandboxLost for the machine.

        demo: a cell that no points hang on; its pictures are not drawn, and it gets little time once something has met a
        limit.
        """
        seconds = min(self.limits.cell, self.limits.demo) if demo and self._met_a_limit else self.limits.cell
        message = {"do": "cell", "name": name, "source": source, "show": not demo}
        self.begin()
        start = len(self._printed)
        try:
            reply = self._request(message, seconds)
        except Fault as ended:
            # Replaying it would end the next worker too.
            self.cell_faults[name] = ended
            return CellResult(name, self._printed.text(start), fault=ended)
        printed = self._printed.text(start)
        error = reply.get("error")
        fault = self._fault_in(error) if error is not None else None
        if fault is not None:
            self.cell_faults[name] = fault
            return CellResult(name, printed, fault=fault)
        self._history.append((name, source))
        text = clean(f"{error['type']}: {error['message']}"[:500]) if error else ""
        pictures = (png.checked(image) for image in reply.get("images", ())[: shown.MAX_IMAGES])
        return CellResult(name, printed, text, images=tuple(image for image in pictures if image is not None))

    def names(self) -> list[str]:
        """The names that the cells have defined."""
        names = self._ask({"do": "names"}, self.limits.call)
        return [name for name in names if type(name) is str] if type(names) is list else []

    def get(self, name: str) -> Any:
        """The value of a learner's name, a proxy where it is no plain data. Raises MissingName, Fault."""
        value = self._ask({"do": "get", "name": name}, self.limits.call)
        if isinstance(value, Proxy):
            value._origin = name
        return value

    def attribute(self, proxy: Proxy, name: str) -> Any:
        """An attribute of an object in the worker."""
        return self._ask({"do": "attribute", "on": self._reach(proxy), "name": name}, self.limits.call)

    def call(
        self,
        proxy: Proxy,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        by: str | None = None,
        tell: Tell | None = None,
    ) -> Any:
        """Calls an object in the worker with plain data. What it changes in place is changed in the arguments here.

        by: the function of `observe` that calls it, with these arguments after it. tell: answers here, with plain data, what
        the call asks. An exception of it is handed on as a text.
        """
        for argument in args:
            if isinstance(argument, Proxy) and argument._origin is not None:
                self._renew(argument)
        on = self._reach(proxy)
        earlier = self._faults_of.setdefault(proxy._blame or on, [])
        if len(earlier) >= self.limits.faults:
            raise earlier[-1]
        try:
            message = {"do": "call", "on": on, "args": args, "kwargs": kwargs, "by": by}
            reply = self._checked(self._request(message, self.limits.call, tell))
        except Fault as fault:
            earlier.append(fault)
            raise
        changed = reply.get("changed")
        if changed is not None:
            if type(changed) is not tuple or len(changed) != 2:
                raise self._record(faults.no_answer())
            write_back((args, kwargs), changed)
        return reply.get("value")

    def close(self) -> None:
        """Kills the worker and everything that it started."""
        if self._worker is not None:
            worker, self._worker = self._worker, None
            try:
                self._end_worker(worker)
            except SandboxLost:
                self._sandbox.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Requests

    def _ask(self, message: dict[str, Any], seconds: float) -> Any:
        return self._checked(self._request(message, seconds)).get("value")

    def _checked(self, reply: dict[str, Any]) -> dict[str, Any]:
        """The reply, unless it says that learner's code raised: then that is raised here."""
        error = reply.get("error")
        if error is None:
            return reply
        if (fault := self._fault_in(error)) is not None:
            raise fault
        if error["missing"]:
            raise MissingName(error["message"])
        raise remote_error(error["type"], error["bases"], error["message"], error["line"])

    def _fault_in(self, error: dict[str, Any]) -> Fault | None:
        """The fault behind an exception after which the worker is no good any more; ends the worker."""
        fault = faults.behind_exception(error["bases"], error["message"], self.limits)
        if fault is None:
            return None
        self.close()
        return self._record(fault)

    def _record(self, fault: Fault) -> Fault:
        self.faults.append(fault)
        self._met_a_limit = True
        return fault

    def _request(self, message: dict[str, Any], seconds: float, tell: Tell | None = None) -> dict[str, Any]:
        """Sends a request to a live worker and returns its reply. Raises Fault, and SandboxLost after some attempts."""
        if self.lost:
            raise SandboxLost(self.lost)
        if self._left <= 0:
            raise self._record(faults.used_up(self.limits))
        for attempt in range(ATTEMPTS):
            try:
                worker = self._live_worker()
                reply = self._exchange(worker, message, seconds, tell)
            except Fault as fault:
                raise self._record(fault) from None
            except SandboxLost as error:
                self._worker = None
                if attempt == ATTEMPTS - 1:
                    self.lost = str(error)
                    raise
                try:
                    self._sandbox.reopen()
                except SandboxLost:
                    continue
            else:
                self.launches.update(reply["launches"])
                self.attention_calls += reply["attention_calls"]
                return reply
        raise AssertionError("unreachable")

    def _live_worker(self) -> Worker:
        """The worker; a new one, with the cells run again, when the last has ended."""
        while self._worker is None:
            self._worker = worker = self._sandbox.start_worker()
            self.workers_started += 1
            self._generation += 1
            self._frames = wire.Frames(self.limits.frame)
            worker.connection.setblocking(False)
            printed, lost = len(self._printed), self._printed.lost
            for name, source in list(self._history):
                try:
                    message = {"do": "cell", "name": name, "source": source, "show": False}
                    self._exchange(worker, message, self.limits.cell)
                except Fault as fault:
                    # It went well the first time and not now: go on without it.
                    self._history.remove((name, source))
                    self.cell_faults[name] = fault
                    break
            self._printed.forget(printed, lost)  # what the replay printed was printed before
        return self._worker

    def _reach(self, proxy: Proxy) -> str | int:
        """How the present worker knows a proxy's object."""
        if proxy._origin is not None:
            return proxy._origin
        self._live_worker_or_lost()
        if proxy._generation != self._generation:
            raise self._record(faults.gone())
        return proxy._number

    def _renew(self, proxy: Proxy) -> None:
        """A learner's name as an argument: a new worker has it again, under another number."""
        again = self.get(str(proxy._origin))
        if not isinstance(again, Proxy):
            raise self._record(faults.gone())
        proxy._generation, proxy._number = again._generation, again._number

    def _live_worker_or_lost(self) -> None:
        try:
            self._live_worker()
        except SandboxLost as error:
            self.lost = str(error)
            raise

    # One exchange

    def _exchange(
        self, worker: Worker, message: dict[str, Any], seconds: float, tell: Tell | None = None
    ) -> dict[str, Any]:
        number = secrets.randbits(62)
        try:
            data = wire.encode({"id": number, **message}, self._to_handle, limit=self.limits.frame)
        except wire.WireError as error:
            # Something that learner's code returned before: what checks hand over of their own always fits.
            raise Fault(CRASHED, f"what your code returned cannot be handed on: {error}") from None
        started = time.monotonic()
        try:
            for _ in range(MAX_QUESTIONS + 1):
                payload = self._talk(worker, wire.frame(data), seconds, started)
                reply = wire.decode(payload, self._from_handle)
                if tell is None or not is_question(reply, number):
                    break
                data = self._told(tell, reply["ask"], number)
            else:
                raise self._end(Fault(CRASHED, f"your code asked the judge more than {MAX_QUESTIONS} times"))
        except wire.WireError as error:
            raise self._end(Fault(CRASHED, f"your code's answer cannot be read: {error}")) from None
        finally:
            self._left -= time.monotonic() - started
        if not is_reply(reply, number):
            raise self._end(faults.no_answer())
        checked: dict[str, Any] = reply
        return checked

    def _told(self, tell: Tell, question: Any, number: int) -> bytes:
        """The judge's answer to a question of the call in hand. Its time counts as the learner's, who chose what to ask."""
        try:
            answer = tell(question)
        except Exception as error:  # what learner's code asked is no question that has an answer
            answer = f"{error}"[:400] or type(error).__name__
        return wire.encode({"id": number, "told": answer}, limit=self.limits.frame)

    def _talk(self, worker: Worker, data: bytes, seconds: float, started: float) -> bytes:
        """Sends `data`, takes what the worker prints, watches what it uses, and returns the next payload.

        seconds: how long the request that began at `started` may take.
        """
        limits = (
            (started + seconds, f"your code did not finish within {seconds:g} s"),
            (self._deadline, f"your code did not finish the test within {self.limits.test:g} s"),
            (started + self._left, faults.used_up(self.limits).problem.headline),
        )
        deadline, sentence = min(limits)
        watch = time.monotonic() + 2 * _WATCH_SECONDS
        left = memoryview(data)
        with selectors.DefaultSelector() as selector:
            selector.register(worker.connection, selectors.EVENT_READ | selectors.EVENT_WRITE)
            selector.register(worker.output, selectors.EVENT_READ)
            while True:
                now = time.monotonic()
                if now >= deadline:
                    raise self._end(Fault(TIMEOUT, sentence))
                if now >= watch:
                    self._watch()
                    watch = time.monotonic() + _WATCH_SECONDS
                for key, events in selector.select(min(deadline, watch) - now):
                    if key.fileobj is not worker.connection:
                        if not self._printed.take(worker.output):
                            selector.unregister(worker.output)
                        continue
                    try:
                        if events & selectors.EVENT_WRITE:
                            left = left[worker.connection.send(left) :]
                            if not left:
                                selector.modify(worker.connection, selectors.EVENT_READ)
                        if events & selectors.EVENT_READ:
                            piece = worker.connection.recv(1 << 20)
                            if not piece:
                                raise self._died()
                            payloads = self._frames.feed(piece)
                            if payloads:
                                self._printed.drain(worker.output)
                                return payloads[0] if len(payloads) == 1 else b""
                    except BlockingIOError:
                        continue
                    except (BrokenPipeError, ConnectionResetError):
                        raise self._died() from None

    def _watch(self) -> None:
        usage = self._sandbox.usage()
        if usage.ended:  # and something that it started holds the connection open
            raise self._died()
        if usage.memory > self.limits.memory:
            raise self._end(faults.too_much_memory(self.limits))
        if usage.processes > self.limits.processes:
            text = f"your code started more than {self.limits.processes} processes"
            raise self._end(Fault(CRASHED, text))

    def _end(self, fault: Fault) -> Fault:
        """Kills the worker because of a fault. Raises SandboxLost when even that does not work."""
        assert self._worker is not None
        worker, self._worker = self._worker, None
        self._end_worker(worker)
        return fault

    def _died(self) -> Fault:
        """The fault of a worker that ended by itself. Raises SandboxLost when it is the sandbox that ended."""
        assert self._worker is not None
        worker, self._worker = self._worker, None
        return faults.of_status(self._end_worker(worker, patience=2.0))

    def _end_worker(self, worker: Worker, patience: float = 0.0) -> int | None:
        """Takes what was still to be read, kills the worker with everything that it started, and notes what it used."""
        self._printed.drain(worker.output)
        ended = self._sandbox.end_worker(worker, patience)
        self.cpu_seconds += ended.cpu_seconds
        self.peak_memory = max(self.peak_memory, ended.peak_memory)
        return ended.status

    # Handles

    def _from_handle(self, handle: wire.Handle) -> Proxy:
        made = proxy_class(handle.type_name, handle.is_callable)
        return made(self, self._generation, handle.number)

    def _to_handle(self, value: Any) -> wire.Handle | None:
        if not isinstance(value, Proxy):
            return None
        if value._generation != self._generation:
            raise faults.gone()
        return wire.Handle("", False, value._number)
