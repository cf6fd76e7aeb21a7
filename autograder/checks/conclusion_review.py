"""What a conclusion says beyond its run, or short of it: question by question, held against the run's own intervals."""

from __future__ import annotations

from typing import Any

from autograder.checks.objections import Objection
from autograder.checks.plain_answers import entries, is_blank, kind, refuse, text
from course.serving.metrics import Estimate
from course.serving.result import Result

SUPPORTED, REFUTED, UNDECIDED = VERDICTS = ("supported", "refuted", "undecided")
NEITHER = "neither"
# A learner rounds, and a machine may round otherwise in the last digit.
RELATIVE, ABSOLUTE = 0.005, 0.0061


def decide(effect: Estimate, factor: float, ratio_below: float) -> str:
    """The verdict that an interval supports: it lies on one side of a line with all its length, or decides nothing."""
    if effect.interval is None:
        return UNDECIDED
    low, high = effect.interval
    if low >= factor:
        return SUPPORTED
    return REFUTED if high < ratio_below else UNDECIDED


def verdict_of(result: Result, workload: str | None = None) -> str:
    """The verdict on the plan's hypothesis, at a workload."""
    return decide(result.effect(workload), result.plan.hypothesis.factor, result.plan.ratio_below)


def verdict(given: dict[str, Any], result: Result) -> Objection | None:
    """As much as the run shows: no more, no less."""
    said = _part(given, "verdict", "one of " + ", ".join(VERDICTS)).lower()
    if said not in VERDICTS:
        raise refuse(f'q11_conclusion["verdict"]: expected one of {", ".join(VERDICTS)}, got {said[:40]!r}')
    right = verdict_of(result)
    if said == right:
        return None
    shown = _lines(result)
    if right == UNDECIDED:
        return Objection(
            f"{said}-too-much",
            f'"{said}" says more than the run shows: the interval of the ratio is not beyond the line with all its length',
            shown,
        )
    if said == UNDECIDED:
        return Objection(
            "undecided-too-little",
            "the run shows more than you say: the whole interval lies on one side of the line that the plan drew",
            shown,
        )
    return Objection("opposite", f'the run says the opposite of "{said}"', shown)


def _lines(result: Result) -> str:
    claim = result.plan.hypothesis
    return f"ratio {result.effect()}, claimed at least {claim.factor:g}, refuted below {result.plan.ratio_below:g}"


def better(given: dict[str, Any], result: Result) -> Objection | None:
    """Who was better at all, which is another question than whether it was by as much as claimed."""
    claim = result.plan.hypothesis
    known = (claim.faster, claim.than, NEITHER)
    said = _part(given, "better", "one of " + ", ".join(known))
    if said not in known:
        raise refuse(f'q11_conclusion["better"]: expected one of {", ".join(known)}, got {said[:40]!r}')
    effect = result.effect()
    low, high = effect.interval or (0.0, float("inf"))
    right = claim.faster if low > 1 else claim.than if high < 1 else NEITHER
    if said == right:
        return None
    shown = f"ratio {effect}; above 1 {claim.faster} is better"
    if right == NEITHER:
        return Objection(
            "better-by-the-middle",
            "the interval of the ratio holds 1, no difference: the run does not say who is better, whatever its middle is",
            shown,
        )
    if said == NEITHER:
        return Objection(
            "neither-though-clear",
            "the whole interval of the ratio lies on one side of 1: one of the two was better, if less than claimed",
            shown,
        )
    return Objection("the-other-one", "the ratio points the other way", shown)


def effect(given: dict[str, Any], result: Result) -> Objection | None:
    """The ratio, and its interval."""
    right = result.effect()
    value = _number(given.get("effect"), "effect", "the ratio that the run found, a number")
    if not _close(value, right.middle):
        if _close(value, 1 / right.middle):
            return Objection(
                "upside-down",
                "the effect is upside down: above 1 means that the hypothesis points the right way",
                f"expected {right.middle:.3f}",
            )
        return Objection(
            "another-effect",
            "the effect is not the median of the run's ratios",
            f"got {value:g}, expected {right.middle:.3f}",
        )
    return _interval(given.get("interval"), right)


def _interval(given: Any, right: Estimate) -> Objection | None:
    if right.interval is None:
        if is_blank(given):
            return None
        return Objection("interval-of-too-few", "so few runs have no 95 % interval: leave it None")
    if is_blank(given):
        return Objection(
            "effect-without-interval",
            "the effect stands without its interval. One number looks exact whatever it is",
            f"expected {right.low:.3f} to {right.high:.3f}",
        )
    if type(given) not in (list, tuple) or len(given) != 2:
        raise refuse(f'q11_conclusion["interval"]: expected two numbers, low and high, got {kind(given)}')
    low, high = (_number(one, "interval", "two numbers") for one in given)
    wanted_low, wanted_high = right.interval
    if _close(low, wanted_low) and _close(high, wanted_high):
        return None
    shown = f"got {low:g} to {high:g}, expected {wanted_low:.3f} to {wanted_high:.3f}"
    if low >= wanted_low - ABSOLUTE and high <= wanted_high + ABSOLUTE:
        return Objection("narrower-interval", "the interval is narrower than the run's own", shown)
    return Objection("another-interval", "the interval is not that of the median of the run's ratios", shown)


