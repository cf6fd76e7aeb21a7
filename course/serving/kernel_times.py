"""How long attention takes in a step, from measurements that lie in the repository: a line through them, and its error.

data/kernel_times.json holds an H200's times of one model's cases (`python -m bench.kernel_times` takes them out of the
benchmark's results). A step of a server is none of these cases. So each contender gets the smallest costs, none of them
negative, that explain its measurements:

    decode   microseconds = launch + per megabyte of keys and values + per request + per 1000 tokens of the longest one
    prompts  microseconds = launch + per billion operations

and a step with both takes both. How far that is off is asked of the measurements: each is left out once and predicted from
the others (`errors`).
"""

from __future__ import annotations

import functools
import itertools
import json
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from course.serving.simulate import Step

DATA = Path(__file__).parents[1] / "data" / "kernel_times.json"
DECODE, PREFILL, MIXED = "decode", "prefill", "mixed"

# The one model of the measurements: a layer's heads, in bfloat16.
NUM_HEADS, NUM_KV_HEADS, HEAD_SIZE, BLOCK_SIZE, DTYPE = 32, 8, 128, 16, "bfloat16"
MEGABYTES_PER_TOKEN = 2 * NUM_KV_HEADS * HEAD_SIZE * 2 / 1e6
GIGAFLOP_PER_PAIR = 4 * NUM_HEADS * HEAD_SIZE / 1e9  # of a query token and a token that it sees


@dataclass(frozen=True)
class Costs:
    """Microseconds for each feature of a step, for decodes and for prompts; rounds: a run's time over the median's."""

    decode: tuple[float, ...]
    prefill: tuple[float, ...]
    decode_rounds: tuple[float, ...]
    prefill_rounds: tuple[float, ...]

    def decode_us(self, lengths: list[int]) -> float:
        """Of one layer, for requests of these sequence lengths with one query token each."""
        launch, megabyte, request, longest = self.decode
        if not lengths:
            return 0.0
        read = megabyte * megabytes(lengths)
        return launch + read + request * len(lengths) + longest * max(lengths) / 1000

    def prefill_us(self, prompts: list[tuple[int, int]]) -> float:
        """Of one layer, for requests of (query tokens, sequence length)."""
        launch, gigaflop = self.prefill
        if not prompts:
            return 0.0
        return launch + gigaflop * gigaflops(prompts)

    def us(self, step: Step) -> float:
        """Of one layer, decodes and prompts."""
        return self.decode_us(step.decodes) + self.prefill_us(step.prompts)

    def run_factors(self, draw: random.Random) -> tuple[float, float]:
        """How much slower than its median a run is, drawn from what the measured rounds did: for decodes, for prompts."""
        return draw.choice(self.decode_rounds), draw.choice(self.prefill_rounds)


@functools.cache
def committed() -> dict[str, Any]:
    """The file's content."""
    content: dict[str, Any] = json.loads(DATA.read_text(encoding="utf-8"))
    return content


def contenders() -> list[str]:
    """Who was measured, ours first."""
    return list(committed()["cases"][0]["us"])


def measured_us(case: str, contender: str) -> float:
    """Microseconds of one layer's attention in a measured case. Raises ValueError for a case that was not measured."""
    for row in committed()["cases"]:
        if row["name"] == case and contender in row["us"]:
            return float(row["us"][contender]["us"])
    raise ValueError(f"case: {case!r} was not measured for {contender!r}")


@functools.cache
def costs(contender: str) -> Costs:
    """What a contender's measurements come to. Raises ValueError for an unknown one."""
    if contender not in contenders():
        raise ValueError(f"contender: expected one of {', '.join(contenders())}, got {contender!r}")
    return Costs(
        decode=fit(_rows(DECODE, contender), contender),
        prefill=fit(_rows(PREFILL, contender), contender),
        decode_rounds=_rounds(DECODE, contender),
        prefill_rounds=_rounds(PREFILL, contender),
    )


