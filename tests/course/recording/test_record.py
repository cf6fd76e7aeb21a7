"""What is recorded is what the kernel touches; what is out of bounds is not touched; the interpreter is put back."""

from __future__ import annotations

import math
import types
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import course
from course.recording import OutOfBounds
from tests.course.recording import toys


def hooks() -> list:
    from triton.runtime import interpreter, jit

    builder, executor = interpreter.InterpreterBuilder, interpreter.GridExecutor
    names = ("create_masked_load", "create_masked_store", "create_atomic_cas", "create_atomic_rmw")
    return [
        *(vars(builder)[name] for name in names),
        executor.__call__,
        executor._init_args_hst,
        jit.JITFunction.run,
        jit.JITFunction.__call__,
    ]


@pytest.fixture(autouse=True)
def interpreter_is_put_back():
    before = hooks()
    yield
    assert all(now is then for now, then in zip(hooks(), before, strict=True))


@st.composite
def views(draw):
    """A two-dimensional view into a larger storage: any offset, strides, order of dimensions, dtype."""
    rows, columns = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    steps = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    before = draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    dtype = draw(st.sampled_from([torch.float32, torch.float16, torch.int64, torch.int8]))
    size = [before[0] + rows * steps[0], before[1] + columns * steps[1]]
    whole = torch.arange(math.prod(size)).reshape(size).to(dtype)
    view = whole[before[0] :: steps[0], before[1] :: steps[1]]
    return view.T if draw(st.booleans()) else view


@settings(max_examples=60, deadline=None)
@given(views(), st.data())
def test_recorded_loads_are_what_numpy_says(view, data):
    num_rows = data.draw(st.integers(0, view.shape[0]))
    num_columns = data.draw(st.integers(0, view.shape[1]))
    first_row = data.draw(st.integers(0, view.shape[0]))
    out = torch.zeros(8, 8, dtype=view.dtype)
    with course.record(view=view, out=out) as recording:
        toys.copy_tile[(1,)](view, out, first_row, num_rows, num_columns, *view.stride(), ROWS=8, COLUMNS=8)
    load, store = recording
    expected = view[first_row:num_rows, :num_columns]
    offsets = np.array(
        [
            [row * view.stride(0) + column * view.stride(1) for column in range(num_columns)]
            for row in range(first_row, num_rows)
        ],
        dtype=np.int64,
    ).reshape(-1)
    assert (load.kind, load.tensor, load.shape, load.num_lanes) == ("load", "view", (8, 8), 64)
    np.testing.assert_array_equal(load.offsets, offsets)
    assert load.num_masked == 64 - expected.numel()
    assert load.bytes == expected.numel() * view.element_size() == recording.bytes_loaded("view")
    # The mask says which lane is which element.
    where = np.argwhere(load.mask)
    np.testing.assert_array_equal(load.indices, where + np.array([first_row, 0]))
    np.testing.assert_array_equal(store.offsets, np.arange(64))
    assert recording.bytes_stored("out") == 64 * view.element_size()
    # And how often each element was read.
    times = np.zeros(tuple(view.shape), dtype=np.int64)
    times[first_row:num_rows, :num_columns] = 1
    np.testing.assert_array_equal(recording.reads("view"), times)
    # The kernel did its work.
    assert torch.equal(out[: expected.shape[0], : expected.shape[1]], expected)


def test_a_line_of_the_kernel_and_the_way_to_it():
    x, out = torch.arange(5.0), torch.zeros(20)
    with course.record(x=x, out=out) as recording:
        toys.helped[(2, 2)](x, out, 3)
    assert [access.program for access in recording.accesses(kind="load")] == [
        (0, 0, 0),
        (0, 1, 0),
        (1, 0, 0),
        (1, 1, 0),
    ]
    load = recording[0]
    assert load.line.number == toys.line_of(toys.load_at, "load in the helper")
    assert load.line.text == "return tl.load(ptr + offset)  # load in the helper"
    assert load.line.place == "toys.py"
    caller = toys.line_of(toys.helped, "call of the helper")
    assert [line.number for line in load.stack] == [caller, load.line.number]
    assert [line.function for line in load.stack] == ["helped", "load_at"]
    # Both lines lead to the accesses, and the accesses lead to the lines.
    assert (
        recording.accesses(line=caller)
        == recording.accesses(line=load.line)
        == recording.accesses(kind="load")
    )
    assert recording.accesses(program=(1,), tensor="x") == [recording[4]]
    assert {source.function for source in recording.sources} == {"helped", "load_at"}
    for source in recording.sources:
        assert source.lines[0].startswith("def ")
        for line in recording.lines:
            if line.function == source.function:
                assert source.lines[line.number - source.first_line].strip() == line.text


