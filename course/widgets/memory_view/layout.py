"""A tensor as a picture of cells, such as a paged cache's slots: which cell each element is in, and the cell's name."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from course.recording.memory import RecordedTensor

__all__ = ["Layout", "layout_of"]

# Cells that stand side by side; a longer row has several elements, or slots, in each.
MAX_COLUMNS = 32


@dataclass(frozen=True)
class Layout:
    """rows x columns cells; cell = row * columns + column.

    kind: "cache" (a row is a block, a column a slot), "flat" (a one-dimensional tensor, cut into rows) or "table" (a row
    is what all indices but the last one or two say: the last of three is inside a cell). lead: the sizes of these indices.
    length: positions in a row (slots, entries), of which `group` are in a cell.
    """

    kind: str
    lead: tuple[int, ...]
    rows: int
    columns: int
    length: int
    group: int

    def positions(self, tensor: RecordedTensor, offsets: np.ndarray) -> np.ndarray:
        """[n] row * length + place in the row, of elements at these offsets; -1 for those that are not in the tensor."""
        try:
            indices, inside = tensor.indices(offsets)
        except ValueError:  # its elements overlap: as it lies in memory
            return np.where((offsets >= 0) & (offsets < self.rows * self.length), offsets, -1)
        if self.kind == "flat":
            at = indices[:, 0] if indices.shape[1] else np.zeros(len(indices), dtype=np.int64)
        else:
            row = np.zeros(len(indices), dtype=np.int64)
            for dim, size in enumerate(self.lead):
                row = row * size + indices[:, dim]
            at = row * self.length + indices[:, len(self.lead)]
        return np.where(inside, at, -1)

    def cells(self, positions: np.ndarray) -> np.ndarray:
        """The cells of these positions; -1 stays -1."""
        row, place = positions // self.length, positions % self.length
        return np.where(positions < 0, -1, row * self.columns + place // self.group)

    def name(self, cell: int, count: int = 1) -> str:
        """Neighbouring cells of one row in words: "block 5, slots 0 to 3", "[0, 2:4]"."""
        row, first = cell // self.columns, cell % self.columns * self.group
        end = min(first + count * self.group, self.length)
        if self.kind == "cache":
            slots = f"slot {first}" if end - first == 1 else f"slots {first} to {end - 1}"
            return f"block {row}, {slots}"
        if self.kind == "flat":
            first, end = row * self.length + first, row * self.length + end
        span = str(first) if end - first == 1 else f"{first}:{end}"
        return f"[{', '.join([*map(str, self._indices(row)), span])}]"

    def _indices(self, row: int) -> Iterable[int]:
        if self.kind != "table":
            return ()
        return (int(index) for index in np.unravel_index(row, self.lead))


def layout_of(tensor: RecordedTensor, *, cache: bool) -> Layout:
    """How a tensor is drawn. cache: it is [num_blocks, block_size, ...]."""
    shape = tensor.shape
    if cache and len(shape) >= 3:
        return _rows("cache", shape[:1], shape[1])
    if len(shape) < 2:
        size = math.prod(shape)
        group = -(-max(size, 1) // (MAX_COLUMNS * 1024))
        length = max(min(size, MAX_COLUMNS * group), 1)
        return Layout("flat", (), max(-(-size // length), 1), -(-length // group), length, group)
    last = 1 if len(shape) == 2 else 2
    return _rows("table", shape[:-last], shape[-last])


def _rows(kind: str, lead: tuple[int, ...], length: int) -> Layout:
    group = max(-(-length // MAX_COLUMNS), 1)
    return Layout(kind, lead, math.prod(lead), max(-(-length // group), 1), max(length, 1), group)
