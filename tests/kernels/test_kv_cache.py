"""`reshape_and_cache`, reference and kernel: what is written, and that nothing else is."""

import math

import pytest
import torch

import kernels
from kernels import contract, reference
from tests.kernels.batches import DTYPES, far_apart

MODULES = pytest.mark.parametrize("module", [kernels, reference], ids=["triton", "reference"])


def random_write(dtype, device, *, num_tokens=23, num_kv_heads=3, head_size=80, num_blocks=6, block_size=7):
    generator = torch.Generator().manual_seed(0)
    key, value = torch.randn(2, num_tokens, num_kv_heads, head_size, generator=generator).to(device, dtype)
    caches = torch.randn(2, num_blocks, block_size, num_kv_heads, head_size, generator=generator)
    key_cache, value_cache = caches.to(device, dtype)
    slots = torch.randperm(num_blocks * block_size, generator=generator)[:num_tokens].to(device)
    return key, value, key_cache, value_cache, slots


def expected_cache(new, cache, slots):
    """Slot by slot, in Python."""
    cache = cache.clone()
    for token, slot in enumerate(slots.tolist()):
        if slot >= 0:
            cache[slot // cache.shape[1], slot % cache.shape[1]] = new[token]
    return cache


@MODULES
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"num_tokens": 1, "num_kv_heads": 1, "head_size": 1, "num_blocks": 1, "block_size": 1},
        {"num_tokens": 300, "num_blocks": 40, "block_size": 16, "num_kv_heads": 2, "head_size": 64},
        {"num_tokens": 42, "head_size": 256},
        {"num_tokens": 0},
    ],
    ids=["odd sizes", "all ones", "several tiles", "whole cache", "no tokens"],
)
def test_tokens_go_to_their_slots_bit_for_bit(sizes, dtype, module, device):
    key, value, key_cache, value_cache, slots = random_write(dtype, device, **sizes)
    expected = expected_cache(key, key_cache, slots), expected_cache(value, value_cache, slots)
    assert module.reshape_and_cache(key, value, key_cache, value_cache, slots) is None
    assert torch.equal(key_cache, expected[0])
    assert torch.equal(value_cache, expected[1])


@MODULES
def test_minus_one_is_not_written_and_other_slots_stay(module, device):
    key, value, key_cache, value_cache, slots = random_write(torch.float32, device)
    slots[::3] = -1
    key[::3] = math.nan
    key_cache[:] = 5.0
    value_cache[:] = 6.0
    module.reshape_and_cache(key, value, key_cache, value_cache, slots)
    flat_key, flat_value = key_cache.flatten(0, 1), value_cache.flatten(0, 1)
    untouched = torch.ones(len(flat_key), dtype=torch.bool, device=device)
    untouched[slots[slots >= 0]] = False
    assert flat_key[untouched].eq(5.0).all()
    assert flat_value[untouched].eq(6.0).all()
    assert torch.equal(flat_key[slots[slots >= 0]], key[slots >= 0])


@MODULES
def test_strided_views(module, device):
    """Keys cut out of a fused projection, caches that are views of one tensor: the rest of it stays."""
    key, value, key_cache, _, slots = random_write(torch.float32, device)
    fused = torch.stack([key, value], dim=2)
    kv = torch.full((*key_cache.shape[:3], 3, key_cache.shape[3]), 9.0, device=device)
    module.reshape_and_cache(fused[:, :, 0], fused[:, :, 1], kv[..., 0, :], kv[..., 2, :], slots)
    filled = torch.full_like(key_cache, 9.0)
    assert torch.equal(kv[..., 0, :], expected_cache(key, filled, slots))
    assert torch.equal(kv[..., 2, :], expected_cache(value, filled, slots))
    assert kv[..., 1, :].eq(9.0).all()


@MODULES
def test_sources_are_not_touched(module, device):
    key, value, key_cache, value_cache, slots = random_write(torch.float32, device)
    before = key.clone(), value.clone(), slots.clone()
    module.reshape_and_cache(key, value, key_cache, value_cache, slots)
    for old, new in zip(before, (key, value, slots), strict=True):
        assert torch.equal(old, new)


@MODULES
def test_offsets_beyond_2_to_the_31(module, device):
    key, value, key_cache, value_cache, slots = random_write(torch.float16, device)
    expected = expected_cache(key, key_cache, slots), expected_cache(value, value_cache, slots)
    key_cache, value_cache = far_apart(key_cache), far_apart(value_cache)
    module.reshape_and_cache(key, value, key_cache, value_cache, slots)
    assert torch.equal(key_cache, expected[0])
    assert torch.equal(value_cache, expected[1])


