"""The memory view without a browser: its cells, lines and bytes are the recording's own."""

from __future__ import annotations

import contextlib
import json
from collections import Counter

import numpy as np
import pytest
import torch

import course
from course import widgets
from course.recording.memory import RecordedTensor
from course.widgets.memory_view.layout import layout_of
from course.widgets.memory_view.model import MemoryPicture
from tests.course.recording import toys
from tests.kernels.batches import Spec, make_batch

BATCH = make_batch(
    Spec(((1, 6), (1, 4), (1, 3)), num_heads=2, num_kv_heads=1, head_size=4, block_size=4),
    torch.float32,
    torch.device("cpu"),
    seed=3,
)
NAMES = ("query", "key_cache", "value_cache", "block_table", "seq_lens")


def record(mistake: int = 0) -> course.recording.Recording:
    arguments = BATCH.decode_arguments[:5]
    with course.record(**dict(zip(NAMES, arguments, strict=True))) as recording:
        toys.launch_read_caches(*arguments, mistake)
    recording.least = course.recording.least_bytes(BATCH.seq_lens, BATCH.key_cache, BATCH.value_cache)
    return recording


def record_out_of_bounds() -> course.recording.Recording:
    x = torch.zeros(8)
    with contextlib.suppress(course.recording.OutOfBounds), course.record(x=x) as recording:
        toys.write_at[(1,)](x, 0, N=4)
        toys.write_at[(1,)](x, 6, N=4)
    return recording


@pytest.fixture(scope="module")
def right() -> MemoryPicture:
    return MemoryPicture(record(), BATCH.block_table, BATCH.seq_lens)


@pytest.fixture(scope="module")
def wrong() -> MemoryPicture:
    """Each request reads its neighbour's blocks."""
    return MemoryPicture(record(toys.READS_A_NEIGHBOUR), BATCH.block_table, BATCH.seq_lens)


def cells_of(picture: MemoryPicture, index: int) -> list[int]:
    columns = picture.columns
    return [
        int(columns.run_cell[run]) + i
        for run in range(columns.first_run[index], columns.first_run[index + 1])
        for i in range(columns.run_count[run])
    ]


def test_the_cells_are_what_each_access_touches(right: MemoryPicture) -> None:
    recording = right.recording
    for access in recording:
        tensor = right.to_dict()["tensors"][recording.number(access.tensor)]
        indices = access.indices
        if access.tensor in ("key_cache", "value_cache"):
            expected = {(block, slot) for block, slot, *_ in indices.tolist()}
        elif len(tensor["shape"]) == 1:
            expected = {(0, i) for (i,) in indices.tolist()}
        else:
            expected = {(row, column) for row, column, *_ in indices.tolist()}
        cells = cells_of(right, access.index)
        assert len(cells) == len(set(cells))
        assert {divmod(cell, tensor["columns"]) for cell in cells} == expected
        assert right.columns.num_bytes[access.index] == access.bytes
    assert int(right.columns.reason.max()) == -1


