"""The worker: runs a learner's cells in one namespace and answers the judge's requests about it.

Requests and replies are values of `wire`, each a dict with the `id` of the request:

    {"do": "cell", "name", "source", "show"}            runs a cell as a notebook does; show: its pictures and last value too
    {"do": "names"}                                     -> the names that the cells have defined
    {"do": "get", "name"}                               -> a value, or a handle for what is no plain data
    {"do": "call", "on", "args", "kwargs", "by"}        "on": a name or a handle's number -> (value, changed arguments);
                                                        "by": None, or the function of `observe` that is to call it
    {"do": "attribute", "on", "name"}                   -> a value or a handle

While it answers, learner's code may ask something in turn: {"id", "ask": a value} goes to the judge, which sends {"id", "told": a
value} back and goes on waiting for the reply.

A reply holds what `evidence` has counted, and "value", or "error": {"type", "bases", "message", "line", "missing"}. "changed" is None unless the call has
changed its arguments in place; then it is (args, kwargs) as they are now. "images" are those that a cell has shown.
"""

from __future__ import annotations

import ast
import functools
import linecache
import re
import socket
import sys
import traceback
from typing import Any

import torch

from autograder.judge import evidence, observe, wire
from autograder.judge.shown import Shown

MAX_TEXT = 2000  # characters of an error's message
_MAGIC = re.compile(r"^\s*(%%?\w|!|\?)|\?\s*$")


class Missing(Exception):
    """The judge asks for a name that the cells have not defined."""


def serve(connection: socket.socket, frame_limit: int, gpu_share: float) -> None:
    """Answers requests until the judge hangs up. gpu_share: how much of a GPU's memory torch may take."""
    if torch.cuda.is_available():
        # Done when CUDA starts, which is when learner's code first needs it.
        torch.cuda._lazy_call(lambda: torch.cuda.set_per_process_memory_fraction(gpu_share))
    worker = Worker(frame_limit)
    worker.connection = connection
    observe.ask = worker.ask
    frames = wire.Frames(frame_limit)
    while piece := connection.recv(1 << 20):
        for payload in frames.feed(piece):
            connection.sendall(wire.frame(worker.answer(payload)))


