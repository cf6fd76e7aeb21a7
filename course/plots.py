"""The lessons' pictures: small pure functions from data to a figure that also says in words what it shows.

Every function takes plain numbers, draws them and returns a `Picture`: a matplotlib Figure with `alt_text`.
Nothing here computes attention; a picture is only as true as the numbers that the notebook hands over. Requests
are told apart by letter and hatch as well as by hue (Okabe and Ito), so no picture needs colour to be read.
"""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

BLACK, ORANGE, SKY, BLUE, VERMILLION = "#000000", "#E69F00", "#56B4E9", "#0072B2", "#D55E00"
GREY = "#F2F2F2"
INK = "#222222"

# Light fills carry black text; the hatch tells owners apart where the hue does not.
_FILLS = ("#F9D58A", "#A9D8F5", "#8FD6BF", "#E9BFD6", "#F7F0A0", "#F0B48A")
_HATCHES = ("", "//", "..", "\\\\", "xx", "++")

WIDTH = 9.0
DPI = 110


class Picture(Figure):
    """A matplotlib Figure that carries its own description.

    A notebook shows the picture as an HTML image whose `alt` is `alt_text`; where only text can be shown, the
    description appears. JupyterLab gives a plain `image/png` output no alternative text, hence the HTML.
    """

    alt_text: str = ""

    def png(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=DPI, facecolor="white")
        return buffer.getvalue()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return _mimebundle(self.png(), self.alt_text)


@dataclass(frozen=True)
class KeptPicture:
    """A picture that was drawn earlier, of what this machine cannot measure."""

    data: bytes  # PNG
    alt_text: str

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return _mimebundle(self.data, self.alt_text)


def _mimebundle(png: bytes, alt_text: str) -> dict[str, str]:
    data, alt = base64.b64encode(png).decode("ascii"), html.escape(alt_text, quote=True)
    image = f'<img alt="{alt}" src="data:image/png;base64,{data}" style="max-width: 100%; height: auto;">'
    return {"text/html": image, "text/plain": alt_text}


def _picture(height: float) -> Picture:
    return Picture(figsize=(WIDTH, height), layout="constrained", facecolor="white")


def owner_style(index: int) -> dict[str, Any]:
    """Fill, hatch and edge of one owner, a request or a block's user, as matplotlib's bars take them."""
    fill, hatch = _FILLS[index % len(_FILLS)], _HATCHES[index % len(_HATCHES)]
    return {"facecolor": fill, "hatch": hatch, "edgecolor": INK}


def owner_patch(index: int) -> Patch:
    """One owner's entry in a legend: its letter."""
    return Patch(label=_letter(index), **owner_style(index))


def _letter(index: int) -> str:
    return chr(ord("A") + index) if index < 26 else f"R{index}"


def _cell(
    axes: Axes,
    x: float,
    y: float,
    text: str = "",
    *,
    owner: int | None = None,
    strong: bool = False,
    width: float = 1.0,
    height: float = 1.0,
    size: float = 10,
) -> None:
    """One box of a grid: filled and hatched by owner, thick-edged when `strong`."""
    fill = GREY if owner is None else _FILLS[owner % len(_FILLS)]
    hatch = "" if owner is None else _HATCHES[owner % len(_HATCHES)]
    box = Rectangle((x, y), width, height, facecolor=fill, edgecolor="#9A9A9A", hatch=hatch, linewidth=0.6)
    axes.add_patch(box)
    if strong:
        inset = 0.05
        edge = Rectangle(
            (x + inset, y + inset),
            width - 2 * inset,
            height - 2 * inset,
            fill=False,
            edgecolor=BLACK,
            linewidth=2.2,
        )
        axes.add_patch(edge)
    if text:
        # A patch of the fill's colour behind the text keeps it legible on a hatch.
        axes.text(
            x + width / 2,
            y + height / 2,
            text,
            ha="center",
            va="center",
            fontsize=size,
            color=BLACK,
            fontweight="bold" if strong else "normal",
            bbox={"boxstyle": "round,pad=0.12", "facecolor": fill, "edgecolor": "none"},
        )


