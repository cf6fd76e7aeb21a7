"""Triton's interpreter, prepared: it works with the NumPy that is installed, and does nothing twice. A kernel takes a
third of the time.

It computes what it computed before. Functions of `triton.runtime.interpreter`, which are private, are replaced once a
process; tests/kernels/test_interpreter.py says when another Triton no longer has them.
"""

import dataclasses
import functools
from typing import Any

__all__ = ["prepare"]


@functools.cache
def prepare() -> None:
    """Prepare the interpreter of this process. Loads Triton."""
    import triton
    from triton.runtime import interpreter

    if tuple(int(part) for part in triton.__version__.split(".")[:2]) < (3, 7):
        _count_with_scalars(interpreter)
    _patch_once_a_launch(interpreter)
    _look_up_dtypes_once(interpreter)
    _add_once(interpreter.interpreter_builder)


def _count_with_scalars(interpreter: Any) -> None:
    """Let `range(tl.cdiv(n, TILE_SIZE))` work in Triton 3.6's interpreter with NumPy 2.5.

    The interpreter holds every scalar in an array of one element. Triton 3.6 calls int() on it, which NumPy
    2.5 refuses; Triton 3.7 squeezes the array first, and so do we.
    """
    patch_tensor = interpreter._patch_lang_tensor

    def patch_tensor_and_index(tensor: Any, scope: Any) -> None:
        patch_tensor(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = patch_tensor_and_index


def _patch_once_a_launch(interpreter: Any) -> None:
    """A launch puts the interpreter's functions into triton.language, and takes them out at its end. Every call of a
    device function in between (`tl.sum` is one) does it all again: nearly half of a small kernel's time."""
    import triton.language as tl

    patch = interpreter._patch_lang

    def patch_unless_patched(fn: Any) -> Any:
        if tl.core.is_builtin(tl.program_id) or tl.core.is_builtin(tl.core.program_id):
            return patch(fn)
        return interpreter._LangPatchScope()  # nothing to put back

    interpreter._patch_lang = patch_unless_patched


def _look_up_dtypes_once(interpreter: Any) -> None:
    """For each operation the interpreter makes a table of all dtypes, to find one of NumPy's in it. A name says which
    dtype of Triton's it is."""
    look_up = interpreter._get_np_dtype
    found: dict[str, Any] = {}

    def look_up_once(tt_dtype: Any) -> Any:
        if tt_dtype.name not in found:
            found[tt_dtype.name] = look_up(tt_dtype)
        return found[tt_dtype.name]

    interpreter._get_np_dtype = look_up_once


def _add_once(builder: Any) -> None:
    """Whole numbers are added and multiplied a second time, as int64, to see whether they overflow. The finding goes to
    `tl.device_assert`, which does nothing where `debug` is off: a quarter of what was left of the time."""
    builder.options = dataclasses.replace(builder.options, sanitize_overflow=builder.options.debug)
