"""What is made quicker in Triton's interpreter is still what it was, and takes hold in the Triton that is installed."""

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

import kernels
from kernels import runtime

pytestmark = pytest.mark.skipif(not kernels.INTERPRET, reason="about Triton's interpreter")


@triton.jit
def _twice(x):
    return x + x


@triton.jit
def _double(x_ptr, out_ptr, TIMES: tl.constexpr, TILE: tl.constexpr):
    x = tl.load(x_ptr + tl.arange(0, TILE))
    for _ in tl.static_range(TIMES):
        x = _twice(x)
    tl.store(out_ptr, tl.sum(x))


@pytest.fixture(autouse=True)
def prepared():
    runtime.check_launch("x", torch.zeros(1))


def test_a_launch_patches_triton_once_and_puts_it_back(monkeypatch):
    from triton.runtime import interpreter

    patched = []
    patch = interpreter._patch_builtin
    monkeypatch.setattr(interpreter, "_patch_builtin", lambda *args: (patched.append(args[0]), patch(*args)))
    counts, out = [], torch.zeros(1)
    for times in (1, 1, 5):
        _double[(2,)](torch.arange(4), out, TIMES=times, TILE=4)
        assert out.item() == 6 * 2**times
        assert tl.core.is_builtin(tl.program_id)
        counts.append(len(patched))
        patched.clear()
    # Before the first, what `tl.sum` sees of triton.language may not have been patched yet.
    assert counts[0] >= counts[1] == counts[2] > 0


def test_dtypes_are_numpys():
    from triton.runtime import interpreter

    names = [
        "int1",
        "int8",
        "uint8",
        "int16",
        "uint16",
        "int32",
        "uint32",
        "int64",
        "uint64",
        "float16",
        "float32",
        "float64",
    ]
    for _ in range(2):
        for name in names:
            expected = np.dtype("bool" if name == "int1" else name)
            assert interpreter._get_np_dtype(getattr(tl, name)) == expected
            assert interpreter._get_np_dtype(tl.block_type(getattr(tl, name), [4])) == expected
        for stored_as, bits in (("uint16", "bfloat16"), ("uint8", "float8e4nv"), ("uint8", "float8e5")):
            assert interpreter._get_np_dtype(getattr(tl, bits)) == np.dtype(stored_as)
        assert interpreter._get_np_dtype(tl.pointer_type(tl.float32)) == np.dtype("uint64")
        assert interpreter._get_np_dtype(tl.block_type(tl.pointer_type(tl.int8), [4])) == np.dtype("uint64")


def test_whole_numbers_are_added_once(monkeypatch):
    """Once more to look for an overflow, which would be told to `device_assert`, which does nothing."""
    from triton.runtime import interpreter

    builder = interpreter.InterpreterBuilder
    operations, compute = [], builder.binary_op

    def counted(self, lhs, rhs, operation):
        operations.append(operation)
        return compute(self, lhs, rhs, operation)

    monkeypatch.setattr(builder, "binary_op", counted)
    out = torch.zeros(1, dtype=torch.int64)
    _double[(1,)](torch.arange(4), out, TIMES=3, TILE=4)
    assert out.item() == 48
    assert operations == [np.add] * 3
