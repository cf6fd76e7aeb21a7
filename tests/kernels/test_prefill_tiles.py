"""How prefill is cut: by shapes and dtypes, on a GPU that is made up."""

import pytest
import torch

from kernels import runtime
from kernels.prefill_tiles import Tile, choose_tile

TWO_TOGETHER, ALONE = Tile(128, 64, 8, 2, 128), Tile(128, 128, 8, 2)


@pytest.fixture(autouse=True)
def h100(monkeypatch):
    monkeypatch.setattr(runtime, "INTERPRET", False)
    monkeypatch.setattr(runtime, "shared_memory", lambda device: 227 * 1024)
    monkeypatch.setattr(runtime, "num_multiprocessors", lambda device: 132)


def tile(
    num_tokens,
    num_reqs=1,
    *,
    heads=(32, 8),
    head_size=128,
    block_size=16,
    dtype=torch.bfloat16,
    cache=None,
    invariant=False,
):
    query = torch.empty(num_tokens, heads[0], head_size, dtype=dtype, device="meta")
    keys = torch.empty(9, block_size, heads[1], head_size, dtype=cache or dtype, device="meta")
    table = torch.empty(num_reqs, 4096 // block_size, dtype=torch.int32, device="meta")
    return choose_tile(query, keys, table, invariant)


def test_two_programs_a_multiprocessor_where_there_are_enough():
    assert tile(2048) == tile(8192) == tile(16384, 64) == TWO_TOGETHER
    assert tile(512) == ALONE  # 144 programs
    assert tile(4096, heads=(8, 8)) == ALONE  # 264


@pytest.mark.parametrize(
    "more",
    [{"block_size": 64}, {"cache": torch.float8_e4m3fn}, {"heads": (256, 1)}],
    ids=["blocks of 64", "fp8", "256 rows"],
)
def test_what_needs_more_registers_runs_alone(more):
    chosen = tile(8192, **more)
    assert (chosen.positions, chosen.max_registers) == (128, None)


def test_a_batch_invariant_tile_knows_no_batch():
    batches = [tile(tokens, reqs, invariant=True) for tokens, reqs in ((1, 1), (64, 64), (9000, 3))]
    assert batches == [TWO_TOGETHER] * 3


def test_short_requests_have_short_tiles():
    assert [tile(8 * n, 8).rows for n in (1, 4, 5, 16, 17, 1000)] == [16, 16, 32, 64, 128, 128]


def test_other_sizes_dtypes_and_gpus(monkeypatch):
    assert tile(8192, head_size=64) == Tile(128, 64, 8, 3)
    assert tile(8192, head_size=256) == Tile(128, 64, 8, 2)
    assert tile(8192, dtype=torch.float32) == Tile(16, 16, 8, 3)
    monkeypatch.setattr(runtime, "shared_memory", lambda device: 99 * 1024)
    assert tile(8192) == Tile(64, 32, 4, 2)
