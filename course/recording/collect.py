"""Writes accesses down while kernels run. Called for every load and store, so it does little each time."""

from __future__ import annotations

import inspect
import linecache
import sys
from types import CodeType, FrameType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from course.recording.access import Launch, Line, Source, read_line
from course.recording.columns import KINDS, Columns
from course.recording.memory import Memory, OutOfBounds

if TYPE_CHECKING:
    from course.recording.model import Recording


class TooManyAccesses(RuntimeError):
    """The kernels made more accesses than the recording was told to keep."""


class Entry(NamedTuple):
    """One access, without the bytes it touched; the fields are those of `Columns`."""

    launch: int
    program: tuple[int, int, int]
    stack: int
    kind: int
    tensor: int
    lanes: int
    masked: int
    itemsize: int
    transposed: bool


class Recorder:
    """The columns of a recording in the making.

    not_user: prefixes of files whose frames are nobody's kernel (Triton's, ours). outermost: the code of Triton's that
    runs a launch; frames beyond it belong to the launcher.
    """

    def __init__(
        self, memory: Memory, not_user: tuple[str, ...], outermost: CodeType, max_accesses: int
    ) -> None:
        self.memory = memory
        self.launches: list[Launch] = []
        self._not_user = not_user
        self._outermost = outermost
        self._max_accesses = max_accesses
        self._entries: list[Entry] = []
        self._shapes: list[tuple[int, ...]] = []
        self._masks: dict[int, np.ndarray] = {}
        self._run_starts: list[np.ndarray] = []
        self._run_lengths: list[np.ndarray] = []
        self._stacks: dict[tuple[tuple[int, int], ...], int] = {}
        self._lines: list[tuple[Line, ...]] = []
        self._codes: dict[int, CodeType] = {}

    def access(
        self, kind: str, addresses: np.ndarray, mask: np.ndarray, itemsize: int, program: tuple[int, int, int]
    ) -> np.ndarray:
        """Write one access down and return its real addresses. Raises OutOfBounds before anything is touched."""
        if len(self._entries) >= self._max_accesses:
            raise TooManyAccesses(
                f"course.record: more than {self._max_accesses:,} accesses; take a smaller case, or a larger max_accesses"
            )
        addresses = addresses.astype(np.uint64, copy=False)
        mask = np.broadcast_to(mask, addresses.shape).astype(bool, copy=False)
        num_active = int(np.count_nonzero(mask))
        flat = addresses.reshape(-1)
        entry = Entry(
            launch=len(self.launches) - 1,
            program=program,
            stack=self._stack(sys._getframe(1)),
            kind=KINDS.index(kind),
            tensor=-1,
            lanes=flat.size,
            masked=flat.size - num_active,
            itemsize=itemsize,
            transposed=False,
        )
        if num_active == 0:
            entry = entry._replace(tensor=self._tensor_of(flat))
            self._append(entry, addresses.shape, mask, (np.empty(0, np.int64), np.empty(0, np.int32)))
            return addresses
        active = flat if entry.masked == 0 else flat[mask.reshape(-1)]
        parts = self.memory.locate(active, itemsize)
        for tensor, _, relative in parts:
            outside = self.memory.outside(tensor, relative, itemsize)
            if outside.any():
                raise self._out_of_bounds(entry, tensor, relative, outside)
        if len(parts) > 1 or parts[0][1] is not None:
            return self._several(parts, entry, addresses, mask)
        tensor, _, relative = parts[0]
        runs = _runs(relative, itemsize)
        transposed = False
        if addresses.ndim == 2 and len(runs[0]) * 2 > num_active:
            # Neighbours in memory stand below each other in the tile, as in a transposed load of K.
            by_column = self.memory.locate(addresses.T[mask.T], itemsize)[0][2]
            other_runs = _runs(by_column, itemsize)
            if len(other_runs[0]) < len(runs[0]):
                runs, transposed = other_runs, True
        self._append(entry._replace(tensor=tensor, transposed=transposed), addresses.shape, mask, runs)
        return addresses + self.memory.real_difference(tensor)

    def finish(self, recording: Recording) -> None:
        """Put everything into `recording`."""
        n = len(self._entries)
        values = dict(zip(Entry._fields, zip(*self._entries, strict=True) if n else [()] * 9, strict=True))
        number_of_runs = np.fromiter((len(starts) for starts in self._run_starts), dtype=np.int64, count=n)
        recording._columns = Columns(
            launch=np.array(values["launch"], dtype=np.int32),
            program=np.array(values["program"], dtype=np.int32).reshape(n, 3),
            stack=np.array(values["stack"], dtype=np.int32),
            kind=np.array(values["kind"], dtype=np.uint8),
            tensor=np.array(values["tensor"], dtype=np.int32),
            lanes=np.array(values["lanes"], dtype=np.int64),
            masked=np.array(values["masked"], dtype=np.int64),
            itemsize=np.array(values["itemsize"], dtype=np.int64),
            transposed=np.array(values["transposed"], dtype=bool),
            shape=self._shapes,
            first_run=np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(number_of_runs)]),
            run_start=np.concatenate([np.empty(0, dtype=np.int64), *self._run_starts]),
            run_length=np.concatenate([np.empty(0, dtype=np.int32), *self._run_lengths]),
            masks=self._masks,
        )
        recording.launches = self.launches
        recording.tensors = {tensor.name: tensor for tensor in self.memory.tensors}
        recording.names = tuple(recording.tensors)
        recording.stacks = self._lines
        recording.sources = self._sources()

    def _append(
        self, entry: Entry, shape: tuple[int, ...], mask: np.ndarray, runs: tuple[np.ndarray, np.ndarray]
    ) -> None:
        if entry.masked:
            self._masks[len(self._entries)] = np.packbits(mask)
        self._entries.append(entry)
        self._shapes.append(shape)
        self._run_starts.append(runs[0])
        self._run_lengths.append(runs[1])

    def _several(
        self,
        parts: list[tuple[int, np.ndarray | None, np.ndarray]],
        entry: Entry,
        addresses: np.ndarray,
        mask: np.ndarray,
    ) -> np.ndarray:
        """Pointers of several tensors met in one access: one entry for each, the others' lanes masked."""
        real = addresses.reshape(-1).copy()
        active = np.flatnonzero(mask.reshape(-1))
        for tensor, which, relative in parts:
            lanes = active if which is None else active[which]
            part = np.zeros(addresses.size, dtype=bool)
            part[lanes] = True
            real[lanes] = self.memory.real(tensor, relative)
            one = entry._replace(tensor=tensor, masked=addresses.size - len(lanes))
            self._append(one, addresses.shape, part, _runs(relative, entry.itemsize))
        return real.reshape(addresses.shape)

    def _tensor_of(self, flat: np.ndarray) -> int:
        """The tensor that a wholly masked access points at, as far as its first lane tells; -1 for none."""
        return self.memory.locate(flat[:1], 0)[0][0] if flat.size else -1

    def _stack(self, frame: FrameType | None) -> int:
        """The number of the lines that lead from the kernel to this access."""
        key = []
        while frame is not None and frame.f_code is not self._outermost:
            code = frame.f_code
            if not code.co_filename.startswith(self._not_user):
                self._codes[id(code)] = code
                key.append((id(code), frame.f_lineno))
            frame = frame.f_back
        number = self._stacks.setdefault(tuple(key), len(self._lines))
        if number == len(self._lines):
            lines = [
                read_line(self._codes[code].co_filename, at, self._codes[code].co_name)
                for code, at in reversed(key)
            ]
            self._lines.append(tuple(lines) or (Line("", 0, "", ""),))
        return number

    def _sources(self) -> list[Source]:
        sources = []
        for code in self._codes.values():
            lines = linecache.getlines(code.co_filename)[code.co_firstlineno - 1 :]
            if lines:
                block = tuple(line.rstrip("\n") for line in inspect.getblock(lines))
                sources.append(Source(code.co_filename, code.co_name, code.co_firstlineno, block))
        return sources

    def _out_of_bounds(
        self, entry: Entry, index: int, relative: np.ndarray, outside: np.ndarray
    ) -> OutOfBounds:
        kind, program = KINDS[entry.kind], entry.program
        kernel = self.launches[-1].kernel
        kernels_line, line = self._lines[entry.stack][0], self._lines[entry.stack][-1]
        count = int(np.count_nonzero(outside))
        num_active = entry.lanes - entry.masked
        first = int(relative[outside][0])
        what = {"load": "loads from", "store": "stores to", "atomic": "updates"}[kind]
        who = f"program {program} of {kernel}"
        at = f"At {line}"
        if kernels_line != line:
            at += f" (reached from line {kernels_line.number} of {kernels_line.place})"
        lanes = f"{count} of {num_active} active lanes" if num_active > 1 else "its only lane"
        if index < 0:
            name, offset = None, None
            or_name = ", or name it in course.record(...)" if self.memory.on_host else ""
            message = (
                f"{who} {what} an address that belongs to no tensor of this launch ({lanes}). Nothing was touched. Pass "
                f"the tensor to the kernel{or_name}. {at}"
            )
        else:
            tensor = self.memory.tensors[index]
            name, offset = tensor.name, first // tensor.itemsize
            lowest, highest = tensor.first_byte // tensor.itemsize, tensor.end_byte // tensor.itemsize - 1
            allowed = (
                f"its storage has offsets {lowest} to {highest}"
                if highest >= lowest
                else "its storage is empty"
            )
            if len(tensor.shape) > 1 and tensor.strides[0] > 0:
                index_0 = offset // tensor.strides[0]
                allowed += f"; offset {offset} would be index {index_0} of its first dimension"
            message = (
                f"{who} {what} {name} at offset {offset}, out of bounds ({lanes}). {name} has shape "
                f"{list(tensor.shape)} and strides {list(tensor.strides)}; {allowed}. Nothing was touched. {at}"
            )
        return OutOfBounds(
            message,
            kernel=kernel,
            program=program,
            kind=kind,
            line=line,
            tensor=name,
            offset=offset,
            num_lanes=count,
        )


def _runs(relative: np.ndarray, itemsize: int) -> tuple[np.ndarray, np.ndarray]:
    """Byte offsets [n] as runs of neighbouring elements: (first byte, number of elements) of each."""
    breaks = np.flatnonzero(np.diff(relative) != itemsize) + 1
    first = np.concatenate([np.zeros(1, dtype=np.int64), breaks])
    lengths = np.diff(np.append(first, len(relative)))
    return relative[first], lengths.astype(np.int32)
