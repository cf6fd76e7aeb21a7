"""Question 11, the conclusion: how people say more than a run shows, or less, or something else."""

import copy
from typing import Any

from autograder.misconceptions.q11_plan import PLAN, changed
from autograder.registry import Misconception, RightVariant

# Of PLAN's run, which a test holds: a replay is the same everywhere.
CONCLUSION: dict[str, Any] = {
    "verdict": "refuted",
    "better": "ours",
    "effect": 1.606,
    "interval": (1.553, 1.642),
    "figures": {"ours": 89.30, "vLLM Triton": 140.99},
    "scope": {"workloads": ["long prompts"], "source": "replay", "gpu": "NVIDIA H200"},
}
TRUTH = {"q11_plan": PLAN, "q11_conclusion": CONCLUSION}

# Claims that the same run leaves open, its middle above the claim or below the refutation, and one that it supports.
_OPEN = changed(hypothesis__factor=1.59, refuted_if={"ratio_below": 1.2})
_OPEN_BELOW = changed(hypothesis__factor=1.62, refuted_if={"ratio_below": 1.62})
_SUPPORTED = changed(hypothesis__factor=1.3, refuted_if={"ratio_below": 1.0})
# A run that does not even say who is better.
_EVEN = changed(
    hypothesis__than="FlashAttention-3",
    hypothesis__statistic="p90",
    hypothesis__factor=1.05,
    refuted_if={"ratio_below": 1.05},
    contenders={"ours": {}, "FlashAttention-3": {}},
    workloads__traffic__num_requests=40,
    repetitions=6,
)
_EVEN_CONCLUSION = {
    **CONCLUSION,
    "verdict": "undecided",
    "better": "neither",
    "effect": 1.002,
    "interval": [0.994, 1.089],
    "figures": {"ours": 146.0, "FlashAttention-3": 148.2},
}


def _said(
    plan: dict[str, Any] = PLAN, conclusion: dict[str, Any] = CONCLUSION, **changes: Any
) -> dict[str, Any]:
    made = copy.deepcopy(conclusion)
    for path, value in changes.items():
        *way, last = path.split("__")
        place = made
        for key in way:
            place = place[key]
        place[last] = value
    return {"q11_plan": plan, "q11_conclusion": made}


MISCONCEPTIONS = (
    Misconception(
        "supported-by-the-middle",
        "the claim is called supported because the middle of the ratio points its way. The interval reaches below the claimed "
        "factor: another run could fall there.",
        _said(_OPEN, verdict="supported"),
    ),
    Misconception(
        "refuted-by-the-middle",
        "the claim is called refuted because the middle of the ratio falls short of it. The interval reaches above the line: "
        "the run is not against the claim, it is open.",
        _said(_OPEN_BELOW, verdict="refuted"),
    ),
    Misconception(
        "undecided-to-be-safe",
        "the verdict is undecided although the interval decides. Caution that ignores the evidence is a wrong answer too.",
        _said(verdict="undecided"),
    ),
    Misconception(
        "supported-because-better",
        "better is taken for as much better as claimed. The contender is ahead, by less than the plan's own line.",
        _said(verdict="supported"),
    ),
    Misconception(
        "refuted-so-not-better",
        "a refuted claim is taken for no difference. The interval lies above 1 as a whole.",
        _said(better="neither"),
    ),
    Misconception(
        "refuted-so-the-other",
        "a refuted claim is taken for its opposite: the ratio is above 1, so the contender of the hypothesis is ahead.",
        _said(better="vLLM Triton"),
    ),
    Misconception(
        "a-winner-at-any-price",
        "a winner is named where the interval of the ratio holds 1.",
        _said(_EVEN, _EVEN_CONCLUSION, better="ours"),
    ),
    Misconception(
        "upside-down",
        "the ratio is taken the other way around. For a latency it is that of the slower over that of the faster.",
        _said(effect=0.6225, interval=(0.609, 0.644)),
    ),
    Misconception(
        "the-kernels-ratio",
        "the effect is another number than the run's: the ratio of the kernels alone, for instance, which a request meets in a "
        "part of its time only.",
        _said(effect=8.04),
    ),
    Misconception(
        "no-interval",
        "the effect is given without the interval that says how far another run could lie from it.",
        _said(interval=None),
    ),
    Misconception(
        "a-narrower-interval",
        "the interval is narrower than the run's own: a standard error, or the runs without their outermost.",
        _said(interval=(1.59, 1.62)),
    ),
    Misconception(
        "another-interval",
        "the interval is another one's: of a contender's figure, or of another metric.",
        _said(interval=(86.43, 90.18)),
    ),
    Misconception(
        "seconds",
        "the figures are given in seconds.",
        _said(figures={"ours": 0.0893, "vLLM Triton": 0.1410}),
    ),
    Misconception(
        "swapped",
        "the figures have changed places.",
        _said(figures={"ours": 140.99, "vLLM Triton": 89.30}),
    ),
    Misconception(
        "another-statistic",
        "the figures are those of another statistic or metric than the claimed one.",
        _said(figures={"ours": 151.1, "vLLM Triton": 291.9}),
    ),
    Misconception(
        "for-every-workload",
        "the conclusion is stretched to workloads that never ran.",
        _said(scope__workloads=["long prompts", "many short decodes"]),
    ),
    Misconception(
        "measured-here",
        "a replay is passed off as a measurement.",
        _said(scope__source="measured"),
    ),
    Misconception(
        "for-every-gpu",
        "the conclusion is stretched to other GPUs. Memory, arithmetic and their ratio differ, and with them who is ahead.",
        _said(scope__gpu="any NVIDIA GPU"),
    ),
)

RIGHT_VARIANTS = (
    RightVariant("supported", _said(_SUPPORTED, verdict="supported")),
    RightVariant("undecided", _said(_OPEN, verdict="Undecided")),
    RightVariant(
        "neither-is-better",
        _said(_EVEN, _EVEN_CONCLUSION, scope__workloads="long prompts", scope__gpu="H200"),
    ),
    RightVariant(
        "rounded",
        _said(effect=1.61, interval=[1.55, 1.64], figures={"ours": 89.3, "vLLM Triton": 141.0, "note": "ms"}),
    ),
    RightVariant(
        "one-run-is-undecided",
        _said(
            changed(repetitions=1),
            verdict="undecided",
            better="neither",
            interval=None,
            effect=1.553,
            figures={"ours": 86.9, "vLLM Triton": 135.0},
        ),
    ),
)
