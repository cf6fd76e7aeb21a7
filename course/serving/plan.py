"""A plan as the learner writes it, a dict, and as the harness reads it. What cannot be read is named with its place.

    {
        "hypothesis": {"faster": "ours", "than": "vLLM Triton", "workload": "chat", "metric": "ttft_ms", "statistic": "p50",
                       "factor": 1.5},
        "refuted_if": {"ratio_below": 1.0},
        "workloads": {"chat": {
            "arrivals": {"process": "poisson", "rate": 30, "burstiness": 1.0},
            "prompt_tokens": {"distribution": "lognormal", "median": 256, "low": 16, "high": 2048},
            "output_tokens": {"distribution": "uniform", "low": 16, "high": 64},
            "shared_prefix_tokens": 0,
            "num_requests": 200}},
        "metrics": {"ttft_ms": ["p50", "p99"], "itl_ms": ["p50", "p99"], "goodput_per_s": ["rate"]},
        "target": {"ttft_ms": 100, "tpot_ms": 15},
        "warm_up_s": 1.0,
        "repetitions": 10,
        "held_fixed": {"seed": 0, "cache": "cold", "dtype": "bfloat16", "block_size": 16, "num_blocks": 4096,
                       "max_num_seqs": 128, "max_num_batched_tokens": 2048},
        "contenders": {"ours": {}, "vLLM Triton": {}},
    }

The effect is a ratio above 1 when the hypothesis points the right way: a latency of `than` over that of `faster`, or a rate
of `faster` over that of `than`. A contender's dict overrides what is held fixed, for that contender alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from course.serving import kernel_times, metrics, workload
from course.serving import plan_values as values
from course.serving.plan_values import PlanError
from course.serving.workload import Arrivals, Lengths, Workload

COLD, WARM = CACHE_STATES = ("cold", "warm")
PARTS = (
    "hypothesis",
    "refuted_if",
    "workloads",
    "metrics",
    "warm_up_s",
    "repetitions",
    "held_fixed",
    "contenders",
)
HELD_FIXED = ("seed", "cache", "dtype", "block_size", "num_blocks", "max_num_seqs", "max_num_batched_tokens")
MEASURED = {"dtype": kernel_times.DTYPE, "block_size": kernel_times.BLOCK_SIZE}
# A plan is run again in grading.
MAX_OUTPUT_TOKENS = 400_000
MAX_PROMPT_TOKENS = 12_000_000
MAX_WORKLOADS = 3


@dataclass(frozen=True)
class Hypothesis:
    """At this workload, `faster` is at least `factor` times better than `than` by a metric's statistic."""

    faster: str
    than: str
    workload: str
    metric: str
    statistic: str
    factor: float


@dataclass(frozen=True)
class Plan:
    """What `run` does. overrides: for each contender what it does not share with the others."""

    hypothesis: Hypothesis
    ratio_below: float
    workloads: dict[str, Workload]
    metrics: dict[str, tuple[str, ...]]
    target: dict[str, float]
    warm_up_s: float
    repetitions: int
    held_fixed: dict[str, Any]
    overrides: dict[str, dict[str, Any]] = field(default_factory=dict)

    def settings(self, contender: str) -> dict[str, Any]:
        """What holds for one contender: what is held fixed, and its overrides."""
        return {**self.held_fixed, **self.overrides[contender]}


def read_plan(plan: Any) -> Plan:
    """The plan as the harness reads it. Raises PlanError for the first thing that is missing or cannot be."""
    hypothesis, ratio_below = read_hypothesis(plan), read_refutation(plan)
    workloads, (stated, target) = read_workloads(plan), read_metrics(plan)
    warm_up_s, repetitions = read_warm_up(plan), read_repetitions(plan)
    held_fixed, overrides = read_held_fixed(plan), read_contenders(plan)
    read = Plan(
        hypothesis, ratio_below, workloads, stated, target, warm_up_s, repetitions, held_fixed, overrides
    )
    for name in (hypothesis.faster, hypothesis.than):
        values.choice("hypothesis", name, overrides)
    values.choice('hypothesis["workload"]', hypothesis.workload, workloads)
    _refuse_what_cannot_run(read)
    return read


