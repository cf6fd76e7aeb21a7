"""The Hopper tier of decode: right on a Hopper GPU, right in an emulation of Gluon, compiled as intended anywhere.

As in test_hopper_prefill.py the emulation shows that the program computes the right thing and that its barriers let it
end; registers, layouts and speed show on a GPU alone.
"""

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import kernels
from kernels import hopper_decode, hopper_decode_merge, runtime
from kernels.options import ScoreOptions
from tests.kernels.batches import Spec, assert_attention_right, make_batch
from tests.kernels.gluon_emulator import emulate
from tests.kernels.test_decode import options_of

SCRIPT = Path(__file__).parent / "compile_hopper_decode.py"
HALF_OF_SHARED_MEMORY = 233472 // 2 - 1024  # bytes for a program of two on a multiprocessor

# (dtype, num_heads, num_kv_heads, head_size, block_size, whether with features)
LAUNCHES = [
    ("bfloat16", 32, 8, 128, 16, False),
    ("bfloat16", 32, 8, 128, 16, True),
    ("float16", 28, 4, 64, 32, False),
    ("bfloat16", 8, 4, 256, 64, False),
]

REQUESTS = (700, 0, 65, 64, 1, 257, 16, 5000, 0, 1023)
SIZES = {
    "GQA of 4": Spec((), num_heads=8, num_kv_heads=2, head_size=128),
    "GQA of 7": Spec((), num_heads=14, num_kv_heads=2, head_size=128),
    "as many kv heads": Spec((), num_heads=3, num_kv_heads=3, head_size=64),
    "MQA of 64": Spec((), num_heads=64, num_kv_heads=1, head_size=128),
    "head size 256": Spec((), num_heads=8, num_kv_heads=4, head_size=256),
    "block size 8": Spec((), num_heads=4, num_kv_heads=2, head_size=64, block_size=8),
    "block size 128": Spec((), num_heads=4, num_kv_heads=2, head_size=128, block_size=128),
}
# In the emulation, with nine shares for two kv heads: sequences shared by four and by three, whole, of a tile's length and of none.
FEW_REQUESTS = (65, 300, 0, 64, 700, 1, 130)


def batch_of(name, lengths, dtype, device):
    return make_batch(replace(SIZES[name], requests=tuple((1, n) for n in lengths)), dtype, device)


@pytest.fixture
def emulated(monkeypatch):
    """The CPU, with Gluon emulated and nine multiprocessors."""
    (module,) = emulate(monkeypatch, "hopper_decode_kernel")
    monkeypatch.setattr(runtime, "num_multiprocessors", lambda device: 9)
    for waits in (module, hopper_decode_merge):
        monkeypatch.setattr(waits, "gdc_wait", lambda: None)
        monkeypatch.setattr(waits, "gdc_launch_dependents", lambda: None)
    return torch.device("cpu")


def emulated_decode(batch, **options):
    """By the Hopper program, whatever tier the machine would choose."""
    query = batch.query
    out = torch.full_like(query, math.nan)
    lse = torch.full(query.shape[:2], math.nan)
    hopper_decode.launch_decode(*batch.decode_arguments, ScoreOptions(**options), out, lse)
    return out, lse


def decode(batch, **options):
    return kernels.paged_decode(*batch.decode_arguments, tier="hopper", return_lse=True, **options)


