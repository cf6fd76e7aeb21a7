"""One case, all contenders: who does it, how fast, and how far each output is from the truth."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from bench import machine, timing
from bench.cases import Case
from bench.contender import Contender, Unsupported
from bench.inputs import Inputs, num_copies

# About what an H200 does, to choose how often a graph makes its calls.
BYTES_PER_S, FLOP_PER_S = 4.8e12, 8e14
ARITHMETIC_BOUND = FLOP_PER_S / BYTES_PER_S  # operations for each byte

Report = Callable[[str], None]


def ignore(name: str) -> None:
    """The report of a caller that does not listen."""


class ContextLost(Exception):
    """After this contender the GPU answers this process no more."""

    def __init__(self, contender: str, why: str) -> None:
        super().__init__(contender, why)
        self.contender, self.why = contender, why


def measure(
    case: Case, contenders: Sequence[Contender], excluded: Mapping[str, str], report: Report = ignore
) -> dict[str, Any]:
    """The case's row of the results.

    excluded: contenders that must not run, and why. report: is told which contender is about to run.
    """
    cache_bytes = torch.cuda.get_device_properties(0).L2_cache_size
    copies = [Inputs(case, seed) for seed in range(num_copies(case, cache_bytes))]
    floor = max(case.bytes / BYTES_PER_S, case.flops / FLOP_PER_S)
    passes = max(1, math.ceil(timing.GRAPH_SECONDS / (floor * len(copies))))

    skipped = dict(excluded)
    captured: dict[str, timing.Captured] = {}
    for contender in contenders:
        if contender.name in skipped:
            continue
        report(contender.name)
        try:
            captured[contender.name] = timing.capture([contender.prepare(one) for one in copies], passes)
        except Exception as error:  # whatever a peer raises, the others are measured
            skipped[contender.name] = reason(error)
            check_context(contender.name, error)
    with machine.watch_clocks() as clocks:
        rounds = timing.time_in_turns(captured, report, settle_seconds(case))

    results = {}
    for contender in contenders:
        if contender.name in captured:
            report(contender.name)
            try:
                off = worst_error(copies, captured.pop(contender.name))
            except ValueError as error:  # not even the shape is right
                skipped[contender.name] = reason(error)
                continue
            results[contender.name] = summarise(case, rounds[contender.name], off, contender.error_limit)
    return {
        "name": case.name,
        "kind": case.kind,
        "bytes": case.bytes,
        "kv_bytes": case.kv_bytes,
        "flops": case.flops,
        "copies": len(copies),
        "passes": passes,
        "date": machine.now(),
        "clocks": clocks,
        "results": results,
        "skipped": {
            contender.name: skipped[contender.name] for contender in contenders if contender.name in skipped
        },
    }


def settle_seconds(case: Case) -> float:
    """How long a contender runs before its turn is timed: where arithmetic is the bound, until the clock has settled."""
    return timing.SETTLE_SECONDS if case.flops > ARITHMETIC_BOUND * case.bytes else 0.0


def compile_only(
    case: Case, contenders: Sequence[Contender], excluded: Mapping[str, str], report: Report = ignore
) -> dict[str, str]:
    """Make each contender's call once, so that compilers fill their caches; what failed, and why."""
    inputs = Inputs(case, 0)
    failed = {}
    for contender in contenders:
        if contender.name in excluded:
            continue
        report(contender.name)
        try:
            contender.prepare(inputs)()
            torch.cuda.synchronize()
        except Exception as error:
            failed[contender.name] = reason(error)
            check_context(contender.name, error)
    return failed


def worst_error(copies: list[Inputs], captured: timing.Captured) -> float:
    """Of all copies, from one more replay into outputs that hold NaN; NaN where an output has one."""
    for output in captured.outputs:
        output.fill_(torch.nan)
    captured.graph.replay()
    errors = [inputs.error(output) for inputs, output in zip(copies, captured.outputs, strict=True)]
    return torch.tensor(errors).max().item()  # unlike Python's max, NaN if any is


def summarise(case: Case, rounds: list[float], error: float, error_limit: float) -> dict[str, Any]:
    """Median of the rounds' medians in microseconds, how far the rounds lie apart, the rates that the median means."""
    median = statistics.median(rounds)
    return {
        "us": median * 1e6,
        "rounds_us": [seconds * 1e6 for seconds in rounds],
        "spread": (max(rounds) - min(rounds)) / median,
        "tb_per_s": case.bytes / median * 1e-12,
        "tflop_per_s": case.flops / median * 1e-12,
        "error": error if math.isfinite(error) else None,
        "error_limit": error_limit,
        "right": error <= error_limit,
    }


def reason(error: Exception) -> str:
    """One line for the results."""
    text = " ".join(str(error).split())
    text = text if len(text) <= 300 else f"{text[:200]} ... {text[-80:]}"
    return text if isinstance(error, Unsupported) else f"{type(error).__name__}: {text}"


def check_context(name: str, error: Exception) -> None:
    """Raise ContextLost where the GPU does not answer any more after the error of this contender."""
    try:
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
    except Exception:
        raise ContextLost(name, reason(error)) from error
