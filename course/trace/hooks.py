"""How Python tells of calls: `sys.monitoring` from 3.12 on, `sys.settrace` before. Both tell a Recorder the same.

Both watch the calling thread only, and cost little where nothing is recorded: `sys.monitoring` switches an event off
for good at a place that is not wanted, `sys.settrace` asks for no lines, and not for the end of an unwanted call.
"""

from __future__ import annotations

import opcode
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from types import CodeType, FrameType
from typing import Any

from course.trace.recorder import Recorder


def watching(recorder: Recorder) -> AbstractContextManager[None]:
    """While it is open, what this thread calls is reported to the recorder."""
    return monitored(recorder) if sys.version_info >= (3, 12) else settraced(recorder)


@contextmanager
def settraced(recorder: Recorder) -> Iterator[None]:
    """With `sys.settrace`. A debugger's or a coverage tool's own function is put back afterwards."""
    errors: dict[FrameType, str] = {}  # the last exception seen in a frame
    thrown: set[FrameType] = set()  # generators that an exception was thrown into, before they handle it

    def hook(frame: FrameType, event: str, arg: Any) -> Any:
        """Called when any Python function begins, or a generator goes on."""
        if not recorder.wants(frame.f_globals.get("__name__")):
            return None
        # Lines are asked for only to see that a generator handles what was thrown into it.
        frame.f_trace_lines = _instruction(frame) == "YIELD_VALUE"
        if frame.f_trace_lines:
            thrown.add(frame)
        recorder.begin(frame)
        return follow

    def follow(frame: FrameType, event: str, arg: Any) -> Any:
        """Called for what happens further in a wanted one."""
        if event == "exception":
            errors[frame] = arg[0].__name__
        elif event == "line":
            frame.f_trace_lines = False
            thrown.discard(frame)
        elif event == "return":
            error, last = errors.pop(frame, ""), _instruction(frame)
            # An exception that leaves comes as a return of None, at an instruction that is no return; it leaves a
            # generator that does not handle it at the `yield` where it was thrown in.
            if last == "YIELD_VALUE" and not (frame in thrown and error):
                recorder.suspend(frame)
            elif arg is None and not last.startswith("RETURN_"):
                recorder.unwind(frame, error)
            else:
                recorder.end(frame, arg)
            thrown.discard(frame)
        return follow

    @contextmanager
    def pausing() -> Iterator[None]:
        sys.settrace(None)
        try:
            yield
        finally:
            sys.settrace(hook)

    before = sys.gettrace()
    recorder.pausing = pausing
    sys.settrace(hook)
    try:
        yield
    finally:
        sys.settrace(before)


@contextmanager
def monitored(recorder: Recorder) -> Iterator[None]:
    """With `sys.monitoring`, which is asked for a free tool number; RuntimeError when other tools have taken all."""
    monitoring = sys.monitoring  # type: ignore[attr-defined,unused-ignore]
    events = monitoring.events
    thread = threading.get_ident()
    paused = False

    def ignored(frame: FrameType) -> Any:
        """DISABLE for a place that is not wanted, None for one that only now is not, True for none of both."""
        if not recorder.wants(frame.f_globals.get("__name__")):
            return monitoring.DISABLE
        return None if paused or threading.get_ident() != thread else True

    def begin(code: CodeType, offset: int) -> Any:
        frame = sys._getframe(1)
        if (verdict := ignored(frame)) is True:
            recorder.begin(frame)
            return None
        return verdict

    def end(code: CodeType, offset: int, returned: Any) -> Any:
        frame = sys._getframe(1)
        if (verdict := ignored(frame)) is True:
            recorder.end(frame, returned)
            return None
        return verdict

    def suspend(code: CodeType, offset: int, yielded: Any) -> Any:
        frame = sys._getframe(1)
        if (verdict := ignored(frame)) is True:
            recorder.suspend(frame)
            return None
        return verdict

    # These two cannot be switched off for a place.
    def throw(code: CodeType, offset: int, error: BaseException) -> None:
        frame = sys._getframe(1)
        if ignored(frame) is True:
            recorder.begin(frame)

    def unwind(code: CodeType, offset: int, error: BaseException) -> None:
        frame = sys._getframe(1)
        if ignored(frame) is True:
            recorder.unwind(frame, type(error).__name__)

    @contextmanager
    def pausing() -> Iterator[None]:
        nonlocal paused
        paused = True
        try:
            yield
        finally:
            paused = False

    told = {
        events.PY_START: begin,
        events.PY_RESUME: begin,
        events.PY_THROW: throw,
        events.PY_RETURN: end,
        events.PY_YIELD: suspend,
        events.PY_UNWIND: unwind,
    }
    recorder.pausing = pausing
    tool = _take_tool(monitoring)
    try:
        for event, callback in told.items():
            monitoring.register_callback(tool, event, callback)
        monitoring.restart_events()  # an earlier trace, of other packages, has switched places off
        monitoring.set_events(tool, sum(told))
        yield
    finally:
        monitoring.set_events(tool, 0)
        for event in told:
            monitoring.register_callback(tool, event, None)
        monitoring.free_tool_id(tool)


def _instruction(frame: FrameType) -> str:
    """The name of the instruction that a frame is at."""
    return opcode.opname[frame.f_code.co_code[frame.f_lasti]]


def _take_tool(monitoring: Any) -> int:
    for tool in (4, 3, monitoring.PROFILER_ID, monitoring.OPTIMIZER_ID):
        try:
            monitoring.use_tool_id(tool, "course.trace")
        except ValueError:
            continue
        return int(tool)
    raise RuntimeError(
        "trace needs one of Python's monitoring tool numbers, and other tools have taken them all"
    )
