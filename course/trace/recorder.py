"""From events (a function began, returned, yielded, was left by an exception) to a tree of calls.

The hooks (hooks.py) and the launches of kernels (launches.py) report here; only here is it known what a call is.
"""

from __future__ import annotations

import ast
import functools
import inspect
import linecache
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import PurePath
from types import CodeType, FrameType
from typing import Any

from course.trace.tree import Call, Trace, Value
from course.trace.values import describe

# Frames of their own before Python 3.12, part of the function around them since: never a call here.
_COMPREHENSIONS = ("<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>")
_parsing = threading.Lock()  # Python 3.11's parser cannot run on two threads at once
_GENERATORS = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


class Recorder:
    """Builds `trace` from the events of one thread."""

    def __init__(self, trace: Trace):
        self._trace = trace
        self._wanted: dict[str, bool] = {}  # by module
        # The open calls, the innermost last. None: a module that is being imported, in which nothing is recorded.
        self._open: list[tuple[FrameType, Call | None]] = []
        self._suspended: dict[FrameType, Call] = {}
        self._codes: list[tuple[Call, CodeType]] = []
        self.pausing: Callable[[], AbstractContextManager[None]] = nullcontext

    def wants(self, module: Any) -> bool:
        """Whether calls of this module's functions are recorded."""
        if module not in self._wanted:
            name = module if isinstance(module, str) else ""
            ours = f"{name}.".startswith("course.trace.")
            self._wanted[module] = not ours and any(
                f"{name}.".startswith(f"{package}.") for package in self._trace.packages
            )
        return self._wanted[module]

    def begin(self, frame: FrameType) -> None:
        """A function of a wanted module begins, or a generator goes on."""
        code = frame.f_code
        if (self._open and self._open[-1][1] is None) or code.co_name in _COMPREHENSIONS:
            return
        if code.co_filename == "<string>":  # a dataclass's __init__: nobody wrote it
            return
        if frame in self._suspended:
            self._open.append((frame, self._suspended.pop(frame)))
            return
        if code.co_qualname in ("<module>", "__getattr__"):  # an import, and a package's late one (PEP 562)
            self._open.append((frame, None))
            return
        if not code.co_flags & inspect.CO_OPTIMIZED:  # the body of a class
            return
        kind = "generator" if code.co_flags & _GENERATORS else "call"
        call = self._add(str(frame.f_globals.get("__name__")), code, kind, frame)
        call.arguments = _arguments(frame)
        self._open.append((frame, call))

    def end(self, frame: FrameType, returned: Any) -> None:
        """A function returned."""
        if (call := self._close(frame)) is not None:
            call.returned = describe(returned)

    def suspend(self, frame: FrameType) -> None:
        """A generator yielded, or a coroutine waits."""
        if (call := self._close(frame)) is not None:
            self._suspended[frame] = call

    def unwind(self, frame: FrameType, error: str) -> None:
        """An exception left a function. error: its type's name."""
        if (call := self._close(frame)) is not None:
            call.raised = error

    @contextmanager
    def launch(self, function: Callable[..., Any], arguments: Mapping[str, Any], grid: Any) -> Iterator[None]:
        """The launch of a kernel: one call. What runs in it, Triton's interpreter or its compiler, is not recorded."""
        if self._open and self._open[-1][1] is None:
            yield
            return
        code = function.__code__
        call = self._add(function.__module__, code, "launch", inspect.currentframe())
        call.arguments = {name: describe(value) for name, value in arguments.items()}
        call.grid = describe(grid).text
        try:
            with self.pausing():
                yield
        except BaseException as error:
            call.raised = type(error).__name__
            raise

    def finish(self) -> None:
        """The run is over: forget its frames, and look up the lines of `def`."""
        self._open.clear()
        self._suspended.clear()
        for call, code in self._codes:
            call.line = def_line(code)
        self._codes.clear()

    def _add(self, module: str, code: CodeType, kind: str, frame: FrameType | None) -> Call:
        call = Call(
            module, code.co_qualname, file_of(module, code.co_filename), code.co_firstlineno, kind=kind
        )
        self._codes.append((call, code))
        if self._open:
            parent_frame, parent = self._open[-1]
            assert parent is not None
            call.called_at = f"{parent.file}:{_line_in(parent_frame, frame)}"
            parent.calls.append(call)
        else:
            self._trace.roots.append(call)
        return call

    def _close(self, frame: FrameType) -> Call | None:
        if not self._open or self._open[-1][0] is not frame:
            return None
        return self._open.pop()[1]


def _line_in(parent: FrameType, frame: FrameType | None) -> int:
    """The line that `parent` is at, or a comprehension of it that leads to `frame`."""
    inner = None
    while frame is not None and frame is not parent:
        inner, frame = frame, frame.f_back
    if inner is not None and inner.f_code.co_name in _COMPREHENSIONS:
        return inner.f_lineno
    return parent.f_lineno


def _arguments(frame: FrameType) -> dict[str, Value]:
    code, values = frame.f_code, frame.f_locals
    count = code.co_argcount + code.co_kwonlyargcount
    names = {name: name for name in code.co_varnames[:count]}
    for flag, stars in ((inspect.CO_VARARGS, "*"), (inspect.CO_VARKEYWORDS, "**")):
        if code.co_flags & flag:
            names[stars + code.co_varnames[count]] = code.co_varnames[count]
            count += 1
    return {shown: describe(values[name]) for shown, name in names.items() if name in values}


@functools.lru_cache(maxsize=1024)
def file_of(module: str, filename: str) -> str:
    """The file from the folder above the top package on ("kernels/decode.py"), whatever that folder is."""
    path = PurePath(filename)
    if module == "__main__":
        return "notebook cell" if "ipykernel" in filename else path.name
    depth = module.count(".") + 1 + (path.stem == "__init__")
    return "/".join(path.parts[-depth:])


def def_line(code: CodeType) -> int:
    """The line of `def`: a code object begins at its first decorator."""
    with _parsing:
        lines = _def_lines(code.co_filename)
    return lines.get((code.co_name, code.co_firstlineno), code.co_firstlineno)


@functools.lru_cache(maxsize=256)
def _def_lines(file: str) -> dict[tuple[str, int], int]:
    """Of the decorated functions of a file: (name, first decorator's line) -> line of `def`."""
    try:
        tree = ast.parse("".join(linecache.getlines(file)))
    except SyntaxError:
        return {}
    return {
        (node.name, min(each.lineno for each in node.decorator_list)): node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.decorator_list
    }
