"""Paged caches: who read which slot, and whether it was theirs. The library's own kernels stay within their requests."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import course
import kernels
from course.recording import least_bytes, paged
from kernels.gqa_decode import gqa_decode
from kernels.single_query import single_query_decode
from tests.course.recording import toys
from tests.kernels.batches import Spec, far_apart, make_batch

CPU = torch.device("cpu")
# Kernels that are compiled are in test_compiled.py: the library's launchers take tensors on the GPU then.
needs_interpreter = pytest.mark.skipif(not kernels.INTERPRET, reason="needs Triton's interpreter")
DECODE = Spec(((1, 9), (1, 4), (1, 0), (1, 13)), num_heads=6, num_kv_heads=2, head_size=16, block_size=4)


def decode_batch():
    return make_batch(DECODE, torch.float32, CPU)


def record_toy(batch, mistake=0):
    return course.record(toys.launch_read_caches, *batch.decode_arguments[:5], mistake)


@needs_interpreter
@pytest.mark.parametrize(
    ("decode", "times"), [(single_query_decode, 3), (gqa_decode, 1), (kernels.paged_decode, 1)]
)
def test_k_and_v_are_read_once_per_kv_head_or_once_per_query_head(decode, times):
    batch = decode_batch()
    recording = course.record(decode, *batch.decode_arguments)
    recording.least = least_bytes(batch.seq_lens, batch.key_cache, batch.value_cache)
    for cache in ("key_cache", "value_cache"):
        expected = times * batch.owned[:, :, None, None].expand_as(batch.key_cache).numpy()
        np.testing.assert_array_equal(recording.reads(cache), expected)
        row = next(row for row in recording.table() if row.tensor == cache)
        assert row.least == row.distinct_loaded == (9 + 4 + 13) * 2 * 16 * 4
        assert (row.times_least, row.most_reads) == (times, times)
    assert recording.trespasses(batch.block_table, batch.seq_lens) == []
    assert recording.gathers(9 * 2 * 16 * 4) == []
    torch.testing.assert_close(recording.result, decode(*batch.decode_arguments))


@needs_interpreter
def test_prefill_reads_nothing_that_is_not_its_requests():
    spec = Spec(((5, 11), (1, 7), (0, 3), (6, 6)), num_heads=4, num_kv_heads=2, head_size=16, block_size=4)
    batch = make_batch(spec, torch.float16, CPU)
    recording = course.record(kernels.paged_prefill, *batch.arguments)
    assert recording.trespasses(batch.block_table, batch.seq_lens, batch.query_start_loc) == []
    owned = recording.reads("value_cache").any(axis=(2, 3))
    # All but the request without queries.
    blocks = batch.block_table[2, :1].tolist()
    expected = batch.owned.clone()
    expected[blocks] = False
    assert owned.tolist() == expected.tolist()


@needs_interpreter
def test_splits_and_caches_larger_than_can_be_counted():
    """A storage of more than 2**31 elements: everything but counting element by element works."""
    batch = make_batch(Spec(((1, 40), (1, 33))), torch.float16, CPU)
    key_cache, value_cache = far_apart(batch.key_cache), far_apart(batch.value_cache)
    arguments = (batch.query, key_cache, value_cache, batch.block_table, batch.seq_lens, batch.scale)
    recording = course.record(kernels.paged_decode, *arguments)
    assert recording.trespasses(batch.block_table, batch.seq_lens) == []
    assert (
        recording.distinct_bytes_loaded("key_cache") == recording.bytes_loaded("key_cache") == 73 * 2 * 64 * 2
    )
    with pytest.raises(ValueError, match="^key_cache: expected a storage of at most"):
        recording.reads("key_cache")


@pytest.mark.parametrize("chunk", [7, 100, 1 << 20])
def test_which_slots_were_read_and_by_whom(chunk, monkeypatch):
    monkeypatch.setattr(paged, "_CHUNK", chunk)
    batch = decode_batch()
    recording = record_toy(batch)
    slots = recording.slots("key_cache")
    expected = {
        (0, request, head, 0, int(batch.block_table[request, at // 4]), at % 4, head // 3)
        for request, seq_len in enumerate(batch.seq_lens.tolist())
        for head in range(6)
        for at in range(seq_len)
    }
    names = ("launch", "x", "y", "z", "block", "slot", "kv_head")
    assert {tuple(int(row[name]) for name in names) for row in slots} == expected
    assert len(slots) == len(expected)
    assert set(slots["elements"].tolist()) == {16}
    first = slots[0]
    access = recording[int(first["access"])]
    assert access.program == (first["x"], first["y"], first["z"])
    assert [first["block"], first["slot"]] in access.indices[:, :2].tolist()
    assert len(recording.slots("key_cache", "store")) == 0


def test_the_tail_of_the_last_block():
    batch = decode_batch()
    recording = record_toy(batch, toys.READS_THE_TAIL)
    found = recording.trespasses(batch.block_table, batch.seq_lens)
    # Requests 0 and 3 have a tail of three slots; every head reads it, from both caches.
    assert len(found) == 2 * 6 * 2
    first = found[0]
    block = int(batch.block_table[0, 2])
    assert (first.kernel, first.program, first.tensor) == ("read_caches", (0, 0, 0), "key_cache")
    assert (first.block, first.slots, first.requests) == (block, (1, 2, 3), (0,))
    assert str(first) == (
        f"program (0, 0, 0) of read_caches reads key_cache, block {block}, slots 1 to 3: slots past the end of request "
        f"0 (seq_len 9). At {first.line}"
    )
    assert first.line.number == toys.line_of(toys.read_caches, "key")


def test_another_requests_blocks():
    batch = decode_batch()
    recording = record_toy(batch, toys.READS_A_NEIGHBOUR)
    found = recording.trespasses(batch.block_table, batch.seq_lens, caches=("key_cache",))
    assert {(trespass.program[0], trespass.block) for trespass in found} == {
        (request, int(block))
        for request in range(4)
        for block in batch.block_table[(request + 1) % 4, : -(-int(batch.seq_lens[(request + 1) % 4]) // 4)]
    }
    assert found[0].reason == "a block of request 1; the program works for request 0"
    # Who is told that programs work for the neighbour finds nothing.
    assert (
        recording.trespasses(
            batch.block_table, batch.seq_lens, requests_of=lambda program: [(program[0] + 1) % 4]
        )
        == []
    )


def test_entries_of_the_table_past_the_end():
    batch = decode_batch()
    found = record_toy(batch, toys.READS_THE_TABLE_S_END).trespasses(batch.block_table, batch.seq_lens)
    last = batch.block_table.shape[1] - 1
    assert {(trespass.tensor, trespass.block, trespass.slots) for trespass in found} == {
        ("block_table", request, (last,)) for request in range(4)
    }
    assert "reads block_table, row 0, entries 4: request 0 has 3 blocks (seq_len 9)" in str(found[0])


def test_a_block_that_nobody_owns():
    batch = decode_batch()
    recording = record_toy(batch)
    shorter = batch.seq_lens.clone()
    shorter[3] = 0
    reasons = {trespass.reason for trespass in recording.trespasses(batch.block_table, shorter)}
    assert "no request owns the block; the program works for request 3" in reasons


def test_a_program_that_loads_no_query_may_read_what_any_request_owns():
    batch = decode_batch()
    rows = batch.key_cache.flatten(0, 1).flatten(1)
    with course.record(key_cache=batch.key_cache) as recording:
        toys.copy_tile[(1,)](rows, torch.zeros(64, 32), 0, len(rows), 32, 32, 1, ROWS=64, COLUMNS=32)
    found = recording.trespasses(batch.block_table, batch.seq_lens)
    assert {(trespass.block, slot) for trespass in found for slot in trespass.slots} == {
        (block, slot) for block, slot in (~batch.owned).nonzero().tolist()
    }
    assert {trespass.reason for trespass in found} == {
        "no request owns the block",
        "slots past the end of request 0 (seq_len 9)",
        "slots past the end of request 3 (seq_len 13)",
    }


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_trespasses_are_what_a_loop_over_elements_finds(data):
    lengths = data.draw(st.lists(st.integers(0, 9), min_size=1, max_size=3))
    block_size = data.draw(st.sampled_from([2, 4]))
    spec = Spec(
        tuple((1, n) for n in lengths), num_heads=2, num_kv_heads=1, head_size=4, block_size=block_size
    )
    batch = make_batch(spec, torch.float32, CPU, seed=data.draw(st.integers(0, 99)))
    mistake = data.draw(st.integers(0, 3))
    recording = record_toy(batch, mistake)
    owned = [
        {(int(batch.block_table[r, at // block_size]), at % block_size) for at in range(n)}
        for r, n in enumerate(lengths)
    ]
    expected = {
        (access.program, access.tensor, block, slot)
        for access in recording.accesses(kind="load")
        if access.tensor in ("key_cache", "value_cache")
        for block, slot, *_ in access.indices.tolist()
        if (block, slot) not in owned[access.program[0]]
    } | {
        (access.program, "block_table", row, entry)
        for access in recording.accesses(tensor="block_table")
        for row, entry in access.indices.tolist()
        if entry >= -(-lengths[row] // block_size)
    }
    found = {
        (trespass.program, trespass.tensor, trespass.block, slot)
        for trespass in recording.trespasses(batch.block_table, batch.seq_lens)
        for slot in trespass.slots
    }
    assert found == expected


def test_shapes_that_are_no_cache_are_named():
    batch = decode_batch()
    recording = record_toy(batch)
    with pytest.raises(
        ValueError, match="^block_table: expected .num_blocks, block_size, num_kv_heads, head_size."
    ):
        recording.slots("block_table")
    with pytest.raises(ValueError, match="^tensor: expected a tensor of this recording"):
        recording.slots("kv_cache")
    assert recording.trespasses(batch.block_table, batch.seq_lens, caches=("kv_cache",)) == []
