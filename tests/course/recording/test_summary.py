"""What a recording adds up to, how it is shown, and its plain data."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import course
from course.recording.columns import expand_runs
from tests.course.recording import toys
from tests.kernels.batches import Spec, make_batch

BATCH = make_batch(
    Spec(((1, 9), (1, 4)), num_heads=4, num_kv_heads=2, head_size=16, block_size=4),
    torch.float32,
    torch.device("cpu"),
)
ONE_REQUEST = 9 * 2 * 16 * 4  # bytes of the longest request's keys


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(1, 6), st.integers(0, 5)), max_size=5))
def test_reads_count_every_lane(loads):
    """Overlapping loads of a tensor whose first element is not its storage's."""
    whole = torch.arange(40.0).reshape(20, 2)
    x = whole[1:, 1]
    expected = np.zeros(len(x), dtype=np.int64)
    with course.record(x=x) as recording:
        for first, rows, step in loads:
            rows = min(rows, (len(x) - first - 1) // step + 1 if step else rows)
            toys.copy_tile[(1,)](x[first:], torch.zeros(8, 2), 0, rows, 2, 2 * step, 0, ROWS=8, COLUMNS=2)
            np.add.at(expected, first + np.repeat(np.arange(rows) * step, 2), 1)
    if recording.ran:
        np.testing.assert_array_equal(recording.reads("x"), expected)
        assert recording.bytes_loaded("x") == expected.sum() * 4
        assert recording.distinct_bytes_loaded("x") == np.count_nonzero(expected) * 4
        row = next(row for row in recording.table() if row.tensor == "x")
        assert row.most_reads == expected.max()


def test_reads_of_an_element_count_its_first_byte():
    x = torch.zeros(4)
    with course.record(x=x) as recording:
        for byte in (4, 4, 5, 8):
            toys.helped[(1,)](x.view(torch.int8), torch.zeros(1, dtype=torch.int8), byte)
    assert recording.reads("x").tolist() == [0, 2, 1, 0]
    assert (recording.bytes_loaded("x"), recording.distinct_bytes_loaded("x")) == (4, 3)
    assert [access.indices.tolist() for access in recording.accesses(tensor="x")] == [
        [[1]],
        [[1]],
        [[1]],
        [[2]],
    ]


def test_the_table_compares_with_the_least_that_was_given():
    recording = course.record(toys.launch_read_caches, *BATCH.decode_arguments[:5])
    rows = {row.tensor: row for row in recording.table()}
    assert rows["key_cache"].bytes_loaded == 2 * 13 * 2 * 16 * 4
    assert (rows["key_cache"].least, rows["key_cache"].times_least) == (None, 2.0)
    assert (rows["out"].times_least, rows["out"].bytes_stored, rows["out"].loads) == (None, 2 * 4 * 16 * 4, 0)
    assert rows["key_cache"].masked_lanes == (4 - 1) * 16 * 4
    recording.least = {"key_cache": 1000}
    assert (
        next(row for row in recording.table() if row.tensor == "key_cache").times_least == 2 * 13 * 128 / 1000
    )
    recording.least = {"keys": 1000}
    with pytest.raises(ValueError, match="^tensor: expected a tensor of this recording"):
        recording.table()


def test_gathering_in_torch_is_seen():
    def gather_first(query, key_cache, value_cache, block_table, seq_lens):
        key = key_cache[block_table[0, :3].long()].flatten(0, 1)[:9]
        return key.sum(dim=0)

    recording = course.record(gather_first, *BATCH.decode_arguments[:5])
    assert not recording.ran
    [sign] = recording.gathers(ONE_REQUEST)
    assert sign == "aten.index.Tensor read key_cache and wrote a tensor of shape [3, 4, 2, 16], 1,536 bytes"
    assert recording.gathers(1537) == []
    assert recording.largest_allocation.name == "aten.index.Tensor"
    # Shapes and views move nothing; block by block nothing is as large as a request.
    recording = course.record(
        lambda key_cache: [torch.empty_like(key_cache), key_cache[2].double()], BATCH.key_cache
    )
    assert recording.gathers(ONE_REQUEST) == []
    # Filling a tensor that was there before.
    room = torch.empty(3, 4, 2, 16)
    recording = course.record(lambda key_cache: room.copy_(key_cache[:3]), BATCH.key_cache)
    assert recording.gathers(ONE_REQUEST)[0].startswith("aten.copy_.default read key_cache and wrote")


def test_gathering_in_a_kernel_is_seen():
    def gather_first(key_cache):
        rows = key_cache.flatten(0, 1).flatten(1)
        scratch = torch.empty(16, 32)
        toys.copy_tile[(1,)](rows, scratch, 0, 16, 32, 32, 1, ROWS=16, COLUMNS=32)
        return scratch if only_copy else scratch.sum()

    only_copy = False
    recording = course.record(gather_first, BATCH.key_cache)
    assert recording.gathers(ONE_REQUEST) == [
        "copy_tile stored 2,048 bytes into out, shape [16, 32], which was read again"
    ]
    only_copy = True
    assert course.record(gather_first, BATCH.key_cache).gathers(ONE_REQUEST) == []


def test_text_and_html_say_the_same():
    recording = course.record(toys.launch_read_caches, *BATCH.decode_arguments[:5])
    recording.least = {"key_cache": 1664}
    text, page = repr(recording), recording._repr_html_()
    assert text.splitlines()[0] == f"Recording of read_caches[2, 4, 1]: {len(recording)} accesses."
    assert "key_cache" in text
    assert "3,328" in text
    for word in text.split("\n", 1)[1].split():
        assert word in page
    assert '<th scope="row">key_cache</th>' in page


def test_html_is_escaped():
    x = torch.zeros(1)
    with course.record(**{"<b>": x}) as recording:
        toys.helped[(1,)](x, x, 0)
    assert "<b>" not in recording._repr_html_()


def test_plain_data_holds_every_access():
    recording = course.record(toys.launch_read_caches, *BATCH.decode_arguments[:5])
    data = json.loads(json.dumps(recording.to_dict()))
    accesses, runs = data["accesses"], data["runs"]
    assert len(accesses["launch"]) == len(recording)
    for index, access in enumerate(recording):
        part = slice(accesses["first_run"][index], accesses["first_run"][index + 1])
        start, length = (
            np.array(runs["start"][part], dtype=np.int64),
            np.array(runs["length"][part], dtype=np.int64),
        )
        offsets = expand_runs(start, length, accesses["itemsize"][index])
        assert sorted(offsets) == sorted(access.byte_offsets)
        assert data["tensors"][accesses["tensor"][index]]["name"] == access.tensor
        assert data["kinds"][accesses["kind"][index]] == access.kind
        lines = [data["lines"][line] for line in data["stacks"][accesses["stack"][index]]]
        assert [line["number"] for line in lines] == [line.number for line in access.stack]
        mask = data["masks"].get(str(index))
        bits = (
            np.unpackbits(np.frombuffer(bytes.fromhex(mask), np.uint8)) if mask else np.ones(access.num_lanes)
        )
        assert bits.sum() == math.prod(accesses["shape"][index]) - access.num_masked
        assert tuple(accesses["program"][index]) == access.program
    assert data["launches"][0]["grid"] == [2, 4, 1]
    assert data["out_of_bounds"] is None
    assert data["sources"][0]["lines"][0].startswith("def read_caches(")


def test_plain_data_says_what_went_wrong():
    with pytest.raises(course.recording.OutOfBounds) as caught, course.record():
        toys.helped[(1,)](torch.zeros(4), torch.zeros(1), 9)
    said = json.loads(json.dumps(caught.value.recording.to_dict()))["out_of_bounds"]
    assert (said["tensor"], said["offset"], said["program"]) == ("x", 9, [0, 0, 0])


def test_tiles_are_kept_as_runs_whichever_way_they_lie():
    """A tile of 64 rows of 32 neighbours is 64 runs, read along its rows or across them."""
    x = torch.zeros(64, 48)
    for view, shape in ((x[:, :32], (64, 32)), (x[:, :32].T, (32, 64))):
        with course.record(x=view) as recording:
            toys.copy_tile[(1,)](
                view, torch.zeros(shape), 0, *shape, *view.stride(), ROWS=shape[0], COLUMNS=shape[1]
            )
        assert recording.columns.first_run.tolist() == [0, 64, 65]
        expected = np.add.outer(np.arange(shape[0]) * view.stride(0), np.arange(shape[1]) * view.stride(1))
        np.testing.assert_array_equal(recording[0].offsets, expected.reshape(-1))
