"""A plan that runs in a moment, and its result, once for all tests."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from course import serving

SMALL: dict[str, Any] = {
    "hypothesis": {
        "faster": "ours",
        "than": "vLLM Triton",
        "workload": "short",
        "metric": "ttft_ms",
        "statistic": "p50",
        "factor": 1.2,
    },
    "refuted_if": {"ratio_below": 1.0},
    "workloads": {
        "short": {
            "arrivals": {"process": "poisson", "rate": 40, "burstiness": 1.0},
            "prompt_tokens": {"distribution": "uniform", "low": 200, "high": 400},
            "output_tokens": {"distribution": "uniform", "low": 4, "high": 12},
            "shared_prefix_tokens": 64,
            "num_requests": 40,
        }
    },
    "metrics": {"ttft_ms": ["p50"], "itl_ms": ["p99", "mean"], "goodput_per_s": ["rate"]},
    "target": {"ttft_ms": 60, "tpot_ms": 30},
    "warm_up_s": 0.2,
    "repetitions": 6,
    "held_fixed": {
        "seed": 3,
        "cache": "cold",
        "dtype": "bfloat16",
        "block_size": 16,
        "num_blocks": 512,
        "max_num_seqs": 32,
        "max_num_batched_tokens": 1024,
    },
    "contenders": {"ours": {}, "vLLM Triton": {}},
}


@pytest.fixture
def plan() -> dict[str, Any]:
    return copy.deepcopy(SMALL)


@pytest.fixture(scope="session")
def result() -> serving.Result:
    return serving.run(copy.deepcopy(SMALL))


@pytest.fixture
def changed(plan: dict[str, Any]) -> Callable[[str, Any], dict[str, Any]]:
    """changed("workloads.short.num_requests", 5): the plan with another value there; ... takes the key out."""

    def change(path: str, value: Any) -> dict[str, Any]:
        *way, last = path.split(".")
        place = plan
        for key in way:
            place = place[key]
        if value is ...:
            del place[last]
        else:
            place[last] = value
        return plan

    return change
