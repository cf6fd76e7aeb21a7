"""Measure `paged_decode` and `paged_attention` against torch's attention on dense keys and values.

Each case is replayed from a CUDA graph, so that Python and the launch cost nothing. A graph walks over several copies
of the inputs, together larger than the L2 cache, so that no call finds its keys there from the call before. Every output
that was timed is then held against a float32 reference: a fast wrong answer is an error, not a result.
"""

import argparse
import json
import platform
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import kernels
from bench.cases import CASES, Case
from kernels import reference

RESULTS = Path(__file__).parent / "results"
DEVICE = "cuda"
DTYPE = torch.bfloat16
# An output is rounded once, and the softmax weights are: two roundings of bfloat16.
ERROR_LIMIT = 2 * 2.0**-8
NUM_REPLAYS = 30


class Inputs:
    """One copy of a case's tensors: normal random numbers, blocks in random order."""

    def __init__(self, case: Case, seed: int) -> None:
        generator = torch.Generator(DEVICE).manual_seed(seed)
        num_blocks = [-(-seq_len // case.block_size) for _, seq_len in case.requests]
        shape = (sum(num_blocks), case.block_size, case.num_kv_heads, case.head_size)
        options: dict[str, Any] = {"generator": generator, "device": DEVICE, "dtype": DTYPE}
        self.case = case
        self.key_cache = torch.randn(shape, **options)
        self.value_cache = torch.randn(shape, **options)
        self.query = torch.randn(case.num_tokens, case.num_heads, case.head_size, **options)
        self.out = torch.full_like(self.query, torch.nan)
        self.scale = case.head_size**-0.5

        blocks = torch.randperm(sum(num_blocks), generator=generator, device=DEVICE).to(torch.int32)
        self.block_table = torch.zeros(len(num_blocks), max(num_blocks), dtype=torch.int32, device=DEVICE)
        for request, own in enumerate(blocks.split(num_blocks)):
            self.block_table[request, : len(own)] = own
        query_lens = torch.tensor([n_q for n_q, _ in case.requests])
        self.seq_lens = torch.tensor([n for _, n in case.requests], dtype=torch.int32, device=DEVICE)
        starts = torch.cat([torch.zeros(1, dtype=torch.int64), query_lens.cumsum(0)])
        self.query_start_loc = starts.to(DEVICE, torch.int32)

    def gather(self, request: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Dense keys and values of a request, [seq_len, num_kv_heads, head_size]."""
        seq_len = self.case.requests[request][1]
        blocks = self.block_table[request, : -(-seq_len // self.case.block_size)]
        return (
            self.key_cache[blocks].flatten(0, 1)[:seq_len],
            self.value_cache[blocks].flatten(0, 1)[:seq_len],
        )


def paged_call(inputs: Inputs) -> Callable[[], Any]:
    """Our kernel on these inputs."""
    cache = (inputs.key_cache, inputs.value_cache, inputs.block_table, inputs.seq_lens)
    if inputs.case.is_decode:
        return lambda: kernels.paged_decode(inputs.query, *cache, inputs.scale, out=inputs.out)
    return lambda: kernels.paged_attention(
        inputs.query, *cache, inputs.query_start_loc, inputs.scale, out=inputs.out
    )


def dense_call(inputs: Inputs) -> Callable[[], torch.Tensor] | None:
    """torch's attention on the same keys and values, contiguous and in order; None where one call cannot do it.

    Its output is [num_reqs, num_heads, n_q, head_size].
    """
    kind = inputs.case.dense_kind
    if kind is None:
        return None
    num_reqs = len(inputs.case.requests)
    pairs = [inputs.gather(request) for request in range(num_reqs)]
    key = torch.stack([key for key, _ in pairs]).transpose(1, 2).contiguous()
    value = torch.stack([value for _, value in pairs]).transpose(1, 2).contiguous()
    query = inputs.query.unflatten(0, (num_reqs, -1)).transpose(1, 2).contiguous()
    return lambda: torch.nn.functional.scaled_dot_product_attention(
        query, key, value, is_causal=kind == "causal", scale=inputs.scale, enable_gqa=True
    )


def relative_error(inputs: Inputs, output: torch.Tensor) -> float:
    """|output - reference| / |reference| of the worst request; the reference is float32 and takes 512 queries at a time."""
    ratios = []
    start = 0
    for request, (n_q, seq_len) in enumerate(inputs.case.requests):
        key, value = (tensor.float() for tensor in inputs.gather(request))
        error = norm = 0.0
        for first in range(0, n_q, 512):
            last = min(first + 512, n_q)
            visible = seq_len - n_q + last
            tokens = slice(start + first, start + last)
            query = inputs.query[tokens].float()
            expected = reference.dense_attention(query, key[:visible], value[:visible], inputs.scale)
            error += (output[tokens].float() - expected).square().sum().item()
            norm += expected.square().sum().item()
        ratios.append((error / norm) ** 0.5)
        start += n_q
    return torch.tensor(ratios).max().item()  # unlike Python's max, NaN if any is


def num_copies(case: Case, cache_bytes: int) -> int:
    """Copies of the inputs whose keys and values together are four times the L2 cache, at least two."""
    return max(2, min(32, -(-4 * cache_bytes // case.kv_bytes)))


def time_calls(calls: Sequence[Callable[[], torch.Tensor]]) -> tuple[list[float], list[torch.Tensor]]:
    """(seconds of one call, for each replay of a graph that makes all of them once; the outputs of the last)."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for call in calls:
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = [call() for call in calls]
    for _ in range(3):  # caches and clocks
        graph.replay()
    times = []
    for _ in range(NUM_REPLAYS):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 1e-3 / len(calls))
    return times, outputs


def summarise(times: list[float], case: Case, error: float) -> dict[str, float]:
    """Median and spread in microseconds, and the rates that the median means."""
    median = statistics.median(times)
    low, _, high = statistics.quantiles(times, n=4)
    return {
        "median_us": median * 1e6,
        "quartile_1_us": low * 1e6,
        "quartile_3_us": high * 1e6,
        "min_us": min(times) * 1e6,
        "gb_per_s": case.bytes / median * 1e-9,
        "tflop_per_s": case.flops / median * 1e-12,
        "relative_error": error,
    }


def measure(case: Case) -> dict[str, Any]:
    """One case, ours and torch's."""
    cache_bytes = torch.cuda.get_device_properties(0).L2_cache_size
    copies = [Inputs(case, seed) for seed in range(num_copies(case, cache_bytes))]
    row: dict[str, Any] = {
        "name": case.name,
        "function": "paged_decode" if case.is_decode else "paged_attention",
        "bytes": case.bytes,
        "flops": case.flops,
        "copies": len(copies),
    }
    times, outputs = time_calls([paged_call(inputs) for inputs in copies])
    row["paged"] = summarise(times, case, _worst_error(copies, outputs))

    dense = [call for inputs in copies if (call := dense_call(inputs)) is not None]
    row["dense"] = None
    if dense:
        times, outputs = time_calls(dense)
        outputs = [output.transpose(1, 2).flatten(0, 1) for output in outputs]
        row["dense"] = summarise(times, case, _worst_error(copies, outputs))
    return row


def _worst_error(copies: list[Inputs], outputs: list[torch.Tensor]) -> float:
    errors = [relative_error(inputs, output) for inputs, output in zip(copies, outputs, strict=True)]
    return torch.tensor(errors).max().item()


def format_row(row: dict[str, Any]) -> str:
    """A line of the table."""
    paged, dense = row["paged"], row["dense"]
    spread = (paged["quartile_3_us"] - paged["quartile_1_us"]) / paged["median_us"]
    ours = (
        f"{row['name']:<25}{paged['median_us']:>10.1f}{spread:>8.1%}{paged['gb_per_s']:>9.0f}"
        f"{paged['tflop_per_s']:>9.1f}{paged['relative_error']:>10.1e}"
    )
    return ours + (
        f"{dense['median_us']:>12.1f}{dense['median_us'] / paged['median_us']:>9.2f}" if dense else ""
    )


HEADER = f"{'case':<25}{'us':>10}{'spread':>8}{'GB/s':>9}{'TFLOP/s':>9}{'error':>10}{'dense us':>12}{'speed-up':>9}"


def environment(commit: str | None = None) -> dict[str, str]:
    """What a result depends on. commit: where it is known better than the files here know it."""
    import triton

    return {
        "gpu": kernels.describe(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "cuda": str(torch.version.cuda),
        "commit": commit or _commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _commit() -> str:
    """The commit that is measured, marked where files differ from it; "unknown" outside a repository."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "unknown"


def result_path(name: str) -> Path:
    """Where a result of this name goes. Raises ValueError for a name that is not letters, digits, '.', '_' and '-'."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ValueError(f"name: expected letters, digits, '.', '_' and '-', got {name!r}")
    return RESULTS / f"{name}.json"


def choose_cases(words: Sequence[str]) -> list[Case]:
    """The cases whose name contains any of the words; all without words."""
    chosen = [case for case in CASES if not words or any(word in case.name for word in words)]
    if not chosen:
        names = ", ".join(case.name for case in CASES)
        raise ValueError(f"cases: expected part of a case's name ({names}), got {' '.join(words)!r}")
    return chosen


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0, 1 when an output is wrong, 2 when nothing could be measured."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", help="measure only cases whose name contains one of these words")
    parser.add_argument("--name", help="write bench/results/NAME.json (default: the GPU's name)")
    parser.add_argument("--commit", help="the commit measured, on a machine with the files and no repository")
    options = parser.parse_args(arguments)
    try:
        cases = choose_cases(options.cases)
        path = None if options.name is None else result_path(options.name)
    except ValueError as error:
        parser.error(str(error))
    if kernels.INTERPRET or not torch.cuda.is_available():
        print(
            f"Nothing to measure: benchmarks need a CUDA GPU, and kernels run here on: {kernels.describe()}."
        )
        return 2
    if path is None:
        path = result_path(re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name().lower()).strip("-"))

    result: dict[str, Any] = {
        "environment": environment(options.commit),
        "dtype": str(DTYPE),
        "replays": NUM_REPLAYS,
        "cases": [],
    }
    print(", ".join(f"{key} {value}" for key, value in result["environment"].items()))
    print(f"\n{HEADER}", flush=True)
    wrong = []
    for case in cases:
        row = measure(case)
        result["cases"].append(row)
        print(format_row(row), flush=True)
        wrong += [
            f"{case.name}: {which} has relative error {row[which]['relative_error']:.1e}, over {ERROR_LIMIT:.1e}"
            for which in ("paged", "dense")
            if row[which] and not row[which]["relative_error"] <= ERROR_LIMIT
        ]
        torch.cuda.empty_cache()
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"\nspeed-up: time of torch's attention on dense keys and values by ours. Written to {path}.")
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0
