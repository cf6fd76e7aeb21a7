"""What is unfair in a benchmark's plan, or makes it unable to be wrong: aspect by aspect, the first thing that is.

Each function takes the learner's plan and gives an objection or None, and raises `PlanError` where its own part cannot be
read: so one mistake costs one aspect. What a rule needs of the rest (who is compared, how much the server can do) it reads
for itself.
"""

from __future__ import annotations

from typing import Any

from autograder.checks.objections import Objection
from course.serving import metrics
from course.serving import plan as plans
from course.serving.plan import Hypothesis, PlanError
from course.serving.running import capacity_of
from course.serving.step_times import rest_us
from course.serving.workload import ALL_AT_ONCE, CLOSED_LOOP, Workload

# Of what a server can do at most: below, nobody waits or shares a step; above, the queue grows.
LEAST_LOAD, MOST_LOAD = 0.2, 0.9
# Samples of a run beyond a percentile that can be told from its largest.
SAMPLES_BEYOND = 1


def hypothesis(plan: Any) -> Objection | None:
    """One claim that a run could support."""
    claim = plans.read_hypothesis(plan)
    if claim.factor == 1.0:
        return Objection(
            "no-effect-size",
            'hypothesis["factor"] is 1: "better by any amount" can be supported by a difference that nobody would act on. '
            "Say how large a difference matters, from 1.01 up",
        )
    return None


def refutation(plan: Any) -> Objection | None:
    """A result that would refute it, and that can happen."""
    ratio_below, claim = plans.read_refutation(plan), plans.read_hypothesis(plan)
    if ratio_below > claim.factor:
        return Objection(
            "refuted-by-support",
            'refuted_if["ratio_below"] is above hypothesis["factor"]: a ratio between the two would support the claim and '
            "refute it",
            f"ratio_below {ratio_below:g}, factor {claim.factor:g}",
        )
    if ratio_below < 1 / claim.factor:
        return Objection(
            "refutation-that-cannot-happen",
            'refuted_if["ratio_below"] is so low that even the opposite of the claim would not refute it. A ratio is above '
            'zero, and 1 means no difference; expected at least 1 / hypothesis["factor"]',
            f"ratio_below {ratio_below:g}, 1 / factor {1 / claim.factor:.3g}",
        )
    return None


def traffic(plan: Any) -> Objection | None:
    """Requests that come when they come."""
    workloads, claim = plans.read_workloads(plan), plans.read_hypothesis(plan)
    if claim.workload not in workloads:
        raise PlanError(
            f'hypothesis["workload"]: expected one of {", ".join(workloads)}, got {claim.workload[:40]!r}'
        )
    for name, one in workloads.items():
        if one.arrivals.process == CLOSED_LOOP:
            return Objection(
                "closed-loop",
                f"workloads[{name!r}]: a closed loop sends the next request when the last is answered. A slower server so "
                "gets less traffic, and its queue never shows: users do not wait for each other. Let requests arrive",
            )
    return None


def load(plan: Any) -> Objection | None:
    """As much traffic as the claim's metric needs, and no more."""
    claim, one = _claimed(plan)
    arrivals = one.arrivals
    latency = claim.metric in metrics.LATENCIES
    if latency and arrivals.process == ALL_AT_ONCE:
        return Objection(
            "latency-of-a-heap",
            f"{claim.metric} with all requests at once: each waits for those before it, so the figure is the length of the "
            "list, which you chose. For a latency let requests arrive at a rate",
        )
    if arrivals.process != "poisson":
        return None
    capacities = _capacities(plan, claim)
    least, most = min(capacities.values()), max(capacities.values())
    shown = f"{arrivals.rate:g} requests a second come; served are at most " + ", ".join(
        f"{value:.1f} ({name})" for name, value in capacities.items()
    )
    if latency and arrivals.rate > MOST_LOAD * least:
        return Objection(
            "overload",
            f"{claim.metric} at a rate that the slower contender cannot serve, or only just: its queue grows as long as requests "
            f"come, and the figure says how long you measured. Stay below {MOST_LOAD:.0%} of the smaller capacity "
            "(course.serving.capacity)",
            shown,
        )
    if claim.metric in ("requests_per_s", "tokens_per_s") and arrivals.rate < most:
        return Objection(
            "throughput-below-capacity",
            f"{claim.metric} at a rate that both can serve: it then is the rate of arrival, whoever serves. Ask for throughput "
            "at saturation (all at once), or for a latency or goodput at this rate",
            shown,
        )
    if arrivals.rate < LEAST_LOAD * least:
        return Objection(
            "too-little-load",
            f"at this rate the server is nearly idle: hardly two requests share a step, and the rest of the model hides "
            f"attention. Load it with at least {LEAST_LOAD:.0%} of the smaller capacity (course.serving.capacity)",
            shown,
        )
    return None


def figures(plan: Any) -> Objection | None:
    """The statistic that the claim is about, and a metric that shows what it costs."""
    stated, _ = plans.read_metrics(plan)
    claim = plans.read_hypothesis(plan)
    listed = stated.get(claim.metric, ())
    if claim.statistic not in listed:
        if claim.statistic.startswith("p9") and "mean" in listed:
            return Objection(
                "mean-for-a-tail",
                f'the claim is about the tail ({claim.statistic}), and metrics["{claim.metric}"] reports the mean: it moves with '
                "the many fast ones and hides the few slow ones. Report the percentile that you claim",
            )
        return Objection(
            "claim-not-measured",
            f"the claim is about {claim.statistic} of {claim.metric}, which is not among the metrics",
        )
    families = {_family(name) for name in stated}
    if len(families) < 2:
        return Objection(
            "one-kind-of-metric",
            "only one kind of metric is reported. First tokens, gaps between tokens and rates are bought from each other: a "
            "server that lets prompts wait has better gaps. Report a metric of another kind beside the claimed one",
            f"metrics {', '.join(stated)}",
        )
    return None


