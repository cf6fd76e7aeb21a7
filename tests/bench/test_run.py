"""The command, the file that it keeps, its worker processes, and the clocks that it watches."""

import json
from collections import defaultdict

import pytest
import torch

import kernels
from bench import machine, measure, result_file, run, timing
from bench.all_contenders import choose_contenders
from bench.cases import CASES, Case
from bench.contender import ERROR_LIMIT
from bench.worker import Session, Worker, WorkerLost

SMALL = Case("small", ((2, 3), (1, 4)), num_heads=4, num_kv_heads=2, head_size=8)


@pytest.mark.skipif(torch.cuda.is_available(), reason="about machines without a GPU")
def test_without_a_gpu_one_sentence_and_status_2(capsys):
    assert run.main([]) == 2
    said = capsys.readouterr().out
    where = kernels.describe()
    assert said == f"Nothing to measure: benchmarks need a CUDA GPU, and kernels run here on: {where}.\n"


@pytest.mark.parametrize("arguments", [["nothing"], ["--contenders", "nothing"], ["--name", "a/b"]])
def test_an_unknown_word_is_named(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        run.main(arguments)
    assert stopped.value.code == 2
    assert f"got '{arguments[-1]}'" in capsys.readouterr().err


def test_a_row_by_time_with_what_is_wrong_and_what_is_missing():
    row = {
        "name": "c",
        "bytes": 2e6,
        "flops": 3e9,
        "copies": 2,
        "results": {
            "slow": measure.summarise(SMALL, [2e-6] * 5, 1e-3, ERROR_LIMIT),
            "fast": measure.summarise(SMALL, [1e-6] * 5, float("nan"), ERROR_LIMIT),
        },
        "skipped": {"absent": "not installed"},
    }
    lines = run.format_row(row)
    assert [line.split()[0].rstrip(":") for line in lines] == ["c", "fast", "slow", "absent"]
    assert lines[1].endswith("error NaN  WRONG")
    assert lines[3].endswith("not measured: not installed")


def test_wrong_outputs_are_sentences():
    row = {"results": {"paged_decode": measure.summarise(SMALL, [1e-6] * 5, 0.5, 0.25)}}
    assert run.wrong_outputs(row) == ["paged_decode has relative error 0.5, over 2.5e-01"]


def test_a_file_is_named_after_the_gpu():
    assert run.default_name("NVIDIA H200") == "nvidia-h200"


# The numbers of a row


def test_a_summary_is_the_median_of_rounds_and_what_it_means():
    summary = measure.summarise(SMALL, [1e-6, 2e-6, 3e-6, 4e-6, 100e-6], 0.5, 0.6)
    assert summary["us"] == pytest.approx(3.0)
    assert summary["right"]
    assert summary["spread"] == pytest.approx(33.0)
    assert summary["tb_per_s"] == pytest.approx(SMALL.bytes / 3e-6 / 1e12)
    assert summary["tflop_per_s"] == pytest.approx(SMALL.flops / 3e-6 / 1e12)


def test_reasons_are_one_line():
    assert measure.reason(ValueError("a\n  b")) == "ValueError: a b"
    assert len(measure.reason(ValueError("x" * 10_000))) < 400


def test_everyone_takes_turns():
    """In every round each contender once, and not always after the same other."""

    class Replayed:
        num_calls = 1

        def __init__(self, name):
            self.name = name

        def replay(self):
            return 1.0

    turns = []
    rounds = timing.time_in_turns({name: Replayed(name) for name in "abc"}, turns.append)
    assert rounds == {name: [1.0] * timing.NUM_ROUNDS for name in "abc"}
    assert [sorted(turns[i : i + 3]) for i in range(0, len(turns), 3)] == [list("abc")] * timing.NUM_ROUNDS
    assert turns[:3] != turns[3:6]
    assert timing.time_in_turns({}) == {}


def test_clocks_are_summarised():
    lines = [
        "1980, 3201, 40, 300.5, 0x0000000000000000",
        "1500, 3201, 60, 699.0, 0x0000000000000004",
        "cut of",
    ]
    assert machine.summarise_clocks(lines) == {
        "samples": 2,
        "sm_mhz": [1500.0, 1740.0, 1980.0],
        "memory_mhz": [3201.0, 3201.0, 3201.0],
        "celsius": [40.0, 50.0, 60.0],
        "watts": [300.5, 499.75, 699.0],
        "throttle_reasons": ["power cap"],
    }
    assert machine.summarise_clocks([]) == {}


# The file


@pytest.mark.parametrize("name", ["../x", "", "a/b", ".hidden"])
def test_result_path_refuses(name):
    with pytest.raises(ValueError, match="name: expected letters"):
        result_file.result_path(name)
    assert result_file.result_path("nvidia-h200").name == "nvidia-h200.json"


def test_a_case_that_is_measured_again_replaces_its_row(tmp_path):
    path = tmp_path / "new" / "r.json"
    path.parent.mkdir()
    result = result_file.load(path)
    order = [case.name for case in CASES]
    for name, us in ((order[2], 1.0), (order[0], 2.0), (order[2], 3.00001), ("gone", 4.0)):
        result_file.put(result, {"name": name, "us": us}, order)
    result_file.save(path, result)
    assert result_file.load(path)["cases"] == [{"name": order[0], "us": 2.0}, {"name": order[2], "us": 3.0}]


def test_a_file_of_another_format_is_begun_anew(tmp_path):
    path = tmp_path / "r.json"
    path.write_text(json.dumps({"cases": [{"name": "old"}]}))
    assert result_file.load(path)["cases"] == []


# Worker processes


def test_a_worker_answers_and_says_what_went_wrong():
    worker = Worker([])
    try:
        assert worker.ask("environment", "abc", silence=60)["commit"] == "abc"
        with pytest.raises(RuntimeError, match="KeyError: 'nothing'"):
            worker.ask("nothing", silence=60)
        assert worker.ask("environment", "def", silence=60)["commit"] == "def"
    finally:
        worker.stop()


def test_a_silent_worker_is_lost_and_replaced():
    session = Session([], defaultdict(dict))
    try:
        with pytest.raises(WorkerLost, match="no answer for 0 s"):
            session.ask("environment", silence=0.0)
        assert session.ask("environment", "abc", silence=60)["commit"] == "abc"
    finally:
        session.stop()


def test_a_contender_that_kills_its_worker_is_left_out():
    """The first worker dies while it runs "bad"; the second is told to leave it out."""

    excluded = defaultdict(dict)
    session = Session([], excluded)
    told = []

    class FakeWorker:
        def ask(self, task, case, leave_out, silence):
            told.append(dict(leave_out))
            if "bad" not in leave_out:
                raise WorkerLost("bad", "its process died (exit code -11)")
            return "row"

        def stop(self):
            pass

    session._start = FakeWorker
    assert session.ask_about("measure", SMALL, silence=1) == "row"
    assert told == [{}, {"bad": "its process died (exit code -11)"}]
    assert excluded == {"small": {"bad": "its process died (exit code -11)"}}


@pytest.mark.gpu
@pytest.mark.parametrize(
    "case",
    [Case("tiny decode", ((1, 100), (1, 33))), Case("tiny prefill", ((64, 64),))],
    ids=lambda c: c.name,
)
def test_a_small_case_is_measured_and_right(case):
    contenders = choose_contenders(["paged_", "decode ", "SDPA"])
    row = measure.measure(case, contenders, {"decode 2: GQA packed": "left out"})
    assert row["results"]["paged_attention"]["right"]
    assert all(one["right"] for one in row["results"].values())
    assert row["skipped"]["decode 2: GQA packed"] == "left out"
    assert row["results"].keys() | row["skipped"].keys() == {contender.name for contender in contenders}
