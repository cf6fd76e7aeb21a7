"""The Hopper tier of prefill: right on a Hopper GPU, right in an emulation of Gluon, compiled as intended anywhere.

The emulation (gluon_emulator.py) shows on a CPU that the program computes the right thing and that its barriers let it end;
that the tensor cores and the copy engine do what it takes them to do is for the GPU to show.
"""

import json
import math
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kernels import hopper_prefill, runtime
from kernels.hopper_prefill import paged_prefill_hopper
from tests.kernels import gluon_emulator
from tests.kernels.batches import SPECS, Spec, assert_attention_right, make_batch
from tests.kernels.gluon_emulator import emulate

# What is written in Gluon, the entry last.
KERNEL_MODULES = [f"hopper_prefill_{part}" for part in ("tiles", "producer", "consumer", "kernel")]
SCRIPT = Path(__file__).parent / "compile_hopper_prefill.py"
HOPPER_SHARED_MEMORY = 227 * 1024  # bytes that one program can have

# (dtype, num_heads, num_kv_heads, head_size, block_size, options)
LAUNCHES = [
    ("bfloat16", 32, 8, 128, 16, {}),
    ("bfloat16", 32, 8, 128, 16, {"tokens": 20480}),  # tiles enough for three warpgroups
    ("float16", 28, 4, 64, 128, {"causal": False, "lse": True}),
    (
        "bfloat16",
        16,
        16,
        256,
        64,
        {"window": 1000, "softcap": 30.0, "sinks": True, "alibi": True, "lse": True},
    ),
]

# Tiles are 128 rows and 128 keys: lengths around their edges, contexts that no tile divides, nothing at all.
RAGGED = (
    (0, 0),
    (5, 5),
    (1, 100),
    (100, 100),
    (140, 600),
    (129, 129),
    (64, 77),
    (0, 40),
    (256, 256),
    (1, 16),
    (1, 0),
    (150, 401),
)
# Of them, in the emulation, what sizes make a difference to.
SHORT = ((0, 0), (5, 5), (1, 300), (129, 129), (64, 77), (0, 40), (1, 0))
SIZES = [
    *((8, 2, 128, block_size) for block_size in (8, 16, 32, 64, 128, 256)),
    *((4, 2, head_size, 16) for head_size in (8, 64, 72, 80, 96, 112, 192, 256)),
    *((num_heads, num_kv_heads, 128, 16) for num_heads, num_kv_heads in ((8, 8), (14, 2), (9, 3), (16, 1))),
    # Many tiles: on a GPU. In the emulator 71 heads are in test_batches, and 4 queries a kv head above.
    *(pytest.param(sizes, marks=pytest.mark.gpu) for sizes in ((71, 1, 128, 16), (32, 8, 128, 16))),
]
OPTIONS = [
    {"causal": False},
    {"sliding_window": 1},
    {"sliding_window": 100},
    {"sliding_window": 128},
    {"sliding_window": 300},
    {"softcap": 5.0},
    {"alibi_slopes": True},
    {"sinks": True},
    {"causal": False, "alibi_slopes": True, "softcap": 20.0},
    {"sliding_window": 200, "softcap": 10.0, "alibi_slopes": True, "sinks": True},
]


@pytest.fixture
def hopper(device):
    """The GPU, where it is a Hopper."""
    if device.type != "cuda" or torch.cuda.get_device_capability()[0] != 9:
        pytest.skip("needs a Hopper GPU")
    return device


@pytest.fixture
def emulated(monkeypatch):
    """The CPU, with Gluon emulated and three multiprocessors."""
    emulate(monkeypatch, *KERNEL_MODULES)
    counter = torch.zeros(4, dtype=torch.int32)
    monkeypatch.setattr(hopper_prefill, "_take_counter", lambda device: counter)
    monkeypatch.setattr(runtime, "num_multiprocessors", lambda device: 3)
    yield torch.device("cpu")
    assert counter.tolist() == [0, 0, 0, 0]


