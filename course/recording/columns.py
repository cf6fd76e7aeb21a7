"""All accesses of a recording as columns of numbers, and what is computed from runs of bytes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

KINDS = ("load", "store", "atomic")
LOADS = ("load", "atomic")
STORES = ("store", "atomic")


@dataclass
class Columns:
    """All accesses, one entry each. The bytes that one touches are runs of neighbouring elements.

    launch, stack, tensor (-1: none), kind (index into KINDS), lanes, masked, itemsize: [n].
    program: [n, 3]. shape: for each a tuple. transposed: [n] bool, whether runs go through the tile column by column.
    first_run: [n + 1]; access i has runs first_run[i] to first_run[i + 1]. run_start: in bytes from the tensor's
    first element. run_length: in elements. masks: access -> packed bits, where some lane is masked.
    """

    launch: np.ndarray
    program: np.ndarray
    stack: np.ndarray
    kind: np.ndarray
    tensor: np.ndarray
    lanes: np.ndarray
    masked: np.ndarray
    itemsize: np.ndarray
    transposed: np.ndarray
    shape: list[tuple[int, ...]]
    first_run: np.ndarray
    run_start: np.ndarray
    run_length: np.ndarray
    masks: dict[int, np.ndarray]

    def __len__(self) -> int:
        return len(self.launch)

    def chosen(self, kinds: Iterable[str], tensor: int | None) -> np.ndarray:
        """Which accesses are of these kinds and, unless None, of this tensor: bool, [n]."""
        fits = np.isin(self.kind, [KINDS.index(kind) for kind in kinds])
        return fits if tensor is None else fits & (self.tensor == tensor)

    def bytes_of(self, chosen: np.ndarray) -> int:
        """Bytes of all active lanes of the chosen accesses."""
        return int(((self.lanes - self.masked) * self.itemsize)[chosen].sum())

    def runs_of(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(access, run): the numbers of the chosen accesses' runs, and the access that each belongs to."""
        access = np.repeat(np.arange(len(self)), np.diff(self.first_run))
        run = np.flatnonzero(chosen[access]) if len(access) else np.empty(0, dtype=np.int64)
        return access[run], run


def expand_runs(start: np.ndarray, length: np.ndarray, itemsize: np.ndarray | int) -> np.ndarray:
    """The byte offset of every element of runs [n] of `length` elements that begin at byte `start`."""
    first = np.cumsum(length, dtype=np.int64) - length
    within = np.arange(int(length.sum()), dtype=np.int64) - np.repeat(first, length)
    itemsize = np.broadcast_to(np.asarray(itemsize), start.shape)
    return np.repeat(start, length) + within * np.repeat(itemsize, length)
