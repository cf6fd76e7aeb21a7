"""The report's pictures: plain numbers in, an SVG image with a description out. What a picture shows stands in a table too.

Levels differ in lightness and hatch, so that no picture needs colour, on a screen or printed in grey.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from autograder.grading.report.summary import LEVELS, Summary

_FILLS = ("#B5482A", "#E8A33D", "#9CCBE8", "#1F5F8B")
_HATCHES = ("xx", "//", "..", "")
_WAITING = "#DDDDDD"
_WIDTH = 8.0


@dataclass(frozen=True)
class Picture:
    """An image for a page: `source` is a data URL, so that nothing is fetched from anywhere."""

    source: str
    alt: str


def scores(summary: Summary) -> Picture | None:
    """How many learners have how many points in all; None if nobody has."""
    if not summary.scores:
        return None
    figure, axes = _figure(2.4)
    num_bins = min(20, max(5, round(summary.max_score)))
    width = summary.max_score / num_bins
    counts = [0] * num_bins
    for score in summary.scores.values():
        counts[min(num_bins - 1, int(score / width))] += 1
    axes.bar([width * (i + 0.5) for i in range(num_bins)], counts, width * 0.92, color=_FILLS[3])
    axes.set_xlim(0, summary.max_score)
    axes.set_xlabel(f"points of {summary.max_score:g} in the judged exercises")
    axes.set_ylabel("learners")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    best, least = max(summary.scores.values()), min(summary.scores.values())
    alt = (
        f"Histogram of points: {len(summary.scores)} learners have between {least:g} and {best:g} of "
        f"{summary.max_score:g} points."
    )
    return Picture(_source(figure), alt)


def levels(summary: Summary) -> Picture | None:
    """Each exercise as a bar of shares: who got nothing, less than half, half and more, all the points."""
    shown = [each for each in summary.exercises if each.points or each.num_waiting]
    if not shown:
        return None
    figure, axes = _figure(1.1 + 0.34 * len(shown))
    names = [each.exercise.name for each in shown]
    left = [0.0] * len(shown)
    rows = [*zip(LEVELS, zip(*(each.levels for each in shown), strict=True), _FILLS, _HATCHES, strict=True)]
    rows.append(("no points yet", tuple(each.num_waiting for each in shown), _WAITING, ""))
    for label, counts, fill, hatch in rows:
        axes.barh(
            names, counts, left=left, color=fill, hatch=hatch, edgecolor="white", linewidth=0.5, label=label
        )
        left = [a + b for a, b in zip(left, counts, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("submissions")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="lower center", bbox_to_anchor=(0.45, 1.0), ncols=5, frameon=False, fontsize=8)
    said = "; ".join(f"{each.exercise.name} {each.levels[-1]} of {len(each.points)}" for each in shown)
    return Picture(_source(figure), f"Bars of points by exercise. With all the points: {said}.")


def times(seconds: Sequence[float]) -> Picture | None:
    """How long judging took, a dot for each submission, the slowest first."""
    if not seconds:
        return None
    figure, axes = _figure(2.0)
    ordered = sorted(seconds, reverse=True)
    axes.plot(range(1, len(ordered) + 1), ordered, "o", markersize=3, color=_FILLS[3])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("submissions, the slowest first")
    axes.set_ylabel("seconds")
    alt = f"Seconds for each of {len(ordered)} submissions, from {ordered[0]:.1f} down to {ordered[-1]:.1f}."
    return Picture(_source(figure), alt)


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH, height), layout="constrained", facecolor="white")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _source(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
