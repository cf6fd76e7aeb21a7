"""Why a slot is wrong: the mistakes that people make when they compute `slot_mapping`, each as a formula and a sentence."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Step", "explain", "read_guess", "reveal"]


@dataclass(frozen=True)
class Step:
    """A request's new tokens: `count` of them, the first at position `first` of its sequence.

    table: its physical blocks in logical order. before: the table before this step's copy-on-write, where there was one.
    holders: who holds a slot already, as "B's position 3".
    """

    table: Sequence[int]
    first: int
    count: int
    block_size: int
    num_blocks: int
    before: Sequence[int] = ()
    holders: dict[int, str] = field(default_factory=dict)

    def slot(self, position: int) -> int | None:
        """The slot of a position, None where the table ends before it."""
        logical, offset = divmod(position, self.block_size)
        if position < 0 or logical >= len(self.table):
            return None
        return self.table[logical] * self.block_size + offset

    def right(self) -> list[int | None]:
        return [self.slot(self.first + index) for index in range(self.count)]


Formula = Callable[[Step, int], int | None]


def _physical(step: Step, index: int) -> int | None:
    logical = (step.first + index) // step.block_size
    return step.table[logical] if 0 <= logical < len(step.table) else None


def _logical_block(step: Step, index: int) -> int | None:
    return step.first + index  # logical * block_size + offset


def _offset_of_index(step: Step, index: int) -> int | None:
    block = _physical(step, index)
    return None if block is None else block * step.block_size + index % step.block_size


def _copied_from(step: Step, index: int) -> int | None:
    logical, offset = divmod(step.first + index, step.block_size)
    if not 0 <= logical < len(step.before) or step.before[logical] == step.table[logical]:
        return None
    return step.before[logical] * step.block_size + offset


def _contiguous(step: Step, index: int) -> int | None:
    return step.table[0] * step.block_size + step.first + index if step.table else None


def _block_start(step: Step, index: int) -> int | None:
    block = _physical(step, index)
    return None if block is None else block * step.block_size


# In this order where two formulas explain the same entries.
_MISTAKES: list[tuple[Formula, str]] = [
    (
        _logical_block,
        "the logical block was taken for the physical one: logical block * block_size + offset is just the position. "
        "Look the block up in the request's table.",
    ),
    (
        _offset_of_index,
        "the offset was counted from the first new token. It is position % block_size, and the position counts the "
        "tokens that are in the cache already.",
    ),
    (
        lambda step, index: step.slot(index),
        "the positions were counted from 0. The new tokens come after those that are in the cache already.",
    ),
    (
        _copied_from,
        "that block is shared. The step copies it first, and writes to the copy: copy-on-write.",
    ),
    (
        _contiguous,
        "the request's blocks were taken to lie one after the other: first block * block_size + position. Each block "
        "has to be looked up.",
    ),
    (
        lambda step, index: step.slot(step.first + index - 1),
        "one position too early: positions count from 0, so the first new token sits at the old length.",
    ),
    (
        lambda step, index: step.slot(step.first + index + 1),
        "one position too late: the first new token sits at the old length, not one after it.",
    ),
    (
        lambda step, index: step.slot(step.first + index + step.count),
        "later by the number of new tokens: either the slot is wrong, or seq_lens leaves out this step's tokens.",
    ),
    (_physical, "that is the physical block's number. A slot counts tokens: block * block_size + offset."),
    (_block_start, "that is where the block begins. Add the offset, position % block_size."),
]


def explain(entries: Sequence[int], step: Step) -> list[str]:
    """For each of a request's new tokens: why its entry is wrong, or "" where it is right.

    One mistake usually explains many entries: where several formulas fit an entry, the one that fits most is named.
    """
    right = step.right()
    wrong = [index for index, entry in enumerate(entries) if index < step.count and entry != right[index]]
    fits = {
        index: [
            which for which, (formula, _) in enumerate(_MISTAKES) if formula(step, index) == entries[index]
        ]
        for index in wrong
    }
    votes = Counter(which for each in fits.values() for which in each)
    return [_sentence(index, entries, step, fits, votes) for index in range(len(entries))]


def _sentence(
    index: int, entries: Sequence[int], step: Step, fits: dict[int, list[int]], votes: Counter[int]
) -> str:
    if index >= step.count:
        return f"there are only {step.count} new tokens."
    if index not in fits:
        return ""
    entry, size = entries[index], step.block_size
    position = step.first + index
    if entry < 0:
        return "a negative slot means: do not write this token."
    if entry >= step.num_blocks * size:
        return f"the cache ends at slot {step.num_blocks * size - 1}."
    if fits[index]:
        best = max(fits[index], key=lambda which: (votes[which], -which))
        return _MISTAKES[best][1]
    if entry in step.holders:
        return f"that slot holds {step.holders[entry]}."
    block, offset = divmod(entry, size)
    physical = _physical(step, index)
    if block == physical:
        return f"the block is right, the offset is not: {position} % {size} is {position % size}."
    there = f"that slot lies in block {block}; "
    if offset == position % size:
        there = f"the offset is right, but block {block} is not the one: "
    if physical is None:
        return f"{there}the request has no logical block {position // size}."
    return f"{there}logical block {position // size} lies in physical block {physical}."


def read_guess(guess: str | Sequence[int]) -> list[int]:
    """The numbers of a guess, whatever stands between them."""
    if not isinstance(guess, str):
        return [int(each) for each in guess]
    if re.sub(r"[-\d\s,;\[\]()]", "", guess):
        raise ValueError(
            f"guess: expected whole numbers with commas between them, such as 20, 21, got {guess!r}"
        )
    return [int(each) for each in re.findall(r"-?\d+", guess)]


def reveal(request: str, entries: Sequence[int], step: Step) -> dict[str, Any]:
    """The guess beside the truth: a row for each new token, a verdict, and whether all of it was right."""
    reasons = explain(entries, step)
    rows = []
    for index, slot in enumerate(step.right()):
        logical, offset = divmod(step.first + index, step.block_size)
        guessed = index < len(entries)
        rows.append(
            {
                "position": step.first + index,
                "logical": logical,
                "offset": offset,
                "physical": step.table[logical],
                "slot": slot,
                "guess": entries[index] if guessed else None,
                "reason": reasons[index] if guessed else "no entry: every new token needs a slot.",
            }
        )
    good = sum(not row["reason"] for row in rows)
    extra = max(0, len(entries) - step.count)
    verdict = f"{good} of {step.count} right" + (
        f", and {extra} more than there are new tokens" if extra else ""
    )
    return {"request": request, "rows": rows, "verdict": verdict, "right": good == step.count and not extra}
