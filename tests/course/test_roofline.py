"""The closing page of lesson 3: committed results where there is no GPU, and said to be so."""

import json
from pathlib import Path

import pytest

import kernels
from bench.targets import data_sheet_bytes_per_s
from course import roofline

needs_interpreter = pytest.mark.skipif(not kernels.INTERPRET, reason="with a GPU the kernels are timed")


def test_committed_results_name_their_gpu_and_stay_under_the_roof():
    kept = roofline.committed()
    assert "H200" in kept.gpu
    measured = {"environment": {"gpu": kept.gpu}, "ceilings": {}}
    assert data_sheet_bytes_per_s(measured) == roofline.BYTES_PER_S
    assert {point.case for point in kept.points} == set(roofline.CASES)
    assert {point.who for point in kept.points} == set(roofline.CONTENDERS.values())
    for point in kept.points:
        floor = max(point.bytes / roofline.BYTES_PER_S, point.flops / kept.flop_per_s) * 1e6
        assert point.us > floor, point


def test_what_is_kept_is_what_the_benchmark_found():
    result = Path(__file__).parents[2] / "bench" / "results" / "nvidia-h200.json"
    assert roofline.committed() == roofline.select(json.loads(result.read_text()))


def test_what_the_lesson_says_of_them_is_what_they_are():
    kept = roofline.committed()
    packed, splits = "kernels: GQA packed", "kernels: split, paged_decode"
    by = {(point.who, point.case): point for point in kept.points}

    def share(who: str) -> str:
        point = by[who, "decode 1 x 32k"]
        floor = max(point.bytes / roofline.BYTES_PER_S, point.flops / kept.flop_per_s)
        return f"{100e6 * floor / point.us:.0f} %"

    lesson = " ".join(
        (Path(__file__).parents[2] / "source" / "03_build.py").read_text().replace("\n#", "").split()
    )
    assert f"packed heads reach {share(packed)} of the roof there, splits {share(splits)}" in lesson
    packed_us, splits_us = (by[who, "decode 64 x 2k"].us for who in (packed, splits))
    assert f"a little ahead, {packed_us:.0f} against {splits_us:.0f} us" in lesson


def test_wrong_outputs_and_what_was_not_asked_for_are_left_out():
    results = {
        "paged_decode": {"us": 3.0, "right": True},
        "vLLM Triton": {"us": 1.0, "right": False},
        "paged_attention": {"us": 2.0, "right": True},
    }
    case = {"bytes": 8, "flops": 4, "results": results}
    cases = [{"name": "decode 1 x 32k"} | case, {"name": "prefill 1 x 2k"} | case]
    content = {"environment": {"gpu": "X"}, "ceilings": {"matmul_flop_per_s": 7.0}, "cases": cases}
    point = roofline.Point("decode 1 x 32k", "kernels: split, paged_decode", 3.0, 8, 4)
    assert roofline.select(content) == roofline.Committed("X", 7.0, [point])


def test_the_ladder_has_a_bar_for_each_kernel_and_case_and_yours_come_first():
    kept = roofline.committed()
    one = kept.points[0]
    yours = roofline.Point(one.case, "yours, one pass", 2 * one.us, one.bytes, one.flops)
    picture = roofline.draw([*kept.points, yours], roofline.BYTES_PER_S, kept.flop_per_s, "a title")
    roof, ladder = picture.axes
    rungs = [label.get_text() for label in ladder.get_yticklabels()]
    assert rungs == ["yours, one pass", *roofline.CONTENDERS.values()]
    assert len(ladder.patches) == len(kept.points) + 1
    assert len(roof.lines) == 1 + len(kept.points) + 1  # the roof itself
    # A bar is as long as the share that the words say.
    floor = max(one.bytes / roofline.BYTES_PER_S, one.flops / kept.flop_per_s) * 1e6
    assert ladder.patches[0].get_width() == pytest.approx(floor / yours.us)
    assert (
        f"yours, one pass, {one.case}: {yours.us:.0f} us, {100 * floor / yours.us:.0f} % of the roof"
        in picture.alt_text
    )
    texts = [text.get_text() for text in ladder.texts]
    assert f"{one.us:.0f} us, {100 * floor / one.us:.0f} %" in texts


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
