"""How `paged_decode` cuts its work: any number of splits is right, and the batch-invariant mode is what it says."""

import functools
import math
from dataclasses import replace

import pytest
import torch
import triton
import triton.language as tl

import kernels
from kernels import decode, runtime
from kernels.schedule import find_split
from tests.kernels.batches import SPECS, Spec, assert_attention_right, make_batch

DECODE_SPECS = {
    name: replace(spec, requests=tuple((1, seq_len) for _, seq_len in spec.requests))
    for name, spec in SPECS.items()
}
# decode.py's own kernel, on every machine.
split_decode = functools.partial(kernels.paged_decode, tier="triton")
LONG = Spec(((1, 700), (1, 0), (1, 65), (1, 64), (1, 1), (1, 257)))


def cut(monkeypatch, wanted_splits, min_split_size=16, tile_size=16):
    """Let paged_decode make short splits of short sequences."""
    choose = decode.choose_config

    def choose_short(*shapes, **more):
        return choose(*shapes, **more)._replace(wanted_splits=wanted_splits, min_split_size=min_split_size)

    monkeypatch.setattr(decode, "choose_config", choose_short)
    monkeypatch.setattr(runtime, "interpreter_tile", lambda *shapes: tile_size)


@pytest.mark.parametrize("wanted", [1, 7, 40])
@pytest.mark.parametrize(
    "name", ["decode, ragged", "empty requests", "GQA of 7", "MQA of 71", "block size 5"]
)
def test_any_number_of_splits(name, wanted, device, monkeypatch):
    cut(monkeypatch, wanted)
    batch = make_batch(DECODE_SPECS[name], torch.float16, device)
    assert_attention_right(batch, *split_decode(*batch.decode_arguments, return_lse=True))


@pytest.mark.parametrize("wanted", [1, 12, 60])
@pytest.mark.parametrize("head_size", [33, 128])
def test_long_and_short_requests_together(wanted, head_size, device, monkeypatch):
    cut(monkeypatch, wanted)
    batch = make_batch(replace(LONG, head_size=head_size), torch.float32, device)
    assert_attention_right(batch, *split_decode(*batch.decode_arguments, return_lse=True))


def test_splits_of_a_negative_and_a_large_scale(device, monkeypatch):
    cut(monkeypatch, 30)
    for scale in (-2.0,):
        batch = replace(make_batch(LONG, torch.float32, device), scale=scale)
        assert_attention_right(batch, *split_decode(*batch.decode_arguments, return_lse=True))


def test_a_nan_of_a_request_stays_its_own(device, monkeypatch):
    cut(monkeypatch, 30)
    batch = make_batch(Spec(((1, 200), (1, 200))), torch.float32, device)
    batch.value_cache[batch.block_table[0, 3].item(), 5] = math.nan
    output = split_decode(*batch.decode_arguments)
    assert output[0].isnan().all()
    assert output[1].isfinite().all()


def test_a_tier_that_there_is_not(device):
    batch = make_batch(Spec(((1, 20),), head_size=33), torch.float32, device)
    for tier in ("hopper", "interpreter", ""):
        with pytest.raises(ValueError, match="^tier: "):
            kernels.paged_decode(*batch.decode_arguments, tier=tier)


def alone(batch, request, table_width=None):
    return (
        batch.query[request : request + 1],
        batch.key_cache,
        batch.value_cache,
        batch.block_table[request : request + 1, :table_width],
        batch.seq_lens[request : request + 1],
        batch.scale,
    )


