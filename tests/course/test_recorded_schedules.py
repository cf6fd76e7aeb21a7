"""Recorded schedules: what is drawn and said of times, on times that are known; on a GPU, real ones."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import kernels
from course import recorded_schedules
from course.gpu_timeline import Recorded
from course.widgets.split_timeline.model import Splitting
from course.widgets.split_timeline.schedules import NAMES, run, shares

LENGTHS = (400, 90, 0)


def modelled(num_sms: int) -> dict[str, list[Recorded]]:
    """The model's programs, a token taking a nanosecond, as if they had been recorded."""
    made = {}
    for name in NAMES:
        cut = [share for share in shares(name, LENGTHS, 2, num_sms, 4) if share.end > share.first]
        programs = run(cut, num_sms).programs
        pieces = recorded_schedules.pieces_of(cut)
        made[name] = [
            Recorded(piece, each.sm, each.start, each.stop)
            for piece, each in zip(pieces, programs, strict=True)
        ]
    return made


def test_a_schedules_pieces_are_all_its_tokens_once() -> None:
    for name in NAMES:
        pieces = recorded_schedules.pieces_of(shares(name, LENGTHS, 2, 4, 4))
        tokens = [(p.request, p.kv_head, t) for p in pieces for t in range(p.start, p.stop)]
        assert sorted(tokens) == [
            (r, h, t) for r, n in enumerate(LENGTHS) for h in range(2) for t in range(n)
        ]


def test_it_says_when_the_last_program_ended_and_who_waited() -> None:
    recorded = modelled(4)
    one = recorded_schedules.describe(recorded, 4)[0]
    # Two programs of 400 and two of 90, each with 256 to begin, on four multiprocessors.
    waited = 1 - (2 * 656 + 2 * 346) / (4 * 656)
    assert one.startswith(f"{NAMES['one']}: 4 programs, the last ends after 0.7 us; {100 * waited:.0f} %")


def test_programs_at_the_same_time_on_a_multiprocessor_count_once() -> None:
    piece = recorded_schedules.pieces_of(shares("one", (5,), 1, 1, 1))[0]
    together = [Recorded(piece, 0, 0, 1000), Recorded(piece, 0, 500, 2000)]
    assert "0 % of the multiprocessors' time" in recorded_schedules.describe({"one": together}, 1)[0]
    assert "50 % of the multiprocessors' time" in recorded_schedules.describe({"one": together}, 2)[0]


def test_the_picture_says_what_it_shows() -> None:
    picture = recorded_schedules.draw(modelled(4), 4, "Recorded on a model")
    assert picture.alt_text.startswith("Recorded on a model. ")
    assert all(title in picture.alt_text for title in NAMES.values())
    assert len(picture.axes) == 3
    assert picture._repr_mimebundle_()["text/html"].startswith("<img")


@pytest.mark.skipif(not kernels.INTERPRET, reason="there is a GPU")
def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert recorded_schedules.show([64]) is None
    assert "No GPU here: nothing was recorded" in capsys.readouterr().out


@pytest.mark.skipif(not kernels.INTERPRET, reason="there is a GPU")
def test_without_a_gpu_the_lessons_batch_is_another_machines(capsys: pytest.CaptureFixture[str]) -> None:
    picture = recorded_schedules.show(recorded_schedules.KEPT_SEQ_LENS)
    assert picture is not None
    told = capsys.readouterr().out
    assert "another machine's NVIDIA H100" in told
    assert all(title in told and title in picture.alt_text for title in NAMES.values())
    assert picture._repr_mimebundle_()["text/html"].startswith('<img alt="Recorded on NVIDIA H100')


def test_the_lesson_shows_the_batch_that_is_kept() -> None:
    lesson = (Path(__file__).parents[2] / "source" / "03_build.py").read_text(encoding="utf-8")
    assert f"recorded_schedules.show({recorded_schedules.KEPT_SEQ_LENS})" in lesson


def test_what_the_lesson_says_of_it_is_what_was_recorded() -> None:
    kept = json.loads(recorded_schedules.KEPT.read_text(encoding="utf-8"))
    one, fixed, balanced = (float(us) for us in re.findall(r"ends after ([\d.]+) us", kept["alt_text"]))
    lesson = (Path(__file__).parents[2] / "source" / "03_build.py").read_text(encoding="utf-8")
    assert f"by a hair: {balanced} us, and {fixed} with 16 splits for everybody" in lesson
    assert f"Without splits it is {one:.0f} us" in lesson
    model = Splitting(recorded_schedules.KEPT_SEQ_LENS).timelines()
    assert f"{model['balanced'].makespan} against {model['fixed'].makespan} tokens" in lesson


@pytest.mark.gpu
@pytest.mark.skipif(kernels.INTERPRET, reason="needs a CUDA GPU")
def test_what_is_kept_is_what_was_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded_schedules.keep(tmp_path / "kept.json")
    monkeypatch.setattr(recorded_schedules, "KEPT", tmp_path / "kept.json")
    monkeypatch.setattr(kernels, "INTERPRET", True)
    assert recorded_schedules.show(recorded_schedules.KEPT_SEQ_LENS) is not None


@pytest.mark.gpu
@pytest.mark.skipif(kernels.INTERPRET, reason="needs a CUDA GPU")
def test_on_a_gpu_every_schedule_is_recorded() -> None:
    recorded = recorded_schedules.record_schedules([4096, 300, 0], num_kv_heads=2)
    assert list(recorded) == list(NAMES)
    assert all(each.end_ns > 0 for programs in recorded.values() for each in programs)
    picture = recorded_schedules.show([4096, 300, 0], num_kv_heads=2)
    assert picture is not None
    assert "Recorded on" in picture.alt_text
