"""`merge_attn_states`: against attention over the whole, and its algebra."""

import math

import pytest
import torch

import kernels
from kernels import reference
from tests.kernels.batches import DTYPES, SLACK, UNIT_ROUNDOFF, assert_within, measured

MODULES = pytest.mark.parametrize("module", [kernels, reference], ids=["triton", "reference"])


def random_states(num_splits, dtype, device, *, num_tokens=5, num_heads=3, head_size=80, spread=3.0):
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(num_splits, num_tokens, num_heads, head_size, generator=generator)
    lses = torch.randn(num_splits, num_tokens, num_heads, generator=generator) * spread
    return outputs.to(device, dtype), lses.to(device)


def assert_merge_right(outputs, lses, output, lse):
    """Rounding of the output, and SLACK times the measured error of the merge in float32."""
    truth, true_lse = reference.merge_attn_states(outputs.double(), lses.double())
    single, single_lse = reference.merge_attn_states(outputs.float(), lses)
    tolerance = UNIT_ROUNDOFF[outputs.dtype] * truth.abs() + SLACK * measured(single, truth)
    assert output.dtype == outputs.dtype
    assert lse.dtype == torch.float32
    assert_within(output, truth, tolerance)
    assert_within(lse, true_lse, torch.full_like(true_lse, SLACK * measured(single_lse, true_lse)))


@MODULES
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("spread", [0.0, 3.0, 500.0])
@pytest.mark.parametrize("num_splits", [1, 2, 7])
def test_merge_is_right(num_splits, spread, dtype, module, device):
    outputs, lses = random_states(num_splits, dtype, device, spread=spread)
    assert_merge_right(outputs, lses, *module.merge_attn_states(outputs, lses))


@MODULES
@pytest.mark.parametrize("sizes", [(0, 3, 8), (1, 1, 1), (300, 2, 256), (3, 7, 33)])
def test_shapes(sizes, module, device):
    num_tokens, num_heads, head_size = sizes
    outputs, lses = random_states(
        3, torch.float32, device, num_tokens=num_tokens, num_heads=num_heads, head_size=head_size
    )
    output, lse = module.merge_attn_states(outputs, lses)
    assert output.shape == (num_tokens, num_heads, head_size)
    assert lse.shape == (num_tokens, num_heads)
    assert_merge_right(outputs, lses, output, lse)


@MODULES
def test_empty_splits_may_hold_nan(module, device):
    outputs, lses = random_states(4, torch.float32, device)
    expected = module.merge_attn_states(outputs[1::2].contiguous(), lses[1::2].contiguous())
    outputs[0::2] = math.nan
    lses[0::2] = -math.inf
    output, lse = module.merge_attn_states(outputs, lses)
    torch.testing.assert_close(output, expected[0], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(lse, expected[1], rtol=1e-6, atol=1e-6)


@MODULES
def test_all_empty_gives_zeros_and_minus_infinity(module, device):
    outputs, lses = random_states(3, torch.float32, device)
    outputs[:, 2] = math.nan
    lses[:, 2] = -math.inf
    output, lse = module.merge_attn_states(outputs, lses)
    assert output[2].eq(0).all()
    assert lse[2].eq(-math.inf).all()
    assert output[:2].isfinite().all()


@MODULES
def test_one_split_is_itself(module, device):
    outputs, lses = random_states(1, torch.float32, device)
    output, lse = module.merge_attn_states(outputs, lses)
    torch.testing.assert_close(output, outputs[0], rtol=1e-6, atol=0)
    torch.testing.assert_close(lse, lses[0], rtol=1e-6, atol=1e-6)


@MODULES
def test_merging_in_steps_or_in_another_order_is_the_same(module, device):
    outputs, lses = random_states(4, torch.float32, device)
    whole, whole_lse = module.merge_attn_states(outputs, lses)

    left = module.merge_attn_states(outputs[:1], lses[:1])
    for split in range(1, 4):
        pair = [torch.stack(states) for states in zip(left, (outputs[split], lses[split]), strict=True)]
        left = module.merge_attn_states(*pair)
    turned = module.merge_attn_states(outputs.flip(0), lses.flip(0))
    for output, lse in (left, turned):
        torch.testing.assert_close(output, whole, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(lse, whole_lse, rtol=1e-5, atol=1e-5)


@MODULES
def test_parts_of_a_sequence_merge_to_the_whole(module, device):
    torch.manual_seed(0)
    query = torch.randn(2, 6, 32, dtype=torch.float32, device=device)
    key, value = torch.randn(2, 50, 2, 32, dtype=torch.float32, device=device)
    parts = [
        reference.dense_attention(query, key[a:b], value[a:b], 0.2, causal=False, return_lse=True)
        for a, b in ((0, 17), (17, 17), (17, 18), (18, 50))
    ]
    output, lse = module.merge_attn_states(*(torch.stack(states) for states in zip(*parts, strict=True)))
    whole, whole_lse = reference.dense_attention(query, key, value, 0.2, causal=False, return_lse=True)
    torch.testing.assert_close(output, whole, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(lse, whole_lse, rtol=1e-5, atol=1e-5)


@MODULES
def test_inputs_are_not_touched(module, device):
    outputs, lses = random_states(3, torch.float32, device)
    before = outputs.clone(), lses.clone()
    module.merge_attn_states(outputs, lses)
    assert torch.equal(outputs, before[0])
    assert torch.equal(lses, before[1])
