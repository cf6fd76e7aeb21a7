"""The replay's times: through the measurements, never negative, and honest about how far off they are."""

import random

import numpy as np
import pytest

from course.serving import kernel_times
from course.serving.simulate import Step
from course.serving.step_times import NUM_LAYERS, Replay, rest_us, step_us


def test_costs_are_positive_and_more_work_takes_longer():
    for contender in kernel_times.contenders():
        costs = kernel_times.costs(contender)
        assert all(cost >= 0 for cost in (*costs.decode, *costs.prefill))
        small, large = costs.us(Step([100] * 4, [])), costs.us(Step([1000] * 64, []))
        assert 0 < small < large < costs.us(Step([1000] * 64, [(512, 512)]))
        assert costs.us(Step([], [(512, 512)])) < costs.us(Step([], [(512, 2048)]))
        assert costs.us(Step([], [])) == 0


@pytest.mark.parametrize("contender", ["ours", "FlashAttention-3"])
def test_measured_cases_come_out_as_measured(contender):
    """Of even batches, from which the costs are made: within 10 %."""
    costs = kernel_times.costs(contender)
    for name, lengths in (
        ("decode 64 x 2k", [2048] * 64),
        ("decode 256 x 1k", [1024] * 256),
        ("decode 8 x 8k", [8192] * 8),
    ):
        assert costs.decode_us(lengths) == pytest.approx(
            kernel_times.measured_us(name, contender), rel=0.1
        ), name
    for name, prompts in (("prefill 1 x 8k", [(8192, 8192)]), ("2k queries on 16k", [(2048, 16384)])):
        assert costs.prefill_us(prompts) == pytest.approx(
            kernel_times.measured_us(name, contender), rel=0.2
        ), name


def test_the_fit_finds_the_costs_that_made_the_numbers():
    """And gives a cost that would be negative up."""
    sizes = [(10.0, 4, 2000), (400.0, 64, 1000), (90.0, 512, 128), (2000.0, 128, 9000), (50.0, 1, 30000)]
    for true in ((9.0, 0.3, 0.05, 2.0), (9.0, 0.3, 0.0, 0.0)):
        rows = [
            {
                "kind": "decode",
                "megabytes": megabytes,
                "requests": requests,
                "longest": longest,
                "us": {"x": {"us": float(np.dot(true, (1, megabytes, requests, longest / 1000)))}},
            }
            for megabytes, requests, longest in sizes
        ]
        assert kernel_times.fit(rows, "x") == pytest.approx(true, abs=1e-6)
    rows = [{"kind": "prefill", "gigaflop": x, "us": {"x": {"us": 10 * x - 1}}} for x in (1.0, 2.0, 3.0)]
    assert kernel_times.fit(rows, "x")[0] == 0


def test_the_error_of_a_left_out_case_is_that_of_the_others_costs():
    rows = [row for row in kernel_times.committed()["cases"] if row["kind"] == "prefill"]
    others = [row for row in rows if row["name"] != "prefill 1 x 32k"]
    launch, gigaflop = kernel_times.fit(others, "vLLM Triton")
    (left_out,) = [row for row in rows if row not in others]
    predicted = launch + gigaflop * left_out["gigaflop"]
    measured = left_out["us"]["vLLM Triton"]["us"]
    assert kernel_times.errors("vLLM Triton")["prefill 1 x 32k"] == pytest.approx(predicted / measured - 1)
    described = kernel_times.describe(["ours"])
    assert "H200" in described
    assert "FlashInfer" not in described
    assert f"{100 * max(abs(e) for e in kernel_times.errors('ours').values()):.0f} % at worst" in described


def test_the_mixed_case_is_predicted_from_its_parts():
    """vLLM and FlashAttention-3, one kernel for both: within 15 %. FlashInfer calls two, and has no such case."""
    for contender in ("vLLM Triton", "FlashAttention-3"):
        assert abs(kernel_times.errors(contender)["2k prefill + 64 decodes"]) < 0.15
    assert "2k prefill + 64 decodes" not in kernel_times.errors("FlashInfer")


def test_a_run_is_slower_or_faster_by_what_was_measured():
    costs = kernel_times.costs("FlashAttention-3")
    factors = [costs.run_factors(random.Random(seed)) for seed in range(300)]
    assert {decode for decode, _ in factors} <= set(costs.decode_rounds)
    assert max(prefill for _, prefill in factors) > 1.05  # its prefill at the power limit
    assert 0.8 < min(prefill for _, prefill in factors) < 1 < 1.2
    step = Step([512] * 8, [])
    assert Replay().attention_us("ours", "1")(step) == Replay().attention_us("ours", "1")(step)
    assert len({Replay().attention_us("ours", str(seed))(step) for seed in range(20)}) > 5


def test_a_step_is_attention_in_every_layer_and_the_rest():
    step = Step([512] * 8, [(1000, 1000)])
    assert step_us(lambda step: 10.0)(step) == pytest.approx(NUM_LAYERS * 10 + rest_us(1008))
    measured = kernel_times.committed()
    assert rest_us(1) == rest_us(2) == pytest.approx(1e6 * 16e9 / measured["read_bytes_per_s"])
    assert rest_us(4000) == pytest.approx(1e6 * 4000 * 16e9 / measured["flop_per_s"])


def test_it_says_how_much_lay_within_the_measurements():
    inside, outside = Replay(), Replay()
    inside.attention_us("ours", "1")(Step([2048] * 64, []))
    outside.attention_us("ours", "1")(Step([16], [(8, 8)]))
    assert "100 % of attention's time" in inside.describe()
    assert " 0 % of attention's time" in outside.describe()
    assert "REPLAY" in Replay().describe()


def test_an_unknown_contender_is_refused():
    with pytest.raises(ValueError, match="contender: expected one of ours"):
        kernel_times.costs("mine")
    with pytest.raises(ValueError, match="was not measured"):
        kernel_times.measured_us("prefill 1 x 3k", "ours")