def test_launches_and_names():
    x, out = torch.arange(5.0), torch.zeros(30)
    recording = course.record(lambda values: toys.helped[(2, 3)](values, out, 1), x)
    assert [(launch.kernel, launch.grid) for launch in recording.launches] == [("helped", (2, 3, 1))]
    # `values` as the function's parameter, `out` as the kernel's, without its _ptr.
    assert recording.launches[0].arguments == {"x_ptr": "values", "out_ptr": "out"}
    named = course.record(lambda: toys.helped[(2, 3)](x, out, 1), names={"numbers": x})
    assert named.launches[0].arguments == {"x_ptr": "numbers", "out_ptr": "out"}
    assert recording.tensors["values"].named
    assert not recording.tensors["out"].named
    assert recording.ran


def test_arguments_of_one_name_are_told_apart_and_one_tensor_is_one():
    x, out, other = torch.arange(5.0), torch.zeros(20), torch.zeros(20)
    with course.record() as recording:
        toys.helped[(1,)](x, out, 0)
        toys.helped[(1,)](out, other, 0)
        toys.helped[(1,)](x, torch.zeros(20), 0)
    assert [launch.arguments["out_ptr"] for launch in recording.launches] == [
        "out",
        "out of helped",
        "out of helped (2)",
    ]
    assert recording.launches[1].arguments["x_ptr"] == "out"
    assert [access.tensor for access in recording][:2] == ["x", "out"]


def test_the_result_of_a_function():
    assert course.record(torch.add, torch.ones(2), torch.ones(2)).result.tolist() == [2, 2]


def test_a_view_of_a_named_tensor_counts_as_that_tensor():
    x, out = torch.arange(24.0).reshape(4, 6), torch.zeros(20)
    with course.record(x=x) as recording:
        toys.helped[(1,)](x[2:, 1:], out, 6)
    assert recording[0].indices.tolist() == [[3, 1]]
    assert out[0] == x[3, 1]


def test_k_and_v_as_views_of_one_storage():
    for kv in (torch.arange(48.0).reshape(2, 4, 6), torch.arange(48.0).reshape(4, 2, 6).transpose(0, 1)):
        key, value = kv.unbind(0)
        out = torch.zeros(20)
        with course.record(key=key, value=value) as recording:
            toys.helped[(1,)](key, out, kv.stride(1))
            toys.helped[(1,)](value, out, kv.stride(1))
        assert [(access.tensor, access.indices.tolist()) for access in recording.accesses(kind="load")] == [
            ("key", [[1, 0]]),
            ("value", [[1, 0]]),
        ]
        assert all(row.outside_view == 0 for row in recording.table())
        # Parts of them, which begin where they begin.
        with course.record(key=key, value=value) as recording:
            toys.helped[(1,)](key[:2], out, 1)
            toys.helped[(1,)](value[:2], out, 1)
        assert [access.tensor for access in recording.accesses(kind="load")] == ["key", "value"]


def test_what_is_in_the_storage_but_not_in_the_view_is_said():
    whole = torch.arange(10.0)
    with course.record(x=whole[2:5]) as recording:
        toys.helped[(1,)](whole[2:5], torch.zeros(1), -2)
        toys.helped[(1,)](whole[2:5], torch.zeros(1), 7)
    assert recording[0].indices.tolist() == [[-1]]
    assert recording[0].offsets.tolist() == [-2]
    assert next(row for row in recording.table() if row.tensor == "x").outside_view == 8
    assert "8 bytes of x's storage that are not part of x were touched" in repr(recording)


