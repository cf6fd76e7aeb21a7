"""A recording as a few columns of 32-bit numbers, which a page gets once and steps through by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from course.recording.columns import expand_runs
from course.recording.model import Recording
from course.recording.paged import Trespass
from course.widgets.memory_view.layout import Layout

__all__ = ["Compact", "compact"]

# How many elements are spelled out at a time.
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Compact:
    """n accesses. All columns are int32.

    program: into `programs` [(launch, x, y, z)]. stack, tensor (-1: none), kind: as in the recording. lanes, masked,
    num_bytes: of each access. reason: into `reasons`, why an access has touched what its program does not own; -1 where it
    has not. Access i touches runs first_run[i] to first_run[i + 1]: `run_cell` and `run_count` neighbouring cells of one row of
    its tensor's `Layout`; run_cell is -1 for storage that is not part of the tensor. run_unowned: 1 where it is not owned.
    """

    programs: list[tuple[int, int, int, int]]
    reasons: list[str]
    program: np.ndarray
    stack: np.ndarray
    tensor: np.ndarray
    kind: np.ndarray
    lanes: np.ndarray
    masked: np.ndarray
    num_bytes: np.ndarray
    reason: np.ndarray
    first_run: np.ndarray
    run_cell: np.ndarray
    run_count: np.ndarray
    run_unowned: np.ndarray

    def packed(self) -> dict[str, bytes]:
        """The columns as bytes, by name."""
        return {
            name: value.astype(np.int32).tobytes()
            for name, value in vars(self).items()
            if isinstance(value, np.ndarray)
        }


def compact(recording: Recording, layouts: Mapping[str, Layout], trespasses: Sequence[Trespass]) -> Compact:
    """The columns of a recording. layouts: of each tensor that was accessed."""
    columns = recording.columns
    keys = np.column_stack([columns.launch, columns.program]).reshape(-1, 4)
    unique, program = np.unique(keys, axis=0, return_inverse=True)
    program = program.reshape(-1)
    reasons = list(dict.fromkeys(trespass.reason for trespass in trespasses))
    reason = np.full(len(recording), -1, dtype=np.int64)
    numbers = {tuple(key): index for index, key in enumerate(unique.tolist())}
    parts = [np.empty((0, 4), dtype=np.int64)]
    for number, name in enumerate(recording.names):
        if not (columns.tensor == number).any():
            continue
        layout = layouts[name]
        owner, at = _positions(recording, name, layout)
        why = _reasons_at(
            [trespass for trespass in trespasses if trespass.tensor == name],
            numbers,
            reasons,
            layout,
            program[owner],
            at,
        )
        reason[owner[why >= 0]] = why[why >= 0]
        cells = layout.cells(at)
        parts.append(_runs(owner, cells, why >= 0, layout.columns))
    runs = np.concatenate(parts)
    runs = runs[np.argsort(runs[:, 0], kind="stable")]
    counts = np.bincount(runs[:, 0], minlength=len(recording))
    return Compact(
        programs=[(a, b, c, d) for a, b, c, d in unique.tolist()],
        reasons=reasons,
        program=program,
        stack=columns.stack,
        tensor=columns.tensor,
        kind=columns.kind,
        lanes=columns.lanes,
        masked=columns.masked,
        num_bytes=(columns.lanes - columns.masked) * columns.itemsize,
        reason=reason,
        first_run=np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts)]),
        run_cell=runs[:, 1],
        run_count=runs[:, 2],
        run_unowned=runs[:, 3],
    )


def _positions(recording: Recording, name: str, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """(access, position) of all that was touched in a tensor, each pair once, sorted."""
    columns, known = recording.columns, recording.tensors[name]
    access, run = columns.runs_of(columns.tensor == recording.number(name))
    ends = np.cumsum(columns.run_length[run], dtype=np.int64)
    # One number for access and position, from -1: numbers are sorted much faster than pairs.
    size = layout.rows * layout.length + 1
    parts = [np.empty(0, dtype=np.int64)]
    for chunk in range(0, int(ends[-1]) if len(ends) else 0, _CHUNK):
        part = slice(*np.searchsorted(ends, [chunk, chunk + _CHUNK], side="right"))
        length = columns.run_length[run[part]]
        owner = np.repeat(access[part], length)
        offsets = expand_runs(columns.run_start[run[part]], length, columns.itemsize[access[part]])
        keys = owner * size + layout.positions(known, offsets // known.itemsize) + 1
        # Neighbouring elements mostly share their position.
        parts.append(keys[np.r_[len(keys) > 0, keys[1:] != keys[:-1]]])
    keys = np.unique(np.concatenate(parts))
    return keys // size, keys % size - 1


def _reasons_at(
    trespasses: Sequence[Trespass],
    numbers: Mapping[tuple[int, ...], int],
    reasons: Sequence[str],
    layout: Layout,
    program: np.ndarray,
    at: np.ndarray,
) -> np.ndarray:
    """For each (program, position) the number of the reason why it is not owned, or -1."""
    found = np.full(len(at), -1, dtype=np.int64)
    if not trespasses:
        return found
    size = layout.rows * layout.length
    unowned = {
        numbers[(trespass.launch, *trespass.program)] * size
        + trespass.block * layout.length
        + slot: reasons.index(trespass.reason)
        for trespass in trespasses
        for slot in trespass.slots
    }
    keys = np.array(sorted(unowned), dtype=np.int64)
    wanted = program.astype(np.int64) * size + at
    index = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    values = np.array([unowned[key] for key in keys.tolist()], dtype=np.int64)
    return np.where((keys[index] == wanted) & (at >= 0), values[index], found)


def _runs(owner: np.ndarray, cells: np.ndarray, unowned: np.ndarray, columns: int) -> np.ndarray:
    """[m, 4]: access, first cell, number of cells, whether unowned; neighbours in a row are one run."""
    # Several positions share a cell; it is unowned if one of them is.
    first = np.flatnonzero(np.r_[len(owner) > 0, (owner[1:] != owner[:-1]) | (cells[1:] != cells[:-1])])
    if not len(first):
        return np.empty((0, 4), dtype=np.int64)
    bad = np.logical_or.reduceat(unowned, first)
    owner, cells = owner[first], cells[first]
    new_run = (owner[1:] != owner[:-1]) | (cells[1:] != cells[:-1] + 1) | (bad[1:] != bad[:-1])
    new_run |= (cells[1:] % columns == 0) | (cells[1:] < 0) | (cells[:-1] < 0)
    start = np.flatnonzero(np.r_[True, new_run])
    count = np.diff(np.append(start, len(cells)))
    return np.column_stack([owner[start], cells[start], count, bad[start]])