def test_batch_invariance(device, monkeypatch):
    """The same bits alone, in a batch, in a batch turned round, and with a wider or a narrower block table."""
    cut(monkeypatch, 30, tile_size=16)
    monkeypatch.setattr(decode, "FIXED_SPLIT_SIZE", 128)
    batch = make_batch(LONG, torch.float32, device)
    output, lse = split_decode(*batch.decode_arguments, batch_invariant=True, return_lse=True)
    assert_attention_right(batch, output, lse)

    turned = [tensor.flip(0) for tensor in (batch.query, batch.block_table, batch.seq_lens)]
    wide = torch.cat([turned[1], torch.full_like(turned[1], -7)], dim=1)
    caches = batch.key_cache, batch.value_cache
    again = split_decode(turned[0], *caches, wide, turned[2], batch.scale, batch_invariant=True)
    assert torch.equal(again.flip(0), output)
    for request in range(len(batch.seq_lens)):
        own_blocks = -(-int(batch.seq_lens[request]) // batch.key_cache.shape[1])
        # The narrower table has no room for a split where the request is short.
        for table_width in (None, max(1, own_blocks)):
            single = split_decode(*alone(batch, request, table_width), batch_invariant=True, return_lse=True)
            assert torch.equal(single[0][0], output[request])
            assert torch.equal(single[1][0], lse[request])


# Features, each over cut and uncut sequences

FP8 = torch.float8_e4m3fn
FEATURES = {
    "window of 1": {"sliding_window": 1},
    "window of 70": {"sliding_window": 70},
    "window of 10000": {"sliding_window": 10000},
    "softcap": {"softcap": 3.0},
    "alibi": {"alibi_slopes": [0.1, 0.5, 0.02, 1.0]},
    "sinks": {"sinks": [0.3, 5.0, -2.0, 40.0]},
    "scales": {"k_scale": 0.7, "v_scale": 1.5},
    "scales of heads": {"k_scale": [0.7, 1.2], "v_scale": [0.2, 3.0]},
    "everything": {
        "sliding_window": 90,
        "softcap": 20.0,
        "alibi_slopes": [0.1, 0.5, 0.02, 1.0],
        "sinks": [0.3, 5.0, -2.0, 1.0],
        "k_scale": [0.7, 1.2],
        "v_scale": 2.0,
    },
}


def options_of(name, device):
    def tensor(value):
        return torch.tensor(value, device=device) if isinstance(value, list) else value

    return {option: tensor(value) for option, value in FEATURES[name].items()}


# Each dtype, cut and uncut; all pairs of them on a GPU.
PAIRS = [(torch.float16, 1), (torch.float32, 12)]
MORE_PAIRS = [(torch.float16, 12), (torch.float32, 1), (torch.bfloat16, 1), (torch.bfloat16, 12)]


@pytest.mark.parametrize(
    ("dtype", "wanted"), PAIRS + [pytest.param(*pair, marks=pytest.mark.gpu) for pair in MORE_PAIRS]
)
@pytest.mark.parametrize("name", FEATURES)
def test_each_feature_is_right(name, dtype, wanted, device, monkeypatch):
    cut(monkeypatch, wanted, min_split_size=32, tile_size=32)
    batch = make_batch(replace(LONG, head_size=33), dtype, device)
    options = options_of(name, device)
    output, lse = split_decode(*batch.decode_arguments, return_lse=True, **options)
    assert_attention_right(batch, output, lse, **options)


@pytest.mark.parametrize("name", ["scales", "scales of heads", "everything"])
def test_fp8_caches(name, device, monkeypatch):
    cut(monkeypatch, 12, tile_size=32)
    batch = make_batch(LONG, torch.float16, device)
    batch = replace(batch, key_cache=batch.key_cache.to(FP8), value_cache=batch.value_cache.to(FP8))
    options = options_of(name, device)
    output, lse = split_decode(*batch.decode_arguments, return_lse=True, **options)
    assert_attention_right(batch, output, lse, **options)


def test_a_window_reads_nothing_before_it(device, monkeypatch):
    """Entries of the block table in front of the window may be freed: they are never read."""
    cut(monkeypatch, 12)
    batch = make_batch(Spec(((1, 300), (1, 90))), torch.float32, device)
    options = {"sliding_window": 50}
    expected = split_decode(*batch.decode_arguments, **options)
    batch.block_table[0, : (300 - 50) // 16] = batch.block_table[1, 0]
    batch.block_table[1, : (90 - 50) // 16] = batch.block_table[0, -2]
    assert torch.equal(split_decode(*batch.decode_arguments, **options), expected)


# The schedule


@triton.jit
def _find_every_split(
    found_ptr,
    seq_lens_ptr,
    num_reqs,
    wanted,
    MIN: tl.constexpr,
    FIXED: tl.constexpr,
    LANES: tl.constexpr,
    GROUPS: tl.constexpr,
):
    program = tl.program_id(0)
    request, number, num_splits, seq_len = find_split(
        program, seq_lens_ptr, num_reqs, wanted, 2**31 - 1, 3, MIN, FIXED, LANES, GROUPS
    )
    tl.store(found_ptr + program * 4, request)
    tl.store(found_ptr + program * 4 + 1, number)
    tl.store(found_ptr + program * 4 + 2, num_splits)
    tl.store(found_ptr + program * 4 + 3, seq_len)


@pytest.mark.parametrize(
    ("wanted", "fixed"), [(1, 0), (10, 0), (64, 0), (10, 50)]
)  # fixed: no split is wanted
@pytest.mark.parametrize(
    "lengths", [[500], [0], [3, 0, 0, 200, 17], [64] * 9, [0, 20, 40, 60, 80, 100]], ids=str
)
def test_every_split_has_one_program(lengths, wanted, fixed, device):
    """Three kv heads; four requests looked at together."""
    least = 8
    seq_lens = torch.tensor(lengths, dtype=torch.int32, device=device)
    bound = 3 * len(lengths) + wanted if fixed == 0 else 3 * sum(max(1, -(-n // fixed)) for n in lengths)
    found = torch.full((bound, 4), -1, dtype=torch.int32, device=device)
    groups = -(-len(lengths) // 4)
    _find_every_split[(bound,)](found, seq_lens, len(lengths), wanted, least, fixed, LANES=4, GROUPS=groups)
    rows = found.tolist()
    real = [row for row in rows if row[0] < len(lengths)]
    assert rows[: len(real)] == real, "programs without a split come last"

    size = fixed or max(least, -(-sum(lengths) * 3 // wanted))
    expected = []
    for request, length in enumerate(lengths):
        splits = max(1, -(-length // size))
        expected += [[request, number, splits, length] for number in range(3 * splits)]
    assert real == expected
