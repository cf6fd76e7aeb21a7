"""Timing on a GPU: warm-up, the cache cleared before each run, the median."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

CLEARED = 256 * 2**20  # bytes, more than any GPU's second-level cache


def times_us(call: Callable[[], Any], *, warm_up: int = 3, runs: int = 15) -> tuple[list[float], list[Any]]:
    """Microseconds of each run and what each returned. Before each, the second-level cache is overwritten."""
    for _ in range(warm_up):
        call()
    waste = torch.empty(CLEARED, dtype=torch.uint8, device="cuda")
    times, results = [], []
    for _ in range(runs):
        waste.zero_()
        # The GPU is kept busy until the launch is on its way, so that the host's time does not count.
        torch.cuda._sleep(200_000)
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        results.append(call())
        end.record()
        end.synchronize()
        times.append(1000 * start.elapsed_time(end))
    return times, results


def median_us(call: Callable[[], Any]) -> float:
    """The median of `times_us`."""
    return sorted(times_us(call)[0])[7]


def ceilings() -> tuple[float, float]:
    """(bytes a second, FLOPs a second) that this GPU reaches: a large read, and a large bf16 matrix product."""
    data = torch.ones(2**28, dtype=torch.float32, device="cuda")
    read = 4 * 2**28 / (median_us(lambda: data.sum()) * 1e-6)
    a = torch.ones(8192, 8192, dtype=torch.bfloat16, device="cuda")
    return read, 2 * 8192**3 / (median_us(lambda: a @ a) * 1e-6)
