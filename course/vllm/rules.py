"""Which attention backend vLLM 0.22.1 picks by default on an NVIDIA GPU, and why not the others.

    select(deployment)    the backend's name, or "none" where vLLM stops because no backend is valid
    explain(deployment)   vLLM's own reasons against each backend, in the order in which it asks them

The facts are not typed in: `course.vllm.extract` runs vLLM's own code and tabulates it into
`course/data/vllm_0_22_1.json`, and a test holds this module against that code over thousands of deployments. This
module only looks things up, in the way of `vllm/v1/attention/backend.py:271`
(`AttentionBackend.validate_configuration`).

Some of vLLM's rules ask the machine. What is assumed here:
- What the release ships and requires is installed and loads: FlashAttention 2, 3 and 4, FlashMLA,
  flashinfer with flashinfer-cubin, tokenspeed-mla. So FlashAttention is version 3 on capability 9.x, 4 on
  10.x, 2 elsewhere (`vllm/v1/attention/backends/fa_utils.py:56` (`get_flash_attn_version`)), and the TRTLLM
  kernels that flashinfer needs for sinks are there on 10.x (`vllm/utils/flashinfer.py:335`
  (`supports_trtllm_attention`)).
- The user chose nothing but what a `Deployment` says: no --attention-backend, no --attention-config, no
  environment variable except VLLM_BATCH_INVARIANT (`use_batch_invariant`).
- A model with MLA has the head sizes of DeepSeek-V3, and an `index_topk` if it is sparse; no model is a
  hybrid with Mamba layers.
- Only the choice is modelled. vLLM may refuse a deployment elsewhere (bfloat16 on capability 7.5, for one),
  and a model's own code may choose a backend for itself.
"""

import functools
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

TABLE = Path(__file__).parents[1] / "data" / "vllm_0_22_1.json"
NONE = "none"

# The rules that are asked only of a deployment that wants the feature, by the field that says so.
_IF_WANTED = {
    "supports_mm_prefix": "use_mm_prefix",
    "supports_sink": "has_sink",
    "supports_per_head_quant_scales": "use_per_head_quant_scales",
    "supports_non_causal": "use_non_causal",
    "supports_batch_invariance": "use_batch_invariant",
}
# The rules that want the backend and the deployment to be of one kind.
_SAME_KIND = {"is_mla": "use_mla", "is_sparse": "use_sparse"}


@functools.cache
def table() -> dict[str, Any]:
    """What `course.vllm.extract` found in the release, as its JSON holds it."""
    loaded: dict[str, Any] = json.loads(TABLE.read_text(encoding="utf-8"))
    return loaded


@dataclass(frozen=True)
class Deployment:
    """A model on a GPU, as vLLM's selector sees it.

    The fields are those of `vllm/v1/attention/selector.py:21` (`AttentionSelectorConfig`),
    the GPU and the number of heads.

    capability: compute capability of the GPU, e.g. (9, 0) for an H100
    dtype: "float16", "bfloat16" or "float32", the model's
    head_size: elements of one head; for MLA the latent and the rope part together (576 for DeepSeek-V3)
    kv_cache_dtype: vLLM's name for it; "auto" follows the model; None stands for a layer without a cache
    block_size: tokens per block if the user asked for it (--block-size), else None: the backend's choice
    num_heads: query heads of one GPU; matters only to sparse MLA on capability 10.x

    Raises ValueError where a value is not one that the table covers.
    """

    capability: tuple[int, int]
    dtype: str
    head_size: int
    kv_cache_dtype: str | None = "auto"
    block_size: int | None = None
    use_mla: bool = False
    has_sink: bool = False
    use_sparse: bool = False
    use_mm_prefix: bool = False
    use_per_head_quant_scales: bool = False
    attn_type: str = "decoder"
    use_non_causal: bool = False
    use_batch_invariant: bool = False
    num_heads: int | None = None

    def __post_init__(self) -> None:
        covered = table()["covered"]
        if not isinstance(self.capability, tuple) or list(self.capability) not in covered["capability"]:
            known = ", ".join(f"({major}, {minor})" for major, minor in covered["capability"])
            raise ValueError(f"capability: expected one of {known}, got {self.capability!r}")
        for name in ("dtype", "kv_cache_dtype", "attn_type"):
            if getattr(self, name) not in covered[name]:
                raise ValueError(f"{name}: expected one of {covered[name]}, got {getattr(self, name)!r}")
        for name in ("head_size", "block_size", "num_heads"):
            value, last = getattr(self, name), covered[name]
            if value is None and name != "head_size":
                continue
            if type(value) is not int or not 1 <= value <= last:
                raise ValueError(f"{name}: expected an integer from 1 to {last}, got {value!r}")
        for field in fields(self):
            if field.type is bool and type(getattr(self, field.name)) is not bool:
                raise ValueError(f"{field.name}: expected True or False, got {getattr(self, field.name)!r}")


