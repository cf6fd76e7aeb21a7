"""What the course replays where there is no GPU: attention's measured times, out of the benchmark's results.

`python -m bench.kernel_times` writes course/data/kernel_times.json from bench/results/nvidia-h200.json: the cases of one
model (32 query heads, 8 kv heads of 128, blocks of 16, bfloat16), the contenders that a server could choose among.
"""

import json
from pathlib import Path
from typing import Any

from bench.cases import CASES, Case
from bench.result_file import RESULTS

SOURCE = "nvidia-h200"
DATA = Path(__file__).parents[1] / "course" / "data" / "kernel_times.json"

# A contender of the serving benchmark: its kernel for steps that only decode, and for those with prompts in them.
CONTENDERS = {
    "ours": ("paged_decode", "paged_attention"),
    "ours, Triton tier": ("decode 3: splits, Triton tier", "prefill, Triton tier"),
    "vLLM Triton": ("vLLM Triton", "vLLM Triton"),
    "FlashAttention-3": ("FlashAttention-3", "FlashAttention-3"),
    "FlashInfer": ("FlashInfer decode, tensor cores", "FlashInfer prefill, fa3"),
}
# Those whose server calls one kernel for the decodes of a mixed step and another for its prompts: one kernel's time on the
# whole batch says nothing about them.
SEPARATE = {"FlashInfer"}


def select(result: dict[str, Any]) -> dict[str, Any]:
    """The part of a benchmark's result that the course replays; wrong outputs are left out."""
    rows = {row["name"]: row for row in result["cases"]}
    environment = result["environment"]
    return {
        "gpu": environment["gpu"],
        "date": environment["date"],
        "commit": environment["commit"],
        "read_bytes_per_s": result["ceilings"]["read_bytes_per_s"],
        "flop_per_s": result["ceilings"]["matmul_flop_per_s"],
        "cases": [
            _row(case, rows[case.name]) for case in CASES if is_of_the_model(case) and case.name in rows
        ],
    }


def is_of_the_model(case: Case) -> bool:
    """Whether the case is of the one model whose serving is replayed."""
    usual = Case("", case.requests)
    return all(getattr(case, name) == getattr(usual, name) for name in vars(usual) if name != "name")


def _row(case: Case, row: dict[str, Any]) -> dict[str, Any]:
    times = {}
    for name, (decode, prompts) in CONTENDERS.items():
        if case.kind == "mixed" and name in SEPARATE:
            continue
        found = row["results"].get(decode if case.kind == "decode" else prompts)
        if found is not None and found["right"]:
            times[name] = {"us": found["us"], "rounds_us": found["rounds_us"]}
    return {
        "name": case.name,
        "kind": case.kind,
        "megabytes": case.kv_bytes / 1e6,
        "gigaflop": case.flops / 1e9,
        "requests": len(case.requests),
        "longest": max(seq_len for _, seq_len in case.requests),
        "us": times,
    }


if __name__ == "__main__":
    content = select(json.loads((RESULTS / f"{SOURCE}.json").read_text(encoding="utf-8")))
    DATA.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
