"""What a plan must hold: each thing that is missing or cannot be is named with its place."""

import copy
import re

import pytest

from course.serving import PlanError, read_plan
from tests.course.serving.conftest import SMALL


def test_a_plan_is_read_whole(plan):
    read = read_plan(plan)
    assert read.hypothesis.metric == "ttft_ms"
    assert read.ratio_below == 1.0
    assert read.workloads["short"].arrivals.rate == 40
    assert read.metrics == {"ttft_ms": ("p50",), "itl_ms": ("mean", "p99"), "goodput_per_s": ("rate",)}
    assert read.settings("ours") == read.held_fixed == plan["held_fixed"]


def test_what_is_read_does_not_change_with_the_dict(plan):
    read = read_plan(plan)
    before = copy.deepcopy(read)
    plan["workloads"]["short"]["arrivals"]["rate"] = 1
    plan["contenders"]["ours"]["seed"] = 9
    plan["held_fixed"]["seed"] = 9
    assert read == before


@pytest.mark.parametrize(
    "path",
    [path for path in SMALL if path != "target"] + [f"held_fixed.{name}" for name in SMALL["held_fixed"]],
)
def test_what_is_missing_is_named(path, changed):
    with pytest.raises(PlanError, match=f"{path.split('.')[-1]}.* is missing"):
        read_plan(changed(path, ...))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("hypothesis.than", "ours", 'expected two contenders, got "ours"'.replace('"', "'")),
        (
            "hypothesis.faster",
            "SDPA",
            'hypothesis["faster"]: expected one of ours, ours, Triton tier, vLLM Triton',
        ),
        ("hypothesis.metric", "latency", 'hypothesis["metric"]: expected one of ttft_ms, itl_ms'),
        ("hypothesis.statistic", "p98", 'hypothesis["statistic"]: expected one of mean, p50'),
        ("hypothesis.factor", 0.5, 'hypothesis["factor"]: expected a number from 1 to 100, got 0.5'),
        ("hypothesis.factor", float("nan"), 'hypothesis["factor"]: expected a number from 1 to 100, got nan'),
        ("hypothesis.workload", "long", 'hypothesis["workload"]: expected one of short'),
        ("hypothesis.because", "I say so", "hypothesis: nothing here is called 'because'"),
        ("refuted_if", 1.0, "refuted_if: expected a dict with names for keys, got a float"),
        ("workloads", {}, "workloads: expected 1 to 3 by name, got 0"),
        ("workloads.short.arrivals.process", "uniform", "expected one of poisson, all at once, closed loop"),
        ("workloads.short.arrivals.process", "closed loop", "a closed loop is not run here"),
        ("workloads.short.arrivals.rate", ..., '["arrivals"]["rate"] is missing'),
        ("workloads.short.arrivals.rate", True, '["rate"]: expected a number from 0.1 to 10000, got a bool'),
        (
            "workloads.short.arrivals.rate",
            float("inf"),
            '["rate"]: expected a number from 0.1 to 10000, got inf',
        ),
        (
            "workloads.short.prompt_tokens.high",
            100,
            '["high"]: expected a whole number from 200 to 4096, got 100',
        ),
        ("workloads.short.prompt_tokens.mean", 100, "nothing here is called 'mean'"),
        ("workloads.short.output_tokens", {"distribution": "fixed"}, '["tokens"] is missing'),
        ("workloads.short.num_requests", 10**9, '["num_requests"]: expected a whole number from 20 to 1000'),
        ("metrics", {}, "metrics: expected at least one"),
        ("metrics.ttft_ms", ["p51"], 'metrics["ttft_ms"]: expected one of mean, p50'),
        ("metrics.ttft_ms", 5, 'metrics["ttft_ms"]: expected a list of statistics, got an int'),
        ("target", ..., "target is missing: goodput counts the requests that meet it"),
        ("target.itl_ms", 5, "target: nothing here is called 'itl_ms'"),
        ("repetitions", 2.5, "repetitions: expected a whole number from 1 to 50, got 2.5"),
        (
            "held_fixed.dtype",
            "float16",
            "held_fixed[\"dtype\"]: expected 'bfloat16', the only one that was measured",
        ),
        ("held_fixed.cache", "hot", 'held_fixed["cache"]: expected one of cold, warm'),
        (
            "held_fixed.num_blocks",
            10,
            "num_blocks: a request may reach 476 tokens, and the cache has room for 160",
        ),
        ("contenders", {"ours": {}}, "contenders: expected two or more by name, got 1"),
        ("contenders.ours", {"gpu": "H200"}, "contenders['ours']: nothing here is called 'gpu'"),
        ("contenders.ours", {"block_size": 64}, "block_size 64 was never measured, only 16 was"),
        ("contenders", {"ours": {}, "FlashInfer": {}}, "hypothesis: expected one of ours, FlashInfer"),
        ("workloads.short.output_tokens.high", 512, None),
    ],
)
def test_what_cannot_be_is_named(path, value, message, changed):
    if message is None:
        changed("workloads.short.num_requests", 1000)
        changed("repetitions", 50)
        message = "the plan's runs generate about"
    with pytest.raises(PlanError, match=re.escape(message)) as caught:
        read_plan(changed(path, value))
    assert caught.value._render_traceback_() == [f"PlanError: {caught.value}"]


@pytest.mark.parametrize("plan", [None, [], "plan", {}, {1: 2}])
def test_what_is_no_plan_is_told_so(plan):
    with pytest.raises(PlanError, match=r"the plan: expected a dict|hypothesis is missing"):
        read_plan(plan)
