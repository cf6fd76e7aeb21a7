"""What a recording adds up to: bytes, how often each element was read, signs of gathering."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from course.recording.columns import KINDS, LOADS, STORES

if TYPE_CHECKING:
    from course.recording.model import Recording

# Counting element by element costs 8 bytes for each element of the storage.
MAX_COUNTED = 1 << 26


@dataclass(frozen=True)
class Coverage:
    """How often each byte was touched: bytes edges[i] to edges[i + 1] - 1 were touched counts[i] times."""

    edges: np.ndarray
    counts: np.ndarray

    @property
    def distinct(self) -> int:
        """Bytes touched at least once."""
        return int(np.diff(self.edges)[self.counts > 0].sum())

    @property
    def most(self) -> int:
        """How often the byte that was touched most was."""
        return int(self.counts.max(initial=0))


@dataclass(frozen=True)
class Row:
    """One tensor's line in a recording's table. Bytes; `least` is the lower bound that was given, or None.

    loads, stores: accesses. distinct_loaded: bytes loaded at least once. most_reads: loads of the byte loaded most.
    masked_lanes: of all its accesses. outside_view: distinct bytes touched in its storage that are not part of it.
    """

    tensor: str
    loads: int
    bytes_loaded: int
    distinct_loaded: int
    most_reads: int
    least: int | None
    stores: int
    bytes_stored: int
    masked_lanes: int
    outside_view: int

    @property
    def times_least(self) -> float | None:
        """Bytes loaded over the least possible; over the distinct bytes where no lower bound was given."""
        least = self.distinct_loaded if self.least is None else self.least
        return self.bytes_loaded / least if least else None


def coverage(recording: Recording, kinds: Iterable[str], tensor: str) -> Coverage:
    """How often each byte of a tensor was touched by accesses of these kinds."""
    columns = recording.columns
    access, run = columns.runs_of(columns.chosen(kinds, recording.number(tensor)))
    start = columns.run_start[run]
    end = start + columns.run_length[run] * columns.itemsize[access]
    edges, inverse = np.unique(np.concatenate([start, end]), return_inverse=True)
    changes = np.concatenate([np.ones(len(start)), -np.ones(len(end))])
    counts = np.cumsum(np.bincount(inverse, weights=changes, minlength=len(edges))).astype(np.int64)
    return Coverage(edges, counts[:-1])


def times(recording: Recording, kinds: Iterable[str], tensor: str) -> np.ndarray:
    """How often each element was touched: int64, of the tensor's shape. Counts the element's first byte.

    Raises ValueError when the tensor's storage has more than 2**26 elements.
    """
    found = coverage(recording, kinds, tensor)
    known = recording.tensors[tensor]
    size = (known.end_byte - known.first_byte) // known.itemsize
    if size > MAX_COUNTED:
        raise ValueError(
            f"{tensor}: expected a storage of at most {MAX_COUNTED} elements to count them one by one, got {size}"
        )
    # Element e of the storage is counted by the last edge at or before its first byte.
    counted = np.zeros(size, dtype=np.int64)
    if len(found.counts):
        element = -((known.first_byte - found.edges) // known.itemsize)
        counted[element[0] : element[-1]] = np.repeat(found.counts, np.diff(element))
    if 0 in known.shape:
        return np.zeros(known.shape, dtype=np.int64)
    first = -known.first_byte // known.itemsize
    strides = [stride * counted.itemsize for stride in known.strides]
    return np.lib.stride_tricks.as_strided(counted[first:], known.shape, strides).copy()


def table(recording: Recording, least: Mapping[str, int] | None = None) -> list[Row]:
    """One row for each tensor that was accessed. Raises ValueError when `least` names a tensor that is not known."""
    least = least or {}
    columns = recording.columns
    for name in least:
        recording.number(name)
    rows = []
    for number, name in enumerate(recording.names):
        of_tensor = columns.tensor == number
        if not of_tensor.any():
            continue
        loads, stores = columns.chosen(LOADS, number), columns.chosen(STORES, number)
        loaded = coverage(recording, LOADS, name)
        rows.append(
            Row(
                tensor=name,
                loads=int(loads.sum()),
                bytes_loaded=columns.bytes_of(loads),
                distinct_loaded=loaded.distinct,
                most_reads=loaded.most,
                least=least.get(name),
                stores=int(stores.sum()),
                bytes_stored=columns.bytes_of(stores),
                masked_lanes=int(columns.masked[of_tensor].sum()),
                outside_view=_outside_view(recording, name),
            )
        )
    return rows


def _outside_view(recording: Recording, tensor: str) -> int:
    """Distinct bytes touched in the tensor's storage that are not part of the tensor; 0 for a view that overlaps itself."""
    known = recording.tensors[tensor]
    found = coverage(recording, KINDS, tensor)
    whole = int(np.prod(known.shape)) * known.itemsize
    if whole == known.end_byte - known.first_byte:
        return 0
    outside = 0
    for start, end, count in zip(found.edges[:-1], found.edges[1:], found.counts, strict=True):
        if count:
            offsets = np.arange(start // known.itemsize, -(-end // known.itemsize))
            try:
                _, inside = known.indices(offsets)
            except ValueError:
                return 0
            outside += int(np.count_nonzero(~inside)) * known.itemsize
    return outside


def gathers(recording: Recording, at_least: int) -> list[str]:
    """Signs that data was copied before it was used, one sentence each.

    at_least: bytes, for example those of the longest request's keys: seq_len * num_kv_heads * head_size * itemsize.
    A sign is an operation of torch that read a named tensor and wrote at least so many bytes; or a kernel that stored
    at least so many bytes into a tensor that nobody named and that was read afterwards, by a kernel or by torch. Signs, no
    proof: a split-KV kernel's partial results are of the second kind, and what NumPy copies leaves none.
    """
    columns = recording.columns
    signs = [
        f"{op.name} read {' and '.join(named)} and wrote a tensor of shape {list(op.shape)}, {op.bytes:,} bytes"
        for op in recording.torch_ops
        if op.bytes >= at_least
        and (
            named := [
                name for name in op.reads if name in recording.tensors and recording.tensors[name].named
            ]
        )
    ]
    read_by_torch = {name for op in recording.torch_ops for name in op.reads}
    for number, (name, known) in enumerate(recording.tensors.items()):
        stored = coverage(recording, STORES, name).distinct
        read = name in read_by_torch or coverage(recording, LOADS, name).distinct >= at_least
        if not known.named and read and stored >= at_least:
            launches = np.unique(columns.launch[columns.chosen(STORES, number)]).tolist()
            kernels = dict.fromkeys(recording.launches[launch].kernel for launch in launches)
            signs.append(
                f"{' and '.join(kernels)} stored {stored:,} bytes into {name}, shape {list(known.shape)}, which was read again"
            )
    return signs
