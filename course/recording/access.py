"""One launch, one line of source, one access: what a recording hands out."""

from __future__ import annotations

import linecache
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from course.recording.columns import expand_runs

if TYPE_CHECKING:
    from course.recording.model import Recording


@dataclass(frozen=True)
class Line:
    """A line of a kernel's source: file, number (from 1), the function it is in, and its text without indentation."""

    file: str
    number: int
    function: str
    text: str

    def __str__(self) -> str:
        return (
            f"line {self.number} of {self.place}: {self.text}"
            if self.text
            else f"line {self.number} of {self.place}"
        )

    @property
    def place(self) -> str:
        """The file's name, or "the cell" for a notebook's cell."""
        notebook = "ipykernel_" in self.file or self.file.startswith("<ipython-input")
        return "the cell" if notebook else Path(self.file).name


@dataclass(frozen=True)
class Source:
    """A function that accesses memory, as text: line i of `lines` is line `first_line + i` of `file`."""

    file: str
    function: str
    first_line: int
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Launch:
    """One launch of a kernel: its name, its grid (x, y, z), and the tensor that each parameter was given.

    grid is None for a launch that failed before its first program.
    """

    kernel: str
    grid: tuple[int, int, int] | None
    arguments: dict[str, str]


@dataclass(frozen=True)
class Access:
    """One access of one program: a `tl.load`, `tl.store` or atomic, or its part in one tensor.

    index: its number in the recording, in the order in which things happened. launch: the launch's number.
    kernel: its name. program: (x, y, z). kind: "load", "store" or "atomic".
    tensor: the tensor's name; None where every lane was masked and the address was no tensor's.
    line: the innermost line, in a helper perhaps. stack: the lines from the kernel's own to `line`.
    shape: of the tile. num_lanes: active and masked together. num_masked: lanes that touched nothing.
    bytes: that the active lanes touched together.
    """

    index: int
    launch: int
    kernel: str
    program: tuple[int, int, int]
    kind: str
    tensor: str | None
    line: Line
    stack: tuple[Line, ...]
    shape: tuple[int, ...]
    num_lanes: int
    num_masked: int
    bytes: int
    _recording: Recording = field(repr=False, compare=False)

    @property
    def mask(self) -> np.ndarray:
        """Which lanes are active: bool, of `shape`."""
        packed = self._recording.columns.masks.get(self.index)
        if packed is None:
            return np.ones(self.shape, dtype=bool)
        return np.unpackbits(packed, count=self.num_lanes).reshape(self.shape).astype(bool)

    @property
    def byte_offsets(self) -> np.ndarray:
        """[active lanes] int64, in bytes from the tensor's first element, lanes in row-major order."""
        columns = self._recording.columns
        runs = slice(columns.first_run[self.index], columns.first_run[self.index + 1])
        offsets = expand_runs(
            columns.run_start[runs], columns.run_length[runs], int(columns.itemsize[self.index])
        )
        if not columns.transposed[self.index]:
            return offsets
        tile = np.empty(self.shape[::-1], dtype=np.int64)
        tile[self.mask.T] = offsets
        return tile.T[self.mask]

    @property
    def offsets(self) -> np.ndarray:
        """[active lanes] int64, in elements from the tensor's first element, lanes in row-major order."""
        itemsize = self._recording.tensors[self.tensor].itemsize if self.tensor is not None else 1
        return self.byte_offsets // itemsize

    @property
    def indices(self) -> np.ndarray:
        """[active lanes, ndim] int64: where in the tensor each lane's element is.

        For a paged cache the columns are block, slot, kv head and dimension. An element that is in the tensor's
        storage but not in the tensor has -1 everywhere.
        """
        if self.tensor is None:
            return np.empty((0, 0), dtype=np.int64)
        indices, inside = self._recording.tensors[self.tensor].indices(self.offsets)
        indices[~inside] = -1
        return indices


def read_line(file: str, number: int, function: str) -> Line:
    """The line with its text, empty where the source cannot be read."""
    return Line(file, number, function, linecache.getline(file, number).strip())
