"""Where kernels are compiled they are recorded too: in the interpreter, and afterwards they are compiled as before.

A process whose kernels are compiled needs no GPU as long as it only records: one such process runs this folder's tests.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import triton
import triton.language as tl
from triton.experimental import gluon

import course
import kernels
from course.recording import OutOfBounds, memory
from kernels.gqa_decode import gqa_decode
from kernels.single_query import single_query_decode
from tests.course.recording import toys
from tests.kernels.batches import Spec, make_batch

compiled = pytest.mark.skipif(kernels.INTERPRET, reason="kernels run in the interpreter here")
HERE = Path(__file__).parent
SPEC = Spec(((1, 9), (1, 4), (1, 13)), num_heads=6, num_kv_heads=2, head_size=16, block_size=4)


@pytest.mark.skipif(not kernels.INTERPRET, reason="kernels are compiled here: nothing to start")
def test_in_a_process_that_compiles_its_kernels():
    files = [str(HERE / name) for name in ("test_compiled.py", "test_record.py", "test_hook.py")]
    process = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:randomly",
            "-m",
            "not gpu",
            *files,
        ],
        env=os.environ | {"TRITON_INTERPRET": "0"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stdout[-3000:]
    assert " passed" in process.stdout
    assert "1 skipped" in process.stdout  # this test: no other one may be


@triton.jit
def twice(x):
    return x + x


@triton.jit
def by_the_library(x_ptr, out_ptr, N: tl.constexpr):
    """Functions and methods of `triton.language` that are kernels themselves, and a helper."""
    lane = tl.arange(0, N)
    x = tl.load(x_ptr + lane[:, None] * N + lane[None, :])
    y = x.sum(axis=0) + tl.max(x, axis=1) + tl.cumsum(tl.sum(x, axis=1), axis=0) + twice(tl.cdiv(7, 2))
    tl.store(out_ptr + lane, y)


def library_says(x: torch.Tensor) -> torch.Tensor:
    return x.sum(0) + x.max(1).values + x.sum(1).cumsum(0) + 8


@triton.autotune([triton.Config({"N": 4}, num_warps=1)], key=[])
@triton.heuristics({"FIRST": lambda arguments: arguments["N"] // 2})
@triton.jit
def tuned(x_ptr, N: tl.constexpr, FIRST: tl.constexpr):
    tl.store(x_ptr + FIRST + tl.arange(0, N), 1.0)


@gluon.jit
def in_gluon(x_ptr):
    pass


def language() -> dict:
    """Everything that the interpreter could have left in `triton.language`."""
    parts = (tl, tl.core, tl.math, tl.tensor, tl.dtype, tl.core.tensor_descriptor_base)
    return {
        (part.__name__, name): getattr(part, name)
        for part in parts
        for name in dir(part)
        if name not in ("__dict__", "__init_subclass__", "__subclasshook__", "semantic")
    }


def compiled_for_hopper(kernel) -> str:
    """The kernel's PTX, compiled anew: no GPU is needed for that."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature = {"x_ptr": "*fp32", "out_ptr": "*fp32", "N": "constexpr"}
    source = ASTSource(kernel, signature, constexprs={"N": 16})
    return triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["ptx"]


@compiled
def test_nothing_of_the_interpreter_is_left_behind(monkeypatch):
    monkeypatch.setattr(triton.knobs.compilation, "always_compile", True)
    before, ptx = language(), compiled_for_hopper(by_the_library)
    with course.record():
        by_the_library[(1,)](torch.zeros(16, 16), torch.zeros(16), N=16)
    with pytest.raises(OutOfBounds), course.record():
        by_the_library[(1,)](torch.zeros(16, 15), torch.zeros(16), N=16)
    after = language()
    assert [name for name in {*before, *after} if before.get(name) is not after.get(name)] == []
    assert compiled_for_hopper(by_the_library) == ptx
    with pytest.raises(RuntimeError, match="outside of the scope of a kernel"):
        twice(1)


@compiled
def test_between_launches_the_language_is_the_compiler_s():
    before = language()
    with course.record():
        by_the_library[(1,)](torch.zeros(16, 16), torch.zeros(16), N=16)
        assert all(before[name] is value for name, value in language().items())