def _refuse_what_cannot_run(plan: Plan) -> None:
    for contender in plan.overrides:
        settings = plan.settings(contender)
        for name, value in MEASURED.items():
            if settings[name] != value:
                raise PlanError(
                    f"contenders[{contender!r}]: {name} {settings[name]!r} was never measured, only {value!r} was"
                )
        for one in plan.workloads.values():
            refuse_what_has_no_room(one, settings)
    for name, one in plan.workloads.items():
        if one.arrivals.process == workload.CLOSED_LOOP:
            raise PlanError(
                f'workloads[{name!r}]["arrivals"]: a closed loop is not run here; expected "poisson" or "all at once"'
            )
    passes = plan.repetitions * len(plan.overrides)
    for what, most, tokens in (
        ("generate", MAX_OUTPUT_TOKENS, _tokens(plan, lambda one: one.output_tokens.typical)),
        (
            "read",
            MAX_PROMPT_TOKENS,
            _tokens(plan, lambda one: one.prompt_tokens.typical + one.shared_prefix_tokens),
        ),
    ):
        if tokens * passes > most:
            raise PlanError(
                f"the plan's runs {what} about {tokens * passes:,.0f} tokens in all; up to {most:,} keep it within a minute. "
                "Take fewer requests, repetitions or contenders"
            )


def _tokens(plan: Plan, of_one: Callable[[Workload], float]) -> float:
    return sum(one.num_requests * of_one(one) for one in plan.workloads.values())


def refuse_what_has_no_room(one: Workload, settings: dict[str, Any]) -> None:
    """Raise PlanError where a request of the workload could outgrow the server's cache."""
    most = one.shared_prefix_tokens + one.prompt_tokens.high + one.output_tokens.high
    room = settings["num_blocks"] * settings["block_size"]
    if most > room:
        raise PlanError(
            f"num_blocks: a request may reach {most} tokens, and the cache has room for {room}, "
            f"{settings['num_blocks']} blocks of {settings['block_size']}"
        )


def read_hypothesis(plan: Any) -> Hypothesis:
    place = "hypothesis"
    given = values.mapping(
        place,
        values.part(plan, place),
        ("faster", "than", "workload", "metric", "statistic", "factor"),
        closed=True,
    )
    faster, than = (
        values.choice(f'{place}["{key}"]', given[key], kernel_times.contenders())
        for key in ("faster", "than")
    )
    if faster == than:
        raise PlanError(f'{place}: expected two contenders, got {faster!r} for "faster" and "than"')
    metric = values.choice(f'{place}["metric"]', given["metric"], metrics.METRICS)
    known = metrics.STATISTICS if metric in metrics.LATENCIES else (metrics.RATE,)
    statistic = values.choice(f'{place}["statistic"]', given["statistic"], known)
    factor = values.number(f'{place}["factor"]', given["factor"], 1.0, 100.0)
    return Hypothesis(
        faster, than, values.text(f'{place}["workload"]', given["workload"]), metric, statistic, factor
    )


def read_refutation(plan: Any) -> float:
    given = values.mapping("refuted_if", values.part(plan, "refuted_if"), ("ratio_below",), closed=True)
    return values.number('refuted_if["ratio_below"]', given["ratio_below"], -math.inf, math.inf)


def read_workloads(plan: Any) -> dict[str, Workload]:
    given = values.mapping("workloads", values.part(plan, "workloads"))
    if not 1 <= len(given) <= MAX_WORKLOADS:
        raise PlanError(f"workloads: expected 1 to {MAX_WORKLOADS} by name, got {len(given)}")
    return {name: _workload(f"workloads[{name!r}]", one) for name, one in given.items()}


def _workload(place: str, value: Any) -> Workload:
    given = values.mapping(place, value, ("arrivals", "prompt_tokens", "output_tokens", "num_requests"))
    values.only(
        place, given, ("arrivals", "prompt_tokens", "output_tokens", "num_requests", "shared_prefix_tokens")
    )
    return Workload(
        _arrivals(f'{place}["arrivals"]', given["arrivals"]),
        _lengths(f'{place}["prompt_tokens"]', given["prompt_tokens"], 4096),
        _lengths(f'{place}["output_tokens"]', given["output_tokens"], 512),
        values.whole(f'{place}["num_requests"]', given["num_requests"], 20, 1000),
        values.whole(f'{place}["shared_prefix_tokens"]', given.get("shared_prefix_tokens", 0), 0, 4096),
    )


def _arrivals(place: str, value: Any) -> Arrivals:
    given = values.mapping(place, value, ("process",))
    process = values.choice(f'{place}["process"]', given["process"], workload.PROCESSES)
    if process != workload.POISSON:
        return Arrivals(process)
    values.only(place, given, ("process", "rate", "burstiness"))
    if "rate" not in given:
        raise PlanError(f'{place}["rate"] is missing: how many requests come in a second')
    return Arrivals(
        process,
        values.number(f'{place}["rate"]', given["rate"], 0.1, 10_000),
        values.number(f'{place}["burstiness"]', given.get("burstiness", 1.0), 0.05, 100),
    )


