"""The references against torch's own attention, and against numbers worked out by hand."""

import math

import pytest
import torch

from kernels import reference
from tests.kernels.batches import SPECS, make_batch

CPU = torch.device("cpu")


def sdpa(query, key, value, scale, causal):
    """torch.nn.functional.scaled_dot_product_attention for queries that are the last of the sequence."""
    n_q, n_kv = len(query), len(key)
    mask = torch.ones(n_q, n_kv, dtype=torch.bool)
    if causal:
        mask = mask.tril(n_kv - n_q)
    output = torch.nn.functional.scaled_dot_product_attention(
        query.transpose(0, 1), key.transpose(0, 1), value.transpose(0, 1), mask, scale=scale, enable_gqa=True
    )
    return output.transpose(0, 1)


def test_dense_attention_by_hand():
    """Two keys whose scores are log 1 and log 3: weights 1/4 and 3/4."""
    query = torch.tensor([[[1.0]]])
    key = torch.tensor([[[0.0]], [[math.log(3.0)]]])
    value = torch.tensor([[[4.0]], [[8.0]]])
    output, lse = reference.dense_attention(query, key, value, 1.0, return_lse=True)
    assert output.item() == pytest.approx(7.0)
    assert lse.item() == pytest.approx(math.log(4.0))


def test_a_query_sees_up_to_its_own_position():
    """All scores are equal, so each output is the mean of the values that the query sees."""
    query = torch.zeros(2, 1, 1)
    key = torch.zeros(4, 1, 1)
    value = torch.tensor([1.0, 2.0, 3.0, 10.0]).view(4, 1, 1)
    assert reference.dense_attention(query, key, value, 1.0).flatten().tolist() == [2.0, 4.0]
    assert reference.dense_attention(query, key, value, 1.0, causal=False).flatten().tolist() == [4.0, 4.0]


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("heads", [(4, 4), (8, 2), (7, 1)])
@pytest.mark.parametrize(("n_q", "n_kv"), [(1, 1), (1, 9), (9, 9), (4, 9)])
def test_dense_attention_equals_torch(n_q, n_kv, heads, causal):
    torch.manual_seed(0)
    query = torch.randn(n_q, heads[0], 24, dtype=torch.float64)
    key, value = torch.randn(2, n_kv, heads[1], 24, dtype=torch.float64)
    output = reference.dense_attention(query, key, value, 0.3, causal=causal)
    torch.testing.assert_close(output, sdpa(query, key, value, 0.3, causal), rtol=1e-12, atol=1e-12)


def test_lse_is_the_logarithm_of_the_sum():
    torch.manual_seed(0)
    query, key = torch.randn(3, 2, 8, dtype=torch.float64), torch.randn(5, 2, 8, dtype=torch.float64)
    _, lse = reference.dense_attention(query, key, key, 0.5, causal=False, return_lse=True)
    direct = torch.einsum("qhd,khd->qhk", query, key).mul(0.5).exp().sum(-1).log()
    torch.testing.assert_close(lse, direct)


@pytest.mark.parametrize("name", SPECS)
def test_paged_attention_equals_torch_on_gathered_tokens(name):
    spec = SPECS[name]
    batch = make_batch(spec, torch.float64, CPU)
    output, lse = reference.paged_attention(*batch.arguments, return_lse=True)
    assert output.isfinite().all()
    start = 0
    for request, (n_q, seq_len) in enumerate(spec.requests):
        tokens = slice(start, start + n_q)
        start += n_q
        if seq_len == 0:
            assert output[tokens].eq(0).all()
            assert lse[tokens].eq(-math.inf).all()
            continue
        row = batch.block_table[request].tolist()
        slots = [(row[i // spec.block_size], i % spec.block_size) for i in range(seq_len)]
        key = torch.stack([batch.key_cache[slot] for slot in slots])
        value = torch.stack([batch.value_cache[slot] for slot in slots])
        expected = sdpa(batch.query[tokens], key, value, batch.scale, causal=True)
        torch.testing.assert_close(output[tokens], expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes_of_results(dtype):
    batch = make_batch(SPECS["prefill, chunk and decode"], dtype, CPU)
    output, lse = reference.paged_attention(*batch.arguments, return_lse=True)
    assert output.dtype == dtype
    assert lse.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


def test_reference_adds_up_in_float32():
    """4096 equal values in float16: a sum in float16 would stop at 2048."""
    query, key = torch.zeros(1, 1, 1, dtype=torch.float16), torch.zeros(4096, 1, 1, dtype=torch.float16)
    output, lse = reference.dense_attention(query, key, torch.ones_like(key), 1.0, return_lse=True)
    assert output.item() == 1.0
    assert lse.item() == pytest.approx(math.log(4096.0))
