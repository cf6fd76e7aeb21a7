"""Figures of a run written by hand, and intervals that hold what they say."""

import math
import random

import pytest

from course.serving import metrics
from course.serving.metrics import estimate, figures, window
from course.serving.simulate import Run, Served


def run() -> Run:
    """Four requests, of which the first is done before the warm-up ends, and the last is admitted at 10 s."""
    requests = [
        Served(0.0, 0.0, [0.5, 0.9]),
        Served(2.0, 2.0, [3.0, 4.0, 6.0]),
        Served(4.0, 5.0, [8.0, 9.0]),
        Served(6.0, 10.0, [11.0, 14.0]),
    ]
    return Run(requests, [(0.0, 1, 0)], 0, 0)


def test_each_figure_is_what_its_name_says():
    found = figures(run(), 1.0, {"ttft_ms": 1500, "tpot_ms": 1500})
    assert window(run(), 1.0) == metrics.Window(1.0, 10.0)
    assert found["ttft_ms", "mean"] == pytest.approx(1000 * (1 + 4 + 5) / 3)
    assert found["ttft_ms", "p50"] == pytest.approx(4000)
    assert found["ttft_ms", "p90"] == pytest.approx(4800)
    assert found["itl_ms", "mean"] == pytest.approx(
        1000 * (1 + 2 + 1) / 3
    )  # the last one's gap ends too late
    assert found["tpot_ms", "mean"] == pytest.approx(1000 * (1.5 + 1 + 3) / 3)
    assert found["e2el_ms", "p99"] == pytest.approx(1000 * (5 + 0.98 * 3))
    assert found["tokens_per_s", "rate"] == pytest.approx(5 / 9)
    assert found["requests_per_s", "rate"] == pytest.approx(2 / 9)
    assert found["goodput_per_s", "rate"] == pytest.approx(1 / 9)  # the third waited for 4 s


def test_a_target_counts_with_each_of_its_parts():
    for name, most, good in (
        ("tpot_ms", 1500, 2),
        ("tpot_ms", 1400, 1),
        ("e2el_ms", 4000, 1),
        ("ttft_ms", 1, 0),
    ):
        assert figures(run(), 1.0, {name: most})["goodput_per_s", "rate"] == pytest.approx(good / 9)
    assert ("goodput_per_s", "rate") not in figures(run(), 1.0, {})


def test_no_sample_is_no_figure_and_no_window_is_refused():
    alone = Run([Served(0.0, 5.0, [6.0])], [], 0, 0)
    assert math.isnan(figures(alone, 1.0, {})["itl_ms", "p99"])
    with pytest.raises(ValueError, match="leave nothing"):
        figures(alone, 5.0, {})


@pytest.mark.parametrize(
    ("count", "expected"), [(1, None), (5, None), (6, (0, 5)), (8, (0, 7)), (9, (1, 7)), (12, (2, 9))]
)
def test_intervals_are_those_of_the_sign_test(count, expected):
    values = [float(value) for value in range(count)]
    random.Random(0).shuffle(values)
    assert estimate(values).interval == expected
    assert estimate(values).middle == (count - 1) / 2


def test_the_fewest_runs_are_six():
    assert metrics.least_runs() == 6


@pytest.mark.parametrize("count", [6, 9, 12, 15])
def test_an_interval_holds_the_median_as_often_as_it_says(count):
    draw = random.Random(count)
    held = 0
    for _ in range(3000):
        low, high = estimate([draw.expovariate(math.log(2)) for _ in range(count)]).interval or (0.0, 0.0)
        held += low <= 1.0 <= high
    assert held / 3000 > 0.95 - 0.012  # three standard deviations
