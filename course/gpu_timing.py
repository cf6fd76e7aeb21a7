"""Timing on a GPU: warm-up, the cache cleared before each run, the median."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch

CLEARED = 256 * 2**20  # bytes, more than any GPU's second-level cache
CLEAR_SECONDS = 1e-4  # that it takes, about
SETTLE_SECONDS = 0.06  # after which a GPU at its power limit has found its clock
REST = 0.03  # of the time, at most, does such a GPU clear its cache, and rest
CYCLES_A_SECOND = 2e9  # of a GPU's clock, about


def times_us(
    call: Callable[[], Any],
    *,
    warm_up: int = 3,
    runs: int = 15,
    before: Callable[[int], Any] = lambda run: None,
) -> tuple[list[float], list[Any]]:
    """Microseconds of each run and what each returned. Before each, the second-level cache is filled with something else.

    before: is called with the number of each run in front of it, and not timed.
    """
    host_seconds, all_seconds = _warm_up(call, warm_up)
    hidden = 2 * host_seconds + 1e-4
    busy = math.ceil(CLEAR_SECONDS / REST / all_seconds)
    waste = torch.zeros(CLEARED // 4, dtype=torch.float32, device="cuda")
    times, results = [], []
    for run in range(runs):
        # The GPU is kept busy until the launches are on their way, so that the host's time does not count: by the call
        # itself where it takes long enough, as a GPU at its power limit is faster after a rest.
        if all_seconds > hidden:
            for _ in range(busy):
                call()
        else:
            torch.cuda._sleep(int(CYCLES_A_SECOND * min(hidden, 0.1)))
        before(run)
        waste.amax()  # read and not written: what was written would have to leave the cache while the call is timed
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        result = call()
        end.record()
        end.synchronize()
        # Whoever returns the same memory each time has said something else by the next run.
        results.append(result.clone() if hasattr(result, "clone") else result)
        times.append(1000 * start.elapsed_time(end))
    return times, results


def _warm_up(call: Callable[[], Any], runs: int) -> tuple[float, float]:
    """At least `runs` calls, and so many that the clock has settled.

    Returns the most seconds that one keeps the host, the first aside, which compiles; and the least that one takes in all.
    """
    begun = time.perf_counter()
    host_seconds: list[float] = []
    all_seconds: list[float] = []
    while len(all_seconds) < max(runs, 2) or time.perf_counter() - begun < SETTLE_SECONDS:
        torch.cuda.synchronize()
        called = time.perf_counter()
        call()
        host_seconds.append(time.perf_counter() - called)
        torch.cuda.synchronize()
        all_seconds.append(time.perf_counter() - called)
    return max(host_seconds[1:]), min(all_seconds)


def median_us(call: Callable[[], Any]) -> float:
    """The median of `times_us`."""
    return sorted(times_us(call)[0])[7]


def ceilings() -> tuple[float, float]:
    """(bytes a second, FLOPs a second) that this GPU reaches: a large read, and a large bf16 matrix product."""
    data = torch.ones(2**28, dtype=torch.float32, device="cuda")
    read = 4 * 2**28 / (median_us(lambda: data.sum()) * 1e-6)
    a = torch.ones(8192, 8192, dtype=torch.bfloat16, device="cuda")
    return read, 2 * 8192**3 / (median_us(lambda: a @ a) * 1e-6)
