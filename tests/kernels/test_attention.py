"""`paged_attention` and `paged_decode` against the float64 reference, for every shape of the contract."""

import math
from dataclasses import replace

import pytest
import torch

import kernels
from kernels import reference
from tests.kernels.batches import DTYPES, SPECS, Spec, assert_attention_right, far_apart, make_batch

DECODE_SPECS = {
    name: replace(spec, requests=tuple((1, seq_len) for _, seq_len in spec.requests))
    for name, spec in SPECS.items()
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SPECS)
def test_paged_attention_is_right(name, dtype, device):
    batch = make_batch(SPECS[name], dtype, device)
    output, lse = kernels.paged_attention(*batch.arguments, return_lse=True)
    assert_attention_right(batch, output, lse)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", DECODE_SPECS)
def test_paged_decode_is_right(name, dtype, device):
    batch = make_batch(DECODE_SPECS[name], dtype, device)
    output, lse = kernels.paged_decode(*batch.decode_arguments, return_lse=True)
    assert_attention_right(batch, output, lse)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("magnitude", [0.0, 30.0, 1000.0])
def test_large_scores_do_not_overflow(magnitude, dtype, device):
    # Scores reach about magnitude * 4, where exp alone overflows from 88 on.
    batch = make_batch(SPECS["prefill, chunk and decode"], dtype, device, magnitude=magnitude)
    assert_attention_right(batch, *kernels.paged_attention(*batch.arguments, return_lse=True))


@pytest.mark.parametrize("scale", [-0.3, 0.0, 2.0, 1])
def test_any_finite_scale(scale, device):
    batch = replace(make_batch(SPECS["prefill, chunk and decode"], torch.float32, device), scale=scale)
    assert_attention_right(batch, *kernels.paged_attention(*batch.arguments, return_lse=True))


def test_scores_far_below_zero_are_seen(device):
    """Every score is about -1e31: a row's first maximum must lie below any finite score.

    The scale is a power of two in base 2. With another a GPU, which multiplies and subtracts in one instruction, would find
    a score above its own rounded product; with scores beyond 2**24 that is more than exp2 can stand.
    """
    batch = make_batch(Spec(((2, 5), (1, 3))), torch.float32, device)
    batch = replace(
        batch,
        query=torch.full_like(batch.query, -1e15),
        key_cache=batch.key_cache.abs() * 1e15 + 1e15,
        scale=math.log(2) / 4,
    )
    assert_attention_right(batch, *kernels.paged_attention(*batch.arguments, return_lse=True))


def test_a_request_of_length_zero_gives_zeros_and_no_weight(device):
    batch = make_batch(SPECS["empty requests"], torch.float32, device)
    output, lse = kernels.paged_attention(*batch.arguments, return_lse=True)
    for token in (0, 5, 6, 8):
        assert output[token].eq(0).all()
        assert lse[token].eq(-math.inf).all()


@pytest.mark.parametrize("name", ["prefill, chunk and decode", "requests without queries"])
def test_strided_views(name, device):
    """Caches that are views of one tensor, as in an engine; a query cut out of a fused projection; a wide table."""
    batch = make_batch(SPECS[name], torch.float32, device)
    kv = torch.stack(
        [batch.key_cache, batch.value_cache], dim=3
    )  # [num_blocks, block_size, heads, 2, head_size]
    fused = torch.cat([batch.query, torch.full_like(batch.query, math.nan)], dim=1)
    table = torch.cat([batch.block_table, torch.full_like(batch.block_table, -9)], dim=1)
    views = replace(
        batch,
        query=fused[:, : batch.query.shape[1]],
        key_cache=kv[:, :, :, 0],
        value_cache=kv[:, :, :, 1],
        block_table=table[:, : batch.block_table.shape[1]],
    )
    assert not views.key_cache.is_contiguous()
    assert_attention_right(views, *kernels.paged_attention(*views.arguments, return_lse=True))


def test_heads_first_layout_as_a_view(device):
    """A cache that is stored [num_blocks, num_kv_heads, block_size, head_size] can be handed over as a view."""
    batch = make_batch(SPECS["GQA of 7"], torch.float32, device)
    turned = batch.key_cache.transpose(1, 2).contiguous().transpose(1, 2)
    views = replace(batch, key_cache=turned)
    assert_attention_right(views, *kernels.paged_attention(*views.arguments, return_lse=True))


@pytest.mark.parametrize("function", ["paged_attention", "paged_decode"])
def test_offsets_beyond_2_to_the_31(function, device):
    batch = make_batch(Spec(((1, 40), (1, 33))), torch.float16, device)
    batch = replace(batch, key_cache=far_apart(batch.key_cache), value_cache=far_apart(batch.value_cache))
    arguments = batch.arguments if function == "paged_attention" else batch.decode_arguments
    assert_attention_right(batch, *getattr(kernels, function)(*arguments, return_lse=True))


def test_shared_blocks(device):
    """Two requests with the same beginning own the same blocks."""
    batch = make_batch(Spec(((1, 40), (3, 48), (1, 33))), torch.float32, device)
    table = batch.block_table.clone()
    table[1, :2] = table[0, :2]
    table[2, :2] = table[0, :2]
    batch = replace(batch, block_table=table)
    assert_attention_right(batch, *kernels.paged_attention(*batch.arguments, return_lse=True))