def test_atomics():
    x, total, ticket = torch.arange(4.0), torch.zeros(2), torch.zeros(1, dtype=torch.int32)
    with course.record() as recording:
        toys.add_up[(1,)](x, total, ticket, N=4)
    assert (total.tolist(), ticket.item()) == ([2, 1], 7)
    add, cas = recording.accesses(kind="atomic")
    assert (add.tensor, add.offsets.tolist(), add.num_masked) == ("sum", [0, 1, 0], 1)
    assert (cas.tensor, cas.offsets.tolist(), cas.bytes) == ("ticket", [0], 4)
    assert add.line.number == toys.line_of(toys.add_up, "add")
    assert recording.reads("sum").tolist() == recording.writes("sum").tolist() == [2, 1]


@pytest.mark.filterwarnings("ignore:tl.make_block_ptr is deprecated")
def test_block_pointers():
    x, out = torch.arange(15.0).reshape(5, 3), torch.zeros(8, 4)
    with course.record() as recording:
        toys.by_block_pointer[(1,)](x, out, 5, 3, ROWS=8, COLUMNS=4)
    assert recording.reads("x").tolist() == [[0] * 3] * 4 + [[1] * 3]
    assert recording[0].num_masked == 32 - 3
    assert torch.equal(out[0, :3], x[4])


def test_tensor_descriptors():
    from triton.tools.tensor_descriptor import TensorDescriptor

    x, out = torch.arange(24.0).reshape(6, 4), torch.zeros(2, 4)
    with course.record(x=x) as recording:
        toys.by_descriptor[(1,)](TensorDescriptor.from_tensor(x, [2, 4]), out, ROWS=2, COLUMNS=4)
    assert recording.launches[0].arguments == {"descriptor": "x", "out_ptr": "out"}
    assert recording.reads("x").sum(axis=1).tolist() == [0, 0, 4, 4, 0, 0]
    assert torch.equal(out, x[2:4])


def test_pointers_of_two_tensors_in_one_access():
    a, b, out = torch.arange(4.0), torch.arange(4.0) + 10, torch.zeros(4)
    with course.record() as recording:
        toys.two_at_once[(1,)](a, b, out, N=4)
    assert out.tolist() == [0, 11, 2, 13]
    assert [
        (load.tensor, load.offsets.tolist(), load.mask.tolist()) for load in recording.accesses(kind="load")
    ] == [
        ("a", [0, 2], [True, False, True, False]),
        ("b", [1, 3], [False, True, False, True]),
    ]
    assert recording.bytes_loaded() == 16


def test_addresses_from_a_table_belong_to_named_tensors_only():
    x, out = torch.arange(4.0), torch.zeros(4)
    table = torch.tensor([x.data_ptr()])
    with course.record(x=x) as recording:
        toys.through_a_table[(1,)](table, out, N=4)
    assert recording.reads("x").tolist() == [1, 1, 1, 1]
    assert out.tolist() == [0, 1, 2, 3]
    with (
        pytest.raises(
            OutOfBounds, match="belongs to no tensor of this launch .4 of 4 active lanes."
        ) as caught,
        course.record(),
    ):
        toys.through_a_table[(1,)](table, out, N=4)
    # Past the end of the tensor nobody knows whose the memory is.
    with pytest.raises(OutOfBounds, match="no tensor of this launch .4 of 8"), course.record(x=x):
        toys.through_a_table[(1,)](table, torch.zeros(8), N=8)
    assert (caught.value.tensor, caught.value.offset) == (None, None)


def test_reinterpreted_tensors_and_tuples():
    import triton

    x = torch.zeros(4, dtype=torch.uint8)
    with course.record() as recording:
        toys.first_of_pair[(1,)]((triton.reinterpret(x, torch.int8), x), torch.zeros(1))
    assert recording.launches[0].arguments["pair[0]"] == "pair[0]"
    assert recording.reads("pair[0]").tolist() == [2, 0, 0, 0]


