"""Split-KV schedules without a browser: every token is read once, no time is lost or invented, guesses come before answers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import kernels
from course import widgets
from course.widgets.split_timeline.model import PRESETS, Splitting
from course.widgets.split_timeline.plan import balanced_splits
from course.widgets.split_timeline.schedules import (
    BEGIN,
    MIN_SPLIT_SIZE,
    NAMES,
    TILE_SIZE,
    Timeline,
    run,
    shares,
)
from kernels import decode, runtime

LENS = st.lists(st.one_of(st.integers(0, 40), st.integers(0, 20000)), min_size=1, max_size=8)
# Each asks Triton's interpreter for every program of the kernels' own schedule: few, and chosen.
BALANCED = [(8192, 1536, 1024, 512, 512, 256), (16384,), (0, 1, 0), (0,), (255, 256, 257, 4000)]


def hold(timeline: Timeline, seq_lens: Sequence[int], num_kv_heads: int) -> None:
    """Each token of each request and kv head is in one bar; bars on a multiprocessor do not overlap; no time is too good."""
    read: Counter[tuple[int, int, int]] = Counter()
    for program in timeline.programs:
        share = program.share
        assert 0 <= share.first <= share.end <= seq_lens[share.request]
        assert program.stop - program.start == BEGIN + share.end - share.first
        read.update((share.request, share.kv_head, token) for token in range(share.first, share.end))
    assert read == Counter(
        (request, head, token)
        for request, seq_len in enumerate(seq_lens)
        for head in range(num_kv_heads)
        for token in range(seq_len)
    )
    lanes: dict[int, list[tuple[int, int]]] = {}
    for program in timeline.programs:
        assert 0 <= program.sm < timeline.num_sms
        lanes.setdefault(program.sm, []).append((program.start, program.stop))
    for bars in lanes.values():
        assert bars[0][0] == 0
        assert all(stop == start for (_, stop), (start, _) in pairwise(bars))
    assert timeline.makespan * timeline.num_sms >= sum(seq_lens) * num_kv_heads
    assert 0 <= timeline.idle < 1
    split = any(program.share.num_splits > 1 for program in timeline.programs)
    assert (timeline.merge >= BEGIN) == split
    assert timeline.total == timeline.makespan + timeline.merge


@settings(max_examples=25, deadline=None)
@given(
    LENS,
    st.sampled_from(["one", "fixed"]),
    st.sampled_from([1, 2, 4]),
    st.integers(1, 17),
    st.integers(1, 17),
)
def test_every_token_is_in_one_bar(seq_lens: list[int], name: str, heads: int, sms: int, splits: int) -> None:
    hold(run(shares(name, seq_lens, heads, sms, splits), sms), seq_lens, heads)


@pytest.mark.parametrize("seq_lens", BALANCED)
def test_every_token_is_in_one_bar_of_the_kernels_own_schedule(seq_lens: tuple[int, ...]) -> None:
    made = shares("balanced", seq_lens, 2, 8, 1)
    hold(run(made, 8), seq_lens, 2)
    for share in made:
        # No split is shorter than the least, but for whole tiles, and none much longer than its part of the batch.
        whole = max(MIN_SPLIT_SIZE, sum(seq_lens) * 2 / 8)
        assert share.end - share.first <= whole + TILE_SIZE
        assert share.num_splits == 1 or share.end - share.first > MIN_SPLIT_SIZE // 2 - TILE_SIZE


@pytest.mark.gpu
def test_a_gpu_plans_as_the_interpreter_does() -> None:
    """Three requests, 2 kv heads, 8 splits wanted: 13,000 tokens of both heads, so 3250 at most in a split."""
    assert kernels.device().type == "cuda"
    plan = balanced_splits([8192, 4096, 712], 2, 8, MIN_SPLIT_SIZE)
    assert plan == [
        *((0, number, 3) for number in range(6)),
        *((1, number, 2) for number in range(4)),
        (2, 0, 1),
        (2, 1, 1),
    ]


def test_it_counts_with_the_kernels_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "num_multiprocessors", lambda device: 16)
    config = decode.choose_config(2 * 128, 12, torch.device("cpu"))
    assert (config.tile_size, config.min_split_size) == (TILE_SIZE, MIN_SPLIT_SIZE)
    assert config.wanted_splits == 3 * 16  # three for each multiprocessor side by side; the model has one


@pytest.mark.parametrize(
    ("seq_lens", "first"),
    [(PRESETS["ragged"], ["balanced"]), (PRESETS["one long request"], ["balanced"]), (PRESETS["eight of one length"], ["one", "balanced"])],
)  # fmt: skip
def test_what_the_lesson_says_of_its_batches(seq_lens: tuple[int, ...], first: list[str]) -> None:
    totals = {name: timeline.total for name, timeline in Splitting(seq_lens).timelines().items()}
    assert [name for name in NAMES if totals[name] == min(totals.values())] == first
    if first == ["one", "balanced"]:
        assert Splitting(seq_lens).timelines()["balanced"].merge == 0


def test_a_guess_comes_before_the_answer_and_counts_once() -> None:
    splitting = Splitting([2048] * 4, num_sms=8)
    assert splitting.to_dict()["results"] == []
    assert "Which schedule ends first?" in splitting.describe()
    assert splitting.guess("fixed").startswith("Not this time: ")
    assert splitting.guess("one").startswith("Not this time")
    state = splitting.to_dict()
    assert (state["guessed"], state["score"]) == ("fixed", [0, 1])
    assert json.loads(json.dumps(state)) == state
    for result in state["results"]:
        assert result["programs"] == len(result["bars"])
        assert sum(end - first for _, _, _, _, first, end, _, _ in result["bars"]) == 2 * 4 * 2048
    assert "An estimate, not a measurement" in splitting.describe()
    splitting.lengths("[4096, 64]")
    assert splitting.seq_lens == (4096, 64)
    assert splitting.to_dict()["guessed"] is None
    splitting.change("num_splits", 4)
    assert splitting.guess("one").startswith("Not this time")
    assert splitting.to_dict()["score"] == [0, 2]


@pytest.mark.parametrize(
    ("operation", "arguments", "part"),
    [
        ("lengths", ("12, many",), "seq_lens: expected whole numbers with commas between them"),
        ("lengths", ("",), "seq_lens: expected 1 to 8 requests, got 0"),
        ("lengths", ("1 " * 9,), "got 9"),
        ("lengths", ("-1",), "from 0 to 131072, got -1"),
        ("change", ("num_sms", 132), "num_sms: expected one of [4, 8, 16], got 132"),
        ("change", ("num_sms", True), "num_sms: expected one of"),
        ("change", ("seq_lens", 1), "field: expected one of"),
        ("preset", ("odd",), "name: expected one of"),
        ("guess", ("none",), "name: expected one of"),
        ("timelines", (), "operation: expected one of"),
        ("lengths", (3,), "seq_lens: expected a text"),
    ],
)
def test_what_the_page_may_not_ask_changes_nothing(operation: str, arguments: tuple, part: str) -> None:
    view = widgets.SplitTimeline([100])
    before = view.state
    view._handle_custom_msg({"operation": operation, "arguments": list(arguments)}, [])
    assert part in view.fault
    assert view.state == before


def test_it_shows_itself_as_text_and_folded_table_too() -> None:
    data, _ = widgets.SplitTimeline([4096, 64], num_sms=4)._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    assert "A 4096, B 64" in data["text/plain"]
    assert "After your guess" in data["text/html"]
    assert "balanced splits" in data["text/html"]
    assert "An estimate, not a measurement" in data["text/html"]
