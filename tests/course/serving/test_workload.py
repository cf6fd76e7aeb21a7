"""Traffic: the same seed gives the same to everybody, at the rate, burstiness and lengths that were asked for."""

import itertools
import random
import statistics

import pytest

from course.serving.workload import Arrivals, Lengths, Workload, prefix_tokens, traffic

SHORT = Workload(Arrivals("poisson", 10.0), Lengths("uniform", 3, 9), Lengths("fixed", 5, 5), 50, 4)


def test_the_same_seed_gives_the_same_traffic_and_another_seed_does_not():
    assert traffic(SHORT, "a") == traffic(SHORT, "a")
    assert traffic(SHORT, "a") != traffic(SHORT, "b")


def test_prompts_share_their_prefix_and_nothing_else():
    prompts = [arrival.prompt for arrival in traffic(SHORT, "a")]
    assert all(prompt[:4] == prefix_tokens(SHORT) for prompt in prompts)
    own = [token for prompt in prompts for token in prompt[4:]]
    assert len(set(own)) == len(own)
    assert {len(prompt) - 4 for prompt in prompts} == set(range(3, 10))


@pytest.mark.parametrize("burstiness", [0.25, 1.0, 4.0])
def test_gaps_have_the_rate_and_the_burstiness(burstiness):
    times = Arrivals("poisson", 20.0, burstiness).times(20_000, random.Random(1))
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert times[0] == 0.0
    assert statistics.fmean(gaps) == pytest.approx(1 / 20, rel=0.05)
    # Of a gamma distribution: the variation is 1 / sqrt(shape).
    assert statistics.stdev(gaps) / statistics.fmean(gaps) == pytest.approx(burstiness**-0.5, rel=0.05)


def test_all_at_once_comes_at_once():
    assert Arrivals("all at once").times(3, random.Random(0)) == [0.0] * 3


@pytest.mark.parametrize(
    ("lengths", "middle"),
    [
        (Lengths("fixed", 7, 7), 7),
        (Lengths("uniform", 10, 30), 20),
        (Lengths("lognormal", 10, 4000, median=200, sigma=1.0), 200),
    ],
)
def test_lengths_lie_in_their_range_around_their_middle(lengths, middle):
    draw = random.Random(2)
    drawn = [lengths.draw(draw) for _ in range(4000)]
    assert lengths.low <= min(drawn) <= max(drawn) <= lengths.high
    assert statistics.median(drawn) == pytest.approx(middle, rel=0.08)
    assert lengths.typical == middle
