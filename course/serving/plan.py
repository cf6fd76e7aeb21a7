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
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from course.serving import kernel_times, metrics, workload
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


class PlanError(ValueError):
    """A plan that cannot be read or run. The text names the place in the plan and what was expected there."""

    def _render_traceback_(self) -> list[str]:
        """In a notebook the text alone: the mistake is in the plan, and no line of ours says where."""
        return [f"PlanError: {self}"]


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
        _choice("hypothesis", name, overrides)
    _choice('hypothesis["workload"]', hypothesis.workload, workloads)
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
    given = _dict(
        place,
        _part(plan, place),
        ("faster", "than", "workload", "metric", "statistic", "factor"),
        closed=True,
    )
    faster, than = (
        _choice(f'{place}["{key}"]', given[key], kernel_times.contenders()) for key in ("faster", "than")
    )
    if faster == than:
        raise PlanError(f'{place}: expected two contenders, got {faster!r} for "faster" and "than"')
    metric = _choice(f'{place}["metric"]', given["metric"], metrics.METRICS)
    known = metrics.STATISTICS if metric in metrics.LATENCIES else (metrics.RATE,)
    statistic = _choice(f'{place}["statistic"]', given["statistic"], known)
    factor = _number(f'{place}["factor"]', given["factor"], 1.0, 100.0)
    return Hypothesis(
        faster, than, _text(f'{place}["workload"]', given["workload"]), metric, statistic, factor
    )


def read_refutation(plan: Any) -> float:
    given = _dict("refuted_if", _part(plan, "refuted_if"), ("ratio_below",), closed=True)
    return _number('refuted_if["ratio_below"]', given["ratio_below"], -math.inf, math.inf)


def read_workloads(plan: Any) -> dict[str, Workload]:
    given = _dict("workloads", _part(plan, "workloads"))
    if not 1 <= len(given) <= MAX_WORKLOADS:
        raise PlanError(f"workloads: expected 1 to {MAX_WORKLOADS} by name, got {len(given)}")
    return {name: _workload(f"workloads[{name!r}]", one) for name, one in given.items()}


def _workload(place: str, value: Any) -> Workload:
    given = _dict(place, value, ("arrivals", "prompt_tokens", "output_tokens", "num_requests"))
    _known(
        place, given, ("arrivals", "prompt_tokens", "output_tokens", "num_requests", "shared_prefix_tokens")
    )
    return Workload(
        _arrivals(f'{place}["arrivals"]', given["arrivals"]),
        _lengths(f'{place}["prompt_tokens"]', given["prompt_tokens"], 4096),
        _lengths(f'{place}["output_tokens"]', given["output_tokens"], 512),
        _whole(f'{place}["num_requests"]', given["num_requests"], 20, 1000),
        _whole(f'{place}["shared_prefix_tokens"]', given.get("shared_prefix_tokens", 0), 0, 4096),
    )


def _arrivals(place: str, value: Any) -> Arrivals:
    given = _dict(place, value, ("process",))
    process = _choice(f'{place}["process"]', given["process"], workload.PROCESSES)
    if process != workload.POISSON:
        return Arrivals(process)
    _known(place, given, ("process", "rate", "burstiness"))
    if "rate" not in given:
        raise PlanError(f'{place}["rate"] is missing: how many requests come in a second')
    return Arrivals(
        process,
        _number(f'{place}["rate"]', given["rate"], 0.1, 10_000),
        _number(f'{place}["burstiness"]', given.get("burstiness", 1.0), 0.05, 100),
    )


def _lengths(place: str, value: Any, most: int) -> Lengths:
    given = _dict(place, value, ("distribution",))
    distribution = _choice(f'{place}["distribution"]', given["distribution"], workload.DISTRIBUTIONS)
    needed = {
        workload.FIXED: ("tokens",),
        workload.UNIFORM: ("low", "high"),
        workload.LOGNORMAL: ("median", "low", "high"),
    }[distribution]
    _dict(place, value, ("distribution", *needed))
    _known(place, given, ("distribution", *needed, *(("sigma",) if "median" in needed else ())))
    if distribution == workload.FIXED:
        tokens = _whole(f'{place}["tokens"]', given["tokens"], 1, most)
        return Lengths(distribution, tokens, tokens)
    low = _whole(f'{place}["low"]', given["low"], 1, most)
    high = _whole(f'{place}["high"]', given["high"], low, most)
    if distribution == workload.UNIFORM:
        return Lengths(distribution, low, high)
    return Lengths(
        distribution,
        low,
        high,
        _number(f'{place}["median"]', given["median"], low, high),
        _number(f'{place}["sigma"]', given.get("sigma", 0.7), 0.01, 3.0),
    )


