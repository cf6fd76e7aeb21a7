"""What a plan's runs came to: figures with their intervals, the effect, and where the times are from."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any

from course.serving import metrics
from course.serving.metrics import Estimate, estimate
from course.serving.plan import Plan


@dataclass(frozen=True)
class Timeline:
    """Of a workload's first run: (seconds, requests running, requests waiting) at each step, and the last admission."""

    steps: tuple[tuple[float, int, int], ...]
    last_admission: float


# workload -> contender -> (metric, statistic) -> one value a repetition, in the repetitions' order.
Runs = dict[str, dict[str, dict[tuple[str, str], list[float]]]]
Timelines = dict[str, dict[str, Timeline]]


@dataclass(frozen=True)
class Result:
    """The result of `course.serving.run`.

    source: "replay" or "gpu". gpu: where attention was timed. described: the same in sentences.
    """

    plan: Plan
    source: str
    gpu: str
    described: str
    runs: Runs
    timelines: Timelines

    def figure(self, contender: str, workload: str | None = None) -> Estimate:
        """The hypothesis' metric and statistic, of a contender; by default at the hypothesis' workload."""
        claim = self.plan.hypothesis
        return estimate(self.runs[workload or claim.workload][contender][claim.metric, claim.statistic])

    def ratios(self, workload: str | None = None) -> list[float]:
        """For each repetition how many times better `faster` was than `than`: both had the same traffic in it."""
        claim = self.plan.hypothesis
        return self._ratios(workload or claim.workload, claim.metric, claim.statistic)

    def effect(self, workload: str | None = None) -> Estimate:
        """The median of `ratios` and its interval. Above 1 it points the hypothesis' way."""
        return estimate(self.ratios(workload))

    def _ratios(self, workload: str, metric: str, statistic: str) -> list[float]:
        claim = self.plan.hypothesis
        ours, theirs = (self.runs[workload][name][metric, statistic] for name in (claim.faster, claim.than))
        if metric in metrics.RATES:
            ours, theirs = theirs, ours
        return [b / a if a else float("nan") for a, b in zip(ours, theirs, strict=True)]

    def rows(self) -> list[list[str]]:
        """The table: for each workload and metric the contenders' figures, and the ratio that the hypothesis asks for."""
        rows = []
        for workload, by_contender in self.runs.items():
            for metric, statistics in self.plan.metrics.items():
                for statistic in statistics:
                    figures = [str(estimate(found[metric, statistic])) for found in by_contender.values()]
                    ratio = str(estimate(self._ratios(workload, metric, statistic)))
                    name = metric if statistic == metrics.RATE else f"{statistic} {metric}"
                    rows.append([workload, name, *figures, ratio])
        return rows

    @property
    def header(self) -> list[str]:
        claim = self.plan.hypothesis
        return ["workload", "metric", *self.plan.overrides, f"{claim.faster} better by"]

    @property
    def caption(self) -> str:
        count = self.plan.repetitions
        interval = (
            f"[95 % interval of that median from {count} runs]"
            if count >= metrics.least_runs()
            else f"[no interval: fewer than {metrics.least_runs()} runs]"
        )
        return f"Median of {count} runs {interval}. {self.described}"

    def __str__(self) -> str:
        table = [self.header, *self.rows()]
        widths = [max(len(row[column]) for row in table) for column in range(len(self.header))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in table
        ]
        return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:], "", self.caption])

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        cells = ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in self.rows()]
        head = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in self.header)
        body = "".join(f"<tr>{row}</tr>" for row in cells)
        caption = "<br>".join(map(html.escape, self.caption.splitlines()))
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table><p>{caption}</p>"
        return {"text/html": table, "text/plain": str(self)}