def _family(metric: str) -> str:
    if metric in metrics.RATES:
        return "rate"
    return "first token" if metric == "ttft_ms" else "gaps" if metric in ("itl_ms", "tpot_ms") else "whole"


def steady(plan: Any) -> Objection | None:
    """A warm-up that ends before the run does, and one state of the cache for all."""
    warm_up_s = plans.read_warm_up(plan)
    states = {
        name: settings["cache"]
        for name, settings in plans.read_contenders(plan).items()
        if "cache" in settings
    }
    fixed = plans.read_held_fixed(plan)["cache"]
    if any(state != fixed for state in states.values()):
        return Objection(
            "cold-against-warm",
            "one contender starts with a warm prefix cache and another with a cold one: the difference that you measure is the "
            "cache's. Start all in the state that held_fixed names",
        )
    if warm_up_s == 0:
        return Objection(
            "no-warm-up",
            "warm_up_s is 0: the first requests find an empty server and are served faster than any that come later. Leave out "
            "the time until the batch is as full as it stays",
        )
    claim, one = _claimed(plan)
    life_s = one.output_tokens.typical * rest_us(1) * 1e-6
    if warm_up_s < life_s:
        return Objection(
            "short-warm-up",
            "warm_up_s is over before the first requests are finished: until then the batch only grows",
            f"warm_up_s {warm_up_s:g}; a request of typical length takes at least {life_s:.2f} s",
        )
    span_s = _span_s(plan, claim, one)
    if warm_up_s > span_s / 2:
        return Objection(
            "all-warm-up",
            "warm_up_s leaves less than half of the run: raise num_requests or shorten the warm-up",
            f"warm_up_s {warm_up_s:g}; requests come or wait for about {span_s:.1f} s",
        )
    return None


def runs(plan: Any) -> Objection | None:
    """Runs enough for an interval, and requests enough for the percentile."""
    repetitions = plans.read_repetitions(plan)
    least = metrics.least_runs()
    if repetitions == 1:
        return Objection(
            "one-run",
            "one run has no spread: another seed could turn its difference around, and you would not know",
        )
    if repetitions < least:
        return Objection(
            "too-few-runs",
            f"too few repetitions for a 95 % interval: all of n runs lie on one side of the true median once in 2**(n - 1). "
            f"Expected at least {least}",
            f"repetitions {repetitions}",
        )
    claim, one = _claimed(plan)
    if claim.statistic in metrics.PERCENTILES:
        warm_up_s, span_s = plans.read_warm_up(plan), _span_s(plan, claim, one)
        # A warm-up that leaves less than half is an objection of its own.
        counted = one.num_requests * max(0.5, 1 - warm_up_s / span_s)
        if claim.metric == "itl_ms":
            counted *= one.output_tokens.typical
        beyond = counted * (1 - metrics.PERCENTILES[claim.statistic] / 100)
        if beyond < SAMPLES_BEYOND:
            return Objection(
                "too-few-for-the-tail",
                f"{claim.statistic} of too few samples: fewer than one of a run lies beyond it, so it is the largest of the run, "
                "whatever its name. Raise num_requests or claim a lower percentile",
                f"about {counted:.0f} samples of {claim.metric} a run",
            )
    return None


_WHY = {
    "seed": "another seed is other traffic: other lengths, other arrivals",
    "dtype": "numbers of half the size are read in half the time, and are another model",
    "block_size": "it changes how the cache is read and how many blocks there are",
    "num_blocks": "more room in the cache means fewer preemptions, whichever the kernel",
    "max_num_seqs": "a larger batch trades the gaps between tokens for throughput",
    "max_num_batched_tokens": "larger chunks of prompts trade the gaps between tokens for first tokens",
}


def same_terms(plan: Any) -> Objection | None:
    """Everybody with the same traffic, numbers and server."""
    fixed, overrides = plans.read_held_fixed(plan), plans.read_contenders(plan)
    claim = plans.read_hypothesis(plan)
    for name in (claim.faster, claim.than):
        if name not in overrides:
            raise PlanError(
                f"contenders: {name!r} is in the hypothesis and not among them ({', '.join(overrides)})"
            )
    for contender, settings in overrides.items():
        for name, value in settings.items():
            if value != fixed[name] and name in _WHY:
                return Objection(
                    f"different-{name}",
                    f"contenders[{contender!r}] has another {name} than the others: {_WHY[name]}. What differs besides the "
                    "kernel is compared along with it",
                    f"{name} {value!r}, held fixed {fixed[name]!r}",
                )
    return None


def _claimed(plan: Any) -> tuple[Hypothesis, Workload]:
    claim, workloads = plans.read_hypothesis(plan), plans.read_workloads(plan)
    if claim.workload not in workloads:
        raise PlanError(
            f'hypothesis["workload"]: expected one of {", ".join(workloads)}, got {claim.workload[:40]!r}'
        )
    return claim, workloads[claim.workload]


def _capacities(plan: Any, claim: Hypothesis) -> dict[str, float]:
    """Of the two that are compared, on the terms that are held fixed."""
    fixed = plans.read_held_fixed(plan)
    one = plans.read_workloads(plan)[claim.workload]
    return {name: capacity_of(one, fixed, name) for name in (claim.faster, claim.than)}


def _span_s(plan: Any, claim: Hypothesis, one: Workload) -> float:
    """How long requests come, or wait, in seconds: about."""
    serving = one.num_requests / min(_capacities(plan, claim).values())
    if one.arrivals.process == ALL_AT_ONCE:
        return serving
    return max(serving, one.num_requests / one.arrivals.rate)
