"""Somebody's own metadata of a step, read into the picture of a block table, and every breach of the contract named.

Nothing here refuses: what can be drawn is drawn, and what is wrong is said. Entries of the block table past a request's end
are shown and never judged.
"""

from __future__ import annotations

from dataclasses import asdict
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from course.widgets.block_table.breaches import Breach, wrong_blocks, wrong_sharing, wrong_slots
from course.widgets.block_table.picture import Row, Slot, letters, slots_of, to_html, to_text

if TYPE_CHECKING:
    import torch

__all__ = ["Metadata"]


class Metadata:
    """`block_table`, `slot_mapping` and lengths of one step, as `kernels.paged_attention` and `reshape_and_cache` take them.

    block_table [num_reqs, max_num_blocks] int32, seq_lens [num_reqs] int32, slot_mapping [num_tokens] int64 or None,
    query_start_loc [num_reqs + 1] int32; without it each request has one new token if that makes as many tokens as
    slot_mapping has. num_blocks: of the cache; without it, one more than the largest block that a request owns.

    breaches: what breaks the contract, in the order of the arguments.
    """

    def __init__(
        self,
        block_table: torch.Tensor,
        slot_mapping: torch.Tensor | None,
        seq_lens: torch.Tensor,
        query_start_loc: torch.Tensor | None,
        *,
        block_size: int,
        num_blocks: int | None = None,
    ) -> None:
        for name, value in (
            ("block_size", block_size),
            ("num_blocks", 1 if num_blocks is None else num_blocks),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}: expected a whole number of at least 1, got {value!r}")
        self.breaches: list[Breach] = []
        self.block_size = block_size
        self._table = self._read("block_table", block_table, "int32", 2)
        self._lens = self._read("seq_lens", seq_lens, "int32", 1)
        if len(self._lens) != len(self._table):
            text = f"expected a length for each of the {len(self._table)} requests, got {len(self._lens)}."
            self._say("wrong shape", "seq_lens", text)
        self._has_slots = slot_mapping is not None
        self._slots = self._read("slot_mapping", slot_mapping, "int64", 1) if self._has_slots else []
        given = query_start_loc is not None
        self._starts = self._read_starts(
            self._read("query_start_loc", query_start_loc, "int32", 1) if given else None
        )
        self._rows = self._read_rows()
        owned = [block for row in self._rows for block in row.blocks]
        self.num_blocks = num_blocks or max([block + 1 for block in owned if block >= 0], default=1)
        judge_end = num_blocks is not None
        self.breaches += wrong_blocks(self._rows, self.num_blocks, judge_end=judge_end)
        self.breaches += wrong_sharing(self._rows, block_size, self.num_blocks)
        self.breaches += wrong_slots(
            self._slots, self._rows, self._starts, block_size, self.num_blocks, judge_end=judge_end
        )

    # Reading

    def _say(self, name: str, where: str, text: str) -> None:
        self.breaches.append(Breach(name, where, text))

    def _read(self, name: str, given: Any, dtype: str, dims: int) -> list[Any]:
        """The tensor as lists of whole numbers, empty where it cannot be read as such."""
        import torch

        if not isinstance(given, torch.Tensor):
            self._say("not a tensor", name, f"expected a torch tensor, got {type(given).__name__}.")
            try:
                given = torch.as_tensor(given)
            except (TypeError, ValueError, RuntimeError):
                return []
        elif given.dtype != getattr(torch, dtype):
            why = " A slot times a stride passes 2**31 in a large cache." if name == "slot_mapping" else ""
            got = str(given.dtype).removeprefix("torch.")
            self._say("wrong dtype", name, f"expected {dtype}, got {got}.{why}")
        if given.dim() != dims:
            wanted = "[num_reqs, max_num_blocks]" if dims == 2 else "one dimension"
            self._say("wrong shape", name, f"expected {wanted}, got shape {list(given.shape)}.")
        values = given.detach().cpu().to(torch.int64).flatten().tolist()
        if dims == 1:
            return values
        # A row that lost its brackets is one request; with more than two dimensions nothing can be said of requests.
        rows, width = given.shape if given.dim() == 2 else (min(given.dim(), 1), len(values))
        return [values[row * width : (row + 1) * width] for row in range(rows)]

    def _read_starts(self, starts: list[int] | None) -> list[int] | None:
        """Where each request's new tokens begin, None where it cannot be known."""
        num_reqs, num_tokens = len(self._table), len(self._slots)
        if starts is None:
            if num_tokens == num_reqs:
                return list(range(num_reqs + 1))
            if num_tokens:
                text = f"slot_mapping has {num_tokens} tokens for {num_reqs} requests: hand it over too, for it says whose they are."
                self._say("missing", "query_start_loc", text)
            return None
        if len(starts) != num_reqs + 1:
            text = f"expected num_reqs + 1 = {num_reqs + 1} entries, the first a 0 and the last the total, got {len(starts)}."
            self._say("wrong shape", "query_start_loc", text)
        elif starts[0] != 0 or any(b < a for a, b in pairwise(starts)):
            text = f"expected a running sum that begins with 0, got {starts}."
            self._say("wrong values", "query_start_loc", text)
        elif self._has_slots and starts[-1] != num_tokens:
            text = f"expected to end at the {num_tokens} tokens of slot_mapping, got {starts[-1]}: one of the two is wrong."
            self._say("wrong values", "query_start_loc", text)
        else:
            return starts
        return None

    def _read_rows(self) -> list[Row]:
        rows = []
        for request, entries in enumerate(self._table):
            name, where = letters(request), f"seq_lens[{request}]"
            length = self._lens[request] if request < len(self._lens) else 0
            room = len(entries) * self.block_size
            if not 0 <= length <= room:
                text = f"expected 0 to {room}: the table has {len(entries)} entries a request, got {length}."
                self._say("wrong length", where, text)
                length = min(max(length, 0), room)
            new = 0 if self._starts is None else self._starts[request + 1] - self._starts[request]
            if 0 < length < new:
                text = (
                    f"expected at least {new}, because seq_lens counts this step's tokens too, got {length}."
                )
                self._say("wrong length", where, text)
            owned = -(-length // self.block_size)
            rows.append(
                Row(name, name, request, length, entries[:owned], min(new, length), 0, entries[owned:])
            )
        return rows

    # What is shown

    def rows(self) -> list[Row]:
        return self._rows

    def slots(self, block: int) -> list[Slot]:
        """What lies in each slot of a physical block, by block_table and seq_lens."""
        return slots_of(block, self._rows, self.block_size)

    def to_dict(self) -> dict[str, Any]:
        owner = [-1] * len(self._slots)
        for request, (start, stop) in enumerate(pairwise(self._starts or [])):
            owner[start:stop] = [request] * (stop - start)
        writes = [[slot, owner[token], token] for token, slot in enumerate(self._slots) if slot >= 0]
        return {
            "live": False,
            "block_size": self.block_size,
            "num_blocks": self.num_blocks,
            "requests": [row.to_dict() for row in self._rows],
            "free": [],
            "cached": {},
            "copies": [],
            "writes": writes,
            "verdict": self.verdict(),
            "breaches": [asdict(breach) for breach in self.breaches],
        }

    def verdict(self) -> str:
        """One sentence."""
        if not self.breaches:
            return "No breach of the contract in these tensors."
        kinds = list(dict.fromkeys(breach.name for breach in self.breaches))
        count = len(self.breaches)
        return f"{count} {'breach' if count == 1 else 'breaches'} of the contract: {', '.join(kinds)}."

    def describe(self) -> str:
        breaches = [f"✗ {breach.where}: {breach.name}. {breach.text}" for breach in self.breaches]
        return "\n".join([self.verdict(), *breaches, *to_text(self._rows, self.block_size)])

    def to_html(self) -> str:
        items = "".join(
            f"<li><code>{escape(b.where)}</code>: {escape(b.name)}. {escape(b.text)}</li>"
            for b in self.breaches
        )
        caption = f"Blocks of {self.block_size} tokens"
        return f"<p><strong>{escape(self.verdict())}</strong></p><ul>{items}</ul>{to_html(caption, self._rows, self.block_size)}"
