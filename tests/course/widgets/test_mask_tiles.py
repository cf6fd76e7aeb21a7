"""Mask and tiles without a browser: the mask is the reference's, and the tiles are those that the prefill kernel's loops really take."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import kernels
from course import widgets
from course.widgets.mask_tiles.model import PRESETS, Masking, Setting
from kernels import prefill, reference
from kernels.prefill_tiles import Tile

SETTINGS = st.builds(
    lambda computed, new, block_q, tile_size, window, causal: Setting(
        min(computed, 64 - new), new, block_q, tile_size, window, causal
    ),
    st.integers(0, 30),
    st.integers(1, 30),
    st.integers(1, 9),
    st.integers(1, 9),
    st.none() | st.integers(1, 20),
    st.booleans(),
)


def seen_by_reference(setting: Setting) -> list[list[bool]]:
    """Which keys have weight, read from attention itself: all scores alike, and values that name their key."""
    n = setting.seq_len
    query, key = torch.zeros(setting.num_new, 1, n), torch.zeros(n, 1, n)
    weights = reference.dense_attention(
        query,
        key,
        torch.eye(n)[:, None],
        1.0,
        causal=setting.causal,
        sliding_window=setting.sliding_window,
    )
    return [[weight > 0 for weight in row] for row in weights[:, 0].tolist()]


@given(SETTINGS)
@settings(max_examples=60, deadline=None)
def test_the_mask_is_the_references(setting: Setting) -> None:
    masking = Masking(setting)
    mask = [
        [masking.why(query, key) == "seen" for key in range(setting.seq_len)]
        for query in range(setting.num_new)
    ]
    assert mask == seen_by_reference(setting)


@given(SETTINGS)
@settings(max_examples=60, deadline=None)
def test_a_tile_is_skipped_where_nothing_is_seen_and_full_where_everything_is(setting: Setting) -> None:
    masking, rows = Masking(setting), range(setting.num_new)
    counts = masking.counts()
    assert counts["wasted"] >= 0
    for block, row in enumerate(masking.tiles()):
        queries = [query for query in rows if query // setting.block_q == block]
        for number, tile in enumerate(row):
            keys = range(number * setting.tile_size, (number + 1) * setting.tile_size)
            seen = [masking.why(query, key) == "seen" for query in queries for key in keys]
            kind = "full" if all(seen) else "masked" if any(seen) else "skipped"
            if not setting.causal and setting.sliding_window:
                # The kernel goes to the sequence's end, whatever the window: there it may compute for nothing.
                assert tile.kind == kind or (tile.kind, kind) == ("masked", "skipped")
            else:
                assert tile.kind == kind
            assert tile.why


RUNS = {
    "prefill": Setting(0, 12, 4, 4),
    "chunk": Setting(10, 6, 4, 4),
    "chunk that ends in a tile": Setting(9, 6, 4, 8),
    "window": Setting(0, 16, 4, 4, 6),
    "wide window": Setting(13, 5, 2, 4, 9),
    "decode": Setting(14, 1, 4, 4),
    "not causal": Setting(5, 5, 4, 4, None, False),
}


@pytest.mark.skipif(not kernels.INTERPRET, reason="the loops are watched in Triton's interpreter")
@pytest.mark.parametrize("name", RUNS)
def test_the_tiles_are_those_of_the_prefill_kernels_loops(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    setting = RUNS[name]
    taken: dict[int, list[tuple[int, int, bool]]] = {}
    attend = prefill._attend

    def watched(state: Any, start: Any, end: Any, query: Any, query_position: Any, *rest: Any) -> Any:
        first, last = (
            int(each if isinstance(each, int) else each.handle.data.item()) for each in (start, end)
        )
        query_index = int(query_position.handle.data[0]) - setting.num_computed
        masked = rest[9]
        taken.setdefault(query_index, []).append((first, last, bool(getattr(masked, "value", masked))))
        return attend(state, start, end, query, query_position, *rest)

    monkeypatch.setattr(prefill, "_attend", watched)
    # 16 rows, as tl.dot wants them: BLOCK_Q query tokens of all heads.
    num_heads = 16 // setting.block_q
    monkeypatch.setattr(prefill, "choose_tile", lambda *_: Tile(16, setting.tile_size, 4, 1))
    query = torch.zeros(setting.num_new, num_heads, 16)
    cache = torch.zeros(-(-setting.seq_len // 4), 4, 1, 16)
    kernels.paged_prefill(
        query,
        cache,
        cache,
        torch.arange(len(cache), dtype=torch.int32)[None],
        torch.tensor([setting.seq_len], dtype=torch.int32),
        torch.tensor([0, setting.num_new], dtype=torch.int32),
        1.0,
        causal=setting.causal,
        sliding_window=setting.sliding_window,
    )
    masking = Masking(setting)
    assert sorted(taken) == list(range(0, setting.num_new, setting.block_q))
    for row, first_query in enumerate(sorted(taken)):
        starts = {
            start: "masked" if masked else "full"
            for begin, end, masked in taken[first_query]
            for start in range(begin, end, setting.tile_size)
        }
        kinds = [tile.kind for tile in masking.tiles()[row]]
        assert kinds == [starts.get(number * setting.tile_size, "skipped") for number in range(len(kinds))]
        kv_start, whole_start, whole_end, kv_end = masking.loops(first_query)
        assert taken[first_query][0][0] == kv_start
        assert taken[first_query][-2:] == [(whole_start, whole_end, False), (whole_end, kv_end, True)]


def test_a_prediction_hides_the_tiles_until_it_is_made() -> None:
    view = widgets.MaskTiles(10, 6, predict=True)
    assert view.state["tiles"] == []
    assert view.counts == {}
    assert "wait for your prediction" in view.describe()
    assert "full" not in view.model.to_html()
    view._handle_custom_msg({"operation": "commit", "arguments": [0, 4, 4]}, [])
    assert "skipped: 0 is right; full: you said 4, it is 5; masked: you said 4, it is 3." in view.summary
    assert view.counts["full"] == 5
    view.do("change", "tile_size", 8)  # another setting, another prediction
    assert view.state["tiles"] == []


def test_every_cell_says_why() -> None:
    masking = Masking(Setting(6, 5, 4, 4, 3))
    assert masking.why(1, 7) == masking.why(1, 5) == "seen"
    assert masking.why(1, 8) == "future"
    assert masking.why(1, 4) == "window"
    assert masking.why(5, 7) == "no query"
    assert masking.why(4, 11) == "no key"
    whys = {tile.why for row in masking.tiles() for tile in row}
    assert "all its keys lie before the window of the block's first query" in whys
    assert Masking(Setting(0, 8)).tiles()[0][1].why == "all its keys come after the block's last query"
    assert "the window's edge runs through it and the diagonal runs through it" in whys


def test_the_page_asks_for_operations_and_nothing_else() -> None:
    view = widgets.MaskTiles()
    for name in PRESETS:
        view._handle_custom_msg({"operation": "load", "arguments": [name]}, [])
        assert view.model.setting == PRESETS[name]
        assert json.loads(json.dumps(view.state)) == view.state
    view._handle_custom_msg({"operation": "reset"}, [])
    before = view.state
    for content, part in (
        ({"operation": "why", "arguments": [0, 0]}, "operation: expected one of"),
        ({"operation": "change", "arguments": ["tile_size", 0]}, "tile_size: expected a whole number from 1"),
        (
            {"operation": "change", "arguments": ["num_new", 65]},
            "num_new: expected a whole number from 1 to 64",
        ),
        ({"operation": "change", "arguments": ["causal", 1]}, "causal: expected True or False"),
        ({"operation": "commit", "arguments": [1, None, 1]}, "full: expected a number of tiles"),
        ({"operation": "load", "arguments": ["nothing"]}, "name: expected one of"),
    ):
        view._handle_custom_msg(content, [])
        assert part in view.fault
        assert view.state == before
    with pytest.raises(ValueError, match="num_computed . num_new: expected at most 64 keys, got 80"):
        widgets.MaskTiles(40, 40)


def test_it_shows_itself_as_text_and_table_too() -> None:
    data, _ = widgets.MaskTiles(10, 6)._repr_mimebundle_()
    assert "position  10 ■ ■ ■ ■ ■ ■ ■ ■ ■ ■ ■ · · · · · " in data["text/plain"]
    assert "<td>masked: the diagonal runs through it</td>" in data["text/html"]
