"""What only a GPU can show: CUDA graphs, true float32, and launches that never wait for the device.

That bfloat16 is right is tested with the other dtypes, in the tests that the interpreter runs too.
"""

from dataclasses import replace

import pytest
import torch

import kernels
from kernels import reference
from tests.kernels.batches import SPECS, Spec, assert_attention_right, make_batch
from tests.kernels.test_kv_cache import expected_cache, random_write
from tests.kernels.test_latent import assert_latent_right, random_latents

pytestmark = pytest.mark.gpu

DECODE = Spec(((1, 100), (1, 3), (1, 0), (1, 515)), num_heads=32, num_kv_heads=8, head_size=128)


def test_float32_is_not_tf32(device):
    """1 + 2**-12 needs more bits than tf32 has: there it would be 1."""
    batch = make_batch(Spec(((1, 64), (1, 64)), head_size=128), torch.float32, device)
    value = torch.full_like(batch.value_cache, 1 + 2**-12)
    output = kernels.paged_attention(*replace(batch, value_cache=value).arguments)
    torch.testing.assert_close(output, torch.full_like(output, 1 + 2**-12), rtol=2**-20, atol=0)


def capture(function):
    """Run once so that kernels are compiled, then capture a CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        function()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = function()
    return graph, result


@pytest.mark.parametrize("name", ["attention", "decode"])
def test_a_captured_graph_serves_another_batch_of_the_same_shapes(name, device):
    """Lengths, blocks and starts are read on replay; nothing of the captured batch stays behind."""
    spec = DECODE if name == "decode" else SPECS["prefill, chunk and decode"]
    requests = spec.requests
    batch = make_batch(spec, torch.bfloat16, device)
    if name == "decode":
        graph, result = capture(lambda: kernels.paged_decode(*batch.decode_arguments, return_lse=True))
    else:
        graph, result = capture(lambda: kernels.paged_attention(*batch.arguments, return_lse=True))

    other = make_batch(replace(spec, requests=requests[::-1]), torch.bfloat16, device, seed=1)
    for field in ("query", "key_cache", "value_cache", "block_table", "seq_lens", "query_start_loc"):
        getattr(batch, field).copy_(getattr(other, field))
    graph.replay()
    assert_attention_right(other, *result)


def feature_options(device, num_heads=4, num_kv_heads=2):
    """Every keyword that brings a tensor or a number of its own."""
    return {
        "sliding_window": 13,
        "softcap": 20.0,
        "alibi_slopes": torch.linspace(0.05, 0.4, num_heads, device=device),
        "sinks": torch.linspace(-3.0, 6.0, num_heads, device=device),
        "k_scale": torch.linspace(0.5, 2.0, num_kv_heads, device=device),
        "v_scale": 0.7,
    }


def test_a_captured_graph_reads_scales_and_sinks_on_replay(device):
    spec = SPECS["prefill, chunk and decode"]
    batch = make_batch(spec, torch.bfloat16, device).with_fp8_cache(torch.float8_e4m3fn)
    options = feature_options(device)
    graph, result = capture(lambda: kernels.paged_attention(*batch.arguments, return_lse=True, **options))
    options["sinks"].add_(1.0)
    options["k_scale"].mul_(0.5)
    graph.replay()
    assert_attention_right(batch, *result, **options)


def test_cascade_and_latent_decode_can_be_captured(device):
    batch = make_batch(Spec(((1, 40), (5, 37))), torch.bfloat16, device)
    table = batch.block_table.clone()
    table[1, :2] = table[0, :2]
    batch = replace(batch, block_table=table)
    graph, result = capture(
        lambda: kernels.cascade_attention(*batch.arguments, common_prefix_len=32, return_lse=True)
    )
    batch.query.neg_()
    graph.replay()
    assert_attention_right(batch, *result)

    arguments, options = random_latents(torch.bfloat16, device)
    graph, result = capture(lambda: kernels.latent_decode(*arguments, return_lse=True, **options))
    arguments[0].neg_()
    graph.replay()
    assert_latent_right(arguments, options, *result)


def test_cache_write_and_merge_can_be_captured(device):
    key, value, key_cache, value_cache, slots = random_write(torch.bfloat16, device)
    graph, _ = capture(lambda: kernels.reshape_and_cache(key, value, key_cache, value_cache, slots))
    key.neg_()
    slots.copy_(slots.flip(0))
    expected = expected_cache(key, key_cache, slots)
    graph.replay()
    assert torch.equal(key_cache, expected)

    outputs = torch.randn(5, 7, 4, 64, device=device)
    lses = torch.randn(5, 7, 4, device=device)
    graph, result = capture(lambda: kernels.merge_attn_states(outputs, lses))
    outputs.neg_()
    graph.replay()
    torch.testing.assert_close(result, reference.merge_attn_states(outputs, lses), rtol=1e-5, atol=1e-5)


def test_launches_do_not_wait_for_the_device(device):
    batch = make_batch(DECODE, torch.bfloat16, device)
    write = random_write(torch.bfloat16, device)
    merge = torch.randn(3, 4, 2, 64, device=device), torch.randn(3, 4, 2, device=device)
    options = feature_options(device, DECODE.num_heads, DECODE.num_kv_heads)
    latents, rank = random_latents(torch.bfloat16, device)
    # A process's first launch of Hopper prefill waits, for its counters.
    kernels.paged_attention(*batch.arguments)
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        kernels.paged_attention(*batch.arguments, return_lse=True)
        kernels.paged_decode(*batch.decode_arguments, return_lse=True)
        kernels.reshape_and_cache(*write)
        kernels.merge_attn_states(*merge)
        kernels.paged_prefill(*batch.arguments, causal=False, **options)
        kernels.reshape_and_cache(*write, k_scale=options["k_scale"][:1], v_scale=2.0)
        kernels.cascade_attention(*batch.arguments, common_prefix_len=0, sinks=options["sinks"])
        kernels.latent_decode(*latents, **rank)
        kernels.explain(*batch.arguments, **options)
    finally:
        torch.cuda.set_sync_debug_mode(mode)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("sizes", [(32, 8, 128), (28, 4, 256), (71, 1, 64)], ids=str)
def test_sizes_of_real_models(sizes, dtype, device):
    requests = ((300, 1000), (1, 2000), (64, 64), (1, 17))
    spec = Spec(requests, num_heads=sizes[0], num_kv_heads=sizes[1], head_size=sizes[2])
    batch = make_batch(spec, dtype, device)
    assert_attention_right(batch, *kernels.paged_attention(*batch.arguments, return_lse=True))
    decode = make_batch(replace(spec, requests=tuple((1, n) for _, n in spec.requests)), dtype, device)
    assert_attention_right(decode, *kernels.paged_decode(*decode.decode_arguments, return_lse=True))


@pytest.mark.parametrize("head_size", [64, 80, 96, 112, 128, 192, 256])
@pytest.mark.parametrize("block_size", [8, 16, 64, 256])
@pytest.mark.parametrize("features", [False, True], ids=["plain", "features"])
def test_head_sizes_and_block_sizes_with_several_tiles(features, block_size, head_size, device):
    requests = ((200, 700), (1, 900), (0, 0), (64, 64), (333, 333))
    spec = Spec(requests, num_heads=14, num_kv_heads=2, head_size=head_size, block_size=block_size)
    batch = make_batch(spec, torch.bfloat16, device)
    options = feature_options(device, num_heads=14) | {"sliding_window": 100} if features else {}
    output, lse = kernels.paged_prefill(*batch.arguments, return_lse=True, **options)
    assert_attention_right(batch, output, lse, **options)
