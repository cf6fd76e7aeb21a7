"""The private interface of Triton's interpreter that recordings rely on. When this fails, its message says what changed."""

from __future__ import annotations

import ast
import inspect
from types import SimpleNamespace

import pytest
import torch

import course
import kernels
from course.recording import hook
from tests.course.recording import toys


def test_the_installed_interpreter_is_as_known():
    hook.differences.cache_clear()
    assert hook.differences() == ()


def changed(old: str, new: str) -> tuple[str, ...]:
    from triton.runtime import interpreter

    text = inspect.getsource(interpreter)
    assert old in text
    return hook.differences_in(interpreter, ast.parse(text.replace(old, new)))


def test_a_new_way_to_memory_is_named():
    way = "def create_fabs(self, arg):\n        _interpreter.prefetch(arg)"
    assert changed("def create_fabs(self, arg):", way) == (
        "create_fabs touches memory through _interpreter.prefetch",
    )
    assert changed("_interpreter.store(", "_interpreter.write(") == (
        "create_masked_store touches memory through _interpreter.write",
        "create_masked_store no longer calls _interpreter.store",
    )
    assert changed(".data_ptr()", ".address()") == ("the interpreter no longer uses data_ptr",)


def test_a_method_that_changed_is_named():
    from triton.runtime import interpreter

    tree = ast.parse(inspect.getsource(interpreter))

    class Builder(interpreter.InterpreterBuilder):
        def create_masked_load(self, ptrs, mask):
            """Another signature."""

    class Executor:
        pass

    stand_in = SimpleNamespace(InterpreterBuilder=Builder, GridExecutor=Executor)
    found = hook.differences_in(stand_in, tree)
    assert (
        "InterpreterBuilder.create_masked_load takes (self, ptrs, mask), not "
        "(self, ptrs, mask, other, cache_modifier, eviction_policy, is_volatile)" in found
    )
    assert "GridExecutor._init_args_hst is gone" in found
    assert "_patch_lang is gone" in found


def test_a_kernel_that_runs_another_way_is_named(monkeypatch):
    """What recordings rely on where kernels are compiled."""
    from triton.runtime import jit

    class Kernel(jit.JITFunction):
        def run(self, *args, **kwargs):
            """Another signature."""

    monkeypatch.setattr(jit, "JITFunction", Kernel)
    assert hook.differences.__wrapped__() == (
        "JITFunction.run takes (self, args, kwargs), not (self, args, grid, warmup, kwargs)",
    )


def test_an_unknown_interpreter_is_not_recorded(monkeypatch):
    monkeypatch.setattr(hook, "differences", lambda: ("create_masked_load is gone",))
    with (
        pytest.raises(
            RuntimeError, match="does not know the interpreter of Triton .*: create_masked_load is gone"
        ),
        course.record(),
    ):
        pass


def test_a_recording_changes_no_result_and_leaves_no_name_behind():
    """Triton copies its interpreter's globals into a kernel's module: nothing of ours may be among them."""
    x, recorded = torch.randn(5, 3), torch.zeros(8, 4)
    with course.record():
        toys.copy_tile[(1,)](x, recorded, 0, 5, 3, 3, 1, ROWS=8, COLUMNS=4)
    if kernels.INTERPRET:  # elsewhere nothing runs on the CPU but what is recorded
        plain = torch.zeros(8, 4)
        toys.copy_tile[(1,)](x, plain, 0, 5, 3, 3, 1, ROWS=8, COLUMNS=4)
        assert torch.equal(plain, recorded)
    assert torch.equal(recorded[:5, :3], x)
    assert not [
        name
        for name, value in vars(toys).items()
        if str(getattr(value, "__module__", "")).startswith("course")
    ]
