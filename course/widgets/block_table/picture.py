"""What both views of a block table draw: requests with their blocks, as plain data, in words and as a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

__all__ = ["Row", "Slot", "letters", "slots_of", "to_html", "to_text"]


@dataclass
class Row:
    """One request.

    label: one or two letters that stand in its cells. hue: which of the owners' colours. num_tokens: seq_len, this step's
    included. num_new: how many of them this step writes. num_cached: how many it found in the cache. blocks: the physical
    blocks of its logical blocks, in order. past: the block table's entries past its end, which nobody reads.
    """

    name: str
    label: str
    hue: int
    num_tokens: int
    blocks: list[int]
    num_new: int = 0
    num_cached: int = 0
    past: list[int] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self)}


@dataclass(frozen=True)
class Slot:
    """One place for a token: its number, and the tokens in it as (label, position, whether this step writes it)."""

    slot: int
    holds: tuple[tuple[str, int, bool], ...]


def letters(index: int) -> str:
    """A to Z, then AA, AB and on, as a spreadsheet's columns."""
    text = ""
    index += 1
    while index:
        index, rest = divmod(index - 1, 26)
        text = chr(ord("A") + rest) + text
    return text


def slots_of(block: int, rows: Iterable[Row], block_size: int) -> list[Slot]:
    """What lies in each slot of a physical block: the tokens of all requests that have it in their table."""
    holds: list[list[tuple[str, int, bool]]] = [[] for _ in range(block_size)]
    for row in rows:
        for logical, physical in enumerate(row.blocks):
            if physical == block:
                first = logical * block_size
                for position in range(first, min(first + block_size, row.num_tokens)):
                    new = position >= row.num_tokens - row.num_new
                    holds[position - first].append((row.label, position, new))
    return [Slot(block * block_size + offset, tuple(held)) for offset, held in enumerate(holds)]


def to_text(rows: Sequence[Row], block_size: int) -> list[str]:
    """A line for each request."""
    lines = []
    for row in rows:
        pairs = ", ".join(f"{logical}→{physical}" for logical, physical in enumerate(row.blocks)) or "none"
        new = f", {row.num_new} of them new" if row.num_new else ""
        lines.append(f"{row.name}: {row.num_tokens} tokens{new}; logical→physical block: {pairs}")
    return lines or ["no request"]


def to_html(caption: str, rows: Sequence[Row], block_size: int) -> str:
    """A row for each request: what every view shows where no widget runs."""
    head = "".join(f"<th>{name}</th>" for name in ("request", "tokens", "new", "logical → physical block"))
    body = ""
    for row in rows:
        pairs = ", ".join(f"{logical} → {physical}" for logical, physical in enumerate(row.blocks))
        past = f" <span style='color:#666'>(past its end: {row.past})</span>" if row.past else ""
        cells = (escape(row.name), str(row.num_tokens), str(row.num_new), pairs + past)
        body += f"<tr>{''.join(f'<td style=text-align:left>{cell}</td>' for cell in cells)}</tr>"
    return f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
