"""Question 11, the plan: how benchmarks come to say what one wanted to hear, each a plan with one thing wrong with it."""

import copy
from typing import Any

from autograder.registry import Misconception, RightVariant

# The solution, in which the mistakes below are made; source/04_design.py walks through it.
PLAN: dict[str, Any] = {
    "hypothesis": {
        "faster": "ours",
        "than": "vLLM Triton",
        "workload": "long prompts",
        "metric": "ttft_ms",
        "statistic": "p50",
        "factor": 2.0,
    },
    "refuted_if": {"ratio_below": 2.0},
    "workloads": {
        "long prompts": {
            "arrivals": {"process": "poisson", "rate": 5, "burstiness": 1.0},
            "prompt_tokens": {"distribution": "uniform", "low": 2048, "high": 4096},
            "output_tokens": {"distribution": "uniform", "low": 16, "high": 64},
            "shared_prefix_tokens": 0,
            "num_requests": 100,
        }
    },
    "metrics": {"ttft_ms": ["p50", "p90"], "itl_ms": ["p50", "p99"], "goodput_per_s": ["rate"]},
    "target": {"ttft_ms": 200, "tpot_ms": 20},
    "warm_up_s": 2.0,
    "repetitions": 9,
    "held_fixed": {
        "seed": 0,
        "cache": "cold",
        "dtype": "bfloat16",
        "block_size": 16,
        "num_blocks": 8192,
        "max_num_seqs": 64,
        "max_num_batched_tokens": 2048,
    },
    "contenders": {"ours": {}, "vLLM Triton": {}},
}
TRUTH = {"q11_plan": PLAN}


def changed(**changes: Any) -> dict[str, Any]:
    """PLAN with other values, a double underscore going one dict deeper; None takes a key out."""
    plan = copy.deepcopy(PLAN)
    for path, value in changes.items():
        *way, last = path.replace("_of_", "__").split("__")
        place = plan
        for key in way:
            place = place["long prompts" if key == "traffic" else key]
        if value is None:
            del place[last]
        else:
            place[last] = value
    return plan


def _wrong(name: str, message: str, **changes: Any) -> Misconception:
    return Misconception(name, message, {"q11_plan": changed(**changes)})