@pytest.fixture(params=["emulated", pytest.param("hopper", marks=pytest.mark.gpu)])
def machine(request):
    return request.getfixturevalue(request.param)


def dtype_of(machine):
    """bfloat16 on a GPU; float16 on the CPU, where its products are summed in float32 as well."""
    return torch.bfloat16 if machine.type == "cuda" else torch.float16


def per_head(options, num_heads, device):
    """The options with tensors in the place of True."""
    options = dict(options)
    if "alibi_slopes" in options:
        options["alibi_slopes"] = 2.0 ** -torch.linspace(1, 8, num_heads, device=device)
    if "sinks" in options:
        options["sinks"] = torch.linspace(-2, 4, num_heads, device=device)
    return options


def assert_right(batch, **options):
    out = torch.full_like(batch.query, math.nan)
    output, lse = paged_prefill_hopper(*batch.arguments, out=out, return_lse=True, **options)
    assert output is out
    assert_attention_right(batch, output, lse, **options)


@pytest.mark.parametrize("name", SPECS)
def test_batches(name, machine):
    batch = make_batch(SPECS[name], torch.float16, machine)
    reason = hopper_prefill.objection(batch.query, batch.key_cache, batch.value_cache, batch.scale)
    if reason:
        with pytest.raises(ValueError, match="paged_prefill_hopper"):
            paged_prefill_hopper(*batch.arguments)
        return
    assert_right(batch)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_sizes(sizes, machine):
    num_heads, num_kv_heads, head_size, block_size = sizes
    requests = RAGGED if machine.type == "cuda" else SHORT
    batch = make_batch(
        Spec(requests, num_heads, num_kv_heads, head_size, block_size), dtype_of(machine), machine
    )
    assert_right(batch)


def combined(firsts, seconds, emulated):
    """Every pair, on a GPU; in the emulation, where each takes a second, those that `emulated(i, j)` chooses."""
    return [
        pytest.param(first, second, marks=() if emulated(i, j) else pytest.mark.gpu, id=f"{first}-{second}")
        for i, first in enumerate(firsts)
        for j, second in enumerate(seconds)
    ]


# Two query heads share a kv head, and so a tile, or each has a tile of its own.
@pytest.mark.parametrize(
    ("options", "heads"), combined(OPTIONS, [(8, 2), (7, 1)], lambda i, j: (i + j) % 2 == 0)
)
def test_options(options, heads, machine):
    spec = Spec(RAGGED, num_heads=heads[0], num_kv_heads=heads[1], head_size=128)
    batch = make_batch(spec, dtype_of(machine), machine)
    assert_right(batch, **per_head(options, heads[0], machine))