def fit(rows: list[dict[str, Any]], contender: str) -> tuple[float, ...]:
    """The costs without a negative one whose relative errors have the smallest sum of squares over these cases.

    Few features, so every choice of them is tried: the best one without a negative cost is the optimum.
    """
    features = np.array([_features(row) for row in rows], dtype=float)
    measured = np.array([row["us"][contender]["us"] for row in rows])
    relative = features / measured[:, None]
    width = features.shape[1]
    best, best_error = np.zeros(width), float("inf")
    for size in range(1, width + 1):
        for chosen in itertools.combinations(range(width), size):
            found = np.linalg.lstsq(relative[:, chosen], np.ones(len(rows)), rcond=None)[0]
            error = float(((relative[:, chosen] @ found - 1) ** 2).sum())
            if (found >= 0).all() and error < best_error - 1e-12:
                best, best_error = np.zeros(width), error
                best[list(chosen)] = found
    return tuple(best.tolist())


@functools.cache
def errors(contender: str) -> dict[str, float]:
    """For each measured case, how far the costs from all others are off: predicted / measured - 1.

    Of the mixed case, which no cost is made from, how far the sum of its two parts is off.
    """
    found = {}
    for kind in (DECODE, PREFILL):
        rows = _rows(kind, contender)
        for left_out in rows:
            rest = fit([row for row in rows if row is not left_out], contender)
            predicted = float(np.dot(_features(left_out), rest))
            found[left_out["name"]] = predicted / left_out["us"][contender]["us"] - 1
    for row in _rows(MIXED, contender):
        # 2048 prompt tokens and 64 decodes of 2048.
        predicted = costs(contender).us(Step([2048] * 64, [(2048, 2048)]))
        found[row["name"]] = predicted / row["us"][contender]["us"] - 1
    return found


def megabytes(lengths: list[int]) -> float:
    """Keys and values that one layer's attention reads for decodes of these sequence lengths."""
    return sum(lengths) * MEGABYTES_PER_TOKEN


def gigaflops(prompts: list[tuple[int, int]]) -> float:
    """Billion operations of one layer's attention for requests of (query tokens, sequence length)."""
    pairs = sum(count * (length - count) + count * (count + 1) // 2 for count, length in prompts)
    return pairs * GIGAFLOP_PER_PAIR


@functools.cache
def measured(kind: str) -> tuple[float, float]:
    """The smallest and the largest case: megabytes of a decode, billion operations of a prefill."""
    feature = "megabytes" if kind == DECODE else "gigaflop"
    sizes = [case[feature] for case in committed()["cases"] if case["kind"] == kind]
    return min(sizes), max(sizes)


def decode_within(lengths: list[int]) -> bool:
    """Whether decodes this large were measured."""
    low, high = measured(DECODE)
    return low <= megabytes(lengths) <= high


def prefill_within(prompts: list[tuple[int, int]]) -> bool:
    """Whether prompts this large were measured."""
    low, high = measured(PREFILL)
    return low <= gigaflops(prompts) <= high


def ranges() -> str:
    """What was measured, in words."""
    megabyte, gigaflop = measured(DECODE), measured(PREFILL)
    return (
        f"{megabyte[0]:.0f} to {megabyte[1]:.0f} MB of keys and values, "
        f"{gigaflop[0]:.0f} to {gigaflop[1]:.0f} billion operations"
    )


def describe(who: Sequence[str]) -> str:
    """Where the numbers come from, and what they are worth: one line for the file and one for each of these contenders."""
    kept = committed()
    lines = [
        f"Attention's times were measured on an {kept['gpu']}, {kept['date'][:10]}, commit {kept['commit']}, and fitted. "
        "Each measured case predicted from the others is off by:"
    ]
    for contender in who:
        sizes = [abs(error) for error in errors(contender).values()]
        worst = max(errors(contender), key=lambda name: abs(errors(contender)[name]))
        lines.append(
            f"  {contender:18} {100 * statistics.median(sizes):3.0f} % in the middle, "
            f"{100 * max(sizes):3.0f} % at worst ({worst})"
        )
    lines.append(
        "The worst are cases at the end of what was measured, where the others have to be continued."
    )
    return "\n".join(lines)


def _rows(kind: str, contender: str) -> list[dict[str, Any]]:
    return [case for case in committed()["cases"] if case["kind"] == kind and contender in case["us"]]


def _features(row: dict[str, Any]) -> list[float]:
    if row["kind"] == DECODE:
        return [1.0, row["megabytes"], row["requests"], row["longest"] / 1000]
    return [1.0, row["gigaflop"]]


def _rounds(kind: str, contender: str) -> tuple[float, ...]:
    times = [row["us"][contender] for row in _rows(kind, contender)]
    return tuple(round_us / one["us"] for one in times for round_us in one["rounds_us"])