@pytest.mark.parametrize("offset", [-1, 4, 2**20, -(2**31), 2**31 - 1])
def test_out_of_bounds_is_refused_before_memory_is_touched(offset):
    x, out = torch.arange(4.0), torch.zeros(1)
    block = course.record(x=x)
    with pytest.raises(OutOfBounds) as caught, block:
        toys.helped[(1,)](x, out, offset)
    error = caught.value
    line = toys.line_of(toys.load_at, "load in the helper")
    assert (error.kernel, error.program, error.kind) == ("helped", (0, 0, 0), "load")
    assert (error.tensor, error.offset, error.num_lanes, error.line.number) == ("x", offset, 1, line)
    caller = toys.line_of(toys.helped, "call of the helper")
    assert str(error) == (
        f"program (0, 0, 0) of helped loads from x at offset {offset}, out of bounds (its only lane). x has shape [4] and "
        "strides [1]; its storage has offsets 0 to 3. Nothing was touched. "
        f"At line {line} of toys.py: return tl.load(ptr + offset)  # load in the helper "
        f"(reached from line {caller} of toys.py)"
    )
    assert error.recording.out_of_bounds is error
    assert error.recording.launches[0].kernel == "helped"
    assert "Ended out of bounds: program (0, 0, 0)" in repr(error.recording)


def test_a_store_out_of_bounds_writes_nothing():
    whole = torch.zeros(16)
    x = torch.zeros(6)
    with pytest.raises(
        OutOfBounds, match="stores to x at offset 6, out of bounds .2 of 8 active lanes."
    ) as caught:
        course.record(lambda x: toys.write_at[(1,)](x, 0, N=8), x)
    assert x.tolist() == [0] * 6
    assert len(caught.value.recording) == 0
    # In a view all of the storage may be written, nothing beyond.
    with pytest.raises(OutOfBounds, match="its storage has offsets -4 to 11"):
        course.record(lambda x: toys.write_at[(1,)](x, 5, N=8), whole[4:8])
    assert whole.tolist() == [0] * 16


