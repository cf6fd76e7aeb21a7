"""A result as a picture: whether the run was steady, and the effect, run by run, beside what was claimed."""

from __future__ import annotations

from typing import Any

from course.plots import BLUE, GREY, INK, VERMILLION, Picture
from course.serving.metrics import Estimate
from course.serving.result import Result, Timeline

_COLOURS = (BLUE, VERMILLION, INK, "#009E73", "#CC79A7")
_LINES = ("-", "--", ":", "-.", "-")


def picture(result: Result) -> Picture:
    """Left: requests in the server over the first run of the hypothesis' workload, the steady part white. Right: for each
    workload the ratio of each repetition, its interval, the claimed factor and the refutation."""
    claim = result.plan.hypothesis
    drawn = Picture(figsize=(9.5, 3.9), layout="constrained", facecolor="white")
    left, right = drawn.subplots(1, 2)
    said = [
        _draw_load(left, result.timelines[claim.workload], result.plan.warm_up_s, claim.workload),
        _draw_effect(right, result),
    ]
    where = "Replay of measurements on an" if result.source == "replay" else "Timed on an"
    drawn.suptitle(f"{where} {result.gpu}", fontsize=9)
    drawn.alt_text = f"{where} {result.gpu}. " + " ".join(said)
    return drawn


def _draw_load(axes: Any, timelines: dict[str, Timeline], warm_up_s: float, workload: str) -> str:
    words = []
    last = max(one.last_admission for one in timelines.values())
    end = max(one.steps[-1][0] for one in timelines.values())
    for (who, one), colour, line in zip(timelines.items(), _COLOURS, _LINES, strict=False):
        times = [time for time, _, _ in one.steps]
        inside = [running + waiting for _, running, waiting in one.steps]
        axes.plot(times, inside, color=colour, linestyle=line, linewidth=1.2, label=who)
        steady = [
            running + waiting
            for time, running, waiting in one.steps
            if warm_up_s <= time <= one.last_admission
        ]
        waited = max(waiting for _, _, waiting in one.steps)
        words.append(
            f"{who}: {sum(steady) / max(1, len(steady)):.0f} requests in the server on average, {waited} waiting at most"
        )
    axes.axvspan(0, warm_up_s, facecolor=GREY, edgecolor="#BBBBBB", hatch="//", zorder=0)
    axes.axvspan(last, max(end, last), facecolor=GREY, edgecolor="#BBBBBB", hatch="//", zorder=0)
    axes.set_xlim(0, max(end, last))
    axes.set_title(f"{workload}: first run (hatched: not counted)", fontsize=10)
    axes.set_xlabel("seconds")
    axes.set_ylabel("requests running and waiting")
    axes.set_ylim(
        0, 1.25 * max(running + waiting for one in timelines.values() for _, running, waiting in one.steps)
    )
    axes.legend(fontsize=9, loc="upper left", ncols=2)
    return f"Left, {workload}, counted from {warm_up_s:g} to {last:.1f} of {end:.1f} seconds. {'; '.join(words)}."


def _draw_effect(axes: Any, result: Result) -> str:
    claim, plan = result.plan.hypothesis, result.plan
    words = []
    for row, workload in enumerate(plan.workloads):
        ratios, effect = result.ratios(workload), result.effect(workload)
        axes.plot(ratios, [row + 0.12] * len(ratios), "o", color=BLUE, alpha=0.5, markersize=4)
        if effect.interval is not None:
            axes.plot(effect.interval, [row - 0.12] * 2, color=INK, linewidth=3)
        axes.plot([effect.middle], [row - 0.12], "D", color=INK, markersize=6)
        words.append(f"{workload}: {_words(effect)}")
    axes.axvline(1.0, color="#888888", linewidth=1)
    axes.axvline(claim.factor, color=VERMILLION, linewidth=1.5, label=f"claimed: at least {claim.factor:g}")
    axes.axvline(
        plan.ratio_below, color=INK, linestyle=":", linewidth=1.5, label=f"refuted below {plan.ratio_below:g}"
    )
    axes.set_yticks(range(len(plan.workloads)), list(plan.workloads))
    axes.set_ylim(len(plan.workloads) - 0.5, -0.9)
    axes.set_title(f"{claim.statistic} {claim.metric}: {claim.faster} better by", fontsize=10)
    axes.set_xlabel("ratio (dots: runs; bar: interval of their median)")
    axes.legend(fontsize=9, loc="upper center", ncols=2)
    return (
        f"Right, {claim.statistic} {claim.metric}, how many times better {claim.faster} is than {claim.than}: "
        f"{'; '.join(words)}. Claimed is at least {claim.factor:g}, refuted below {plan.ratio_below:g}."
    )


def _words(effect: Estimate) -> str:
    if effect.interval is None:
        return f"{effect.middle:.3f}, too few runs for an interval"
    low, high = effect.interval
    return f"{effect.middle:.3f}, 95 % interval {low:.3f} to {high:.3f}"