def test_a_run_of_cells_stays_in_its_row() -> None:
    x, out = torch.zeros(4, 8), torch.zeros(4, 8)
    with course.record(x=x) as recording:
        toys.copy_tile[(1,)](x, out, 0, 3, 8, 8, 1, ROWS=4, COLUMNS=8)
    picture = MemoryPicture(recording)
    columns = picture.columns
    assert columns.run_cell[: columns.first_run[1]].tolist() == [0, 8, 16]
    assert columns.run_count[: columns.first_run[1]].tolist() == [8, 8, 8]
    assert "loads x[0, 0:8]; [1, 0:8]; [2, 0:8]: 24 of 32 lanes, 96 bytes" in picture.sentence(0)


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("shape", [(), (5,), (33,), (3, 4), (2, 70), (2, 3, 4), (3, 40, 2, 2), (2, 2, 3, 5)])
def test_each_element_has_one_cell_and_the_cell_says_which(shape: tuple[int, ...], cache: bool) -> None:
    strides = torch.empty(shape).stride()
    size = int(np.prod(shape))
    layout = layout_of(RecordedTensor("t", shape, strides, "float32", 4, 0, 4 * size, True), cache=cache)
    tensor = RecordedTensor("t", shape, strides, "float32", 4, 0, 4 * size, True)
    positions = layout.positions(tensor, np.arange(-1, size + 1))
    assert positions[[0, -1]].tolist() == [-1, -1]
    cells = layout.cells(positions[1:-1])
    assert set(cells.tolist()) == set(range(layout.rows * layout.columns)) or shape == (33,)
    names = Counter(layout.name(int(cell)) for cell in np.unique(cells))
    assert max(names.values()) == 1
    for offset in range(0, size, 7):
        name = layout.name(int(cells[offset]))
        index = tuple(int(i) for i in np.unravel_index(offset, shape))
        if layout.kind == "cache":
            low, high = layout.group * (index[1] // layout.group), index[1]
            assert name.startswith(f"block {index[0]}, slot")
            assert str(low) in name
            assert low <= high
        elif shape:
            # The name is the tensor's own index expression.
            picked = eval("t" + name, {"t": torch.arange(size).reshape(shape)})
            assert offset in picked.reshape(-1).tolist()


def test_a_transposed_view_and_storage_beside_it() -> None:
    # Columns 0 and 1 of a [4, 3] matrix, transposed.
    tensor = RecordedTensor("t", (2, 4), (1, 3), "float32", 4, 0, 48, True)
    layout = layout_of(tensor, cache=False)
    positions = layout.positions(tensor, np.array([0, 1, 2, 3]))
    assert positions.tolist() == [0, 4, -1, 1]
    assert layout.cells(positions).tolist() == [0, 4, -1, 1]


@pytest.mark.parametrize("mistake", [toys.READS_A_NEIGHBOUR, toys.READS_THE_TAIL, toys.READS_THE_TABLE_S_END])
def test_unowned_reads_are_marked_where_the_recording_says_so(mistake: int) -> None:
    picture = MemoryPicture(record(mistake), BATCH.block_table, BATCH.seq_lens)
    columns = picture.columns
    assert picture.trespasses
    expected = set()
    for access in picture.recording:
        touched = {tuple(index[:2]) for index in access.indices.tolist()}
        for trespass in picture.trespasses:
            same = (trespass.launch, trespass.program) == (access.launch, access.program)
            places = {(trespass.block, slot) for slot in trespass.slots}
            if same and trespass.tensor == access.tensor and touched & places:
                expected.add(access.index)
                assert f"UNOWNED: {trespass.reason}." in picture.sentence(access.index)
    assert set(np.flatnonzero(columns.reason >= 0).tolist()) == expected
    runs = zip(columns.first_run[:-1], columns.first_run[1:], strict=True)
    marked = {index for index, (first, end) in enumerate(runs) if columns.run_unowned[first:end].any()}
    assert marked == expected


def test_only_the_slots_past_the_end_are_marked_in_a_block_that_is_owned() -> None:
    picture = MemoryPicture(record(toys.READS_THE_TAIL), BATCH.block_table, BATCH.seq_lens)
    owners = picture.to_dict()["owners"]
    found = {"owned": 0, "unowned": 0}
    for access in picture.recording.accesses(tensor="key_cache"):
        runs = range(picture.columns.first_run[access.index], picture.columns.first_run[access.index + 1])
        for run in runs:
            for i in range(picture.columns.run_count[run]):
                block, slot = divmod(int(picture.columns.run_cell[run]) + i, 4)
                unowned = slot >= owners[str(block)]["held"]
                assert bool(picture.columns.run_unowned[run]) == unowned
                found["unowned" if unowned else "owned"] += 1
    assert min(found.values()) > 0


def test_lines_and_stacks_are_the_recordings_own(right: MemoryPicture) -> None:
    state = right.to_dict()
    line = toys.line_of(toys.read_caches, "key")
    at = [number for number, each in enumerate(state["lines"]) if each["number"] == line]
    stacks = [number for number, stack in enumerate(state["stacks"]) if set(stack) & set(at)]
    found = [index for index, stack in enumerate(right.columns.stack.tolist()) if stack in stacks]
    assert found == [access.index for access in right.recording.accesses(line=line)]
    [source] = [source for source in state["sources"] if source["function"] == "read_caches"]
    assert "# key" in source["lines"][line - source["first_line"]]


def test_out_of_bounds_is_the_last_access_and_has_its_program_and_line() -> None:
    picture = MemoryPicture(record_out_of_bounds())
    state = picture.to_dict()
    wild = state["out_of_bounds"]
    assert len(picture.recording) == 1
    assert wild["sentence"].startswith(
        "Access 1: OUT OF BOUNDS. Program (0, 0, 0) of write_at stores to x at offset 8"
    )
    assert state["lines"][wild["line"]]["number"] == toys.line_of(toys.write_at, "store")
    assert [wild["launch"], *wild["program"]] in [list(program) for program in state["programs"]]
    assert picture.sentence(1) == wild["sentence"]
    for text in (picture.describe(), picture.to_html()):
        assert "out of bounds (2 of 4 active lanes)" in text


def test_what_the_page_gets_is_small_and_sent_once(right: MemoryPicture) -> None:
    view = widgets.MemoryView(right.recording, BATCH.block_table, BATCH.seq_lens)
    state = json.loads(json.dumps(view.state, allow_nan=False))
    assert state["kinds"] == ["load", "store", "atomic"]
    sent = {name: np.frombuffer(column, dtype=np.int32) for name, column in view.columns.items()}
    assert len(sent["program"]) == len(right.recording)
    assert sent["first_run"][-1] == len(sent["run_cell"]) == len(sent["run_unowned"])
    assert {row["tensor"]: row["least"] for row in state["bytes"]}["key_cache"] == 13 * 4 * 4
    view.access = 3
    assert view.selected == right.recording[3]
    view.access = -1
    assert view.selected is None
    view._handle_custom_msg({"operation": "to_html", "arguments": []}, [])
    assert "operation: expected one of" in view.fault


def test_it_shows_itself_as_text_and_table_too(wrong: MemoryPicture) -> None:
    view = widgets.MemoryView(wrong.recording, BATCH.block_table, BATCH.seq_lens)
    data, _ = view._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    for kind in ("text/plain", "text/html"):
        assert "a block of request" in data[kind]
        assert "key = tl.load(" in data[kind]


def test_what_cannot_be_shown_is_refused(monkeypatch: pytest.MonkeyPatch, right: MemoryPicture) -> None:
    with pytest.raises(ValueError, match="recording: expected what course.record gives, got int"):
        MemoryPicture(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected both or neither"):
        MemoryPicture(right.recording, BATCH.block_table)
    monkeypatch.setattr("course.widgets.memory_view.model.MAX_ACCESSES", 5)
    with pytest.raises(ValueError, match="at most 5 accesses, got"):
        MemoryPicture(right.recording)
    with course.record() as nothing:
        pass
    assert MemoryPicture(nothing).to_dict()["tensors"] == []