SCALES = {
    "no scales": lambda device: {},
    "numbers": lambda device: {"k_scale": 0.5, "v_scale": 3.0},
    "tensors": lambda device: {
        "k_scale": torch.tensor(0.03, device=device),
        "v_scale": torch.tensor([7.0], device=device),
    },
    "per head": lambda device: {
        "k_scale": torch.tensor([0.004, 0.5, 2.0], device=device),
        "v_scale": torch.tensor([1.0, 0.1, 30.0], device=device),
    },
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cache_dtype", [None, *contract.FP8_DTYPES], ids=str)
@pytest.mark.parametrize("scales", SCALES)
def test_scaled_and_fp8_caches_bit_for_bit(scales, cache_dtype, dtype, device):
    """Small scales push numbers beyond fp8's range, large ones down among its subnormals."""
    key, value, key_cache, value_cache, slots = random_write(dtype, device)
    key, value = key * 10.0 ** torch.linspace(-4, 2, 80, device=device).to(dtype), -value
    options = SCALES[scales](device)
    caches = [tensor.to(cache_dtype or dtype) for tensor in (key_cache, value_cache)]
    expected = [tensor.clone() for tensor in caches]
    kernels.reshape_and_cache(key, value, *caches, slots, **options)
    reference.reshape_and_cache(key, value, *expected, slots, **options)
    for got, truth in zip(caches, expected, strict=True):
        assert torch.equal(got.view(torch.uint8), truth.view(torch.uint8))


@MODULES
@pytest.mark.parametrize("cache_dtype", contract.FP8_DTYPES, ids=str)
def test_fp8_ends(cache_dtype, module, device):
    """Ties go to even, what is too large becomes the largest, NaN stays NaN, a zero keeps its sign."""
    largest = torch.finfo(cache_dtype).max
    step = 2.0 ** (-9 if cache_dtype == torch.float8_e4m3fn else -16)  # of the subnormals
    numbers = [
        0.0,
        -0.0,
        largest,
        1e9,
        -math.inf,
        math.nan,
        step,
        step / 2,
        1.5 * step,
        -step / 2,
        1.0,
        1.0625,
    ]
    wanted = [0.0, -0.0, largest, largest, -largest, math.nan, step, 0.0, 2 * step, -0.0, 1.0, 1.0]
    key = torch.tensor(numbers, device=device)[None, None]
    caches = [torch.zeros(1, 1, 1, 12, device=device).to(cache_dtype) for _ in range(2)]
    module.reshape_and_cache(key, key, *caches, torch.zeros(1, dtype=torch.int64, device=device))
    for cache in caches:
        got = cache.cpu().float().flatten()
        torch.testing.assert_close(got, torch.tensor(wanted), rtol=0, atol=0, equal_nan=True)
        assert torch.equal(got.signbit()[:5], torch.tensor(wanted).signbit()[:5])


def test_what_is_written_with_scales_is_read_with_them(device):
    """Cache write and attention agree on what a scale is: fp8 rounds by at most one part in 16."""
    key, value, _, _, slots = random_write(torch.float32, device, num_kv_heads=2, block_size=8)
    caches = [torch.zeros(6, 8, 2, 80, device=device) for _ in range(4)]
    plain, fp8 = caches[:2], [cache.to(torch.float8_e4m3fn) for cache in caches[2:]]
    options = {"k_scale": torch.tensor([0.01, 2.0], device=device), "v_scale": 0.02}
    slots = torch.arange(23, device=device)
    kernels.reshape_and_cache(key, value, *plain, slots)
    kernels.reshape_and_cache(key, value, *fp8, slots, **options)
    table = torch.arange(3, dtype=torch.int32, device=device)[None]
    lens = torch.tensor([23], dtype=torch.int32, device=device)
    starts = torch.tensor([0, 23], dtype=torch.int32, device=device)
    query = torch.zeros(23, 2, 80, device=device)
    output = kernels.paged_attention(query, *fp8, table, lens, starts, 1.0, **options)
    wanted = kernels.paged_attention(query, *plain, table, lens, starts, 1.0)
    assert (output - wanted).abs().max() <= value.abs().max() / 16
