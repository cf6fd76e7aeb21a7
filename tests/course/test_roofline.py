"""The closing page of lesson 3: committed results where there is no GPU, and said to be so."""

import json
from pathlib import Path

import pytest

import kernels
from course import roofline

needs_interpreter = pytest.mark.skipif(not kernels.INTERPRET, reason="with a GPU the kernels are timed")


def test_committed_results_name_their_gpu_and_stay_under_the_roof():
    gpu, points = roofline.committed()
    assert "H200" in gpu
    assert {"decode 1 x 32k", "decode 64 x 2k"} <= {point.case for point in points}
    for point in points:
        floor = max(point.bytes / roofline.H200[0], point.flops / roofline.H200[1]) * 1e6
        assert point.us > 0.9 * floor, point


def test_both_forms_of_result_files_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    cases = [
        {"name": "old", "bytes": 8, "flops": 4, "paged": {"median_us": 2.0}, "dense": None},
        {
            "name": "new",
            "bytes": 8,
            "flops": 4,
            "results": {"paged_decode": {"us": 3.0}, "peer": {"refused": "no"}},
        },
    ]
    file = tmp_path / "bench" / "results" / "h200.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"environment": {"gpu": "X"}, "cases": cases}))
    monkeypatch.setattr(roofline, "find_root", lambda: tmp_path)
    assert roofline.committed() == (
        "X",
        [roofline.Point("old", "kernels", 2.0, 8, 4), roofline.Point("new", "paged_decode", 3.0, 8, 4)],
    )


@needs_interpreter
def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]):
    picture = roofline.show({"yours": lambda *arguments: pytest.fail("there is nothing to time")})
    printed = capsys.readouterr().out
    assert "nothing of yours was timed" in printed
    assert "measured on an NVIDIA H200" in printed
    assert "decode 1 x 32k" in picture.alt_text
    with pytest.raises(RuntimeError, match="nothing to time"):
        roofline.measured({})


@pytest.mark.gpu
def test_on_a_gpu_yours_stands_beside_the_rungs():
    points = roofline.measured({"yours": kernels.paged_decode, "wrong": lambda query, *rest: query})
    assert {"yours", "kernels: GQA packed"} <= {point.who for point in points}
    assert "wrong" not in {point.who for point in points}