def test_a_wild_offset_is_not_taken_for_another_tensor():
    """With real addresses, the end of one tensor is the beginning of the next."""
    tensors = [torch.zeros(1024) for _ in range(8)]
    with course.record(**{f"t{i}": tensor for i, tensor in enumerate(tensors)}) as recording:
        toys.helped[(1,)](tensors[0], tensors[1], 0)
    assert len(recording) == 2
    for distance in (tensors[1].data_ptr() - tensors[0].data_ptr(), 2**40, 2**45):
        with (
            pytest.raises(OutOfBounds) as caught,
            course.record(**{f"t{i}": t for i, t in enumerate(tensors)}),
        ):
            toys.helped[(1,)](tensors[0], tensors[1], distance // 4)
        assert (caught.value.tensor, caught.value.offset) == ("t0", distance // 4)


def test_an_offset_of_a_power_of_two_leads_into_no_other_tensor():
    """Block ids times strides are often such offsets, up to 2**62 bytes and beyond."""
    first, second, out = torch.zeros(4), torch.zeros(4), torch.zeros(1)
    shift = second.data_ptr() % 4096 - first.data_ptr() % 4096
    for exponent in range(40, 63):
        with pytest.raises(OutOfBounds), course.record(first=first, second=second, out=out):
            toys.helped[(1,)](first, out, (2**exponent + shift) // 4)


def test_masked_lanes_may_point_anywhere():
    with course.record() as recording:
        toys.all_masked[(1,)](torch.zeros(1), 2**40)
    assert (recording[0].tensor, recording[0].bytes, recording[0].num_masked) == ("x", 0, 4)
    assert recording[0].offsets.tolist() == []


def test_an_empty_tensor_has_nothing_to_load():
    with pytest.raises(OutOfBounds, match="its storage is empty"), course.record():
        toys.helped[(1,)](torch.zeros(0), torch.zeros(1), 0)


def test_a_kernel_that_fails_keeps_its_error():
    from triton.runtime.errors import InterpreterError

    block = course.record()
    with pytest.raises(InterpreterError, match="this kernel fails"), block as recording:
        toys.fails[(1,)](torch.zeros(1))
    assert len(recording) == 1
    with pytest.raises(KeyboardInterrupt), course.record():
        toys.interrupted[(1,)](torch.zeros(1))
    with pytest.raises(ZeroDivisionError), course.record():
        1 / 0  # noqa: B018


def test_an_endless_loop_ends():
    with (
        pytest.raises(RuntimeError, match="more than 50 accesses"),
        course.record(max_accesses=50) as recording,
    ):
        toys.load_forever[(1,)](torch.zeros(1))
    assert len(recording) == 50


def test_one_recording_at_a_time():
    with course.record() as recording:
        with pytest.raises(RuntimeError, match="a recording is running already"), course.record():
            pass
        with pytest.raises(RuntimeError, match="still running: leave the `with course.record"):
            recording.reads("x")
        assert repr(recording) == "Recording: still running"
        toys.helped[(1,)](torch.zeros(1), torch.zeros(1), 0)
    assert recording.reads("x").tolist() == [1]


def test_no_kernel_ran():
    with course.record() as recording:
        torch.zeros(3)
    assert not recording.ran
    assert "no Triton kernel ran" in repr(recording)
    with course.record() as recording:
        toys.fails[(0,)](torch.zeros(1))
    assert not recording.ran


def test_a_launch_that_never_started_has_no_grid():
    x, out = torch.zeros(1), torch.zeros(1)

    def twice():
        toys.helped[(1,)](x, out, 0)
        toys.helped[(1,)](x, out)

    with pytest.raises(TypeError, match="offset"), course.record() as recording:
        twice()
    assert [launch.grid for launch in recording.launches] == [(1, 1, 1), None]
    assert "helped (failed before its first program)" in repr(recording)


def test_tensors_are_let_go_when_the_recording_ends():
    x, out = torch.zeros(1), torch.zeros(1)
    with course.record(x=x) as recording:
        toys.helped[(1,)](x, out, 0)
    released = weakref.ref(x), weakref.ref(out)
    del x, out
    assert [tensor() for tensor in released] == [None, None]
    assert recording.reads("x").tolist() == [1]


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="^query: expected a tensor, got list"):
        course.record(query=[1.0])
    with pytest.raises(ValueError, match="^function: expected a function, got Tensor; tensors are named"):
        course.record(torch.zeros(1))
    with pytest.raises(ValueError, match="^function: expected a function to call"):
        course.record(names={})
    with course.record() as recording:
        toys.helped[(1,)](torch.zeros(1), torch.zeros(1), 0)
    with pytest.raises(ValueError, match="^tensor: expected a tensor of this recording .x, out., got 'y'"):
        recording.reads("y")
    with pytest.raises(ValueError, match="^kind: expected one of load, store, atomic, got 'loads'"):
        recording.accesses(kind="loads")
    with pytest.raises(IndexError, match="has 2 accesses, got index 2"):
        recording[2]
    assert recording[-1].kind == "store"


def test_a_kernel_of_a_notebook_cell():
    from IPython.core.interactiveshell import InteractiveShell

    # A module of its own: Triton's interpreter puts its own __file__ into one that has none, and pytest's __main__ is one.
    shell = InteractiveShell(user_module=types.ModuleType("notebook"))
    done = shell.run_cell(
        "import course, kernels, torch, triton\nimport triton.language as tl\n\n"
        "@triton.jit\ndef past_the_end(x_ptr):\n    tl.load(x_ptr + 4)\n\n"
        "with course.record() as recording:\n    past_the_end[(1,)](torch.zeros(4))\n",
        silent=True,
    )
    assert isinstance(done.error_in_exec, OutOfBounds)
    message = str(done.error_in_exec)
    assert message.startswith("program (0, 0, 0) of past_the_end loads from x at offset 4, out of bounds")
    assert message.endswith("At line 6 of the cell: tl.load(x_ptr + 4)")
