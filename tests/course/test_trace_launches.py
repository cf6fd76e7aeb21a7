"""Launches of kernels in a trace: in the interpreter or on the GPU as they come, and what this takes from Triton."""

import inspect

import pytest
import torch
import triton.language as tl
from triton.experimental.gluon._runtime import GluonJITFunction
from triton.runtime.interpreter import InterpretedFunction
from triton.runtime.jit import JITFunction

import kernels
from course.trace import trace


def decode_step(device):
    """Arguments of `paged_decode`: lengths 5, 33 and 64 in blocks of 16."""
    make = torch.Generator().manual_seed(0)
    query = torch.randn(3, 4, 32, generator=make)
    key_cache, value_cache = (torch.randn(12, 16, 2, 32, generator=make) for _ in range(2))
    block_table = torch.arange(12, dtype=torch.int32).reshape(3, 4)
    seq_lens = torch.tensor([5, 33, 64], dtype=torch.int32)
    return [each.to(device) for each in (query, key_cache, value_cache, block_table, seq_lens)]


def test_a_launch_is_one_call_of_the_launcher(device):
    arguments = decode_step(device)
    traced = trace(kernels.paged_decode, *arguments, 32**-0.5, tier="triton")
    torch.testing.assert_close(traced.result, kernels.paged_decode(*arguments, 32**-0.5, tier="triton"))

    first, *_ = launches = [call for call in traced.calls() if call.kind == "launch"]
    assert {call.module.partition(".")[0] for call in launches} == {"kernels"}
    assert first.name == "kernels.decode:_paged_decode_kernel"
    assert traced.path("_paged_decode_kernel") == [
        "kernels.decode:paged_decode",
        "kernels.decode:launch_decode",
        first.name,
    ]
    assert all(call.calls == [] for call in launches), "what runs inside is Triton's, not a call"
    assert (first.arguments["block_table_ptr"].shape, first.arguments["block_table_ptr"].dtype) == (
        (3, 4),
        "int32",
    )
    assert first.arguments["HEAD_SIZE"].text == "32"
    assert "num_warps" not in first.arguments
    assert first.grid.startswith("(")
    source, _ = inspect.getsourcelines(kernels.decode)
    assert source[first.line - 1].startswith("def _paged_decode_kernel(")
    called_at = int(first.called_at.removeprefix("kernels/decode.py:"))
    assert "_paged_decode_kernel[" in source[called_at - 1]
    assert f"launch over grid {first.grid}" in repr(traced)


def test_the_cache_write_and_the_read_are_both_there(device):
    query, key_cache, value_cache, block_table, seq_lens = decode_step(device)
    key = torch.zeros(3, 2, 32, device=device)
    slot_mapping = torch.tensor([4, 96, -1], device=device)

    def step():
        kernels.reshape_and_cache(key, key, key_cache, value_cache, slot_mapping)
        return kernels.paged_decode(query, key_cache, value_cache, block_table, seq_lens, 1.0, tier="triton")

    traced = trace(step)
    write, read = traced.find("_reshape_and_cache_kernel")[0], traced.find("_paged_decode_kernel")[0]
    assert write.arguments["slot_mapping_ptr"].shape == (3,)
    assert [root.qualname for root in traced.roots] == ["reshape_and_cache", "paged_decode"]
    assert traced.calls().index(write) < traced.calls().index(read)


def test_kernels_of_other_packages_are_left_out(device):
    traced = trace(
        kernels.paged_decode, *decode_step(device), 1.0, tier="triton", packages=("kernels.contract",)
    )
    assert traced.find("check_paged")
    assert all(call.module == "kernels.contract" for call in traced.calls())


def kernel(x_ptr, n, BLOCK: tl.constexpr):
    """Launched by the stubs below, never compiled."""


kernel.__module__ = "stubs"


@pytest.mark.parametrize("jit", [JITFunction, GluonJITFunction], ids=["triton", "gluon"])
def test_a_launch_on_a_gpu_looks_the_same(monkeypatch, jit):
    """Without a GPU: Triton's own way to `run`, which is a stub."""
    ran = []
    monkeypatch.setattr(
        JITFunction, "run", lambda self, *args, grid, warmup, **kwargs: ran.append((args, grid, kwargs))
    )
    stub = JITFunction.run
    x = torch.zeros(5)

    def launch():
        jit(kernel)[(7,)](x, 5, BLOCK=16, num_warps=4)
        jit(kernel).warmup(x, 5, BLOCK=16, grid=(1,))

    traced = trace(launch, packages=("stubs",))
    assert ran[0] == ((x, 5), (7,), {"BLOCK": 16, "num_warps": 4})
    assert len(ran) == 2
    assert JITFunction.run is stub, "put back"
    (call,) = traced.roots
    assert (call.kind, call.grid, call.qualname) == ("launch", "(7)", "kernel")
    assert {name: str(value) for name, value in call.arguments.items()} == {
        "x_ptr": "float32 [5]",
        "n": "5",
        "BLOCK": "16",
    }


def test_a_kernel_that_fails_is_said_and_the_trace_goes_on(monkeypatch):
    def fail(self, *args, grid, warmup, **kwargs):
        raise OSError("no")

    monkeypatch.setattr(JITFunction, "run", fail)

    def launch():
        with pytest.raises(OSError, match="no"):
            JITFunction(kernel)[(1,)](1, 2, 3)
        kernels.device()

    traced = trace(launch, packages=("stubs", "kernels"))
    assert [root.qualname for root in traced.roots] == ["kernel", "device"]
    assert traced.find("kernel")[0].raised == "OSError"


def test_what_the_tracer_takes_from_triton():
    """A canary for what Triton does not document. It fails when Triton changes it: then course/trace/launches.py must."""
    for one in (JITFunction, InterpretedFunction):
        parameters = inspect.signature(one.__dict__["run"]).parameters
        assert list(parameters) == ["self", "args", "grid", "warmup", "kwargs"], one
        assert [p.kind.name for p in parameters.values()][1:] == [
            "VAR_POSITIONAL",
            "KEYWORD_ONLY",
            "KEYWORD_ONLY",
            "VAR_KEYWORD",
        ]
    assert issubclass(GluonJITFunction, JITFunction)
    assert "run" not in GluonJITFunction.__dict__
    assert inspect.isfunction(JITFunction(kernel).fn)
    assert inspect.isfunction(InterpretedFunction(kernel).fn)