@pytest.mark.parametrize("function", ["paged_attention", "paged_decode"])
def test_out_is_filled_and_returned(function, device):
    batch = make_batch(DECODE_SPECS["decode, ragged"], torch.float32, device)
    arguments = batch.arguments if function == "paged_attention" else batch.decode_arguments
    room = torch.full((*batch.query.shape[:2], 2 * batch.query.shape[2]), 7.0, device=device)
    out = room[..., : batch.query.shape[2]]
    for module in (kernels, reference):
        out.fill_(math.nan)
        returned = getattr(module, function)(*arguments, out=out)
        assert returned is out
        torch.testing.assert_close(out, getattr(reference, function)(*arguments), rtol=1e-5, atol=1e-5)
        assert room[..., batch.query.shape[2] :].eq(7.0).all()


@pytest.mark.parametrize("function", ["paged_attention", "paged_decode"])
def test_inputs_are_not_touched(function, device):
    batch = make_batch(DECODE_SPECS["decode, ragged"], torch.float16, device)
    arguments = batch.arguments if function == "paged_attention" else batch.decode_arguments
    tensors = [argument for argument in arguments if isinstance(argument, torch.Tensor)]
    for module in (kernels, reference):
        before = [tensor.clone() for tensor in tensors]
        getattr(module, function)(*arguments)
        for old, new in zip(before, tensors, strict=True):
            torch.testing.assert_close(old, new, rtol=0, atol=0, equal_nan=True)


def test_nan_in_an_owned_slot_is_shown(device):
    """The mask keeps foreign NaN out; a NaN of the request's own must come through, not turn into zeros."""
    batch = make_batch(Spec(((1, 20), (1, 20))), torch.float32, device)
    batch.key_cache[batch.block_table[0, 0].item(), 3] = math.nan
    for output in (
        kernels.paged_attention(*batch.arguments),
        kernels.paged_decode(*batch.decode_arguments),
        reference.paged_attention(*batch.arguments),
    ):
        assert output[0].isnan().all()
        assert output[1].isfinite().all()


# What must hold whatever the numbers are


@pytest.mark.parametrize("chunks", [[37], [1, 36], [16, 16, 5], [5, 11, 20, 1]])
def test_chunked_prefill_equals_one_shot(chunks, device):
    batch = make_batch(Spec(((37, 37),), block_size=8), torch.float32, device)
    whole = kernels.paged_attention(*batch.arguments)
    start = 0
    for length in chunks:
        part = replace(
            batch,
            query=batch.query[start : start + length],
            seq_lens=torch.tensor([start + length], dtype=torch.int32, device=device),
            query_start_loc=torch.tensor([0, length], dtype=torch.int32, device=device),
        )
        output = kernels.paged_attention(*part.arguments)
        torch.testing.assert_close(output, whole[start : start + length], rtol=1e-5, atol=1e-5)
        start += length


def test_decode_equals_attention_of_one_token(device):
    batch = make_batch(DECODE_SPECS["decode, ragged"], torch.float32, device)
    output, lse = kernels.paged_decode(*batch.decode_arguments, return_lse=True)
    same, same_lse = kernels.paged_attention(*batch.arguments, return_lse=True)
    torch.testing.assert_close(output, same, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(lse, same_lse, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_moving_blocks_changes_nothing(seed, device):
    """Physical place carries no meaning: permute the blocks and the table with them, and every bit stays."""
    batch = make_batch(SPECS["prefill, chunk and decode"], torch.float16, device)
    num_blocks = len(batch.key_cache)
    new_place = torch.randperm(num_blocks, generator=torch.Generator().manual_seed(seed)).to(device)
    key_cache, value_cache = torch.empty_like(batch.key_cache), torch.empty_like(batch.value_cache)
    key_cache[new_place] = batch.key_cache
    value_cache[new_place] = batch.value_cache
    exists = batch.block_table >= 0
    table = torch.where(exists, new_place[batch.block_table.clamp(min=0)], -1).to(torch.int32)
    moved = replace(batch, key_cache=key_cache, value_cache=value_cache, block_table=table)
    for module in (kernels, reference):
        before = module.paged_attention(*batch.arguments)
        after = module.paged_attention(*moved.arguments)
        assert torch.equal(before, after)


def test_a_batch_equals_its_requests_one_by_one(device):
    batch = make_batch(SPECS["prefill, chunk and decode"], torch.float32, device)
    together = kernels.paged_attention(*batch.arguments)
    starts = batch.query_start_loc.tolist()
    for request in range(len(batch.seq_lens)):
        tokens = slice(starts[request], starts[request + 1])
        alone = replace(
            batch,
            query=batch.query[tokens],
            block_table=batch.block_table[request : request + 1],
            seq_lens=batch.seq_lens[request : request + 1],
            query_start_loc=torch.tensor([0, starts[request + 1] - starts[request]], dtype=torch.int32).to(
                device
            ),
        )
        output = kernels.paged_attention(*alone.arguments)
        torch.testing.assert_close(output, together[tokens], rtol=1e-5, atol=1e-5)
