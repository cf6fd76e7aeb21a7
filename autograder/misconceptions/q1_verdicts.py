"""Question 1: how people pick a backend, wrong and right. Every mistake is a way to pick, and gives a whole dict."""

from collections.abc import Callable
from dataclasses import replace

from autograder.registry import Misconception, RightVariant
from course.deployments import DEPLOYMENTS, SCENARIOS
from course.vllm.rules import NONE, Deployment, explain, priorities, refusals, select

Pick = Callable[[str, Deployment], str]

TRUTH = {name: select(deployment) for name, deployment in DEPLOYMENTS.items()}


def _all(pick: Pick) -> dict[str, dict[str, str]]:
    return {"q1_verdicts": {name: pick(name, deployment) for name, deployment in DEPLOYMENTS.items()}}


def _without(**fields: object) -> Pick:
    """vLLM's choice by somebody who overlooks these fields and takes them to be as given here."""
    return lambda name, deployment: select(replace(deployment, **fields))  # type: ignore[arg-type]


def _by_the_list_of(capability: tuple[int, int]) -> Pick:
    """The first valid backend, in the order that another GPU's list has."""

    def pick(name: str, deployment: Deployment) -> str:
        order = priorities(replace(deployment, capability=capability))
        return next((backend for backend in order if not refusals(backend, deployment)), NONE)

    return pick


def _head_size_overlooked(name: str, deployment: Deployment) -> str:
    return select(deployment if deployment.use_mla else replace(deployment, head_size=128))


def _flex_takes_everything(name: str, deployment: Deployment) -> str:
    choice = select(deployment)
    return "FLEX_ATTENTION" if choice == NONE else choice


def _last_valid(name: str, deployment: Deployment) -> str:
    return [NONE, *(backend for backend, reasons in explain(deployment).items() if not reasons)][-1]


def _triton_is_second(name: str, deployment: Deployment) -> str:
    first = priorities(deployment)[0]
    if not refusals(first, deployment):
        return first
    return "TRITON_MLA" if deployment.use_mla else "TRITON_ATTN"


def _stops_at_the_first(name: str, deployment: Deployment) -> str:
    first = priorities(deployment)[0]
    return NONE if refusals(first, deployment) else first


def _batch_decides(name: str, deployment: Deployment) -> str:
    return "FLASHINFER" if SCENARIOS[name].batch.startswith("decode") else "FLASH_ATTN"


# Narrow ones first: where an answer is only partly like a mistake, the first that fits is named.
_MISTAKES: tuple[tuple[str, str, Pick], ...] = (
    (
        "sinks-overlooked",
        "attention sinks are overlooked: a backend without a kernel for them refuses, and so does one whose kernel "
        "for them needs a newer GPU.",
        _without(has_sink=False),
    ),
    (
        "block-size-overlooked",
        "--block-size is overlooked: once the user sets it, it is a requirement, and every backend says which sizes "
        "its kernels can read.",
        _without(block_size=None),
    ),
    (
        "kv-cache-dtype-overlooked",
        "the cache's dtype is overlooked: a kernel that reads bfloat16 blocks does not read fp8 ones by itself.",
        _without(kv_cache_dtype="auto"),
    ),
    (
        "mla-overlooked",
        "MLA is overlooked: vLLM has another list for models with latent attention, and no backend of the usual list "
        "reads a latent cache.",
        _without(use_mla=False),
    ),
    (
        "dtype-overlooked",
        "the model's dtype is overlooked: most backends compute in float16 or bfloat16 only.",
        _without(dtype="bfloat16"),
    ),
    (
        "head-size-overlooked",
        "the head size is overlooked: some kernels exist for a few sizes only, or from a smallest size on.",
        _head_size_overlooked,
    ),
    (
        "one-list-for-every-gpu",
        "Hopper's list is used on Blackwell too: on capability 10.x vLLM asks in another order.",
        _by_the_list_of((9, 0)),
    ),
    (
        "blackwell-list-for-every-gpu",
        "Blackwell's list is used on every GPU: that order holds on capability 10.x only.",
        _by_the_list_of((10, 0)),
    ),
    (
        "flex-takes-everything",
        "FLEX_ATTENTION is taken to be valid for whatever the others refuse. It is asked like the others and may refuse: "
        "then nothing is left and vLLM does not start.",
        _flex_takes_everything,
    ),
    (
        "every-gpu-is-an-h100",
        "the GPU is overlooked: every one is treated as an H100. Its compute capability decides the order of asking, "
        "and which kernels exist for it.",
        _without(capability=(9, 0)),
    ),
    (
        "first-in-the-list",
        "the first backend of the priority list is taken without asking it. The list is only the order in which vLLM asks; "
        "each may refuse.",
        lambda name, deployment: priorities(deployment)[0],
    ),
    (
        "always-flash-attn",
        "every deployment gets FLASH_ATTN. It stands first in one of the lists, but it refuses a lot of deployments.",
        lambda name, deployment: "FLASH_ATTN",
    ),
    (
        "last-valid",
        "the last valid backend of the list is taken. The list goes from the most wanted to the least: the first valid one wins.",
        _last_valid,
    ),
    (
        "triton-is-always-second",
        "Triton's backend is taken whenever the first of the list refuses. The second of the list is asked next, and so on.",
        _triton_is_second,
    ),
    (
        "stops-at-the-first-refusal",
        'the answer is "none" whenever the first of the list refuses. vLLM goes on to the next.',
        _stops_at_the_first,
    ),
    (
        "batch-decides",
        "the batch decides (FLASHINFER for decodes, FLASH_ATTN for the rest). vLLM chooses when it builds the model's "
        "layers, before any request has come: nothing that it looks at knows the batch.",
        _batch_decides,
    ),
)

MISCONCEPTIONS = tuple(Misconception(name, message, _all(pick)) for name, message, pick in _MISTAKES)

RIGHT_VARIANTS = (
    RightVariant("lower-case", {"q1_verdicts": {name: verdict.lower() for name, verdict in TRUTH.items()}}),
    RightVariant(
        "blanks-around", {"q1_verdicts": {name: f" {verdict}\n" for name, verdict in TRUTH.items()}}
    ),
    RightVariant("another-order", {"q1_verdicts": dict(reversed(TRUTH.items()))}),
    RightVariant("capital-none", {"q1_verdicts": TRUTH | {n: "None" for n, v in TRUTH.items() if v == NONE}}),
)