class Worker:
    """A namespace, and the objects of it that the judge holds handles for."""

    def __init__(self, frame_limit: int) -> None:
        # A module of its own, so that pickling, inspect and dataclasses find what the cells define.
        self._module = type(sys)("__main__")
        sys.modules["__main__"] = self._module
        self._namespace = self._module.__dict__
        self._shown = Shown()
        self._namespace["display"] = self._shown.display
        self._given = set(self._namespace) | {"__builtins__"}
        self._objects: list[Any] = []
        self._frame_limit = frame_limit
        self.connection: socket.socket | None = None
        self._number: int | None = None  # of the request that is being answered

    def ask(self, question: Any) -> Any:
        """What the judge says to plain data, while it waits for the reply to the request in hand."""
        assert self.connection is not None
        data = wire.encode({"id": self._number, "ask": question}, limit=self._frame_limit)
        self.connection.sendall(wire.frame(data))
        frames = wire.Frames(self._frame_limit)
        while True:
            piece = self.connection.recv(1 << 20)
            if not piece:
                raise ConnectionError("the judge has hung up")
            if payloads := frames.feed(piece):
                return wire.decode(payloads[0])["told"]

    def answer(self, payload: bytes) -> bytes:
        """The reply to one request. Whatever the learner's code raises becomes an error in it."""
        number = None
        try:
            request = wire.decode(payload, lambda handle: self._objects[handle.number])
            number = self._number = request["id"]
            reply = {"id": number, "value": None, "changed": None, **self._do(request), **evidence.take()}
            data = wire.encode(reply, self._handle, limit=self._frame_limit)
        except (
            BaseException
        ) as error:  # KeyboardInterrupt and SystemExit too: the judge decides when this ends
            reply = {"id": number, "error": _describe(error), **self._shown.take(), **evidence.take()}
            data = wire.encode(reply, limit=self._frame_limit)
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except BaseException:  # the learner's own object, perhaps
                continue
        return data

    def _do(self, request: dict[str, Any]) -> dict[str, Any]:
        do = request["do"]
        if do == "cell":
            self._cell(request["name"], request["source"], request["show"])
            return self._shown.take()
        if do == "names":
            names = (name for name in self._namespace if type(name) is str and name not in self._given)
            return {"value": sorted(name for name in names if not name.startswith("__"))}
        if do == "get":
            return {"value": self._named(request["name"])}
        if do == "attribute":
            return {"value": getattr(self._on(request), request["name"])}
        if do == "call":
            function = self._on(request)
            if request["by"] is not None:
                function = functools.partial(getattr(observe, request["by"]), function)
            return self._call(function, request["args"], request["kwargs"])
        raise ValueError(f"there is no request {do!r}")

    def _cell(self, name: str, source: str, show: bool) -> None:
        filename = f"<cell {name}>"
        self._shown.wanted = show
        # What Jupyter understands and Python does not is left out; the cell's other lines count.
        if source.lstrip().startswith("%%"):
            print(f"{filename}: left out, {source.split()[0]} is Jupyter's")
            return
        try:
            tree = ast.parse(source, filename)
        except SyntaxError:
            lines = source.split("\n")
            kept = ["" if _MAGIC.search(line) else line for line in lines]
            if kept == lines:
                raise
            tree = ast.parse("\n".join(kept), filename)
            print(f"{filename}: Jupyter's own lines (%, !, ?) are left out")
        linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        try:
            exec(compile(tree, filename, "exec", dont_inherit=True), self._namespace)
            if isinstance(last, ast.Expr):
                code = compile(ast.Expression(last.value), filename, "eval", dont_inherit=True)
                value = eval(code, self._namespace)
                if show and value is not None and not source.rstrip().endswith(";"):
                    self._shown.display(value)
        finally:
            self._shown.end_of_cell()

    def _call(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        before = wire.encode((args, kwargs), self._handle)
        value = function(*args, **kwargs)
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()  # an error of a kernel belongs to the call that launched it
        try:
            unchanged = wire.encode((args, kwargs), self._handle) == before
        except wire.WireError:
            unchanged = False
        return {"value": value, "changed": None if unchanged else (args, kwargs)}

    def _named(self, name: str) -> Any:
        if name in self._namespace:
            return self._namespace[name]
        raise Missing(f"name '{name}' is not defined")

    def _on(self, request: dict[str, Any]) -> Any:
        on = request["on"]
        return self._named(on) if type(on) is str else self._objects[on]

    def _handle(self, value: Any) -> wire.Handle:
        same = (number for number, known in enumerate(self._objects) if known is value)
        number = next(same, len(self._objects))
        if number == len(self._objects):
            self._objects.append(value)
        return wire.Handle(str(type(value).__name__), callable(value), number)


def _describe(error: BaseException) -> dict[str, Any]:
    try:
        message = str(error)
    except BaseException as second:
        message = f"its message cannot be had: {type(second).__name__}"
    return {
        "type": str(type(error).__name__)[: wire.MAX_NAME],
        "bases": [str(base.__name__)[: wire.MAX_NAME] for base in type(error).__mro__[:16]],
        "message": str.__getitem__(message, slice(MAX_TEXT)),
        "line": _line_of(error),
        "missing": type(error) is Missing,
    }


def _line_of(error: BaseException) -> str:
    """The last line of the learner's cells that the error passed through, in the words of `examine`."""
    try:
        for frame in reversed(traceback.extract_tb(error.__traceback__)):
            if frame.filename.startswith("<cell "):
                return f"in {frame.name}, line {frame.lineno}: {(frame.line or '').strip()}"[:300]
    except BaseException:  # the learner's own exception may do anything when it is looked at
        return ""
    return ""
