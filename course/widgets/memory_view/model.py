"""What a recorded kernel touched, as a picture: programs, tensors as cells, lines of source, bytes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from course.deployments import Table
from course.recording.columns import KINDS
from course.recording.model import Recording
from course.widgets.memory_view.compact import compact
from course.widgets.memory_view.layout import layout_of

if TYPE_CHECKING:
    import torch

__all__ = ["MAX_ACCESSES", "MemoryPicture"]

MAX_ACCESSES = 100_000
VERBS = {"load": "loads", "store": "stores to", "atomic": "updates"}
# Places that a sentence names, and accesses that a text lists.
_PLACES, _LISTED = 4, 8


class MemoryPicture:
    """A recording, ready to be drawn.

    recording: of `course.record`; also the `recording` of an `OutOfBounds`. block_table, seq_lens, query_start_loc: as
    given to the kernel; with them, blocks have owners, and reads that a program's request does not own are marked.
    caches: names of the tensors [num_blocks, block_size, ...].
    """

    def __init__(
        self,
        recording: Recording,
        block_table: torch.Tensor | None = None,
        seq_lens: torch.Tensor | None = None,
        query_start_loc: torch.Tensor | None = None,
        *,
        caches: Iterable[str] = ("key_cache", "value_cache"),
    ) -> None:
        if not isinstance(recording, Recording):
            raise ValueError(f"recording: expected what course.record gives, got {type(recording).__name__}")
        if len(recording) > MAX_ACCESSES:
            raise ValueError(
                f"recording: expected at most {MAX_ACCESSES:,} accesses, got {len(recording):,}; record a smaller case"
            )
        if (block_table is None) != (seq_lens is None):
            raise ValueError("block_table, seq_lens: expected both or neither")
        self.recording = recording
        names = tuple(caches)
        self._layouts = {
            name: layout_of(tensor, cache=name in names) for name, tensor in recording.tensors.items()
        }
        self.trespasses = []
        self._owners: dict[str, dict[str, Any]] = {}
        if block_table is not None and seq_lens is not None:
            self.trespasses = recording.trespasses(block_table, seq_lens, query_start_loc, caches=names)
            self._owners = self._owned(np.asarray(block_table.cpu()), seq_lens.tolist(), names)
        self.columns = compact(recording, self._layouts, self.trespasses)

    def sentence(self, index: int) -> str:
        """Access `index` in words; `len(recording)` is the one that went out of bounds, where one did."""
        if index == len(self.recording) and self.recording.out_of_bounds is not None:
            error = self.recording.out_of_bounds
            return f"Access {index}: OUT OF BOUNDS. {_capital(error)}"
        access = self.recording[index]
        who = f"Access {index}: program {access.program} of {access.kernel}"
        if access.tensor is None:
            return f"{who} touches nothing, all lanes are masked. {_capital(access.line)}"
        reason = int(self.columns.reason[index])
        unowned = "" if reason < 0 else f" UNOWNED: {self.columns.reasons[reason]}."
        return (
            f"{who} {VERBS[access.kind]} {access.tensor}{self._places(index, access.tensor)}: "
            f"{access.num_lanes - access.num_masked} of {access.num_lanes} lanes, {access.bytes:,} bytes.{unowned} "
            f"{_capital(access.line)}"
        )

    def to_dict(self) -> dict[str, Any]:
        recording = self.recording
        lines = {line: number for number, line in enumerate(dict.fromkeys(_lines(recording)))}
        error = recording.out_of_bounds
        kernels = [launch.kernel for launch in recording.launches]
        sources = sorted(recording.sources, key=lambda source: source.function not in kernels)
        return {
            "launches": [{"kernel": launch.kernel, "grid": launch.grid} for launch in recording.launches],
            "programs": self._programs(),
            "reasons": self.columns.reasons,
            "kinds": list(KINDS),
            "verbs": list(VERBS.values()),
            "tensors": [self._tensor(name) for name in recording.names],
            "owners": self._owners,
            "lines": [asdict(line) | {"place": line.place, "words": _capital(line)} for line in lines],
            "stacks": [[lines[line] for line in stack] for stack in recording.stacks],
            "sources": [asdict(source) for source in sources],
            "bytes": [
                {
                    "tensor": row.tensor,
                    "loaded": row.bytes_loaded,
                    "least": row.least,
                    "stored": row.bytes_stored,
                }
                for row in recording.table()
            ],
            "out_of_bounds": None
            if error is None
            else {
                "tensor": -1 if error.tensor is None else recording.names.index(str(error.tensor)),
                "program": list(error.program),  # type: ignore[call-overload]
                "launch": len(recording.launches) - 1,
                "line": lines.get(error.line, -1),
                "offset": error.offset,
                "lanes": error.num_lanes,
                "sentence": self.sentence(len(recording)),
            },
        }

    def describe(self) -> str:
        said = [repr(self.recording), *map(str, self.trespasses[:_LISTED])]
        if len(self.trespasses) > _LISTED:
            said.append(f"... and {len(self.trespasses) - _LISTED} more reads of what a request does not own")
        said.append(repr(self._lines_table()))
        said += [self.sentence(index) for index in range(min(len(self.recording), _LISTED))]
        if len(self.recording) > _LISTED:
            said.append(f"... and {len(self.recording) - _LISTED:,} more accesses: recording[i]")
        return "\n".join(said)

    def to_html(self) -> str:
        marks = "".join(f"<p>{escape(str(trespass))}</p>" for trespass in self.trespasses[:_LISTED])
        return f"{self.recording._repr_html_()}{marks}{self._lines_table()._repr_html_()}"

    def _lines_table(self) -> Table:
        rows = []
        for line in dict.fromkeys(_lines(self.recording)):
            accesses = self._of_line(line)
            total = int(self.columns.num_bytes[accesses].sum())
            rows.append([str(line.number), line.text, f"{int(accesses.sum()):,}", f"{total:,}"])
        return Table("Accesses by line of source", ["line", "text", "accesses", "bytes"], rows)

    def _of_line(self, line: Any) -> np.ndarray:
        stacks = np.array([line == stack[-1] for stack in self.recording.stacks], dtype=bool)
        return stacks[self.columns.stack] if len(self.recording) else np.zeros(0, dtype=bool)

    def _tensor(self, name: str) -> dict[str, Any]:
        tensor, layout = self.recording.tensors[name], self._layouts[name]
        return {
            "name": name,
            "shape": list(tensor.shape),
            "dtype": tensor.dtype,
            **asdict(layout),
        }

    def _programs(self) -> list[tuple[int, ...]]:
        """All that accessed something, and the one that was about to."""
        programs: list[tuple[int, ...]] = list(self.columns.programs)
        if (error := self.recording.out_of_bounds) is not None:
            last = (len(self.recording.launches) - 1, *error.program)  # type: ignore[misc]
            programs += [] if last in programs else [last]
        return programs

    def _places(self, index: int, tensor: str) -> str:
        layout, columns = self._layouts[tensor], self.columns
        runs = range(int(columns.first_run[index]), int(columns.first_run[index + 1]))
        names = [
            "outside of the tensor"
            if columns.run_cell[run] < 0
            else layout.name(int(columns.run_cell[run]), int(columns.run_count[run]))
            for run in runs[:_PLACES]
        ]
        if len(runs) > _PLACES:
            names.append(f"{len(runs) - _PLACES} more")
        places = "; ".join(names) or "nowhere"
        return places if places.startswith("[") else f" {places}"

    def _owned(
        self, table: np.ndarray, lengths: list[int], caches: tuple[str, ...]
    ) -> dict[str, dict[str, Any]]:
        """Block, as text -> the requests that own it, and how many of its slots hold their tokens."""
        sizes = [self._layouts[name].length for name in caches if name in self._layouts]
        owners: dict[str, dict[str, Any]] = {}
        for request, length in enumerate(lengths):
            for logical in range(-(-length // sizes[0]) if sizes else 0):
                owner = owners.setdefault(str(int(table[request, logical])), {"requests": [], "held": 0})
                owner["requests"].append(request)
                owner["held"] = max(owner["held"], min(sizes[0], length - logical * sizes[0]))
        return owners


def _capital(line: object) -> str:
    text = str(line)
    return text[:1].upper() + text[1:]


def _lines(recording: Recording) -> Iterable[Any]:
    """Each line of each stack; the innermost one is where memory is touched."""
    for stack in recording.stacks:
        yield from stack
