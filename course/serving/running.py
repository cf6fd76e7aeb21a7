"""Runs a plan: every workload, as often as the plan says, each contender on the same traffic."""

from __future__ import annotations

import copy
import functools
import math
from dataclasses import replace
from typing import Any

from course.serving import metrics, workload
from course.serving.plan import WARM, Hypothesis, Plan, PlanError, read_plan, refuse_what_has_no_room
from course.serving.result import Result, Runs, Timeline, Timelines
from course.serving.simulate import Run, Server, simulate
from course.serving.step_times import Replay, StepTimes, step_us
from course.serving.workload import ALL_AT_ONCE, Arrivals, Workload

SOURCES = ("replay", "gpu")
_NO_CLAIM = Hypothesis("", "", "", "", "", 1.0)


def run(plan: dict[str, Any], source: str = "replay") -> Result:
    """Run a plan and say how it went: `Result`.

    source: "replay" serves with committed measurements of an H200, the same to the last digit wherever it runs; "gpu" with
    this machine's GPU, kernels timed as steps need them. Raises PlanError for a plan that cannot be read or run, ValueError
    for another source, RuntimeError where there is no GPU to time.
    """
    if source not in SOURCES:
        raise ValueError(f"source: expected one of {', '.join(SOURCES)}, got {source!r}")
    read = read_plan(plan)
    if source == "replay":
        runs, timelines, described = _replayed(read)
        result = Result(read, source, Replay().gpu, described, copy.deepcopy(runs), timelines)
    else:
        from course.serving.on_gpu import OnGpu

        times = OnGpu()
        runs, timelines = serve(read, times)
        result = Result(read, source, times.gpu, times.describe(), runs, timelines)
    _refuse_what_has_no_samples(result)
    return result


_replays: dict[str, tuple[Runs, Timelines, str]] = {}
_MAX_REPLAYS = 16


def _replayed(plan: Plan) -> tuple[Runs, Timelines, str]:
    """Served once for all claims about the same runs, for a learner's cell and the check after it."""
    key = repr(replace(plan, hypothesis=_NO_CLAIM, ratio_below=0.0, metrics={}))
    if key not in _replays:
        times = Replay()
        runs, timelines = serve(plan, times)
        _replays[key] = runs, timelines, times.describe()
        if len(_replays) > _MAX_REPLAYS:
            del _replays[next(iter(_replays))]
    return _replays[key]


def serve(plan: Plan, times: StepTimes) -> tuple[Runs, Timelines]:
    """Every workload and repetition, by every contender: `Result.runs` and `Result.timelines`."""
    runs: Runs = {}
    timelines: Timelines = {}
    for name, one in plan.workloads.items():
        runs[name] = {contender: {} for contender in plan.overrides}
        timelines[name] = {}
        for repetition in range(plan.repetitions):
            for contender in plan.overrides:
                done = _serve_once(one, plan.settings(contender), f"{name}/{repetition}", contender, times)
                try:
                    found = metrics.figures(done, plan.warm_up_s, plan.target)
                except ValueError as error:
                    raise PlanError(f"workloads[{name!r}], {contender}: {error}") from None
                for key, value in found.items():
                    runs[name][contender].setdefault(key, []).append(value)
                if repetition == 0:
                    timelines[name][contender] = Timeline(tuple(done.timeline), done.last_admission)
    return runs, timelines


def _refuse_what_has_no_samples(result: Result) -> None:
    for name, by_contender in result.runs.items():
        for contender, found in by_contender.items():
            for metric, statistics in result.plan.metrics.items():
                for statistic in statistics:
                    if any(map(math.isnan, found[metric, statistic])):
                        raise PlanError(
                            f"workloads[{name!r}], {contender}: a run has no sample of {metric} between the end of the "
                            "warm-up and the last admission; expected a longer run or a shorter warm-up"
                        )


def _serve_once(one: Workload, settings: dict[str, Any], seed: str, contender: str, times: StepTimes) -> Run:
    seed = f"{settings['seed']}/{seed}"
    server = Server(**{name: settings[name] for name in Server.__dataclass_fields__})
    warm = workload.prefix_tokens(one) if settings["cache"] == WARM else []
    us = step_us(times.attention_us(contender, seed))
    return simulate(workload.traffic(one, seed), server, us, warm)


def capacity(plan: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Requests a second that each contender serves at most, by workload: replayed with all requests there from the start.

    Above it the queue grows for as long as requests come. Raises PlanError for a plan that cannot be read.
    """
    read = read_plan(plan)
    return {
        name: {
            contender: capacity_of(one, read.settings(contender), contender) for contender in read.overrides
        }
        for name, one in read.workloads.items()
    }


def capacity_of(one: Workload, settings: dict[str, Any], contender: str) -> float:
    """Requests a second that a contender serves at most, replayed: while the middle half of them is completed.

    settings: of `Plan.settings`. Raises PlanError where a request has no room in the cache.
    """
    refuse_what_has_no_room(one, settings)
    # More than the server takes at once, so that some wait from the first step to the last quarter.
    prompt = one.shared_prefix_tokens + one.prompt_tokens.typical
    count = int(max(200, min(3 * settings["max_num_seqs"], 1_500_000 / prompt)))
    all_there = replace(one, arrivals=Arrivals(ALL_AT_ONCE), num_requests=count)
    return _capacity(all_there, contender, tuple(settings.items()))


@functools.lru_cache(maxsize=64)
def _capacity(all_there: Workload, contender: str, settings: tuple[tuple[str, Any], ...]) -> float:
    done = _serve_once(all_there, dict(settings), "capacity", contender, Replay())
    ends = sorted(request.tokens[-1] for request in done.requests)
    first, last = len(ends) // 4, 3 * len(ends) // 4
    return (last - first) / (ends[last] - ends[first])
