"""`latent_decode` (MLA) against the float64 reference, and against attention that does not know of latents."""

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import kernels
from kernels import contract, latent, reference, schedule
from tests.kernels.batches import (
    DTYPES,
    SLACK,
    UNIT_ROUNDOFF,
    Spec,
    assert_within,
    far_apart,
    make_batch,
    measured,
)

LENGTHS = (1, 40, 0, 17, 100)


def random_latents(
    dtype, device, *, lengths=LENGTHS, num_heads=16, head_size=80, kv_lora_rank=64, block_size=16
):
    """(arguments of latent_decode, kv_lora_rank): blocks scattered, NaN in slots that nobody owns."""
    requests = tuple((1, length) for length in lengths)
    spec = Spec(requests, num_heads=num_heads, num_kv_heads=1, head_size=head_size, block_size=block_size)
    batch = make_batch(spec, dtype, device)
    cache = batch.key_cache[:, :, 0]
    return (batch.query, cache, batch.block_table, batch.seq_lens, batch.scale), {
        "kv_lora_rank": kv_lora_rank
    }


def assert_latent_right(arguments, options, output, lse):
    query, cache, *rest = arguments
    dtype = query.dtype
    fp8 = cache.dtype in contract.FP8_DTYPES

    def expected(to, values=None):
        held = cache if fp8 else cache.to(to)
        return reference.latent_decode(query.to(to), held, *rest, return_lse=True, **options)

    (truth, true_lse), (single, single_lse) = expected(torch.float64), expected(torch.float32)
    tolerance = UNIT_ROUNDOFF[dtype] * truth.abs() + SLACK * measured(single, truth)
    if dtype != torch.float32:  # weights are rounded; no output is more off than by u * the largest value
        scale = torch.as_tensor(options.get("kv_scale") or 1.0).max().item()
        tolerance += 2 * UNIT_ROUNDOFF[dtype] * cache.double().abs().nan_to_num(0.0).max().item() * scale
    assert output.dtype == dtype
    assert lse.dtype == torch.float32
    assert_within(output, truth, tolerance)
    assert_within(lse, true_lse, torch.full_like(true_lse, SLACK * measured(single_lse, true_lse)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"num_heads": 1},
        {"num_heads": 7, "block_size": 8},
        {"num_heads": 70, "block_size": 64, "lengths": (33, 5)},
        {"head_size": 576, "kv_lora_rank": 512, "lengths": (20, 0, 64)},
        {"head_size": 64, "kv_lora_rank": 64},
        {"head_size": 33, "kv_lora_rank": 20},
        {"lengths": (0, 0)},
        {"lengths": ()},
    ],
    ids=[
        "16 heads",
        "1 head",
        "7 heads",
        "70 heads",
        "DeepSeek",
        "no rest",
        "odd sizes",
        "empty",
        "no requests",
    ],
)
def test_latent_decode_is_right(sizes, dtype, device):
    arguments, options = random_latents(dtype, device, **sizes)
    output, lse = kernels.latent_decode(*arguments, return_lse=True, **options)
    assert_latent_right(arguments, options, output, lse)


@settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    lengths=st.lists(st.integers(0, 70), min_size=1, max_size=4),
    num_heads=st.integers(1, 20),
    rank=st.integers(1, 70),
    rest=st.integers(0, 40),
    block_size=st.sampled_from([1, 8, 16, 24, 64]),
    dtype=st.sampled_from([torch.float16, torch.float32]),
    cache_dtype=st.sampled_from([None, *contract.FP8_DTYPES]),
    kv_scale=st.sampled_from([None, 0.5, "tensor"]),
)
def test_latent_decode_of_any_sizes(
    lengths, num_heads, rank, rest, block_size, dtype, cache_dtype, kv_scale, device
):
    arguments, options = random_latents(
        dtype,
        device,
        lengths=lengths,
        num_heads=num_heads,
        head_size=rank + rest,
        kv_lora_rank=rank,
        block_size=block_size,
    )
    if cache_dtype is not None:
        arguments = (arguments[0], arguments[1].to(cache_dtype), *arguments[2:])
    if kv_scale is not None:
        options["kv_scale"] = torch.tensor([2.0], device=device) if kv_scale == "tensor" else kv_scale
    output, lse = kernels.latent_decode(*arguments, return_lse=True, **options)
    assert_latent_right(arguments, options, output, lse)


@pytest.mark.parametrize("block_size", [8, 64], ids=["blocks in a tile", "tiles in a block"])
@pytest.mark.parametrize("num_splits", [1, 2, 7])
def test_any_number_of_splits(num_splits, block_size, device, monkeypatch):
    monkeypatch.setattr(latent, "choose_num_splits", lambda *shapes: num_splits)
    monkeypatch.setattr(latent.runtime, "interpreter_tile", lambda *sizes: 16)
    arguments, options = random_latents(torch.float16, device, block_size=block_size)
    output, lse = kernels.latent_decode(*arguments, return_lse=True, **options)
    assert_latent_right(arguments, options, output, lse)


def test_splits_fill_the_gpu_and_no_more():
    """(programs, positions) on 132 multiprocessors."""
    chosen = {
        shapes: schedule.choose_num_splits(shapes[0], 132, shapes[1])
        for shapes in [(128, 4096), (2, 32768), (16, 8192), (1, 100), (80, 4096), (2000, 4096)]
    }
    assert chosen == {
        (128, 4096): 1,  # one round, all busy
        (2, 32768): 64,
        (16, 8192): 8,
        (1, 100): 1,  # too short to cut
        (80, 4096): 3,  # two rounds of a third each
        (2000, 4096): 1,
    }


def test_it_is_attention_with_one_kv_head_and_values_cut_from_keys(device):
    (query, cache, *rest), options = random_latents(torch.float32, device)
    key_cache = cache[:, :, None]
    value_cache = key_cache.clone()
    value_cache[..., 64:] = 0.0
    output = kernels.latent_decode(query, cache, *rest, **options)
    whole = reference.paged_decode(query, key_cache, value_cache, *rest)
    torch.testing.assert_close(output, whole[..., :64], rtol=1e-5, atol=1e-5)


def test_offsets_beyond_2_to_the_31(device):
    (query, cache, *rest), options = random_latents(torch.float16, device)
    arguments = (query, far_apart(cache), *rest)
    output, lse = kernels.latent_decode(*arguments, return_lse=True, **options)
    assert_latent_right((query, cache, *rest), options, output, lse)


def test_out_and_strided_views(device):
    (query, cache, *rest), options = random_latents(torch.float32, device)
    wide = torch.cat([cache, torch.full_like(cache, math.nan)], dim=2)
    room = torch.full((5, 16, 100), 7.0, device=device)
    expected = kernels.latent_decode(query, cache, *rest, **options)
    for module in (kernels, reference):
        returned = module.latent_decode(query, wide[..., :80], *rest, out=room[..., :64], **options)
        torch.testing.assert_close(returned, expected, rtol=1e-5, atol=1e-5)
        assert returned.data_ptr() == room.data_ptr()
        assert room[..., 64:].eq(7.0).all()


@pytest.mark.gpu
@pytest.mark.parametrize("num_heads", [16, 128])
def test_sizes_of_a_real_model(num_heads, device):
    arguments, options = random_latents(
        torch.bfloat16,
        device,
        lengths=(4000, 1, 777, 0, 64),
        num_heads=num_heads,
        head_size=576,
        kv_lora_rank=512,
        block_size=64,
    )
    output, lse = kernels.latent_decode(*arguments, return_lse=True, **options)
    assert_latent_right(arguments, options, output, lse)
