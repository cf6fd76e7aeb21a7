"""`course.record`: where a recording starts and stops."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any, overload

import torch

import kernels
from course.recording.memory import Memory, OutOfBounds
from course.recording.model import Recording
from kernels import runtime

MAX_ACCESSES = 1_000_000


@overload
def record(*, names: None = ..., max_accesses: int = ..., **tensors: torch.Tensor) -> RecordingBlock: ...
@overload
def record(
    function: Callable,
    /,
    *args: Any,
    names: Mapping[str, torch.Tensor] | None = ...,
    max_accesses: int = ...,
    **kwargs: Any,
) -> Recording: ...
def record(
    function: Callable | None = None,
    /,
    *args: Any,
    names: Mapping[str, torch.Tensor] | None = None,
    max_accesses: int = MAX_ACCESSES,
    **kwargs: Any,
) -> RecordingBlock | Recording:
    """Run Triton kernels in the interpreter, on a machine with a GPU too, and keep what each program loads and stores.

    Two ways to use it:

        with course.record(key_cache=key_cache, query=query) as recording:
            launcher(query, key_cache, ...)                    # any code that launches kernels
        recording = course.record(launcher, query, key_cache, ...)   # recording.result is what it returned

    Tensors are known by name: as named here; with a function, as its parameters are named; any other argument of a
    launch as the kernel's parameter is (`split_out` for split_out_ptr). An argument that is a view of a named tensor
    counts as that tensor.

    A kernel may touch the storage of the tensor whose pointer it uses, nothing else. What is out of bounds raises
    `OutOfBounds` before memory is touched; its `recording` has everything up to there.

    Where kernels are compiled, on a machine with a GPU, they run in the interpreter while the recording lasts: with the
    grid and the tile sizes that the launcher chose for the GPU, on copies of the tensors on the host, which are copied
    back after each launch. So take a small case. Kernels in Gluon and tensors in bfloat16 are refused: the interpreter
    cannot run them. `triton.autotune` would time the interpreter: call the kernel once before. After the block, kernels
    are compiled as before.

    Args:
        function: called with *args and **kwargs while recording. Without it, the result is for a with-statement.
        names: more names for tensors, with a function only. In a with-statement, keywords name tensors.
        max_accesses: more than this end the recording with a RuntimeError, so that an endless loop ends.

    Raises:
        RuntimeError: while another recording runs, for a version of Triton whose interpreter differs from those known
            here (3.6 and 3.7), or at the launch of a kernel in Gluon.
        ValueError: when something named is not a tensor, or not on the CPU where kernels run there.
    """
    if function is None:
        if args or names is not None:
            raise ValueError(
                "function: expected a function to call, because arguments for it are given, got None"
            )
        return RecordingBlock(kwargs, max_accesses)
    if not callable(function):
        raise ValueError(
            f"function: expected a function, got {type(function).__name__}; tensors are named: course.record(query=query)"
        )
    block = RecordingBlock({**_named_by(function, args, kwargs), **(names or {})}, max_accesses)
    with block as recording:
        recording.result = function(*args, **kwargs)
    return recording


class RecordingBlock:
    """`course.record(...)` in a with-statement: gives the `Recording`, which can be read when the block has ended."""

    def __init__(self, tensors: Mapping[str, Any], max_accesses: int) -> None:
        for name, tensor in tensors.items():
            if not isinstance(tensor, torch.Tensor):
                raise ValueError(f"{name}: expected a tensor, got {type(tensor).__name__}")
            if kernels.INTERPRET and tensor.device.type != "cpu":
                raise ValueError(f"{name}: expected a tensor on cpu, got one on {tensor.device}")
        self._tensors = tensors
        self._max_accesses = max_accesses
        self._stack = ExitStack()

    def __enter__(self) -> Recording:
        if kernels.INTERPRET:
            # Says what to do when this process has loaded Triton without its interpreter.
            runtime.check_launch("tensor", torch.empty(0))
        from course.recording.compiled import interpreted
        from course.recording.hook import hooked, make_recorder
        from course.recording.torch_ops import WatchTorch

        self._recording = Recording()
        memory = Memory(self._tensors)
        self._recorder = make_recorder(memory, self._max_accesses)
        self._watch = WatchTorch(memory, lambda: len(self._recorder.launches))
        with ExitStack() as stack:
            stack.enter_context(hooked(self._recorder, self._watch))
            if not kernels.INTERPRET:
                stack.enter_context(interpreted())
            stack.enter_context(self._watch)
            self._stack = stack.pop_all()
        return self._recording

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()
        self._recorder.finish(self._recording)
        self._recording.torch_ops = self._watch.ops
        if isinstance(error, OutOfBounds):
            self._recording.out_of_bounds = error
            error.recording = self._recording
        # They hold every tensor that was recorded.
        del self._recorder, self._watch


def _named_by(function: Callable, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The tensors among the arguments, named as the function's parameters are."""
    try:
        bound = inspect.signature(function).bind(*args, **kwargs).arguments
    except (TypeError, ValueError):  # no signature, or a wrong call, which the call itself says best
        return {}
    return {name: value for name, value in bound.items() if isinstance(value, torch.Tensor)}