def _bare(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def memory_use(
    tokens_held: Mapping[str, int],
    tokens_reserved: Mapping[str, int],
    requests: Mapping[str, int],
    capacity: int,
) -> Picture:
    """How a KV cache of `capacity` tokens is spent, one bar per policy.

    Args:
        tokens_held: policy -> tokens that really are in the cache.
        tokens_reserved: policy -> token places that are taken, held ones included.
        requests: policy -> requests running at the same time.
        capacity: token places in the cache.
    """
    if not (tokens_held.keys() == tokens_reserved.keys() == requests.keys()):
        raise ValueError("tokens_held, tokens_reserved and requests must name the same policies")
    picture = _picture(0.9 + 0.75 * len(tokens_held))
    axes = picture.add_subplot()
    words = []
    for row, policy in enumerate(tokens_held):
        held = 100 * tokens_held[policy] / capacity
        empty = 100 * (tokens_reserved[policy] - tokens_held[policy]) / capacity
        free = 100 - held - empty
        first = row == 0
        axes.barh(row, held, color=SKY, edgecolor=INK, height=0.6, label="holds a token" if first else None)
        axes.barh(
            row,
            empty,
            left=held,
            color=ORANGE,
            edgecolor=INK,
            hatch="//",
            height=0.6,
            label="reserved, empty" if first else None,
        )
        axes.barh(
            row,
            free,
            left=held + empty,
            color="white",
            edgecolor=INK,
            height=0.6,
            label="free" if first else None,
        )
        spots = ((held, held / 2), (empty, held + empty / 2), (free, held + empty + free / 2))
        for share, middle in spots:
            if share >= 6:
                face = {
                    "boxstyle": "round,pad=0.15",
                    "facecolor": "white",
                    "edgecolor": "none",
                    "alpha": 0.85,
                }
                axes.text(middle, row, f"{share:.0f} %", ha="center", va="center", fontsize=11, bbox=face)
        words.append(
            f"{policy}: {requests[policy]} requests, {held:.0f} % of the cache holds tokens, {empty:.1f} % "
            f"is reserved and empty, {free:.1f} % is free"
        )
    axes.set_yticks(
        range(len(requests)), [f"{policy}\n{n} requests" for policy, n in requests.items()], fontsize=11
    )
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("share of the KV cache, %", fontsize=10)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    picture.legend(loc="outside upper center", ncols=3, fontsize=10, frameon=False)
    picture.alt_text = "Bars of memory use. " + ". ".join(words) + "."
    return picture


def pool_map(snapshots: Mapping[str, Sequence[tuple[int, int] | None]], columns: int = 8) -> Picture:
    """The block pool at several moments: one grid of blocks per moment, each block marked with its owner.

    "D0" is the first block of request D in logical order; the small number is the physical block's.

    Args:
        snapshots: title -> for each physical block (request, logical block), None if the block is free.
        columns: blocks per row of the grid.
    """
    num_blocks = max((len(owners) for owners in snapshots.values()), default=0)
    rows = math.ceil(num_blocks / columns)
    picture = _picture(0.55 + 0.42 * rows)
    words = []
    for axes, (title, owners) in zip(
        picture.subplots(1, len(snapshots), squeeze=False)[0], snapshots.items(), strict=True
    ):
        said = []
        for block, held in enumerate(owners):
            x, y = block % columns, rows - 1 - block // columns
            if held is None:
                _cell(axes, x, y)
                said.append(f"{block} free")
            else:
                owner, logical = held
                _cell(axes, x, y, f"{_letter(owner)}{logical}", owner=owner, size=10)
                said.append(f"{block} holds {_letter(owner)}{logical}")
            axes.text(x + 0.06, y + 0.92, str(block), fontsize=6.5, va="top", color="#333333")
        axes.set_xlim(-0.05, columns + 0.05)
        axes.set_ylim(-0.05, rows + 0.05)
        axes.set_title(title, fontsize=10)
        _bare(axes)
        words.append(f"{title}: {', '.join(said)}")
    picture.alt_text = "What each block of the pool holds. " + ". ".join(words) + "."
    return picture


def cache_map(
    block_tables: Sequence[Sequence[int]],
    num_computed_tokens: Sequence[int],
    num_new_tokens: Sequence[int],
    block_size: int,
    num_blocks: int,
) -> Picture:
    """One batch twice: as each request sees itself (logical), and as the cache stores it (physical).

    A cell's text is the token's position in its request. A thick edge marks a token that this step writes.

    Args:
        block_tables: for each request its physical block ids in logical order.
        num_computed_tokens: for each request the tokens already in the cache.
        num_new_tokens: for each request the tokens that this step adds.
        block_size: tokens per block.
        num_blocks: blocks of the cache.
    """
    picture = _picture(0.8 + 0.36 * max(num_blocks, 2 * len(block_tables)))
    longest = max((len(table) for table in block_tables), default=1)
    logical, physical = picture.subplots(
        1, 2, width_ratios=(max(longest, 1) * block_size + 1.5, block_size + 3)
    )
    words = []
    slots: dict[int, tuple[int, int, bool]] = {}
    for request, table in enumerate(block_tables):
        computed, new = num_computed_tokens[request], num_new_tokens[request]
        y = -2.0 * request
        logical.text(
            -0.35, y + 0.5, _letter(request), fontsize=13, ha="right", va="center", fontweight="bold"
        )
        for index, block in enumerate(table):
            middle = index * (block_size + 0.35) + block_size / 2
            logical.text(middle, y + 1.1, f"block {block}", fontsize=9, ha="center", va="bottom")
            for offset in range(block_size):
                position = index * block_size + offset
                x = index * (block_size + 0.35) + offset
                if position < computed + new:
                    fresh = position >= computed
                    _cell(logical, x, y, str(position), owner=request, strong=fresh)
                    slots[block * block_size + offset] = (request, position, fresh)
                else:
                    _cell(logical, x, y)
        written = ", ".join(
            str(table[p // block_size] * block_size + p % block_size) for p in range(computed, computed + new)
        )
        words.append(
            f"Request {_letter(request)} owns blocks {list(table)} in this order, holds {computed} tokens "
            f"and writes {new} more" + (f" into slots {written}" if written else "")
        )
    logical.set_xlim(-1.2, longest * (block_size + 0.35))
    logical.set_ylim(-2 * len(block_tables) + 1.6, 2.0)
    logical.set_title("as each request sees itself: logical order", fontsize=10.5)
    for block in range(num_blocks):
        y = -float(block)
        physical.text(-0.25, y + 0.5, f"block {block}", fontsize=9, ha="right", va="center")
        physical.text(
            block_size + 0.2,
            y + 0.5,
            f"slots {block * block_size} to {(block + 1) * block_size - 1}",
            fontsize=9,
            ha="left",
            va="center",
        )
        for offset in range(block_size):
            held = slots.get(block * block_size + offset)
            if held is None:
                _cell(physical, offset, y)
            else:
                request, position, fresh = held
                _cell(
                    physical, offset, y, f"{_letter(request)}{position}", owner=request, strong=fresh, size=9
                )
    physical.set_xlim(-1.9, block_size + 2.4)
    physical.set_ylim(-num_blocks + 0.9, 1.1)
    physical.set_title("as the cache stores it: physical blocks", fontsize=10.5)
    _bare(logical)
    _bare(physical)
    picture.alt_text = ". ".join(words) + ". Thick edges mark the tokens written in this step."
    return picture


def query_layout(num_computed_tokens: Sequence[int], num_new_tokens: Sequence[int]) -> Picture:
    """A ragged batch: what each request has in the cache, what it adds, and the flat query that results.

    Args:
        num_computed_tokens: for each request the tokens already in the cache.
        num_new_tokens: for each request the tokens that this step adds.
    """
    starts = [0]
    for new in num_new_tokens:
        starts.append(starts[-1] + new)
    total = starts[-1]
    widest = max([*(c + n for c, n in zip(num_computed_tokens, num_new_tokens, strict=True)), total, 1])
    picture = _picture(1.5 + 0.42 * len(num_new_tokens))
    axes = picture.add_subplot()
    words = []
    for request, (computed, new) in enumerate(zip(num_computed_tokens, num_new_tokens, strict=True)):
        y = -1.0 * request
        axes.text(-0.4, y + 0.4, f"request {_letter(request)}", ha="right", va="center", fontsize=10)
        for position in range(computed):
            _cell(axes, position, y, height=0.8)
        for position in range(computed, computed + new):
            _cell(axes, position, y, str(position), owner=request, strong=True, height=0.8, size=9)
        axes.text(
            computed + new + 0.3,
            y + 0.4,
            f"seq_len {computed + new}",
            ha="left",
            va="center",
            fontsize=9,
        )
        words.append(f"request {_letter(request)} has {computed} tokens in the cache and adds {new}")
    y = -len(num_new_tokens) - 1.0
    axes.text(-0.4, y + 0.4, "query (flat)", ha="right", va="center", fontsize=10)
    for request in range(len(num_new_tokens)):
        for token in range(starts[request], starts[request + 1]):
            position = num_computed_tokens[request] + token - starts[request]
            _cell(
                axes,
                token,
                y,
                f"{_letter(request)}{position}",
                owner=request,
                strong=True,
                height=0.8,
                size=9,
            )
    for at in sorted(set(starts)):
        axes.plot([at, at], [y - 0.15, y - 0.4], color=BLACK, linewidth=1.2)
        axes.text(at, y - 0.5, str(at), ha="center", va="top", fontsize=10)
    axes.text(-0.4, y - 0.75, "query_start_loc", ha="right", va="center", fontsize=10)
    axes.set_xlim(-widest * 0.17 - 1, widest * 1.1 + 1)
    axes.set_ylim(y - 1.2, 1.0)
    _bare(axes)
    picture.alt_text = (
        "Ragged batch: " + "; ".join(words) + f". Flat query of {total} tokens, query_start_loc {starts}."
    )
    return picture


def softmax_states(
    tiles: Sequence[Sequence[float]],
    m: Sequence[float],
    l: Sequence[float],  # noqa: E741
    acc: Sequence[float],
) -> Picture:
    """What online softmax remembers after each tile of one row of scores.

    Args:
        tiles: the scores, tile by tile.
        m, l, acc: after each tile the running maximum, sum and weighted sum, one number each (head_size 1).
    """
    if not (len(tiles) == len(m) == len(l) == len(acc)):
        raise ValueError(
            f"one m, l and acc per tile: got {len(tiles)} tiles, {len(m)}, {len(l)} and {len(acc)}"
        )
    picture = _picture(3.2)
    left, *others = picture.subplots(1, 4, width_ratios=(2.0, 1, 1, 1))
    x = 0
    for index, tile in enumerate(tiles):
        fill, hatch = _FILLS[index % len(_FILLS)], _HATCHES[index % len(_HATCHES)]
        start = x
        for score in tile:
            left.bar(x, score, color=fill, hatch=hatch, edgecolor=INK, linewidth=0.8)
            x += 1
        left.plot([start - 0.5, x - 0.5], [m[index]] * 2, color=VERMILLION, linewidth=2.5)
        _number(left, (start + x - 1) / 2, m[index], f"m = {m[index]:.3g}", above=6)
    middles, at = [], 0
    for tile in tiles:
        middles.append(at + (len(tile) - 1) / 2)
        at += len(tile)
    left.set_xticks(middles, [f"tile {i}" for i in range(len(tiles))])
    left.axhline(0, color=INK, linewidth=0.8)
    left.margins(y=0.16)
    left.set_title("scores, and the maximum so far", fontsize=10.5)
    answers = [a / s if s else 0.0 for a, s in zip(acc, l, strict=True)]
    steps = list(range(len(tiles)))
    panels = (
        (l, "l: sum so far", "s"),
        (acc, "acc: weighted sum", "o"),
        (answers, "acc / l: answer so far", "D"),
    )
    for axes, (numbers, title, marker) in zip(others, panels, strict=True):
        axes.plot(steps, numbers, color=BLUE, marker=marker, markersize=7, linewidth=1.5)
        for step, number in zip(steps, numbers, strict=True):
            _number(axes, step, number, f"{number:.2f}", above=9)
        axes.set_xticks(steps)
        axes.set_xlabel("after tile", fontsize=9)
        axes.set_yticks([])
        axes.margins(x=0.22, y=0.3)
        axes.set_title(title, fontsize=10.5)
    for axes in (left, *others):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=9)
    picture.alt_text = "After each tile: " + "; ".join(
        f"tile {i} with scores {', '.join(f'{s:g}' for s in tile)}: m {m[i]:g}, l {l[i]:.4g}, "
        f"acc {acc[i]:.4g}, answer so far {answers[i]:.4g}"
        for i, tile in enumerate(tiles)
    )
    return picture


def _number(axes: Axes, x: float, y: float, text: str, above: float) -> None:
    """A number beside its point, on white so that a line behind it does not cross it."""
    axes.annotate(
        text,
        (x, y),
        xytext=(0, above),
        textcoords="offset points",
        ha="center",
        fontsize=10,
        bbox={"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.85},
    )