@pytest.mark.slow
def test_it_compiles_for_hopper(tmp_path):
    environment = os.environ | {
        "TRITON_INTERPRET": "0",
        "TRITON_CACHE_DIR": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    command = [sys.executable, str(SCRIPT), json.dumps(LAUNCHES)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    decodes = [report for report in reports if report["kernel"] == "paged_decode_hopper_kernel"]
    assert len(decodes) == len(LAUNCHES) == len(reports) - len(decodes)
    for report, launch in zip(decodes, LAUNCHES, strict=True):
        programs_together = 2 if launch[3] <= 128 else 1
        assert report["shared"] * programs_together <= HALF_OF_SHARED_MEMORY * 2, report
        assert report["wgmma"] > 0, report
        assert report["tma"] > 0, report


@pytest.mark.parametrize("name", SIZES)
def test_sizes_emulated(name, emulated):
    batch = batch_of(name, FEW_REQUESTS, torch.float16, emulated)
    assert hopper_decode.objection(batch.query, batch.key_cache, batch.value_cache) is None
    assert_attention_right(batch, *emulated_decode(batch))


@pytest.mark.parametrize("lengths", [(1,), (0,), (0, 0, 0), (1000,), (3,) * 20, (0, 0, 70) * 3], ids=len)
def test_lengths_emulated(lengths, emulated):
    batch = batch_of("GQA of 4", lengths, torch.float16, emulated)
    assert_attention_right(batch, *emulated_decode(batch))


@pytest.mark.parametrize("name", ["window of 1", "window of 70", "softcap", "alibi", "sinks"])
def test_each_feature_emulated(name, emulated):
    spec = Spec(tuple((1, n) for n in FEW_REQUESTS), num_heads=4, num_kv_heads=2, head_size=128)
    batch = make_batch(spec, torch.float16, emulated)
    options = options_of(name, emulated)
    assert_attention_right(batch, *emulated_decode(batch, **options), **options)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(0, 400), min_size=1, max_size=7),
    num_kv_heads=st.integers(1, 3),
    multiprocessors=st.integers(1, 5),
)
def test_any_batch_cut_into_any_shares(emulated, monkeypatch, lengths, num_kv_heads, multiprocessors):
    monkeypatch.setattr(runtime, "num_multiprocessors", lambda device: multiprocessors)
    spec = Spec(
        tuple((1, n) for n in lengths), num_heads=2 * num_kv_heads, num_kv_heads=num_kv_heads, head_size=64
    )
    batch = make_batch(spec, torch.float16, emulated)
    assert_attention_right(batch, *emulated_decode(batch))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("lengths", [REQUESTS, (1,), (0,), (40000,), (3,) * 600, (0, 0, 70) * 50], ids=len)
@pytest.mark.parametrize("name", SIZES)
def test_lengths_and_sizes(name, lengths, dtype, device):
    batch = batch_of(name, lengths, dtype, device)
    assert_attention_right(batch, *decode(batch))


@pytest.mark.gpu
@pytest.mark.parametrize(
    "name", ["window of 1", "window of 70", "window of 10000", "softcap", "alibi", "sinks"]
)
def test_each_feature_is_right(name, device):
    spec = Spec(tuple((1, n) for n in REQUESTS), num_heads=4, num_kv_heads=2, head_size=128)
    batch = make_batch(spec, torch.bfloat16, device)
    options = options_of(name, device)
    assert_attention_right(batch, *decode(batch, **options), **options)


@pytest.mark.gpu
def test_strided_caches(device):
    """Keys and values side by side; blocks that hold both; heads in front of slots."""
    batch = batch_of("GQA of 4", REQUESTS, torch.bfloat16, device)
    pair = torch.stack([batch.key_cache, batch.value_cache], dim=3)
    both = torch.stack([batch.key_cache, batch.value_cache], dim=1)
    turned = [
        cache.transpose(1, 2).contiguous().transpose(1, 2) for cache in (batch.key_cache, batch.value_cache)
    ]
    for caches in ((pair[:, :, :, 0], pair[:, :, :, 1]), (both[:, 0], both[:, 1]), turned):
        views = replace(batch, key_cache=caches[0], value_cache=caches[1])
        assert hopper_decode.objection(views.query, *caches) is None
        assert_attention_right(views, *decode(views))


@pytest.mark.gpu
def test_what_it_cannot_serve_is_said(device):
    batch = make_batch(Spec(((1, 40),), head_size=80), torch.bfloat16, device)
    with pytest.raises(ValueError, match="^tier: .*head sizes"):
        decode(batch)


@pytest.mark.gpu
def test_a_captured_graph_serves_other_lengths(device):
    batch = batch_of("GQA of 4", REQUESTS, torch.bfloat16, device)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        decode(batch)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(3):
            result = decode(batch)
    other = batch_of("GQA of 4", REQUESTS[::-1], torch.bfloat16, device)
    for field in ("query", "key_cache", "value_cache", "block_table", "seq_lens"):
        getattr(batch, field).copy_(getattr(other, field))
    for _ in range(20):
        result[0].fill_(math.nan)
        graph.replay()
        assert_attention_right(other, *result)
