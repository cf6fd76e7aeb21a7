"""Paged caches: which blocks and slots were read, by whom, and whether they had a right to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from course.recording.columns import KINDS, expand_runs

if TYPE_CHECKING:
    import torch

    from course.recording.access import Line
    from course.recording.model import Recording

SLOT = np.dtype(
    [
        ("launch", np.int64),
        ("x", np.int64),
        ("y", np.int64),
        ("z", np.int64),
        ("block", np.int64),
        ("slot", np.int64),
        ("kv_head", np.int64),
        ("elements", np.int64),
        ("access", np.int64),
    ]
)
# How many elements are spelled out at a time.
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Trespass:
    """A program read what no request that it works for owns.

    kernel, launch, program (x, y, z), line: of the first such read. tensor, block, slots: what was read; for the block
    table, `block` is the row and `slots` the columns. requests: those that the program works for. reason: a clause.
    """

    kernel: str
    launch: int
    program: tuple[int, int, int]
    line: Line
    tensor: str
    block: int
    slots: tuple[int, ...]
    requests: tuple[int, ...]
    reason: str

    def __str__(self) -> str:
        what = ("row", "entries") if self.tensor == "block_table" else ("block", "slots")
        numbers = _ranges(self.slots)
        return (
            f"program {self.program} of {self.kernel} reads {self.tensor}, {what[0]} {self.block}, {what[1]} {numbers}: "
            f"{self.reason}. At {self.line}"
        )


def least_bytes(seq_lens: torch.Tensor, key_cache: torch.Tensor, value_cache: torch.Tensor) -> dict[str, int]:
    """The bytes that decode has to load at least: each key and value of each request once per kv head.

    seq_lens [num_reqs]; caches [num_blocks, block_size, num_kv_heads, head_size]. For `Recording.table`.
    """
    tokens = int(seq_lens.sum())
    return {
        name: tokens * cache.shape[2] * cache.shape[3] * cache.element_size()
        for name, cache in (("key_cache", key_cache), ("value_cache", value_cache))
    }


def slots(recording: Recording, cache: str, kind: str = "load") -> np.ndarray:
    """Which slots were accessed by which program.

    cache: a tensor [num_blocks, block_size, num_kv_heads, head_size], or without the dimension of heads.
    kind: "load", "store" or "atomic".
    Returns a structured array, sorted, one entry for each program, block, slot and kv head: launch, x, y, z, block,
    slot, kv_head, elements (accessed, with repetitions), access (the first, a number in the recording).
    Elements of the cache's storage that are not part of the cache are left out.
    """
    recording.number(cache)
    if kind not in KINDS:
        raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}")
    known = recording.tensors[cache]
    if len(known.shape) not in (3, 4):
        raise ValueError(
            f"{cache}: expected [num_blocks, block_size, num_kv_heads, head_size], got shape {list(known.shape)}"
        )
    rows = _cells(recording, cache, kind, 3 if len(known.shape) == 4 else 2)
    found = np.zeros(len(rows), dtype=SLOT)
    for column, name in enumerate(("launch", "x", "y", "z", "block", "slot")):
        found[name] = rows[:, column]
    if len(known.shape) == 4:
        found["kv_head"] = rows[:, 6]
    found["elements"], found["access"] = rows[:, -2], rows[:, -1]
    return found


def _cells(recording: Recording, tensor: str, kind: str, num_dims: int) -> np.ndarray:
    """[n, 4 + num_dims + 2]: launch, program, the first indices, how many elements, the first access. Sorted."""
    columns = recording.columns
    known = recording.tensors[tensor]
    access, run = columns.runs_of(columns.chosen((kind,), recording.number(tensor)))
    parts = [np.empty((0, 6 + num_dims), dtype=np.int64)]
    ends = np.cumsum(columns.run_length[run], dtype=np.int64)
    for chunk in range(0, int(ends[-1]) if len(ends) else 0, _CHUNK):
        part = slice(*np.searchsorted(ends, [chunk, chunk + _CHUNK], side="right"))
        length = columns.run_length[run[part]]
        owner = np.repeat(access[part], length)
        offsets = expand_runs(columns.run_start[run[part]], length, columns.itemsize[access[part]])
        indices, inside = known.indices(offsets // known.itemsize)
        cells = np.column_stack([owner, indices[:, :num_dims]])[inside]
        # Neighbouring elements mostly share their cell.
        first = np.flatnonzero(np.r_[len(cells) > 0, (cells[1:] != cells[:-1]).any(axis=1)])
        counts = np.diff(np.append(first, len(cells)))
        owner, cells = cells[first, 0], cells[first, 1:]
        keys = np.column_stack([columns.launch[owner], columns.program[owner].astype(np.int64), cells])
        parts.append(_unique(keys, counts, owner))
    together = np.concatenate(parts)
    return _unique(together[:, :-2], together[:, -2], together[:, -1])


def _unique(keys: np.ndarray, counts: np.ndarray, access: np.ndarray) -> np.ndarray:
    """Distinct rows of keys, with the sum of their counts and their first access."""
    if not len(keys):
        return np.empty((0, keys.shape[1] + 2), dtype=np.int64)
    order = np.lexsort((access, *keys.T[::-1]))
    keys, counts, access = keys[order], counts[order], access[order]
    first = np.flatnonzero(np.r_[True, (keys[1:] != keys[:-1]).any(axis=1)])
    return np.column_stack([keys[first], np.add.reduceat(counts, first), access[first]])


def trespasses(
    recording: Recording,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    query_start_loc: torch.Tensor | None = None,
    *,
    caches: Iterable[str] = ("key_cache", "value_cache"),
    requests_of: Callable[[tuple[int, int, int]], Iterable[int]] | None = None,
) -> list[Trespass]:
    """Reads of a cache's slots that the program's request does not own, and of table entries past its end.

    block_table [num_reqs, max_num_blocks], seq_lens [num_reqs]: as given to the kernel.
    query_start_loc: [num_reqs + 1], or None for one query token a request.
    caches: names of tensors in the recording; those that no kernel accessed are passed over.
    requests_of: the requests that a program (x, y, z) works for. Without it they are those whose query it loads from
    the tensor `query`; a program that loads none may read what any request owns.

    One entry for each program, block and reason, in the order of the recording.
    """
    table = block_table.cpu().numpy()
    lengths = [int(length) for length in seq_lens]
    served = _requests_served(recording, query_start_loc) if requests_of is None else {}
    everyone = tuple(range(len(lengths)))
    found = []
    for cache in caches:
        if cache not in recording.tensors:
            continue
        known = recording.tensors[cache]
        if len(known.shape) not in (3, 4):
            raise ValueError(
                f"{cache}: expected [num_blocks, block_size, num_kv_heads, head_size], got shape {list(known.shape)}"
            )
        block_size = known.shape[1]
        owned, blocks = _owned(table, lengths, block_size)
        for program, rows in _by_program(slots(recording, cache)):
            requests = (
                served.get(program, everyone) if requests_of is None else tuple(requests_of(program[1:]))
            )
            slot = rows["block"] * block_size + rows["slot"]
            mine = np.concatenate([np.empty(0, np.int64), *(owned[request] for request in requests)])
            rows = rows[~np.isin(slot, mine)]
            for block in np.unique(rows["block"]).tolist():
                reads = rows[rows["block"] == block]
                reason = _reason(
                    block, requests, blocks, lengths, served.get(program) is None and requests_of is None
                )
                found.append(_trespass(recording, program, cache, block, reads, requests, reason))
    found += _table_trespasses(recording, lengths, caches)
    return [trespass for _, trespass in sorted(found, key=lambda pair: pair[0])]


def _owned(
    table: np.ndarray, lengths: list[int], block_size: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """For each request the slots that hold its tokens, block * block_size + slot, and the blocks that they are in."""
    owned, blocks = [], []
    for request, length in enumerate(lengths):
        position = np.arange(length)
        row = table[request].astype(np.int64)
        owned.append(row[position // block_size] * block_size + position % block_size)
        blocks.append(row[: -(-length // block_size)])
    return owned, blocks


def _requests_served(
    recording: Recording, query_start_loc: torch.Tensor | None
) -> dict[tuple[int, int, int, int], tuple[int, ...]]:
    """(launch, x, y, z) -> the requests whose query tokens it loaded."""
    if "query" not in recording.tensors:
        return {}
    starts = None if query_start_loc is None else query_start_loc.cpu().numpy()
    served: dict[tuple[int, int, int, int], set[int]] = {}
    for launch, x, y, z, token, *_ in _cells(recording, "query", "load", 1).tolist():
        request = token if starts is None else int(np.searchsorted(starts, token, side="right")) - 1
        served.setdefault((launch, x, y, z), set()).add(request)
    return {program: tuple(sorted(requests)) for program, requests in served.items()}


def _by_program(rows: np.ndarray) -> list[tuple[tuple[int, int, int, int], np.ndarray]]:
    """Slots, sorted by program, cut into those of each."""
    if not len(rows):
        return []
    keys = np.column_stack([rows[name] for name in ("launch", "x", "y", "z")])
    cuts = np.flatnonzero((keys[1:] != keys[:-1]).any(axis=1)) + 1
    return [(tuple(part[0].tolist()[:4]), part) for part in np.split(rows, cuts)]


def _reason(
    block: int, requests: tuple[int, ...], blocks: list[np.ndarray], lengths: list[int], anybody: bool
) -> str:
    of_mine = [request for request in requests if block in blocks[request]]
    if of_mine:
        past = ", ".join(f"request {request} (seq_len {lengths[request]})" for request in of_mine)
        return f"slots past the end of {past}"
    if anybody:
        return "no request owns the block"
    mine = "request " + " and ".join(map(str, requests)) if requests else "no request"
    others = [request for request in range(len(lengths)) if block in blocks[request]]
    if others:
        return f"a block of request {' and '.join(map(str, others))}; the program works for {mine}"
    return f"no request owns the block; the program works for {mine}"


def _trespass(
    recording: Recording,
    program: tuple[int, int, int, int],
    tensor: str,
    block: int,
    reads: np.ndarray,
    requests: tuple[int, ...],
    reason: str,
) -> tuple[int, Trespass]:
    access = recording[int(reads["access"].min())]
    numbers = tuple(sorted(set(reads["slot"].tolist())))
    launch, x, y, z = program
    return access.index, Trespass(
        access.kernel, launch, (x, y, z), access.line, tensor, block, numbers, requests, reason
    )


def _table_trespasses(
    recording: Recording, lengths: list[int], caches: Iterable[str]
) -> list[tuple[int, Trespass]]:
    """Reads of the block table's entries past a request's end, whose values mean nothing."""
    sizes = [recording.tensors[cache].shape[1] for cache in caches if cache in recording.tensors]
    known = recording.tensors.get("block_table")
    if not sizes or known is None or len(known.shape) != 2:
        return []
    entries = _cells(recording, "block_table", "load", 2)
    rows = np.zeros(len(entries), dtype=SLOT)
    for column, name in enumerate(("launch", "x", "y", "z", "block", "slot")):
        rows[name] = entries[:, column]
    rows["access"] = entries[:, -1]
    num_blocks = np.array([-(-length // sizes[0]) for length in lengths] or [0])
    rows = rows[rows["slot"] >= num_blocks[np.minimum(rows["block"], len(num_blocks) - 1)]]
    found = []
    for program, part in _by_program(rows):
        for request in np.unique(part["block"]).tolist():
            reads = part[part["block"] == request]
            held = "1 block" if num_blocks[request] == 1 else f"{num_blocks[request]} blocks"
            reason = f"request {request} has {held} (seq_len {lengths[request]})"
            found.append(_trespass(recording, program, "block_table", request, reads, (request,), reason))
    return found


def _ranges(numbers: tuple[int, ...]) -> str:
    """(3, 4, 5, 9) -> "3 to 5, 9"."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], number]
        else:
            parts.append([number])
    return ", ".join(f"{part[0]} to {part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)
