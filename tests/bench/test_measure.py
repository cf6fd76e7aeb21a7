"""A whole measurement, from the command to the files, with the CPU in the place of the GPU."""

import json
from types import SimpleNamespace

import pytest
import torch

import kernels
from bench import measure, render, result_file, run, timing
from bench.all_contenders import choose_contenders
from bench.cases import CASES, Case
from bench.contender import Contender, refuse
from bench.inputs import Inputs
from bench.worker import WorkerLost

SIZES = {"num_heads": 4, "num_kv_heads": 2, "head_size": 64}
SMALL = Case("decode 64 x 2k", ((1, 40), (1, 40)), **SIZES)  # a name that the tables know


class Replayed(timing.Captured):
    """A graph's stand-in: a replay makes the calls again, and takes a microsecond of nobody's time."""

    def __init__(self, calls):
        self.graph = SimpleNamespace(replay=self.again)
        self.calls, self.outputs, self.num_calls = calls, [call() for call in calls], len(calls)

    def again(self):
        for call, output in zip(self.calls, self.outputs, strict=True):
            output.copy_(call())

    def replay(self):
        return 1e-6


@pytest.fixture
def stand_in(monkeypatch):
    """Two copies of the inputs on this machine's device, in a dtype that its kernels take."""
    if not kernels.INTERPRET:
        pytest.skip("a machine with a GPU measures: test_run.py")
    monkeypatch.setattr(timing, "capture", lambda calls, passes: Replayed(calls))
    monkeypatch.setattr(measure, "Inputs", lambda case, seed: Inputs(case, seed, "cpu", torch.float16))
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: SimpleNamespace(L2_cache_size=1, uuid="none")
    )
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)


def raises(inputs):
    raise RuntimeError("this peer\nbroke")


def is_wrong(inputs):
    return lambda: torch.zeros_like(inputs.query)


def leaves_a_part(inputs):
    out = inputs.empty_output()

    def call():
        out[:1] = inputs.expected[:1]
        return out

    return call


def test_a_row_has_everyone_either_measured_or_left_out_with_a_reason(stand_in):
    strange = [
        Contender("refuses", lambda inputs: refuse(True, "not today")),
        Contender("breaks", raises),
        Contender("is wrong", is_wrong),
        Contender("leaves a part", leaves_a_part),
        Contender("has another shape", lambda inputs: lambda: inputs.query[:1].clone()),
        Contender("hung before", raises),
    ]
    known = choose_contenders(["paged_decode", "decode 2", "SDPA", "FlexAttention"])
    row = measure.measure(SMALL, [*known, *strange], {"hung before": "no answer for 90 s"})

    assert row["results"].keys() == {one.name for one in known} | {"is wrong", "leaves a part"}
    for contender in known:
        one = row["results"][contender.name]
        assert one["right"]
        assert 0 < one["error"] < 1e-3
        assert one["us"] == pytest.approx(1.0)
    assert row["results"]["is wrong"]["error"] == pytest.approx(1.0)
    assert not row["results"]["is wrong"]["right"]
    assert row["results"]["leaves a part"]["error"] is None  # it was filled with NaN before
    assert row["skipped"].pop("has another shape").startswith("ValueError: output: expected shape")
    assert row["skipped"] == {
        "refuses": "not today",
        "breaks": "RuntimeError: this peer broke",
        "hung before": "no answer for 90 s",
    }
    assert (row["copies"], row["kind"], row["bytes"]) == (2, "decode", SMALL.bytes)


def test_a_contender_that_takes_the_gpu_with_it_ends_the_row(stand_in, monkeypatch):
    def dead():
        raise RuntimeError("an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", dead)
    with pytest.raises(measure.ContextLost) as lost:
        measure.measure(SMALL, [Contender("breaks", raises)], {})
    assert (lost.value.contender, lost.value.why) == ("breaks", "RuntimeError: this peer broke")


class InThisProcess:
    """A session's stand-in, which asks no worker."""

    def __init__(self, names, excluded):
        self.contenders, self.excluded = (
            [one for name in names for one in choose_contenders([name])],
            excluded,
        )

    def ask(self, task, *arguments, silence):
        if task == "environment":
            versions = {"torch": "t", "triton": "3", "cuda": "13", "driver": "1"}
            return versions | {"gpu": "A GPU", "commit": arguments[0], "date": "2026-01-02T03:04:05"}
        return {"read_bytes_per_s": 4.5e12, "copy_bytes_per_s": 4.3e12, "matmul_flop_per_s": 8e14}

    def ask_about(self, task, case, *, silence):
        if case.kind == "prefill":
            raise WorkerLost("", "no answer for 90 s")
        if task == "compile":
            return measure.compile_only(case, self.contenders, {})
        return measure.measure(case, self.contenders, self.excluded[case.name])

    def stop(self):
        pass


def test_the_command_from_words_to_files(stand_in, monkeypatch, tmp_path, capsys):
    cases = (SMALL, Case("prefill 1 x 2k", ((20, 20),), **SIZES))
    monkeypatch.setattr(run, "Session", InThisProcess)
    monkeypatch.setattr(run, "choose_cases", lambda words: list(cases))
    monkeypatch.setattr(kernels, "INTERPRET", False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A GPU")
    for module in (result_file, render):
        monkeypatch.setattr(module, "RESULTS", tmp_path)

    words = ["--name", "here", "--commit", "abc", "--contenders", "paged_decode", "--contenders", "SDPA"]
    assert run.main(words) == 1  # one case could not be measured
    out, err = capsys.readouterr()
    assert "decode 64 x 2k: 0 MB" in out
    assert "prefill 1 x 2k: not measured" in err
    result = json.loads((tmp_path / "here.json").read_text())
    assert [row["name"] for row in result["cases"]] == ["decode 64 x 2k"]
    assert result["cases"][0]["commit"] == "abc"

    assert render.main(["here"]) == 0
    page = (tmp_path / "here.md").read_text()
    assert "| decode 64 x 2k | 1.0 |" in page
    assert (tmp_path / "here.svg").read_bytes().startswith(b"<?xml")

    cases = cases[:1]
    capsys.readouterr()
    assert run.main([*words, "--resume"]) == 0
    assert "decode 64 x 2k: 0 MB" not in capsys.readouterr().out  # it is there already
    assert {case.name for case in CASES} >= {case.name for case in cases}
