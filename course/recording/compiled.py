"""Kernels that are compiled, run in Triton's interpreter for as long as a recording lasts.

Triton decides when a function is decorated whether it will be compiled, and where it is, so is its own library
(`tl.sum`, `tl.cdiv`, ...): each is a `JITFunction`. Within `interpreted()` a launch of one, and a call of one by a
kernel, go to an `InterpretedFunction` of the same Python function instead. Arguments on a GPU are copied to the host
before a launch and back after it, by the interpreter.

During a launch the interpreter puts functions of its own into `triton.language`. They must not be left there, or the
compiler meets them: so each launch puts them everywhere at once, and takes all of them out again.
hook.py says which private names of Triton this relies on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from kernels.interpreter import prepare


@contextmanager
def interpreted() -> Iterator[None]:
    """Within the block, and only there, kernels that are compiled elsewhere run in Triton's interpreter.

    Compiling without a launch (`kernel.warmup`) stays what it is. A launch raises RuntimeError for a kernel in Gluon.
    """
    from triton.runtime.interpreter import InterpretedFunction
    from triton.runtime.jit import JITFunction

    prepare()
    original_run, original_call = JITFunction.run, JITFunction.__call__
    made: dict[Callable, Any] = {}

    def interpreted_function(kernel: Any) -> Any:
        if kernel.fn not in made:
            made[kernel.fn] = InterpretedFunction(kernel.fn)
            made[kernel.fn].pre_run_hooks = kernel.pre_run_hooks
        return made[kernel.fn]

    def run(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        if warmup:
            return original_run(self, *args, grid=grid, warmup=warmup, **kwargs)
        if self.is_gluon():
            raise RuntimeError(
                f"course.record: {self.__name__} is written in Gluon, which Triton's interpreter does not run; record the "
                'Triton kernel instead (kernels.paged_decode and kernels.latent_decode take tier="triton", '
                "kernels.paged_attention batch_invariant=True)"
            )
        with _interpreter_in_language():
            return interpreted_function(self).run(*args, grid=grid, warmup=False, **kwargs)

    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:
        return interpreted_function(self)(*args, **kwargs)

    try:
        JITFunction.run, JITFunction.__call__ = run, __call__
        yield
    finally:
        JITFunction.run, JITFunction.__call__ = original_run, original_call


@contextmanager
def _interpreter_in_language() -> Iterator[None]:
    """Within the block, `triton.language` and all of its parts have the interpreter's functions."""
    import triton.language as tl
    from triton.runtime import interpreter
    from triton.runtime.jit import JITFunction

    # A kernel's helpers see parts that the kernel does not see; what they patch on the way, nobody would take out.
    scope = interpreter._patch_lang(SimpleNamespace(__globals__={"tl": tl, "core": tl.core}))
    try:
        # x.sum(axis=0): the compiler passes x to a method that is a JITFunction; Python does for functions only.
        for name, member in list(vars(tl.tensor).items()):
            if isinstance(member, JITFunction):
                scope.set_attr(tl.tensor, name, _method(member))
        yield
    finally:
        scope.restore()


def _method(kernel: Any) -> Callable:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return kernel(self, *args, **kwargs)

    return method
