"""A recording: launches, tensors, and every access, with what follows from them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from course.recording import paged, render, summary
from course.recording.access import Access, Launch, Line, Source
from course.recording.columns import KINDS, LOADS, STORES, Columns
from course.recording.memory import OutOfBounds, RecordedTensor
from course.recording.torch_ops import TorchOp

if TYPE_CHECKING:
    import torch


class Recording:
    """Every access of every kernel that ran, and what follows from it. Made by `course.record`.

    launches: [`Launch`], in order. tensors: name -> `RecordedTensor`. lines: the lines that accessed memory.
    names: the tensors' names by number, as `columns.tensor` counts. sources: the functions they stand in. torch_ops: what torch did between the launches, as far as it made new
    tensors or read a named one. out_of_bounds: the `OutOfBounds` that ended the recording, or None.
    result: what the recorded function returned, when `course.record` called it. least: name -> the bytes that have to be
    loaded at least, which you may set (`least_bytes`); the table then compares with it.

    `len(recording)` accesses; `recording[i]` and iteration give them as `Access`, in order.
    """

    def __init__(self) -> None:
        self.launches: list[Launch] = []
        self.tensors: dict[str, RecordedTensor] = {}
        self.names: tuple[str, ...] = ()
        self.stacks: list[tuple[Line, ...]] = []
        self.sources: list[Source] = []
        self.torch_ops: list[TorchOp] = []
        self.out_of_bounds: OutOfBounds | None = None
        self.result: Any = None
        self.least: dict[str, int] = {}
        self._columns: Columns | None = None

    @property
    def columns(self) -> Columns:
        if self._columns is None:
            raise RuntimeError(
                "the recording is still running: leave the `with course.record(...)` block first"
            )
        return self._columns

    @property
    def ran(self) -> bool:
        """Whether any program of any Triton kernel ran."""
        self.columns  # noqa: B018  raises while the recording runs
        return any(launch.grid is not None and 0 not in launch.grid for launch in self.launches)

    @property
    def lines(self) -> tuple[Line, ...]:
        return tuple(dict.fromkeys(stack[-1] for stack in self.stacks))

    def __len__(self) -> int:
        return len(self.columns.launch)

    def __getitem__(self, index: int) -> Access:
        if not -len(self) <= index < len(self):
            raise IndexError(f"the recording has {len(self)} accesses, got index {index}")
        index %= len(self)
        columns = self.columns
        launch, tensor = int(columns.launch[index]), int(columns.tensor[index])
        x, y, z = columns.program[index].tolist()
        stack = self.stacks[columns.stack[index]]
        lanes, masked = int(columns.lanes[index]), int(columns.masked[index])
        return Access(
            index,
            launch,
            self.launches[launch].kernel,
            (x, y, z),
            KINDS[columns.kind[index]],
            self.names[tensor] if tensor >= 0 else None,
            stack[-1],
            stack,
            columns.shape[index],
            lanes,
            masked,
            (lanes - masked) * int(columns.itemsize[index]),
            self,
        )

    def __iter__(self) -> Iterator[Access]:
        return (self[index] for index in range(len(self)))

    def accesses(
        self,
        *,
        tensor: str | None = None,
        kind: str | None = None,
        program: tuple[int, ...] | None = None,
        launch: int | None = None,
        line: int | Line | None = None,
    ) -> list[Access]:
        """The accesses that fit all that is given, in order.

        program: (x, y, z); missing axes are 0. line: a `Line`, or a number in any file; an access inside a helper
        fits the line of the kernel that called the helper as well.
        """
        columns = self.columns
        fits = np.ones(len(self), dtype=bool)
        if tensor is not None:
            fits &= columns.tensor == self.number(tensor)
        if kind is not None:
            if kind not in KINDS:
                raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}")
            fits &= columns.kind == KINDS.index(kind)
        if program is not None:
            fits &= (columns.program == np.array([*program, 0, 0, 0][:3])).all(axis=1)
        if launch is not None:
            fits &= columns.launch == launch
        if line is not None:
            stacks = [
                any(at == line if isinstance(line, Line) else at.number == line for at in stack)
                for stack in self.stacks
            ]
            fits &= np.array(stacks, dtype=bool)[columns.stack] if len(self) else fits
        return [self[index] for index in np.flatnonzero(fits).tolist()]

    def number(self, tensor: str) -> int:
        """The number of a tensor in `columns.tensor`. Raises ValueError for a name that is not in the recording."""
        self.columns  # noqa: B018  raises while the recording runs
        if tensor not in self.tensors:
            known = ", ".join(self.tensors) or "none"
            raise ValueError(f"tensor: expected a tensor of this recording ({known}), got {tensor!r}")
        return self.names.index(tensor)

    # What follows from the accesses. summary.py and paged.py do the work.

    def bytes_loaded(self, tensor: str | None = None) -> int:
        """Bytes that all programs together loaded, from one tensor or from all.

        As their lanes ask for them: a byte that two lanes or two programs load counts twice, though a GPU may fetch it
        once for all lanes of a warp, or find it in a cache.
        """
        return self._bytes(LOADS, tensor)

    def bytes_stored(self, tensor: str | None = None) -> int:
        """Bytes that all programs together stored, into one tensor or into all."""
        return self._bytes(STORES, tensor)

    def distinct_bytes_loaded(self, tensor: str) -> int:
        """Bytes of the tensor's storage that were loaded at least once."""
        return summary.coverage(self, LOADS, tensor).distinct

    def reads(self, tensor: str) -> np.ndarray:
        """How often each element was loaded: int64, of the tensor's shape."""
        return summary.times(self, LOADS, tensor)

    def writes(self, tensor: str) -> np.ndarray:
        """How often each element was stored: int64, of the tensor's shape."""
        return summary.times(self, STORES, tensor)

    def table(self) -> list[summary.Row]:
        """One row for each tensor that was accessed: bytes loaded and stored, distinct bytes, how often, the least."""
        return summary.table(self, self.least)

    @property
    def largest_allocation(self) -> TorchOp | None:
        """The operation of torch that took the most new memory, outside of kernels; None if none took any."""
        return max((op for op in self.torch_ops if op.allocated), key=lambda op: op.allocated, default=None)

    def gathers(self, at_least: int) -> list[str]:
        """Signs that K or V was copied before it was used, one sentence each: see `summary.gathers`."""
        return summary.gathers(self, at_least)

    def slots(self, cache: str, kind: str = "load") -> np.ndarray:
        """Which slots of a paged cache were accessed, and by whom: see `paged.slots`."""
        return paged.slots(self, cache, kind)

    def trespasses(
        self,
        block_table: torch.Tensor,
        seq_lens: torch.Tensor,
        query_start_loc: torch.Tensor | None = None,
        **options: Any,
    ) -> list[paged.Trespass]:
        """Reads of slots that a request does not own, or past its end: see `paged.trespasses`."""
        return paged.trespasses(self, block_table, seq_lens, query_start_loc, **options)

    def _bytes(self, kinds: tuple[str, ...], tensor: str | None) -> int:
        number = None if tensor is None else self.number(tensor)
        return self.columns.bytes_of(self.columns.chosen(kinds, number))

    def to_dict(self) -> dict[str, Any]:
        """The whole recording as plain numbers, strings, lists and dicts, which JSON can hold."""
        return render.to_dict(self)

    def __repr__(self) -> str:
        return render.text(self)

    def _repr_html_(self) -> str:
        return render.page(self)
