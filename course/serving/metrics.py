"""From times to figures: TTFT, ITL, throughput, goodput, of the steady part of a run; and how sure several runs make them.

The words are those of `vllm bench serve`: TTFT is from a request's arrival to its first token, ITL the gap between two
tokens of a request (all gaps of all requests together), TPOT a request's mean gap, E2EL from its arrival to its last token;
goodput counts the requests that meet every target. Unlike it, we leave out the warm-up and the end, where the batch runs
empty.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from course.serving.simulate import Run

LATENCIES = ("ttft_ms", "itl_ms", "tpot_ms", "e2el_ms")
RATES = ("requests_per_s", "tokens_per_s", "goodput_per_s")
METRICS = (*LATENCIES, *RATES)
PERCENTILES = {"p50": 50, "p90": 90, "p95": 95, "p99": 99}
# What is asked of a latency; a rate is one number a run.
STATISTICS = ("mean", *PERCENTILES)
RATE = "rate"
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Window:
    """The steady part of a run: from the end of the warm-up to the admission of the last request, in seconds."""

    start: float
    end: float


def window(run: Run, warm_up_s: float) -> Window:
    """Raises ValueError where the warm-up leaves nothing."""
    end = run.last_admission
    if warm_up_s >= end:
        raise ValueError(
            f"warm_up_s: {warm_up_s:g} s leave nothing of a run whose last request is admitted at {end:.2f} s"
        )
    return Window(warm_up_s, end)


def samples(run: Run, steady: Window) -> dict[str, list[float]]:
    """Milliseconds of each latency: ITL of the gaps in the window, the others of requests that got their first token after
    the warm-up."""
    found: dict[str, list[float]] = {name: [] for name in LATENCIES}
    for request in run.requests:
        tokens = request.tokens
        gaps = list(itertools.pairwise(tokens))
        found["itl_ms"] += [1e3 * (b - a) for a, b in gaps if steady.start <= a and b <= steady.end]
        # Everybody else counts, however late the answer: to leave out the slow ones would flatter the tail.
        if tokens[0] >= steady.start:
            found["ttft_ms"].append(1e3 * (tokens[0] - request.arrival))
            found["e2el_ms"].append(1e3 * (tokens[-1] - request.arrival))
            if len(tokens) > 1:
                found["tpot_ms"].append(1e3 * (tokens[-1] - tokens[0]) / (len(tokens) - 1))
    return found


def figures(run: Run, warm_up_s: float, target: Mapping[str, float]) -> dict[tuple[str, str], float]:
    """Every metric with every statistic, of one run. NaN where the window holds no sample.

    target: for each latency that matters the most milliseconds that a good request takes (`ttft_ms`, `tpot_ms`,
    `e2el_ms`); empty for no goodput.
    """
    steady = window(run, warm_up_s)
    seconds = steady.end - steady.start
    found: dict[tuple[str, str], float] = {}
    for name, values in samples(run, steady).items():
        found[name, "mean"] = statistics.fmean(values) if values else math.nan
        # All at once: the same samples in the same order.
        cuts = np.percentile(values, list(PERCENTILES.values())) if values else [math.nan] * len(PERCENTILES)
        found |= {(name, label): float(cut) for label, cut in zip(PERCENTILES, cuts, strict=True)}
    finished = [request for request in run.requests if steady.start <= request.tokens[-1] <= steady.end]
    tokens = sum(steady.start <= time <= steady.end for request in run.requests for time in request.tokens)
    found["requests_per_s", RATE] = len(finished) / seconds
    found["tokens_per_s", RATE] = tokens / seconds
    if target:
        good = sum(_is_good(request.arrival, request.tokens, target) for request in finished)
        found["goodput_per_s", RATE] = good / seconds
    return found


def _is_good(arrival: float, tokens: Sequence[float], target: Mapping[str, float]) -> bool:
    took = {
        "ttft_ms": tokens[0] - arrival,
        "tpot_ms": (tokens[-1] - tokens[0]) / max(1, len(tokens) - 1),
        "e2el_ms": tokens[-1] - arrival,
    }
    return all(1e3 * took[name] <= most for name, most in target.items())


@dataclass(frozen=True)
class Estimate:
    """Of several runs. middle: their median. low, high: a 95 % interval for it; None where there are too few runs."""

    middle: float
    low: float | None
    high: float | None

    @property
    def interval(self) -> tuple[float, float] | None:
        return None if self.low is None or self.high is None else (self.low, self.high)

    def __str__(self) -> str:
        digits = 3 if abs(self.middle) < 10 else 1
        if self.interval is None:
            return f"{self.middle:.{digits}f} [too few runs]"
        return f"{self.middle:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


def estimate(values: Sequence[float]) -> Estimate:
    """The median of the runs and an interval that needs no assumption about how they are spread.

    A run falls below the true median as often as a coin shows tails. So the chance that all of n runs lie on one side is
    2 / 2**n: from the smallest to the largest run is a 95 % interval from six runs on, and with more runs the outermost
    may be dropped.
    """
    ordered = sorted(values)
    dropped = _dropped(len(ordered))
    if dropped is None:
        return Estimate(statistics.median(ordered), None, None)
    return Estimate(statistics.median(ordered), ordered[dropped], ordered[-1 - dropped])


def _dropped(count: int) -> int | None:
    """How many runs may be dropped at either end with the interval still at 95 %; None where not even all will do."""
    outside, dropped = 0.0, None
    for tails in range(count // 2 + count % 2):
        outside += 2 * math.comb(count, tails) / 2**count
        if outside > 1 - CONFIDENCE:
            break
        dropped = tails
    return dropped


def least_runs() -> int:
    """The fewest runs that have an interval at all."""
    return next(count for count in range(1, 100) if _dropped(count) is not None)
