"""Which keys each query sees, and what a kernel makes of it tile by tile: skipped, computed without a mask, or with one."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

__all__ = ["PRESETS", "Masking", "Setting", "Tile"]

LARGEST = 64  # keys and queries: more cells than that, nobody looks at


@dataclass(frozen=True)
class Setting:
    """One request of a step. Its query tokens are the last of its sequence.

    num_computed: tokens in the cache before this step. num_new: query tokens. block_q: query tokens of a tile. tile_size:
    keys of a tile. sliding_window: keys that a query sees, its own included, or None. causal: whether later keys are hidden.
    """

    num_computed: int = 0
    num_new: int = 12
    block_q: int = 4
    tile_size: int = 4
    sliding_window: int | None = None
    causal: bool = True

    def __post_init__(self) -> None:
        limits = {"num_computed": 0, "num_new": 1, "block_q": 1, "tile_size": 1, "sliding_window": 1}
        for name, least in limits.items():
            value = getattr(self, name)
            if name == "sliding_window" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= LARGEST:
                raise ValueError(f"{name}: expected a whole number from {least} to {LARGEST}, got {value!r}")
        if not isinstance(self.causal, bool):
            raise ValueError(f"causal: expected True or False, got {self.causal!r}")
        if self.seq_len > LARGEST:
            raise ValueError(f"num_computed + num_new: expected at most {LARGEST} keys, got {self.seq_len}")

    @property
    def seq_len(self) -> int:
        return self.num_computed + self.num_new


PRESETS = {
    "causal prefill": Setting(),
    "chunked prefill": Setting(num_computed=10, num_new=6),
    "sliding window": Setting(num_new=16, sliding_window=6),
    "decode": Setting(num_computed=15, num_new=1),
    "not causal": Setting(causal=False),
}


@dataclass(frozen=True)
class Tile:
    """kind: "skipped", "full" (computed without a mask) or "masked". why: in words."""

    kind: str
    why: str


class Masking:
    """A setting, the mask that it makes, and how a kernel goes over it.

    setting: the `Setting` in hand. hiding: whether the tiles wait for a prediction.
    """

    def __init__(self, setting: Setting | None = None, *, predict: bool = False) -> None:
        self.setting = setting or Setting()
        self.predicts = self.hiding = predict
        self._first = self.setting
        self._verdict = ""

    # What the page may ask for

    def change(self, field: str, value: Any) -> str:
        """Sets one field. Raises ValueError for a value that cannot be."""
        names = [each.name for each in fields(Setting)]
        if field not in names:
            raise ValueError(f"field: expected one of {names}, got {field!r}")
        return self._take(replace(self.setting, **{field: value}), f"{field} is {value}")

    def load(self, name: str) -> str:
        """Takes a setting that has a name."""
        if name not in PRESETS:
            raise ValueError(f"name: expected one of {list(PRESETS)}, got {name!r}")
        return self._take(PRESETS[name], name.capitalize())

    def reset(self) -> str:
        """Back to the setting that it began with."""
        return self._take(self._first, "Back at the beginning")

    def ask_first(self, predicts: bool) -> str:
        """Whether each change hides the tiles until somebody has said how many there are of each kind."""
        self.predicts = bool(predicts)
        return self._take(self.setting, "Predictions first" if predicts else "No predictions")

    def commit(self, skipped: int, full: int, masked: int) -> str:
        """Takes a prediction and shows the tiles."""
        guesses = {"skipped": skipped, "full": full, "masked": masked}
        for name, guess in guesses.items():
            if isinstance(guess, bool) or not isinstance(guess, int) or guess < 0:
                raise ValueError(f"{name}: expected a number of tiles, got {guess!r}")
        self.hiding = False
        counts = self.counts()
        parts = [
            f"{name}: {guess} is right"
            if guess == counts[name]
            else f"{name}: you said {guess}, it is {counts[name]}"
            for name, guess in guesses.items()
        ]
        self._verdict = "; ".join(parts) + "."
        return f"Your prediction: {self._verdict}"

    def _take(self, setting: Setting, what: str) -> str:
        self.setting = setting
        self.hiding = self.predicts
        self._verdict = ""
        if self.hiding:
            return f"{what}. The tiles wait for your prediction."
        return f"{what}: {self._counted()}"

    # What is shown

    def why(self, query: int, key: int) -> str:
        """Whether query token `query` sees key position `key`: "seen", or which rule hides it.

        "future": after the query's own position. "window": before its window. "no query", "no key": past the last one,
        where only a tile's padding is.
        """
        s = self.setting
        position = s.num_computed + query
        if query >= s.num_new:
            return "no query"
        if key >= s.seq_len:
            return "no key"
        if s.causal and key > position:
            return "future"
        if s.sliding_window is not None and position - key >= s.sliding_window:
            return "window"
        return "seen"

    def tiles(self) -> list[list[Tile]]:
        """A row for each block of queries, a tile for each TILE_SIZE keys, as kernels/prefill.py runs its three loops."""
        s = self.setting
        return [
            [self._tile(first, start) for start in range(0, s.seq_len, s.tile_size)]
            for first in range(0, s.num_new, s.block_q)
        ]

    def loops(self, first_query: int) -> tuple[int, int, int, int]:
        """The ends of a program's loops over keys, in positions: (kv_start, whole_start, whole_end, kv_end).

        From kv_start to whole_start and from whole_end to kv_end it masks, in between it need not: `_paged_prefill_kernel`.
        """
        s, size = self.setting, self.setting.tile_size
        tile_first = s.num_computed + first_query
        tile_last = min(tile_first + s.block_q, s.seq_len) - 1
        kv_end, full_end = (tile_last + 1, tile_first + 1) if s.causal else (s.seq_len, s.seq_len)
        kv_start = whole_start = 0
        if s.sliding_window is not None:
            kv_start = max(tile_first - s.sliding_window + 1, 0) // size * size
            full_start = max(tile_last - s.sliding_window + 1, 0)
            whole_start = max(min(-(-full_start // size) * size, kv_end), kv_start)
        whole_end = max(min(full_end, kv_end) // size * size, whole_start)
        return kv_start, whole_start, whole_end, kv_end

    def _tile(self, first_query: int, start: int) -> Tile:
        kv_start, whole_start, whole_end, kv_end = self.loops(first_query)
        s = self.setting
        if start >= kv_end:
            return Tile("skipped", "all its keys come after the block's last query")
        if start < kv_start:
            return Tile("skipped", "all its keys lie before the window of the block's first query")
        if whole_start <= start < whole_end:
            return Tile("full", "every query of the block sees every key: no mask is needed")
        causes = []
        if start < whole_start:
            causes.append("the window's edge runs through it")
        last = min(start + s.tile_size, s.seq_len) - 1
        if s.causal and last > s.num_computed + first_query:
            causes.append("the diagonal runs through it")
        if start + s.tile_size > s.seq_len:
            causes.append("the sequence ends in it")
        return Tile("masked", " and ".join(causes))

    def counts(self) -> dict[str, int]:
        """Tiles of each kind; entries that are computed, those of them that a query sees, and those that are wasted."""
        tiles = [tile for row in self.tiles() for tile in row]
        s = self.setting
        kinds = {kind: sum(tile.kind == kind for tile in tiles) for kind in ("skipped", "full", "masked")}
        computed = (kinds["full"] + kinds["masked"]) * s.block_q * s.tile_size
        seen = sum(self.why(query, key) == "seen" for query in range(s.num_new) for key in range(s.seq_len))
        return {**kinds, "computed": computed, "seen": seen, "wasted": computed - seen}

    def to_dict(self) -> dict[str, Any]:
        s = self.setting
        tiles = self.tiles()
        rows, columns = len(tiles) * s.block_q, len(tiles[0]) * s.tile_size
        return {
            "setting": {each.name: getattr(s, each.name) for each in fields(s)},
            "presets": list(PRESETS),
            "predicts": self.predicts,
            "hiding": self.hiding,
            "verdict": self._verdict,
            # One word for each cell, padding included.
            "cells": [[self.why(query, key) for key in range(columns)] for query in range(rows)],
            "tiles": [] if self.hiding else [[[tile.kind, tile.why] for tile in row] for row in tiles],
            "num_tiles": len(tiles) * len(tiles[0]),
            "counts": {} if self.hiding else self.counts(),
        }

    def _counted(self) -> str:
        c = self.counts()
        total = c["skipped"] + c["full"] + c["masked"]
        return (
            f"of {total} tiles {c['skipped']} are skipped, {c['full']} full, {c['masked']} masked; of {c['computed']} computed "
            f"entries {c['wasted']} are wasted."
        )

    def describe(self) -> str:
        s = self.setting
        window = "" if s.sliding_window is None else f", a window of {s.sliding_window}"
        head = (
            f"{s.num_new} queries after {s.num_computed} tokens in the cache, {'causal' if s.causal else 'not causal'}{window}; "
            f"tiles of {s.block_q} queries and {s.tile_size} keys"
        )
        lines = [
            f"position {s.num_computed + query:3} "
            + "".join("■ " if self.why(query, key) == "seen" else "· " for key in range(s.seq_len))
            for query in range(s.num_new)
        ]
        if self.hiding:
            return "\n".join([head, *lines, "The tiles wait for your prediction."])
        tiles = [
            f"queries from {row * s.block_q}: " + ", ".join(tile.kind for tile in each)
            for row, each in enumerate(self.tiles())
        ]
        return "\n".join([head, *lines, *tiles, self._counted().capitalize()])

    def to_html(self) -> str:
        return (
            f"<pre>{self.describe()}</pre>" if self.hiding else f"<pre>{self.describe()}</pre>{self._table()}"
        )

    def _table(self) -> str:
        s = self.setting
        starts = range(0, s.seq_len, s.tile_size)
        head = "".join(f"<th>keys {start} to {start + s.tile_size - 1}</th>" for start in starts)
        body = "".join(
            f"<tr><th>queries {row * s.block_q} to {(row + 1) * s.block_q - 1}</th>"
            + "".join(f"<td>{tile.kind}: {tile.why}</td>" for tile in each)
            + "</tr>"
            for row, each in enumerate(self.tiles())
        )
        return f"<table><caption>Tiles</caption><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table>"
