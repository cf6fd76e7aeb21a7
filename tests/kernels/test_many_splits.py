"""Merging more splits of one request than the merge loads at once (64)."""

import pytest
import torch

import kernels
from kernels import decode, runtime
from tests.kernels.batches import Spec, assert_attention_right, make_batch


@pytest.mark.parametrize("largest", [0, 50, 1199], ids=lambda position: f"largest at {position}")
def test_seventy_five_splits(largest, device, monkeypatch):
    """1200 positions in splits of 16. Wherever the largest score is, what was merged before or after it counts less."""
    choose = decode.choose_config
    short = {"wanted_splits": 80, "min_split_size": 16}
    monkeypatch.setattr(
        decode, "choose_config", lambda *shapes, **more: choose(*shapes, **more)._replace(**short)
    )
    monkeypatch.setattr(runtime, "interpreter_tile", lambda *shapes: 16)
    spec = Spec(((1, 1200), (1, 40)), num_heads=2, num_kv_heads=1, head_size=16)
    batch = make_batch(spec, torch.float32, device, magnitude=0.2)
    block, offset = batch.block_table[0, largest // spec.block_size], largest % spec.block_size
    batch.key_cache[block, offset] = 3 * batch.query[0].mean(0) / batch.query[0].mean(0).norm() / 0.2
    output, lse = kernels.paged_decode(*batch.decode_arguments, return_lse=True, tier="triton")
    assert_attention_right(batch, output, lse)