def priorities(deployment: Deployment) -> list[str]:
    """The backends that vLLM asks, in its order (`vllm/platforms/cuda.py:79` (`_get_backend_priorities`))."""
    for case in table()["priorities"]:
        if (
            case["use_mla"] == deployment.use_mla
            and list(deployment.capability) in case["capability"]
            and deployment.kv_cache_dtype in case["kv_cache_dtype"]
            and _within(case["num_heads"], deployment.num_heads)
        ):
            order: list[str] = case["backends"]
            return list(order)
    raise AssertionError(f"no priorities for {deployment}")


def explain(deployment: Deployment) -> dict[str, list[str]]:
    """vLLM's reasons against each backend, in the order in which it asks. No reason: it is valid."""
    return {backend: refusals(backend, deployment) for backend in priorities(deployment)}


def refusals(backend: str, deployment: Deployment) -> list[str]:
    """One backend's reasons against a deployment, whether vLLM would ask it or not.

    Raises ValueError for a backend that vLLM asks on no GPU.
    """
    if backend not in table()["backends"]:
        raise ValueError(f"backend: expected one of {list(table()['backends'])}, got {backend!r}")
    facts = table()["backends"][backend]["facts"]
    reasons = []
    for rule in table()["rules"]:
        fact = _fact(facts[rule["rule"]], deployment)
        if (reason := _reason(rule, fact, deployment)) is not None:
            reasons.append(reason)
    return reasons


def select(deployment: Deployment) -> str:
    """The backend that vLLM picks: the first valid one in its order, or "none" where there is none."""
    return next((backend for backend, reasons in explain(deployment).items() if not reasons), NONE)


def candidates() -> tuple[str, ...]:
    """Every backend that vLLM asks by default on an NVIDIA GPU, and "none"."""
    return (*table()["backends"], NONE)


def place(backend: str, rule: str) -> str:
    """Where a backend's rule stands, as path:line, e.g. `place("FLASH_ATTN", "supports_compute_capability")`.

    Raises ValueError for a backend or a rule that the table does not have.
    """
    if backend not in table()["backends"]:
        raise ValueError(f"backend: expected one of {list(table()['backends'])}, got {backend!r}")
    places: dict[str, str] = table()["backends"][backend]["places"]
    if rule not in places:
        raise ValueError(f"rule: expected one of {list(places)}, got {rule!r}")
    return places[rule]


def _reason(rule: dict[str, Any], fact: Any, deployment: Deployment) -> str | None:
    name = rule["rule"]
    if name == "supports_combination":
        found: str | None = fact[_combination_key(deployment)]
        return found
    reason: str = rule["reason"]
    if name in _SAME_KIND:
        wanted = getattr(deployment, _SAME_KIND[name])
        if wanted == fact:
            return None
        return reason if wanted else str(rule["reason_if_not_wanted"])
    if name in _IF_WANTED:
        refused = getattr(deployment, _IF_WANTED[name]) and not fact
    elif name == "supports_compute_capability":
        refused = not fact
    elif name in ("supports_head_size", "supports_block_size"):
        refused = not _within(fact, getattr(deployment, rule["field"]))
    else:
        refused = getattr(deployment, rule["field"]) not in fact
    return reason.format(attn_type=deployment.attn_type) if refused else None


def _fact(cases: list[dict[str, Any]], deployment: Deployment) -> Any:
    """The value that holds on this GPU; a case says only what its value depends on."""
    for case in cases:
        if list(deployment.capability) in case.get("capability", [list(deployment.capability)]) and (
            deployment.use_batch_invariant
            in case.get("use_batch_invariant", [deployment.use_batch_invariant])
        ):
            return case["value"]
    raise AssertionError(f"no case for {deployment}")


def _combination_key(deployment: Deployment) -> str:
    names = [name for name in ("use_mla", "has_sink", "use_sparse") if getattr(deployment, name)]
    return "+".join(names)


def _within(allowed: dict[str, Any], value: int | None) -> bool:
    """Whether a number is in [first, last, step] ranges; `none` says whether None is."""
    if value is None:
        return bool(allowed["none"])
    return any(value in range(first, last + 1, step) for first, last, step in allowed["ranges"])
