"""`cascade_attention` against the float64 reference, which does not know that blocks are shared."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import kernels
from kernels import cascade, prefill, reference
from tests.kernels.batches import DTYPES, Spec, assert_attention_right, make_batch

REQUESTS = ((1, 40), (5, 37), (0, 33), (9, 50), (1, 33))


def shared(batch, num_blocks):
    """The batch with request 0's first blocks at the beginning of every request; the blocks they had become NaN."""
    table = batch.block_table.clone()
    for request, length in enumerate(batch.seq_lens.tolist()):
        if request and length:
            for entry in range(num_blocks):
                for cache in (batch.key_cache, batch.value_cache):
                    cache[table[request, entry]] = math.nan
            table[request, :num_blocks] = table[0, :num_blocks]
    return replace(batch, block_table=table)


def assert_cascade_right(batch, options, num_blocks, **kwargs):
    length = num_blocks * batch.key_cache.shape[1]
    output, lse = kernels.cascade_attention(
        *batch.arguments, common_prefix_len=length, return_lse=True, **options
    )
    # Two partial outputs are merged in float32: nothing is rounded to the dtype in between.
    assert_attention_right(batch, output, lse, **options)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_blocks", [0, 1, 2])
def test_cascade_is_right(num_blocks, dtype, device):
    batch = shared(make_batch(Spec(REQUESTS), dtype, device), num_blocks)
    assert_cascade_right(batch, {}, num_blocks)


@pytest.mark.parametrize("name", ["softcap", "sinks", "scales"])
def test_features(name, device):
    batch = shared(make_batch(Spec(REQUESTS), torch.float32, device), 2)
    options = {
        "softcap": {"softcap": 3.0},
        "sinks": {"sinks": torch.linspace(-2.0, 4.0, 4, device=device)},
        "scales": {"k_scale": torch.tensor([0.5, 2.0], device=device), "v_scale": 3.0},
    }[name]
    if name == "scales":
        batch = batch.with_fp8_cache(torch.float8_e4m3fn)
    assert_cascade_right(batch, options, 2)


@settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    own=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 20)), min_size=1, max_size=4),
    num_blocks=st.integers(0, 3),
    block_size=st.sampled_from([8, 16, 24]),
    heads=st.sampled_from([(4, 2), (7, 1), (2, 2)]),
    head_size=st.sampled_from([64, 80, 128]),
)
def test_any_shapes(own, num_blocks, block_size, heads, head_size, device):
    requests = tuple((n_q, num_blocks * block_size + n_q + more) for n_q, more in own)
    spec = Spec(
        requests, num_heads=heads[0], num_kv_heads=heads[1], head_size=head_size, block_size=block_size
    )
    batch = shared(make_batch(spec, torch.float32, device), num_blocks)
    assert_cascade_right(batch, {}, num_blocks)


def test_splits_of_the_prefix(device, monkeypatch):
    monkeypatch.setattr(prefill, "choose_key_splits", lambda *shapes: 3)
    monkeypatch.setattr(prefill.runtime, "interpreter_tile", lambda *sizes: 16)
    batch = shared(make_batch(Spec(REQUESTS), torch.float32, device), 2)
    sinks = torch.linspace(-2.0, 4.0, 4, device=device)
    assert_cascade_right(batch, {"sinks": sinks}, 2)


def test_the_prefix_is_one_request_of_all_tokens(device, monkeypatch):
    """What makes it a cascade: the shared blocks are read through request 0's row, for all queries together."""
    calls = []
    launch = cascade.launch_prefill
    monkeypatch.setattr(
        cascade, "launch_prefill", lambda *args, **kwargs: (calls.append(args), launch(*args, **kwargs))
    )
    batch = shared(make_batch(Spec(REQUESTS), torch.float32, device), 2)
    kernels.cascade_attention(*batch.arguments, common_prefix_len=32)
    (_, _, _, table, lens, starts, *_), (_, _, _, own_table, own_lens, *_) = calls
    assert table.shape == (1, 2)
    assert lens.tolist() == [32]
    assert starts.tolist() == [0, 16]
    assert own_table.shape[1] == batch.block_table.shape[1] - 2
    assert own_lens.tolist() == [8, 5, 1, 18, 1]


def test_no_tokens(device):
    batch = make_batch(Spec(((0, 20),)), torch.float32, device)
    assert kernels.cascade_attention(*batch.arguments, common_prefix_len=16).shape == (0, 4, 64)
    assert reference.cascade_attention(*batch.arguments, common_prefix_len=16).shape == (0, 4, 64)
