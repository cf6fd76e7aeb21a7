"""What the course replays is what the benchmark found; and the comparison of the two ways of timing, without a GPU."""

import json

import pytest

from bench import kernel_times, serving_agreement
from bench.cases import CASES, Case
from bench.result_file import RESULTS
from bench.serving_agreement import AGREE, APART, LAUNCH_US, NOTHING, Row, bench_name, cases, step_of, table
from course.serving import kernel_times as replayed


def test_what_is_replayed_is_what_the_benchmark_found():
    """Renewed by `python -m bench.kernel_times`."""
    result = json.loads((RESULTS / f"{kernel_times.SOURCE}.json").read_text(encoding="utf-8"))
    assert json.loads(kernel_times.DATA.read_text(encoding="utf-8")) == kernel_times.select(result)
    assert kernel_times.DATA == replayed.DATA
    assert "H200" in replayed.committed()["gpu"]


def test_wrong_outputs_and_other_models_are_left_out():
    times = {"us": 2.0, "rounds_us": [2.0]}
    results = {
        "paged_decode": {**times, "right": True},
        "vLLM Triton": {**times, "right": False},
        "torch SDPA, dense": {**times, "right": True},
    }
    content = {
        "environment": {"gpu": "X", "date": "d", "commit": "c"},
        "ceilings": {"read_bytes_per_s": 1.0, "matmul_flop_per_s": 2.0},
        "cases": [{"name": case.name, "results": results} for case in CASES],
    }
    selected = kernel_times.select(content)
    names = [case["name"] for case in selected["cases"]]
    assert "decode 64 x 2k" in names
    assert not [
        name for name in names if "MQA" in name or "fp8" in name or "window" in name or "latent" in name
    ]
    first = selected["cases"][0]
    assert first["us"] == {"ours": times}
    assert (first["requests"], first["longest"]) == (1, 32768)


def test_a_case_is_a_step_with_the_same_work():
    """The sizes that the replay computes from a step are those of the benchmark's own count."""
    for case in cases():
        step = step_of(case)
        assert step.num_tokens == case.num_tokens
        if case.kind == "decode":
            assert replayed.megabytes(step.decodes) == pytest.approx(case.kv_bytes / 1e6)
        if case.kind == "prefill":
            assert replayed.gigaflops(step.prompts) == pytest.approx(case.flops / 1e9)
    mixed = next(case for case in cases() if case.kind == "mixed")
    assert len(step_of(mixed).decodes) == 64
    assert step_of(mixed).prompts == [(2048, 2048)]


def test_everybody_has_a_counterpart_in_the_benchmark():
    known = {contender.name for contender in serving_agreement.CONTENDERS}
    for contender in replayed.contenders():
        assert {bench_name(contender, case) for case in cases()} - {None} <= known
    mixed = next(case for case in cases() if case.kind == "mixed")
    assert bench_name("FlashInfer", mixed) is None
    assert bench_name("ours", Case("d", ((1, 9),))) == "paged_decode"


def test_apart_is_further_than_both_spreads():
    near = Row("a", "ours", [100.0, 102.0, 101.0], [97.0, 98.0, 96.0], 99.0)
    far = Row("b", "ours", [100.0, 102.0, 101.0], [86.0, 87.0, 86.5], 99.0)
    busy = Row("c", "ours", [100.0, 102.0, 400.0], [86.0, 87.0, 86.5], 99.0)
    assert (near.apart_us, near.allowed_us, near.verdict) == (4.0, 4.0 + LAUNCH_US, AGREE)
    assert (far.apart_us, far.allowed_us, far.verdict) == (14.5, 3.0 + LAUNCH_US, APART)
    assert busy.verdict == NOTHING
    text = table([near, far, busy], "a GPU")
    assert "1 of 2 agree; 1 say nothing" in text
    assert text.count("**apart**") == 1


def test_without_a_gpu_there_is_nothing_to_compare(capsys, monkeypatch):
    monkeypatch.setattr(serving_agreement.torch.cuda, "is_available", lambda: False)
    assert serving_agreement.main() == 2
    assert "needs a CUDA GPU" in capsys.readouterr().out
