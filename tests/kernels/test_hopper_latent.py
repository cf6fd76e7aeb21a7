"""The Hopper tier of latent decode: right on a Hopper GPU, right in an emulation of Gluon, compiled as intended anywhere.

As in test_hopper_prefill.py the emulation shows that the program computes the right thing and that its barriers let it
end, whatever the number of tiles; what the tensor cores and the copy engine do is for the GPU to show.
"""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import kernels
from kernels import hopper_latent
from kernels.hopper_latent import latent_decode_hopper
from tests.kernels.gluon_emulator import emulate
from tests.kernels.test_latent import assert_latent_right, random_latents

SCRIPT = Path(__file__).parent / "compile_hopper_latent.py"
HOPPER_SHARED_MEMORY = 227 * 1024  # bytes that one program can have

# (dtype, num_reqs, num_heads, block_size): one split and many
LAUNCHES = [("bfloat16", 64, 128, 64), ("float16", 1, 70, 16)]

# Tiles are 64 rows, and two warpgroups take them in turn: no tile, 1, 2, 3, 4 and 5, whole and not.
LENGTHS = (0, 1, 63, 64, 65, 128, 130, 192, 250, 256, 300)


@pytest.fixture
def hopper(device):
    """The GPU, where it is a Hopper."""
    if device.type != "cuda" or torch.cuda.get_device_capability()[0] != 9:
        pytest.skip("needs a Hopper GPU")
    return device


@pytest.fixture
def emulated(monkeypatch):
    """The CPU, with Gluon emulated."""
    emulate(monkeypatch, "hopper_latent_kernel")
    return torch.device("cpu")


@pytest.fixture(params=["emulated", pytest.param("hopper", marks=pytest.mark.gpu)])
def machine(request):
    return request.getfixturevalue(request.param)


def latents(machine, *, dtype=None, **sizes):
    """bfloat16 on a GPU; float16 on the CPU, where its products are summed in float32 as well."""
    if dtype is None:
        dtype = torch.bfloat16 if machine.type == "cuda" else torch.float16
    sizes = {"lengths": LENGTHS, "num_heads": 3, "block_size": 64} | sizes
    return random_latents(dtype, machine, head_size=576, kv_lora_rank=512, **sizes)


def assert_right(arguments, options):
    query = arguments[0]
    out = torch.full((*query.shape[:2], 512), math.nan, dtype=query.dtype, device=query.device)
    output, lse = latent_decode_hopper(*arguments, out=out, return_lse=True, **options)
    assert output is out
    assert_latent_right(arguments, options, output, lse)


@pytest.mark.parametrize("num_splits", [1, 2, 3, 7])
def test_any_number_of_tiles_and_splits(num_splits, machine, monkeypatch):
    """With 7 splits some have no tile."""
    monkeypatch.setattr(hopper_latent, "choose_num_splits", lambda *shapes: num_splits)
    assert_right(*latents(machine))


@pytest.mark.parametrize("block_size", [16, 32, 128, 256])
def test_block_sizes(block_size, machine):
    assert_right(*latents(machine, block_size=block_size, lengths=(0, 200, 30)))


@pytest.mark.parametrize("num_heads", [1, 64, 70, 128])
def test_head_counts(num_heads, machine):
    assert_right(*latents(machine, num_heads=num_heads, lengths=(70, 3)))


@pytest.mark.parametrize("lengths", [(0,), (0, 0, 0), ()], ids=len)
def test_nothing_to_see(lengths, machine):
    assert_right(*latents(machine, lengths=lengths))


def test_large_scores(machine):
    (query, *rest), options = latents(machine, lengths=(300, 129))
    assert_right((query * 30.0, *rest), options)


def test_strided_query_cache_and_output(machine):
    """Layers side by side in the cache and in the query; NaN between the rows."""
    (query, cache, *rest), options = latents(machine, lengths=(200, 64, 1))
    wide_cache = torch.cat([cache, torch.full_like(cache, math.nan)], dim=2)[..., :576]
    wide_query = torch.cat([query, torch.full_like(query, math.nan)], dim=1)[:, :3]
    room = torch.full((3, 3, 1000), 7.0, dtype=query.dtype, device=machine)
    output, lse = latent_decode_hopper(
        wide_query, wide_cache, *rest, out=room[..., :512], return_lse=True, **options
    )
    assert_latent_right((query, cache, *rest), options, output, lse)
    assert room[..., 512:].eq(7.0).all()