def _lengths(place: str, value: Any, most: int) -> Lengths:
    given = values.mapping(place, value, ("distribution",))
    distribution = values.choice(f'{place}["distribution"]', given["distribution"], workload.DISTRIBUTIONS)
    needed = {
        workload.FIXED: ("tokens",),
        workload.UNIFORM: ("low", "high"),
        workload.LOGNORMAL: ("median", "low", "high"),
    }[distribution]
    values.mapping(place, value, ("distribution", *needed))
    values.only(place, given, ("distribution", *needed, *(("sigma",) if "median" in needed else ())))
    if distribution == workload.FIXED:
        tokens = values.whole(f'{place}["tokens"]', given["tokens"], 1, most)
        return Lengths(distribution, tokens, tokens)
    low = values.whole(f'{place}["low"]', given["low"], 1, most)
    high = values.whole(f'{place}["high"]', given["high"], low, most)
    if distribution == workload.UNIFORM:
        return Lengths(distribution, low, high)
    return Lengths(
        distribution,
        low,
        high,
        values.number(f'{place}["median"]', given["median"], low, high),
        values.number(f'{place}["sigma"]', given.get("sigma", 0.7), 0.01, 3.0),
    )


def read_metrics(plan: Any) -> tuple[dict[str, tuple[str, ...]], dict[str, float]]:
    """(metric -> its statistics, target of goodput)."""
    given = values.mapping("metrics", values.part(plan, "metrics"))
    values.only("metrics", given, metrics.METRICS)
    if not given:
        raise PlanError("metrics: expected at least one")
    stated = {}
    for name, value in given.items():
        place = f'metrics["{name}"]'
        listed = [value] if type(value) is str else value
        if type(listed) not in (list, tuple, set, frozenset) or not listed:
            raise PlanError(f"{place}: expected a list of statistics, got {values.kind(value)}")
        known = metrics.STATISTICS if name in metrics.LATENCIES else (metrics.RATE,)
        chosen = {values.choice(place, one, known) for one in listed}
        stated[name] = tuple(one for one in known if one in chosen)
    return stated, _target(plan, needed="goodput_per_s" in stated)


def _target(plan: dict[str, Any], *, needed: bool) -> dict[str, float]:
    value = plan.get("target")
    if value is None or value == {}:
        if needed:
            raise PlanError(
                "target is missing: goodput counts the requests that meet it, for instance "
                '{"ttft_ms": 100, "tpot_ms": 15}'
            )
        return {}
    given = values.mapping("target", value)
    values.only("target", given, ("ttft_ms", "tpot_ms", "e2el_ms"))
    return {name: values.number(f'target["{name}"]', most, 0.001, 1e7) for name, most in given.items()}


def read_warm_up(plan: Any) -> float:
    return values.number("warm_up_s", values.part(plan, "warm_up_s"), 0.0, 3600.0)


def read_repetitions(plan: Any) -> int:
    return values.whole("repetitions", values.part(plan, "repetitions"), 1, 50)


def read_held_fixed(plan: Any) -> dict[str, Any]:
    given = values.mapping("held_fixed", values.part(plan, "held_fixed"), HELD_FIXED, closed=True)
    read = {name: _setting(f'held_fixed["{name}"]', name, given[name]) for name in HELD_FIXED}
    for name, value in MEASURED.items():
        if read[name] != value:
            raise PlanError(
                f'held_fixed["{name}"]: expected {value!r}, the only one that was measured, got {read[name]!r}'
            )
    return read


def read_contenders(plan: Any) -> dict[str, dict[str, Any]]:
    """Contender -> its overrides."""
    given = values.mapping("contenders", values.part(plan, "contenders"))
    values.only("contenders", given, kernel_times.contenders())
    if len(given) < 2:
        raise PlanError(f"contenders: expected two or more by name, got {len(given)}")
    read = {}
    for name, value in given.items():
        place = f"contenders[{name!r}]"
        overrides = values.mapping(place, value)
        values.only(place, overrides, HELD_FIXED)
        read[name] = {key: _setting(f'{place}["{key}"]', key, one) for key, one in overrides.items()}
    return read


def _setting(place: str, name: str, value: Any) -> Any:
    if name == "seed":
        return values.whole(place, value, 0, 2**31)
    if name == "cache":
        return values.choice(place, value, CACHE_STATES)
    if name == "dtype":
        return values.text(place, value)
    return values.whole(place, value, 1, 100_000)
