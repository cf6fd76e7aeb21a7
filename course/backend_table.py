"""What each attention backend of vLLM 0.22.1 accepts on a GPU, found by asking the model of its selector.

accepts(capability)    a table: one row per backend in the order of asking, one column per kind of question
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from course.deployments import Table
from course.vllm.rules import Deployment, explain

HEAD_SIZES = (16, 64, 80, 96, 128, 256)
MLA_HEAD_SIZES = (576,)  # DeepSeek-V3's latent and rope part together
DTYPES = ("float16", "bfloat16", "float32")
KV_CACHE_DTYPES = ("auto", "fp8")
BLOCK_SIZES = (8, 16, 32, 64, 128)


def accepts(capability: tuple[int, int], *, use_mla: bool = False) -> Table:
    """What each backend says yes to on a GPU, one question at a time, asked about common values.

    Everything but the value in question is held at the most usual: bfloat16, head size 128 (576 with MLA), a cache
    in the model's dtype, no --block-size. Raises ValueError for a capability that `course.vllm.rules` does not
    cover. Sparse backends, which only sparse models can use, are left out.
    """
    head_sizes = MLA_HEAD_SIZES if use_mla else HEAD_SIZES
    usual = Deployment(capability, "bfloat16", 128 if not use_mla else 576, use_mla=use_mla)
    rows = []
    for backend, reasons in explain(usual).items():
        if "non-sparse not supported" in reasons:
            continue
        works = "compute capability not supported" not in reasons
        rows.append(
            [
                backend,
                "yes" if works else "no",
                _accepted(backend, usual, "head_size", head_sizes),
                _accepted(backend, usual, "dtype", DTYPES),
                _accepted(backend, usual, "kv_cache_dtype", KV_CACHE_DTYPES),
                _accepted(backend, usual, "block_size", BLOCK_SIZES),
                _sinks(backend, usual),
            ]
        )
    major, minor = capability
    kind = "MLA" if use_mla else "not MLA"
    asked = ", ".join(map(str, head_sizes))
    caption = (
        f"Capability {major}.{minor}, {kind}: what each backend accepts, in the order of asking (asked about head "
        f"sizes {asked})"
    )
    header = ["backend", "this GPU", "head size", "dtype", "KV dtype", "--block-size", "sinks"]
    return Table(caption, header, rows)


def _accepted(backend: str, usual: Deployment, field: str, values: Iterable[Any]) -> str:
    """The values against which the backend has no reason of this field's own."""
    reason = f"{field} not supported"
    taken = [
        str(value) for value in values if reason not in explain(replace(usual, **{field: value}))[backend]
    ]
    return ", ".join(taken) or "none of them"


def _sinks(backend: str, usual: Deployment) -> str:
    reasons = explain(replace(usual, has_sink=True))[backend]
    return "no" if any("sink" in reason for reason in reasons) else "yes"