def read_metrics(plan: Any) -> tuple[dict[str, tuple[str, ...]], dict[str, float]]:
    """(metric -> its statistics, target of goodput)."""
    given = _dict("metrics", _part(plan, "metrics"))
    _known("metrics", given, metrics.METRICS)
    if not given:
        raise PlanError("metrics: expected at least one")
    stated = {}
    for name, value in given.items():
        place = f'metrics["{name}"]'
        listed = [value] if type(value) is str else value
        if type(listed) not in (list, tuple, set, frozenset) or not listed:
            raise PlanError(f"{place}: expected a list of statistics, got {_kind(value)}")
        known = metrics.STATISTICS if name in metrics.LATENCIES else (metrics.RATE,)
        chosen = {_choice(place, one, known) for one in listed}
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
    given = _dict("target", value)
    _known("target", given, ("ttft_ms", "tpot_ms", "e2el_ms"))
    return {name: _number(f'target["{name}"]', most, 0.001, 1e7) for name, most in given.items()}


def read_warm_up(plan: Any) -> float:
    return _number("warm_up_s", _part(plan, "warm_up_s"), 0.0, 3600.0)


def read_repetitions(plan: Any) -> int:
    return _whole("repetitions", _part(plan, "repetitions"), 1, 50)


def read_held_fixed(plan: Any) -> dict[str, Any]:
    given = _dict("held_fixed", _part(plan, "held_fixed"), HELD_FIXED, closed=True)
    read = {name: _setting(f'held_fixed["{name}"]', name, given[name]) for name in HELD_FIXED}
    for name, value in MEASURED.items():
        if read[name] != value:
            raise PlanError(
                f'held_fixed["{name}"]: expected {value!r}, the only one that was measured, got {read[name]!r}'
            )
    return read


def read_contenders(plan: Any) -> dict[str, dict[str, Any]]:
    """Contender -> its overrides."""
    given = _dict("contenders", _part(plan, "contenders"))
    _known("contenders", given, kernel_times.contenders())
    if len(given) < 2:
        raise PlanError(f"contenders: expected two or more by name, got {len(given)}")
    read = {}
    for name, value in given.items():
        place = f"contenders[{name!r}]"
        overrides = _dict(place, value)
        _known(place, overrides, HELD_FIXED)
        read[name] = {key: _setting(f'{place}["{key}"]', key, one) for key, one in overrides.items()}
    return read


def _setting(place: str, name: str, value: Any) -> Any:
    if name == "seed":
        return _whole(place, value, 0, 2**31)
    if name == "cache":
        return _choice(place, value, CACHE_STATES)
    if name == "dtype":
        return _text(place, value)
    return _whole(place, value, 1, 100_000)


# Reading values. What is no plain number, text or dict is told what was expected.


def _part(plan: Any, name: str) -> Any:
    if type(plan) is not dict:
        raise PlanError(f"the plan: expected a dict, got {_kind(plan)}")
    if plan.get(name) is None:
        raise PlanError(f"{name} is missing from the plan")
    return plan[name]


def _dict(place: str, value: Any, needed: Collection[str] = (), *, closed: bool = False) -> dict[str, Any]:
    if type(value) is not dict or any(type(key) is not str for key in value):
        raise PlanError(f"{place}: expected a dict with names for keys, got {_kind(value)}")
    for key in needed:
        if value.get(key) is None:
            raise PlanError(f'{place}["{key}"] is missing')
    if closed:
        _known(place, value, needed)
    return value


def _known(place: str, given: dict[str, Any], known: Collection[str]) -> None:
    for key in given:
        if key not in known:
            raise PlanError(f"{place}: nothing here is called {key[:40]!r}; expected {', '.join(known)}")


def _text(place: str, value: Any) -> str:
    if type(value) is not str or not value.strip():
        raise PlanError(f"{place}: expected a name, got {_kind(value)}")
    return value


def _choice(place: str, value: Any, known: Collection[str]) -> str:
    if type(value) is not str or value not in known:
        shown = repr(value[:40]) if type(value) is str else _kind(value)
        raise PlanError(f"{place}: expected one of {', '.join(known)}, got {shown}")
    return value


def _number(place: str, value: Any, low: float, high: float) -> float:
    if type(value) not in (int, float) or not low <= value <= high:
        shown = f"{value!r:.40}" if type(value) in (int, float) else _kind(value)
        raise PlanError(f"{place}: expected a number from {low:g} to {high:g}, got {shown}")
    return float(value)


def _whole(place: str, value: Any, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        shown = f"{value!r:.40}" if type(value) in (int, float) else _kind(value)
        raise PlanError(f"{place}: expected a whole number from {low} to {high}, got {shown}")
    return value


def _kind(value: Any) -> str:
    name = type(value).__name__
    return ("an " if name[:1].lower() in "aeiou" else "a ") + name