MISCONCEPTIONS = (
    _wrong(
        "any-difference",
        "the claim says only who is better and not by how much. With enough runs the smallest difference is one, and a claim "
        "that no measurement can miss helps nobody to decide.",
        hypothesis__factor=1.0,
        refuted_if={"ratio_below": 1.0},
    ),
    _wrong(
        "no-refutation",
        "the plan says what it hopes to see and not what would prove it wrong. Whoever decides that after the run, decides for "
        "the claim.",
        refuted_if=None,
    ),
    _wrong(
        "refutation-that-cannot-happen",
        "the refutation is out of reach: not even the opposite of the claim would count as one.",
        refuted_if={"ratio_below": 0.0},
    ),
    _wrong(
        "refuted-by-support",
        "one result would support the claim and refute it: the line for refutation lies above the claim.",
        refuted_if={"ratio_below": 3.0},
    ),
    _wrong(
        "closed-loop",
        "requests wait for each other's answers (a closed loop) instead of arriving. The slower server is asked less, and the "
        "queue that users would stand in never forms.",
        workloads__traffic__arrivals={"process": "closed loop"},
    ),
    _wrong(
        "all-at-once",
        "a latency is measured with all requests there from the start. It says how many you sent.",
        workloads__traffic__arrivals={"process": "all at once"},
    ),
    _wrong(
        "above-capacity",
        "a latency is measured at a rate that cannot be served. The queue grows without end, and with it the figure, the longer "
        "you measure.",
        workloads__traffic__arrivals__rate=20,
    ),
    _wrong(
        "too-little-load",
        "requests come one by one. A batch of one tells little about kernels that are made for batches, and nothing waits.",
        workloads__traffic__arrivals__rate=0.5,
        warm_up_s=10.0,
    ),
    _wrong(
        "throughput-of-the-traffic",
        "throughput is measured below saturation. There it equals the rate at which requests come, and every server that keeps "
        "up looks the same.",
        hypothesis__metric="tokens_per_s",
        hypothesis__statistic="rate",
        metrics={"tokens_per_s": ["rate"], "ttft_ms": ["p50"], "itl_ms": ["p99"]},
    ),
    _wrong(
        "mean-for-a-tail",
        "a claim about the tail is held against a mean. One request in a hundred can wait ten times as long without moving it.",
        hypothesis__statistic="p90",
        metrics={"ttft_ms": ["mean"], "itl_ms": ["mean"]},
    ),
    _wrong(
        "another-figure",
        "the figure that the claim is about is not measured at all.",
        metrics={"itl_ms": ["p50", "p99"], "goodput_per_s": ["rate"]},
    ),
    _wrong(
        "the-claimed-figure-alone",
        "nothing is measured but the claimed figure. Whoever buys it at the cost of another is not noticed.",
        metrics={"ttft_ms": ["p50", "p90"]},
    ),
    _wrong(
        "no-warm-up",
        "the run counts from its first second. An empty server is a fast server.",
        warm_up_s=0.0,
    ),
    _wrong(
        "a-moment-of-warm-up",
        "the warm-up is shorter than one request takes: the batch is still filling when counting begins.",
        warm_up_s=0.05,
    ),
    _wrong(
        "nothing-but-warm-up",
        "most of the run is cut off as warm-up, and what is left is its end.",
        warm_up_s=25.0,
    ),
    _wrong(
        "cold-against-warm",
        "the cache is warm for one contender and cold for the other.",
        contenders={"ours": {"cache": "warm"}, "vLLM Triton": {}},
    ),
    _wrong("one-run", "it runs once. What one run shows may be its seed.", repetitions=1),
    _wrong(
        "too-few-runs",
        "it runs too seldom for an interval: three runs on the same side are no rarer than three heads in a row.",
        repetitions=3,
    ),
    _wrong(
        "tail-of-a-few",
        "a p99 is claimed of so few requests that it is the slowest one of them.",
        hypothesis__statistic="p99",
        metrics={"ttft_ms": ["p50", "p99"], "goodput_per_s": ["rate"]},
        workloads__traffic__num_requests=80,
    ),
    _wrong(
        "different-traffic",
        "each contender gets traffic of its own, by its own seed.",
        contenders={"ours": {"seed": 0}, "vLLM Triton": {"seed": 1}},
    ),
    _wrong(
        "different-dtype",
        "the contenders compute with different numbers: half the bytes is half the time, whoever reads them.",
        contenders={"ours": {"dtype": "float8_e4m3fn"}, "vLLM Triton": {}},
    ),
    _wrong(
        "different-block-size",
        "the contenders' caches have blocks of different sizes.",
        contenders={"ours": {"block_size": 64}, "vLLM Triton": {}},
    ),
    _wrong(
        "different-batch",
        "one server may run more requests at a time than the other.",
        contenders={"ours": {}, "vLLM Triton": {"max_num_seqs": 8}},
    ),
)

RIGHT_VARIANTS = (
    RightVariant(
        "throughput-at-saturation",
        {
            "q11_plan": changed(
                hypothesis__metric="tokens_per_s",
                hypothesis__statistic="rate",
                hypothesis__factor=1.2,
                refuted_if={"ratio_below": 1.0},
                workloads__traffic__arrivals={"process": "all at once"},
                workloads__traffic__num_requests=200,
                metrics={"tokens_per_s": "rate", "ttft_ms": {"p50"}},
                target=None,
                repetitions=6,
            )
        },
    ),
    RightVariant(
        "many-short-decodes",
        {
            "q11_plan": changed(
                hypothesis={
                    "faster": "FlashAttention-3",
                    "than": "FlashInfer",
                    "workload": "many short decodes",
                    "metric": "itl_ms",
                    "statistic": "p99",
                    "factor": 1.05,
                },
                refuted_if={"ratio_below": 1.0},
                workloads={
                    "many short decodes": {
                        "arrivals": {"process": "poisson", "rate": 80, "burstiness": 0.5},
                        "prompt_tokens": {"distribution": "lognormal", "median": 64, "low": 16, "high": 512},
                        "output_tokens": {"distribution": "fixed", "tokens": 48},
                        "shared_prefix_tokens": 1024,
                        "num_requests": 240,
                    }
                },
                metrics={"itl_ms": ("p50", "p99"), "ttft_ms": ["p90"]},
                held_fixed__cache="warm",
                contenders={"FlashAttention-3": {}, "FlashInfer": {}},
                warm_up_s=0.5,
                repetitions=12,
            )
        },
    ),
    RightVariant(
        "goodput-and-a-third-contender",
        {
            "q11_plan": changed(
                hypothesis__metric="goodput_per_s",
                hypothesis__statistic="rate",
                hypothesis__factor=1.5,
                refuted_if={"ratio_below": 1.1},
                contenders={"ours": {"seed": 0}, "vLLM Triton": {}, "FlashAttention-3": {}},
            )
        },
    ),
)
