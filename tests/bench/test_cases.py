"""The pure parts of the benchmark: what a case counts, which cases are chosen, what is printed and refused."""

import pytest
import torch

from bench import run
from bench.cases import CASES, Case

SMALL = Case("small", ((2, 3), (1, 4)), num_heads=4, num_kv_heads=2, head_size=8)


def test_flops_count_the_pairs_that_are_seen():
    """Queries of the first request see 2 and 3 keys, that of the second 4: 9 pairs, 4 heads, 8 + 8 multiply-adds."""
    assert SMALL.flops == 9 * 4 * (8 + 8) * 2


def test_flops_of_a_whole_prefill_are_the_triangle():
    assert Case("p", ((100, 100),)).flops == 4 * 128 * 32 * (100 * 101 // 2)


def test_bytes_count_keys_and_values_once_and_queries_and_outputs():
    assert SMALL.kv_bytes == 2 * 7 * 2 * 8 * 2
    assert SMALL.bytes == SMALL.kv_bytes + 2 * 3 * 4 * 8 * 2


def test_case_names_differ_and_queries_fit():
    assert len({case.name for case in CASES}) == len(CASES)
    for case in CASES:
        assert all(0 < n_q <= seq_len for n_q, seq_len in case.requests)
        assert case.is_decode == case.name.startswith("decode")


def test_ragged_lengths_are_the_same_every_time():
    ragged = next(case for case in CASES if "ragged" in case.name)
    lengths = [length for _, length in ragged.requests]
    assert len(lengths) == 128
    assert min(lengths) >= 32
    assert max(lengths) > 4000
    assert lengths[:3] == [2862, 3309, 953]


@pytest.mark.parametrize(
    ("requests", "kind"),
    [
        (((1, 9), (1, 9)), "decode"),
        (((9, 9),), "causal"),
        (((3, 9),), None),
        (((1, 9), (1, 8)), None),
        (((1, 1),), "decode"),
    ],
)
def test_dense_kind(requests, kind):
    assert Case("c", requests).dense_kind == kind


def test_copies_are_larger_than_the_cache():
    cache = 50 * 2**20
    for case in CASES:
        copies = run.num_copies(case, cache)
        assert copies >= 2
        assert copies * case.kv_bytes >= 4 * cache


def test_summary_is_median_and_quartiles():
    row = run.summarise([1e-6, 2e-6, 3e-6, 4e-6, 100e-6], SMALL, 0.5)
    assert row["median_us"] == pytest.approx(3.0)
    assert row["min_us"] == pytest.approx(1.0)
    assert row["gb_per_s"] == pytest.approx(SMALL.bytes / 3e-6 / 1e9)
    assert row["tflop_per_s"] == pytest.approx(SMALL.flops / 3e-6 / 1e12)
    assert row["quartile_1_us"] < 3.0 < row["quartile_3_us"]


def test_rows_line_up_with_the_header():
    summary = run.summarise([1e-6, 2e-6, 3e-6], SMALL, 1e-3)
    line = run.format_row({"name": "decode 64 x 2k", "paged": summary, "dense": summary})
    assert len(line) == len(run.HEADER)
    assert line.endswith("1.00")
    assert run.format_row({"name": "x", "paged": summary, "dense": None}).split()[0] == "x"


def test_choose_cases():
    assert run.choose_cases([]) == list(CASES)
    assert {case.name for case in run.choose_cases(["ragged", "4 x 4k"])} == {
        "decode 128 ragged",
        "prefill 4 x 4k",
    }
    with pytest.raises(ValueError, match=r"cases: expected part of a case's name .* got 'nothing'"):
        run.choose_cases(["nothing"])


@pytest.mark.parametrize("name", ["../x", "", "a/b", ".hidden"])
def test_result_path_refuses(name):
    with pytest.raises(ValueError, match="name: expected letters"):
        run.result_path(name)
    assert run.result_path("nvidia-h200").name == "nvidia-h200.json"


@pytest.mark.skipif(torch.cuda.is_available(), reason="about machines without a GPU")
def test_without_a_gpu_one_sentence_and_status_2(capsys):
    assert run.main([]) == 2
    said = capsys.readouterr().out
    assert (
        said
        == "Nothing to measure: benchmarks need a CUDA GPU, and kernels run here on: CPU (Triton interpreter).\n"
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="stands in for a GPU")
@pytest.mark.parametrize(
    "case", [Case("d", ((1, 40), (1, 40))), Case("p", ((20, 20),)), SMALL], ids=lambda c: c.name
)
def test_outputs_are_held_against_the_reference(case, monkeypatch):
    """What is timed on a GPU, run once in the interpreter: right outputs pass, wrong ones and NaN do not."""
    monkeypatch.setattr(run, "DEVICE", "cpu")
    monkeypatch.setattr(run, "DTYPE", torch.float16)
    inputs = run.Inputs(case, seed=0)
    output = run.paged_call(inputs)()
    assert output is inputs.out
    assert run.relative_error(inputs, output) < 1e-3
    dense = run.dense_call(inputs)
    assert (dense is None) == (case.dense_kind is None)
    if dense is not None:
        assert run.relative_error(inputs, dense().transpose(1, 2).flatten(0, 1)) < 1e-3
    assert run.relative_error(inputs, output * 1.1) == pytest.approx(0.1, rel=0.05)
    output[0, 0, 0] = torch.nan
    assert not run.relative_error(inputs, output) <= run.ERROR_LIMIT


def test_an_unknown_case_is_named(capsys):
    with pytest.raises(SystemExit) as stopped:
        run.main(["nothing"])
    assert stopped.value.code == 2
    assert "got 'nothing'" in capsys.readouterr().err


@pytest.mark.gpu
def test_a_small_case_is_measured_and_right():
    row = run.measure(Case("tiny", ((1, 100), (1, 33))))
    assert row["paged"]["relative_error"] <= run.ERROR_LIMIT
    assert row["dense"] is None
    row = run.measure(Case("tiny", ((64, 64),)))
    assert row["dense"]["relative_error"] <= run.ERROR_LIMIT