def test_offsets_beyond_2_to_the_31(machine):
    """Blocks far apart by a whole number of rows; what lies between takes addresses and, on a CPU, no memory."""
    (query, cache, *rest), options = latents(machine, lengths=(100, 30), block_size=16)
    stride = (2**31 // (len(cache) - 2) // 576 + 1) * 576
    room = torch.empty((len(cache) - 1) * stride + 16 * 576, dtype=cache.dtype, device=machine)
    view = room.as_strided(cache.shape, (stride, 576, 1))
    view.copy_(cache)
    output, lse = latent_decode_hopper(query, view, *rest, return_lse=True, **options)
    assert_latent_right((query, cache, *rest), options, output, lse)


def test_a_tier_can_be_asked_for(machine):
    arguments, options = latents(machine, lengths=(100,))
    output, lse = kernels.latent_decode(*arguments, tier="hopper", return_lse=True, **options)
    assert_latent_right(arguments, options, output, lse)
    with pytest.raises(ValueError, match="^tier: expected"):
        kernels.latent_decode(*arguments, tier="gluon", **options)


def test_what_it_cannot_serve_is_said(machine):
    (query, cache, *rest), options = latents(machine, lengths=(100,))
    refused = [
        ((query, cache, *rest), {"kv_scale": 2.0}, "no scale"),
        ((query, cache.to(torch.float8_e5m2), *rest), {}, "16-bit type"),
        ((query[..., :544], cache[..., :544], *rest), {}, "rows of 576"),
        ((query, cache, *rest[:2], -1.0), {}, "positive scale"),
        (latents(machine, lengths=(9,), block_size=8)[0], {}, "power of two from 16 on"),
        ((query, cache.transpose(0, 1).contiguous().transpose(0, 1), *rest), {}, "rows of equal distance"),
    ]
    for arguments, more, reason in refused:
        with pytest.raises(ValueError, match=f"^latent_decode_hopper: .*{reason}"):
            latent_decode_hopper(*arguments, **options, **more)
        with pytest.raises(ValueError, match=f"^tier: .*{reason}"):
            kernels.latent_decode(*arguments, tier="hopper", **options, **more)


def test_without_a_hopper_it_says_so():
    arguments, options = latents(torch.device("cpu"), lengths=(3,))
    if kernels.INTERPRET:
        with pytest.raises(ValueError, match="^latent_decode_hopper: Gluon has no interpreter"):
            latent_decode_hopper(*arguments, **options)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("block_size", [16, 64])
@pytest.mark.parametrize(
    "lengths",
    [(4000, 1, 777, 0, 64), (20000,), (4096,) * 40, (5, 900) * 100],
    ids=["ragged", "1", "40", "200"],
)
def test_sizes_of_a_real_model(lengths, block_size, dtype, hopper):
    assert_right(*latents(hopper, dtype=dtype, lengths=lengths, num_heads=128, block_size=block_size))


@pytest.mark.gpu
def test_a_captured_graph_serves_other_lengths(hopper):
    arguments, options = latents(hopper, lengths=(700, 3, 0, 64), num_heads=128)
    latent_decode_hopper(*arguments, **options)
    stream = torch.cuda.Stream()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        result = latent_decode_hopper(*arguments, return_lse=True, **options)
    arguments[3].copy_(torch.tensor([129, 1, 0, 20], dtype=torch.int32))
    for _ in range(20):
        result[0].fill_(math.nan)
        graph.replay()
        assert_latent_right(arguments, options, *result)


@pytest.mark.gpu
def test_it_does_not_wait_for_the_device_and_repeats_its_bits(hopper):
    arguments, options = latents(hopper, lengths=(3000, 129, 2000), num_heads=128)
    first = latent_decode_hopper(*arguments, **options)
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        results = [latent_decode_hopper(*arguments, **options) for _ in range(20)]
    finally:
        torch.cuda.set_sync_debug_mode(mode)
    assert all(result is not first and torch.equal(result, first) for result in results)


@pytest.mark.slow
def test_it_compiles_for_hopper(tmp_path):
    pytest.importorskip("triton.experimental.gluon.nvidia.hopper")
    environment = os.environ | {
        "TRITON_INTERPRET": "0",
        "TRITON_CACHE_DIR": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    command = [sys.executable, str(SCRIPT), json.dumps(LAUNCHES)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(reports) == len(LAUNCHES)
    for report in reports:
        assert report["shared"] <= HOPPER_SHARED_MEMORY, report
        assert report["spilled"] == 0, report
        assert not report["serialized"], report  # ptxas says so when it cannot keep products in flight
        assert report["wgmma"] > 0, report
        assert report["tma"] > 0, report
