"""The report as one HTML file that fetches nothing and runs nothing: it can be mailed, kept and printed.

Jinja escapes whatever learners wrote. The page's policy would stop a script or a foreign image even so.
"""

from __future__ import annotations

from statistics import fmean, median

from jinja2 import Environment, PackageLoader, StrictUndefined

from autograder.grading.report import pictures, shown
from autograder.grading.report.lines import ABSENT, NOT_JUDGED
from autograder.grading.report.summary import LEVELS, REFUSED, Summary, spread
from autograder.grading.report.terminal import attendance

NUM_MISTAKES = 3  # on the first screen; all of them stand below
NUM_SLOWEST = 8


def as_html(summary: Summary) -> str:
    environment = Environment(
        loader=PackageLoader("autograder.grading.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "duration": shown.duration,
        "size": shown.size,
        "percent": shown.percent,
        "mean": shown.mean,
        "points": shown.points,
        "printable": shown.printable,
    }
    return environment.get_template("page.html").render(
        summary=summary,
        attendance=attendance(summary),
        count=shown.count,
        num_mistakes=NUM_MISTAKES,
        num_slowest=NUM_SLOWEST,
        mean=fmean(summary.scores.values()) if summary.scores else None,
        median=median(summary.scores.values()) if summary.scores else None,
        level_names=LEVELS,
        spread=spread,
        scores_picture=pictures.scores(summary),
        levels_picture=pictures.levels(summary),
        times_picture=pictures.times(summary.seconds),
        words={
            "absent": ABSENT,
            "refused": REFUSED,
            "not_judged": NOT_JUDGED,
        },
    )