def figures(given: dict[str, Any], result: Result) -> Objection | None:
    """What the two are, in the metric's own unit."""
    claim = result.plan.hypothesis
    names = (claim.faster, claim.than)
    expected = f"a dict with {claim.statistic} {claim.metric} of {names[0]} and of {names[1]}"
    said = entries('q11_conclusion["figures"]', given.get("figures"), expected)
    if missing := [name for name in names if name not in said]:
        raise refuse(f'q11_conclusion["figures"]: {missing[0]} is missing; expected {expected}')
    right = {name: result.figure(name) for name in names}
    values = {name: _number(said[name], "figures", f"a number for {name}") for name in names}
    wrong = [name for name in names if not _close(values[name], right[name].middle)]
    if not wrong:
        return None
    shown = "; ".join(f"{name}: got {values[name]:g}, expected {right[name].middle:.2f}" for name in wrong)
    if all(
        _close(values[one], right[other].middle) for one, other in zip(names, reversed(names), strict=True)
    ):
        return Objection("figures-swapped", "the figures of the two contenders are swapped", shown)
    if all(_close(1000 * values[name], right[name].middle) for name in wrong):
        return Objection(
            "seconds", f"the figures are in seconds, and {claim.metric} is in milliseconds", shown
        )
    return Objection(
        "other-figures",
        f"the figures are not {claim.statistic} {claim.metric} of the run, the median of its runs",
        shown,
    )


def scope(given: dict[str, Any], result: Result) -> Objection | None:
    """What it was shown for: these workloads, this GPU, replayed."""
    expected = "a dict with workloads, source and gpu"
    said = entries('q11_conclusion["scope"]', given.get("scope"), expected)
    claim = result.plan.hypothesis
    workloads = said.get("workloads")
    listed: Any = [workloads] if type(workloads) is str else workloads
    if type(listed) not in (list, tuple, set, frozenset) or any(type(one) is not str for one in listed):
        raise refuse(f'q11_conclusion["scope"]["workloads"]: expected a list of names, got {kind(workloads)}')
    if beyond := sorted(set(listed) - set(result.runs)):
        return Objection(
            "workloads-that-never-ran",
            f"the scope names {beyond[0][:40]!r}, which did not run. A run says something about its own workloads",
            f"ran: {', '.join(result.runs)}",
        )
    if claim.workload not in listed:
        return Objection(
            "without-the-claimed-workload", "the scope leaves out the workload that the hypothesis is about"
        )
    for other in sorted(set(listed) - {claim.workload}):
        if verdict_of(result, other) != verdict_of(result):
            return Objection(
                "workloads-that-say-otherwise",
                f"the scope names {other[:40]!r}, and there the run says otherwise",
                f"ratio there {result.effect(other)}",
            )
    return _hardware(said, result)


def _hardware(said: dict[str, Any], result: Result) -> Objection | None:
    source = text('q11_conclusion["scope"]["source"]', said.get("source"), '"replay"').lower()
    if source != result.source:
        return Objection(
            "replay-called-measured",
            'the source is not "replay": no request was served on a GPU here. Kernel times of another day were put together by a '
            "model, and a reader has to know",
        )
    gpu = text('q11_conclusion["scope"]["gpu"]', said.get("gpu"), "the GPU whose kernels were timed")
    model = next(
        word for word in result.gpu.split() if any(letter.isdigit() for letter in word)
    )  # "H200", say
    if model.upper() not in gpu.upper():
        return Objection(
            "beyond-the-gpu",
            "the scope names another GPU than the one whose kernels were timed",
            f"timed: {result.gpu}",
        )
    return None


def _part(given: dict[str, Any], name: str, expected: str) -> str:
    return text(f'q11_conclusion["{name}"]', given.get(name), expected)


def _number(value: Any, name: str, expected: str) -> float:
    if is_blank(value):
        raise refuse(f'q11_conclusion["{name}"] is empty; expected {expected}')
    if type(value) not in (int, float):
        raise refuse(f'q11_conclusion["{name}"]: expected {expected}, got {kind(value)}')
    return float(value)


def _close(value: float, right: float) -> bool:
    return abs(value - right) <= max(RELATIVE * abs(right), ABSOLUTE)