@compiled
def test_functions_and_methods_of_the_language_that_are_kernels():
    x, out = torch.randn(16, 16), torch.zeros(16)
    with course.record() as recording:
        by_the_library[(1,)](x, out, N=16, num_warps=2, num_stages=1)
    torch.testing.assert_close(out, library_says(x))
    assert [launch.kernel for launch in recording.launches] == ["by_the_library"]
    assert [access.kind for access in recording] == ["load", "store"]


@compiled
def test_wrappers_and_hooks(monkeypatch):
    seen = []
    monkeypatch.setattr(toys.write_at, "pre_run_hooks", [lambda *args, **kwargs: seen.append(kwargs["N"])])
    x = torch.zeros(8)
    with course.record(x=x) as recording:
        tuned[(1,)](x)
        toys.write_at[(1,)](x, 0, N=2)
    assert x.tolist() == [1, 1, 1, 1, 1, 1, 0, 0]
    assert recording.writes("x").tolist() == [1, 1, 1, 1, 1, 1, 0, 0]
    assert seen == [2]


@compiled
def test_gluon_is_refused_in_one_sentence():
    with pytest.raises(RuntimeError) as caught, course.record() as recording:
        in_gluon[(1,)](torch.zeros(1))
    assert str(caught.value).startswith(
        "course.record: in_gluon is written in Gluon, which Triton's interpreter does not run; record the Triton kernel"
    )
    assert not recording.ran


@compiled
@pytest.mark.parametrize(
    ("decode", "times"), [(single_query_decode, 3), (gqa_decode, 1), (kernels.paged_decode, 1)]
)
def test_the_library_s_kernels_with_the_settings_of_a_gpu(decode, times, monkeypatch):
    from kernels import runtime

    monkeypatch.setattr(runtime, "check_launch", lambda name, tensor: None)  # tensors are on the CPU
    monkeypatch.setattr(runtime, "num_multiprocessors", lambda device: 4)
    batch = make_batch(SPEC, torch.float32, torch.device("cpu"))
    recording = course.record(decode, *batch.decode_arguments)
    expected = kernels.reference.paged_decode(*batch.decode_arguments)
    torch.testing.assert_close(recording.result, expected)
    read = batch.owned[:, :, None, None].expand_as(batch.key_cache)
    assert torch.equal(torch.from_numpy(recording.reads("key_cache")), times * read)
    assert recording.trespasses(batch.block_table, batch.seq_lens) == []


@pytest.fixture
def elsewhere(monkeypatch):
    """Tensors as on a GPU: the interpreter has them in copies at other addresses."""
    monkeypatch.setattr(torch.UntypedStorage, "cpu", lambda storage: storage.clone())
    monkeypatch.setattr(memory, "_is_on_host", lambda tensor: False)


def test_copies_on_the_host_count_as_the_tensors(elsewhere):
    kv = torch.arange(48.0).reshape(4, 2, 6).transpose(0, 1)
    key, value = kv.unbind(0)
    whole, out = torch.zeros(9), torch.zeros(20)
    with course.record(key=key, value=value) as recording:
        toys.helped[(1,)](key, out[4:], kv.stride(1))
        toys.helped[(1,)](value, out[5:], kv.stride(1))
        toys.write_at[(1,)](whole[3:], -1, N=2)
    assert [(access.tensor, access.indices.tolist()) for access in recording.accesses(kind="load")] == [
        ("key", [[1, 0]]),
        ("value", [[1, 0]]),
    ]
    # What was stored came back, and nothing else was written.
    assert out[:6].tolist() == [0, 0, 0, 0, key[1, 0], value[1, 0]]
    assert whole.tolist() == [0, 0, 1, 1, 0, 0, 0, 0, 0]
    assert torch.equal(kv.transpose(0, 1).reshape(-1), torch.arange(48.0))


