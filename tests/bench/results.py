"""A result that no machine measured, for the tests of what is made from results."""

from typing import Any

from bench import result_file, targets
from bench.all_contenders import CONTENDERS
from bench.cases import CASES
from bench.result_file import FORMAT


def make_result(**speeds: float) -> dict[str, Any]:
    """Every contender that is one word for Python, at the given share of the data sheet's bandwidth or of 800 TFLOP/s.

    `fa3` is FlashAttention-3, `vllm` vLLM's Triton kernel, `ours` what a caller calls, `dense` torch's SDPA.
    """
    names = {
        "fa3": "FlashAttention-3",
        "vllm": "vLLM Triton",
        "dense": "torch SDPA, dense",
    }
    result: dict[str, Any] = {
        "format": FORMAT,
        "environment": {
            "gpu": "NVIDIA H200",
            "torch": "2.11",
            "triton": "3.6",
            "cuda": "13.0",
            "driver": "1",
            "date": "2026-01-02T03:04:05",
        },
        "ceilings": {"read_bytes_per_s": 4.5e12, "copy_bytes_per_s": 4.3e12, "matmul_flop_per_s": 8e14},
        "contenders": {contender.name: contender.describe() for contender in CONTENDERS},
        "cases": [],
    }
    for case in CASES:
        floor = max(case.bytes / 4.8e12, case.flops / 8e14)
        row: dict[str, Any] = {
            "name": case.name,
            "kind": case.kind,
            "bytes": case.bytes,
            "kv_bytes": case.kv_bytes,
            "flops": case.flops,
            "commit": "abc",
            "clocks": {"sm_mhz": [1500.0, 1700.0, 1980.0], "throttle_reasons": ["power cap"]},
            "results": {},
            "skipped": {"FlexAttention": "there is a reason"},
        }
        for short, share in speeds.items():
            seconds = floor / share
            row["results"][names.get(short) or targets.CALLS[case.kind]] = {
                "us": seconds * 1e6,
                "tb_per_s": case.bytes / seconds / 1e12,
                "tflop_per_s": case.flops / seconds / 1e12,
                "error": 0.002,
                "right": True,
            }
        result_file.put(result, row, [one.name for one in CASES])
    return result