def three_warpgroups(num_small=0):
    """Stands for `_cut`: tiles of 192 rows for batches that are too small for them; num_small where one request is."""

    def cut(num_tokens, num_reqs, head_groups, pack, num_programs, rounds_for_three):
        assert rounds_for_three is not None
        large = 192 // pack
        return hopper_prefill._Cut(
            3, num_small if num_reqs == 1 else 0, (num_tokens // large + num_reqs + num_small) * head_groups
        )

    return cut


THREE = [(8, 2, 128, 16), (8, 8, 128, 64), (7, 1, 128, 16), (8, 1, 64, 32), (4, 2, 96, 16)]


@pytest.mark.parametrize(("sizes", "causal"), combined(THREE, [True, False], lambda i, j: j == 0 or i == 1))
def test_three_warpgroups(sizes, causal, machine, monkeypatch):
    monkeypatch.setattr(hopper_prefill, "_cut", three_warpgroups())
    assert_right(make_batch(Spec(RAGGED, *sizes), dtype_of(machine), machine), causal=causal)


@pytest.mark.parametrize(
    ("request_", "num_small"),
    combined([(700, 1201), (960, 960), (1, 300), (40, 40)], [1, 5, 30], lambda i, j: (i + j) % 3 == 1),
)
def test_small_tiles_first(request_, num_small, machine, monkeypatch):
    monkeypatch.setattr(hopper_prefill, "_cut", three_warpgroups(num_small))
    assert_right(make_batch(Spec((request_,), 8, 2, 128, 16), dtype_of(machine), machine))


@pytest.mark.gpu
@pytest.mark.parametrize(
    "requests", [((2048, 2300),), ((3000, 3000),), ((2500, 2500), (0, 9), (2300, 4001))], ids=str
)
def test_large_batches(requests, hopper):
    assert_right(make_batch(Spec(requests, 32, 8, 128, 16), torch.bfloat16, hopper))


def test_sinks_of_minus_infinity_count_nothing(machine):
    """Also for a request that has nothing else to see."""
    batch = make_batch(Spec(((0, 0), (1, 0), (5, 40), (1, 30)), 8, 2, 128, 16), dtype_of(machine), machine)
    assert_right(batch, sinks=torch.full((8,), -math.inf, device=machine))


@pytest.mark.parametrize("decode_first", [False, True])
def test_mixed_batches_are_taken_from_both_ends(decode_first, machine):
    """Decode at one end and prefill at the other, as engines order a batch."""
    requests = ((300, 700), (129, 129), (1, 500), (0, 40), (1, 16), (1, 129), (1, 1))
    spec = Spec(requests[::-1] if decode_first else requests, 8, 2, 128, 16)
    assert_right(make_batch(spec, dtype_of(machine), machine))


def test_large_scores(machine):
    batch = make_batch(Spec(RAGGED, head_size=128), dtype_of(machine), machine, magnitude=30.0)
    assert_right(batch)


@pytest.mark.gpu
def test_more_tiles_than_multiprocessors_many_times_over(hopper):
    """The counter is back at zero after each launch, and the same request gives the same bits in any batch."""
    spec = Spec(((1500, 1500), (1, 700), (2000, 2500)), num_heads=32, num_kv_heads=8, head_size=128)
    batch = make_batch(spec, torch.bfloat16, hopper)
    first = paged_prefill_hopper(*batch.arguments)
    for _ in range(20):
        assert torch.equal(paged_prefill_hopper(*batch.arguments), first)
    alone = replace(
        batch,
        query=batch.query[1501:],
        block_table=batch.block_table[2:],
        seq_lens=batch.seq_lens[2:],
        query_start_loc=batch.query_start_loc[2:] - 1501,
    )
    assert torch.equal(paged_prefill_hopper(*alone.arguments), first[1501:])


def test_a_slow_program_loses_no_tile(emulated, monkeypatch):
    """In a mixed batch a ticket and its place are counted one after the other. Program 0 waits in between until the
    others have found that no ticket is left."""
    gl = sys.modules["kernels.hopper_prefill_producer"].gl
    add, others_done, waited = gl.atomic_add, threading.Barrier(3), []
    # Of program 0, which has to be the first: the others could take every ticket before it has begun.
    has_ticket = threading.Event()

    def slow(pointer, addend):
        if pointer.offset == 0 and gl.program_id(0) != 0:
            assert has_ticket.wait(20.0)
        elif pointer.offset == 1 and gl.program_id(0) != 0:  # programs that are done
            others_done.wait(20.0)
        elif pointer.offset >= 2 and gl.program_id(0) == 0 and not waited:
            waited.append(others_done.wait(20.0))
        before = add(pointer, addend)
        if pointer.offset == 0 and gl.program_id(0) == 0:
            has_ticket.set()
        return before

    monkeypatch.setattr(gl, "atomic_add", slow)
    monkeypatch.setattr(gluon_emulator.Kernel, "together", True)
    requests = ((1, 40), (1, 130), (9, 30), (40, 40))
    assert_right(make_batch(Spec(requests, num_heads=2, head_size=64), dtype_of(emulated), emulated))
    assert waited


def test_a_mixed_batch_many_times_over(hopper):
    """Programs take tiles from both ends, in another order each time, and none is left out."""
    spec = Spec(((1, 17), (1, 900), (64, 64), (300, 1000)), num_heads=28, num_kv_heads=4, head_size=128)
    batch = make_batch(spec, torch.bfloat16, hopper)
    first = paged_prefill_hopper(*batch.arguments)
    for _ in range(300):
        out = torch.full_like(first, math.nan)
        paged_prefill_hopper(*batch.arguments, out=out)
        assert torch.equal(out, first)


def test_strided_caches(machine):
    """Key and value cache as the halves of one tensor, blocks outside: a cache's blocks are then two blocks apart."""
    batch = make_batch(Spec(RAGGED, head_size=128), dtype_of(machine), machine)
    both = torch.stack([batch.key_cache, batch.value_cache], dim=1)
    assert_right(replace(batch, key_cache=both[:, 0], value_cache=both[:, 1]))
    heads_first = both.permute(0, 1, 3, 2, 4).contiguous().permute(0, 1, 3, 2, 4)
    assert_right(replace(batch, key_cache=heads_first[:, 0], value_cache=heads_first[:, 1]))


def test_strided_query_and_output(machine):
    batch = make_batch(Spec(RAGGED, head_size=128), dtype_of(machine), machine)
    wide = torch.stack([batch.query, batch.query], dim=1)
    out = torch.full_like(wide, math.nan)
    batch = replace(batch, query=wide[:, 1])
    output, lse = paged_prefill_hopper(*batch.arguments, out=out[:, 0], return_lse=True)
    assert_attention_right(batch, output, lse)
    assert out[:, 1].isnan().all()


@pytest.mark.gpu
def test_captured_graphs_on_two_streams_at_once(hopper):
    """Each captured launch counts for itself, and lengths are read on replay."""
    spec = Spec(((600, 900), (1, 300), (37, 37)), num_heads=8, num_kv_heads=2, head_size=128)
    batches = [make_batch(spec, torch.bfloat16, hopper, seed=seed) for seed in range(3)]
    expected = [paged_prefill_hopper(*batch.arguments) for batch in batches[:2]]
    runs = []
    for batch in batches[:2]:
        stream = torch.cuda.Stream()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            output = paged_prefill_hopper(*batch.arguments)
        runs.append((stream, graph, output))
    torch.cuda.synchronize()
    for _ in range(20):
        for stream, graph, _ in runs:
            with torch.cuda.stream(stream):
                graph.replay()
    torch.cuda.synchronize()
    for (_, _, output), wanted in zip(runs, expected, strict=True):
        assert torch.equal(output, wanted)
    for field in ("query", "key_cache", "value_cache", "block_table", "seq_lens", "query_start_loc"):
        getattr(batches[0], field).copy_(getattr(batches[2], field))
    runs[0][1].replay()
    assert torch.equal(runs[0][2], paged_prefill_hopper(*batches[2].arguments))


@pytest.mark.gpu
def test_it_does_not_wait_for_the_device(hopper):
    batch = make_batch(Spec(RAGGED, head_size=128), torch.bfloat16, hopper)
    paged_prefill_hopper(*batch.arguments)
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        paged_prefill_hopper(*batch.arguments, return_lse=True)
    finally:
        torch.cuda.set_sync_debug_mode(mode)


def test_the_objection_says_why_not():
    batch = make_batch(Spec(((3, 3),)), torch.float32, torch.device("cpu"))
    assert "GPU" in hopper_prefill.objection(batch.query, batch.key_cache, batch.value_cache)
    with pytest.raises(ValueError, match="query"):
        paged_prefill_hopper(*batch.arguments)


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
    assert {report["consumers"] for report in reports} == {2, 3}
    for report in reports:
        assert report["shared"] <= HOPPER_SHARED_MEMORY, report
        # Outside the loop that matters; with three warpgroups a thread has 160 registers.
        assert report["spilled"] <= 300, report
        assert not report["serialized"], report  # ptxas says so when it cannot keep two products in flight
        assert report["wgmma"] > 0, report
        assert report["tma"] > 0, report
