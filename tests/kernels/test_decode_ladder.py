"""Decode's first rungs against the float64 reference: every rung computes the same function."""

import math
from dataclasses import replace

import pytest
import torch

from kernels.gqa_decode import gqa_decode
from kernels.single_query import single_query_decode
from tests.kernels.batches import DTYPES, SPECS, Spec, assert_attention_right, far_apart, make_batch

DECODE_SPECS = {
    name: replace(spec, requests=tuple((1, seq_len) for _, seq_len in spec.requests))
    for name, spec in SPECS.items()
}
RUNGS = pytest.mark.parametrize("rung", [single_query_decode, gqa_decode])


@RUNGS
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", DECODE_SPECS)
def test_a_rung_is_right(name, dtype, rung, device):
    batch = make_batch(DECODE_SPECS[name], dtype, device)
    assert_attention_right(batch, *rung(*batch.decode_arguments, return_lse=True))


@RUNGS
@pytest.mark.parametrize("magnitude", [0.0, 1000.0])
def test_large_scores_do_not_overflow(magnitude, rung, device):
    batch = make_batch(DECODE_SPECS["decode, ragged"], torch.float32, device, magnitude=magnitude)
    assert_attention_right(batch, *rung(*batch.decode_arguments, return_lse=True))


@RUNGS
def test_offsets_beyond_2_to_the_31(rung, device):
    batch = make_batch(Spec(((1, 40), (1, 33))), torch.float16, device)
    batch = replace(batch, key_cache=far_apart(batch.key_cache), value_cache=far_apart(batch.value_cache))
    assert_attention_right(batch, *rung(*batch.decode_arguments, return_lse=True))


@RUNGS
def test_out_is_filled_and_returned(rung, device):
    batch = make_batch(DECODE_SPECS["empty requests"], torch.float32, device)
    out = torch.full_like(batch.query, math.nan)
    assert rung(*batch.decode_arguments, out=out) is out
    torch.testing.assert_close(out, rung(*batch.decode_arguments), rtol=0, atol=0)


@RUNGS
def test_bad_arguments_are_named(rung, device):
    batch = make_batch(Spec(((1, 40), (1, 33))), torch.float32, device)
    with pytest.raises(ValueError, match="^seq_lens: "):
        rung(*batch.arguments[:4], batch.seq_lens[:1], batch.scale)