def test_what_is_not_in_a_copy_is_not_touched(elsewhere):
    x, out = torch.arange(4.0), torch.zeros(4)
    with pytest.raises(OutOfBounds) as caught, course.record(x=x):
        toys.helped[(1,)](x, out, 4)
    assert (caught.value.tensor, caught.value.offset) == ("x", 4)
    # A tensor that a table of pointers leads to: with a launch that has a copy of it, and without.
    table = torch.tensor([x.data_ptr()])
    with course.record(x=x) as recording:
        toys.through_two[(1,)](table, x, out, N=4)
    assert out.tolist() == [0, 1, 2, 3]
    assert recording.reads("x").tolist() == [1, 1, 1, 1]
    # An address that a kernel was given for one launch means nothing in the next.
    kept = torch.zeros(1, dtype=torch.int64)

    def in_the_next_launch(table):
        toys.keep_address[(1,)](x, kept)
        toys.through_a_table[(1,)](table, out, N=4)

    for addresses in (table, kept):
        with (
            pytest.raises(OutOfBounds, match="no tensor of this launch .* Pass the tensor to the kernel. At"),
            course.record(x=x),
        ):
            in_the_next_launch(addresses)


@pytest.mark.gpu
def test_tensors_on_a_gpu_are_recorded_as_on_the_cpu():
    on_cpu, on_gpu = torch.randn(16, 18), torch.empty(16, 18, device="cuda")
    on_gpu.copy_(on_cpu)
    recordings = []
    for whole in (on_cpu, on_gpu):
        x, out = whole[2:7, 1:4], torch.zeros(8, 4, device=whole.device)
        with course.record(x=x, out=out) as recording:
            toys.copy_tile[(1,)](x, out, 1, 5, 3, *x.stride(), ROWS=8, COLUMNS=4)
        assert torch.equal(out[:4, :3], x[1:])
        recordings.append(recording)
    cpu, gpu = recordings
    assert len(cpu) == len(gpu) == 2
    for one, other in zip(cpu, gpu, strict=True):
        assert (one.tensor, one.kind, one.line, one.num_masked) == (
            other.tensor,
            other.kind,
            other.line,
            other.num_masked,
        )
        assert one.offsets.tolist() == other.offsets.tolist()
    assert (cpu.reads("x") == gpu.reads("x")).all()
    assert torch.equal(on_gpu.cpu(), on_cpu)


@pytest.mark.gpu
def test_on_a_gpu_kernels_compile_before_and_after():
    x, out = torch.randn(16, 16, device="cuda"), torch.zeros(3, 16, device="cuda")
    by_the_library[(1,)](x, out[0], N=16)
    with course.record() as recording:
        by_the_library[(1,)](x, out[1], N=16)
        assert by_the_library.warmup(x, out[2], N=16, grid=(1,)) is not None
    # Not compiled yet for these arguments.
    by_the_library[(1,)](x, out[2], N=16, num_warps=8)
    assert recording.launches[0].grid == (1, 1, 1)
    assert len(recording.launches) == 1
    for row in out:
        torch.testing.assert_close(row, library_says(x), atol=1e-4, rtol=1e-4)


@pytest.mark.gpu
def test_on_a_gpu_out_of_bounds_is_a_message_and_no_broken_gpu():
    x, out = torch.arange(4.0, device="cuda"), torch.zeros(4, device="cuda")
    with pytest.raises(OutOfBounds, match="loads from x at offset 1099511627776"), course.record(x=x):
        toys.helped[(1,)](x, out, 2**40)
    table = torch.tensor([x.data_ptr()], device="cuda")
    with pytest.raises(OutOfBounds, match="belongs to no tensor of this launch"), course.record(x=x):
        toys.through_a_table[(1,)](table, out, N=4)
    with pytest.raises(ValueError, match="^x_ptr: expected float16 or float32 .* bfloat16"), course.record():
        toys.helped[(1,)](x.bfloat16(), out, 0)
    torch.cuda.synchronize()
    assert (x + 1).tolist() == [1, 2, 3, 4]


@pytest.mark.gpu
def test_on_a_gpu_the_library_s_kernels():
    batch = make_batch(SPEC, torch.float16, torch.device("cuda"))
    recording = course.record(kernels.paged_decode, *batch.decode_arguments, tier="triton")
    expected = kernels.reference.paged_decode(*batch.decode_arguments)
    torch.testing.assert_close(recording.result, expected, atol=2e-3, rtol=2e-3)
    read = batch.owned[:, :, None, None].expand_as(batch.key_cache).cpu()
    assert torch.equal(torch.from_numpy(recording.reads("key_cache")), 1 * read)
    assert recording.trespasses(batch.block_table, batch.seq_lens) == []
