"""A plan, run: the same numbers every time, the same traffic for everybody, intervals that follow from the runs."""

import re

import pytest

import kernels
from course import serving
from course.serving import metrics, running
from course.serving.running import capacity_of
from course.serving.simulate import simulate
from course.serving.workload import ALL_AT_ONCE

needs_interpreter = pytest.mark.skipif(not kernels.INTERPRET, reason="there is a GPU here")


def test_a_replay_says_the_same_every_time(plan, result, monkeypatch):
    monkeypatch.setattr(running, "_replays", {})
    again = serving.run(plan)
    assert again.runs == result.runs
    assert again.described == result.described
    plan["held_fixed"]["seed"] = 4
    assert serving.run(plan).runs != result.runs


def test_another_claim_about_the_same_runs_serves_nothing_again(plan, result, monkeypatch):
    monkeypatch.setattr(running, "serve", lambda *arguments: pytest.fail("served again"))
    plan["hypothesis"].update(metric="itl_ms", statistic="p99", factor=3.0)
    other = serving.run(plan)
    assert other.runs == result.runs
    assert other.ratios() != result.ratios()


def test_nobody_changes_what_is_kept(plan, result):
    serving.run(plan).runs["short"]["ours"]["ttft_ms", "p50"][0] = 0.0
    assert serving.run(plan).runs == result.runs


def test_everybody_has_the_same_traffic(plan, monkeypatch):
    """The same requests in each repetition, other ones in the next; only who has a seed of its own gets its own."""
    served = []
    monkeypatch.setattr(running, "_replays", {})
    monkeypatch.setattr(
        running, "simulate", lambda arrivals, *rest: served.append(arrivals) or simulate(arrivals, *rest)
    )
    plan["repetitions"] = 2
    serving.run(plan)
    assert served[0] == served[1] != served[2] == served[3]
    plan["contenders"]["ours"]["seed"] = 99
    serving.run(plan)
    assert served[4] != served[5] == served[1]


def test_the_effect_is_the_median_of_the_ratios_run_by_run(result):
    ours, theirs = (result.runs["short"][name]["ttft_ms", "p50"] for name in ("ours", "vLLM Triton"))
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    assert result.ratios() == ratios
    assert result.effect() == metrics.estimate(ratios)
    assert result.effect().interval == (min(ratios), max(ratios))
    assert result.figure("ours") == metrics.estimate(ours)


def test_a_rate_counts_the_other_way(plan):
    plan["hypothesis"].update(metric="goodput_per_s", statistic="rate")
    result = serving.run(plan)
    ours, theirs = (result.runs["short"][name]["goodput_per_s", "rate"] for name in ("ours", "vLLM Triton"))
    assert result.ratios() == [a / b for a, b in zip(ours, theirs, strict=True)]


def test_a_warm_cache_shortens_the_first_token(plan, result):
    plan["held_fixed"]["cache"] = "warm"
    plan["workloads"]["short"]["num_requests"] = 20
    plan["workloads"]["short"]["shared_prefix_tokens"] = 1024
    plan["warm_up_s"] = 0.0
    warm = serving.run(plan)
    plan["held_fixed"]["cache"] = "cold"
    cold = serving.run(plan)
    mean = ("ttft_ms", "mean")
    assert sum(warm.runs["short"]["ours"][mean]) < sum(cold.runs["short"]["ours"][mean])


def test_what_leaves_no_sample_is_refused(plan):
    plan["warm_up_s"] = 60.0
    with pytest.raises(serving.PlanError, match=r"warm_up_s: 60 s leave nothing"):
        serving.run(plan)
    plan["warm_up_s"] = 0.2
    plan["workloads"]["short"]["output_tokens"] = {"distribution": "fixed", "tokens": 1}
    with pytest.raises(serving.PlanError, match="no sample of itl_ms"):
        serving.run(plan)


def test_capacity_is_what_a_heap_is_served_at(plan):
    """And above it the queue grows: who comes later waits longer."""
    found = serving.capacity(plan)["short"]
    assert set(found) == {"ours", "vLLM Triton"}
    assert found["ours"] > found["vLLM Triton"] > 50
    read = serving.read_plan(plan)
    assert capacity_of(read.workloads["short"], read.settings("ours"), "ours") == found["ours"]
    plan["workloads"]["short"].update(num_requests=200)
    plan["repetitions"] = 1
    waits = {}
    for factor in (0.5, 2.0):
        plan["workloads"]["short"]["arrivals"] = {"process": "poisson", "rate": factor * found["ours"]}
        waits[factor] = serving.run(plan).timelines["short"]["ours"].steps
    assert max(waiting for _, _, waiting in waits[0.5]) < 10
    assert max(waiting for _, _, waiting in waits[2.0]) > 50


def test_all_at_once_is_served_at_capacity(plan):
    plan["workloads"]["short"].update(arrivals={"process": ALL_AT_ONCE}, num_requests=300)
    plan["repetitions"] = 1
    rate = serving.run(plan).runs["short"]["ours"]["requests_per_s", "rate"][0]
    assert rate == pytest.approx(serving.capacity(plan)["short"]["ours"], rel=0.1)


def test_text_and_html_say_what_it_is(result):
    for text in (str(result), result._repr_mimebundle_()["text/html"]):
        assert "REPLAY: nothing was timed here" in text
        assert "NVIDIA H200" in text
        assert "calculated, not measured" in text
        assert "95 % interval of that median from 6 runs" in text
        assert str(result.effect()) in text
    assert result._repr_mimebundle_()["text/plain"] == str(result)
    assert len(re.findall("<tr>", result._repr_mimebundle_()["text/html"])) == 1 + len(result.rows()) == 5


def test_the_picture_says_in_words_what_it_shows(result):
    picture = serving.picture(result)
    assert "Replay of measurements on an NVIDIA H200" in picture.alt_text
    low, high = result.effect().interval
    assert f"95 % interval {low:.3f} to {high:.3f}" in picture.alt_text
    assert "Claimed is at least 1.2, refuted below 1." in picture.alt_text
    assert picture._repr_mimebundle_()["text/html"].startswith("<img alt=")


def test_one_run_has_no_interval(plan):
    plan["repetitions"] = 1
    result = serving.run(plan)
    assert result.effect().interval is None
    assert "no interval: fewer than 6 runs" in str(result)
    assert "too few runs for an interval" in serving.picture(result).alt_text


def test_another_source_is_refused(plan):
    with pytest.raises(ValueError, match="source: expected one of replay, gpu"):
        serving.run(plan, source="cpu")


@needs_interpreter
def test_without_a_gpu_nothing_is_timed(plan):
    with pytest.raises(RuntimeError, match='source="replay" serves without one'):
        serving.run(plan, source="gpu")
