"""What breaks the contract of a block table and its slots: each rule a function from requests to named breaches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from course.widgets.block_table.picture import Row
from course.widgets.block_table.slots import Step, explain

__all__ = ["Breach", "wrong_blocks", "wrong_sharing", "wrong_slots"]

SHOWN = 3  # of a request's slots that are wrong for a reason of their own each


@dataclass(frozen=True)
class Breach:
    """name: the kind of breach, a few words. where: the entry, as `block_table[1, 2]`. blocks, slots: to mark in the picture."""

    name: str
    where: str
    text: str
    blocks: tuple[int, ...] = ()
    slots: tuple[int, ...] = ()


def wrong_blocks(rows: Sequence[Row], num_blocks: int, *, judge_end: bool) -> Iterator[Breach]:
    """Entries before a request's end that name no block, or one that the request has already."""
    for request, row in enumerate(rows):
        seen: dict[int, int] = {}
        for logical, block in enumerate(row.blocks):
            where = f"block_table[{request}, {logical}]"
            if not 0 <= block < num_blocks:
                name = "negative block" if block < 0 else "block out of range"
                expected = f"from 0 to {num_blocks - 1}" if judge_end else "of at least 0"
                text = f"{row.name} needs a block {expected} here, because the entry is before its end, got {block}."
                yield Breach(name, where, text)
            elif block in seen:
                text = f"block {block} is {row.name}'s logical block {seen[block]} already: two positions would share each slot."
                yield Breach("duplicate block", where, text, (block,))
            seen.setdefault(block, logical)


def wrong_sharing(rows: Sequence[Row], block_size: int, num_blocks: int) -> Iterator[Breach]:
    """A block may stand in several tables if it is full for each of them, at the same place, and nobody writes to it."""
    users: dict[int, dict[int, int]] = defaultdict(dict)
    for request, row in enumerate(rows):
        for logical, block in enumerate(row.blocks):
            users[block].setdefault(request, logical)
    for block, places in sorted(users.items()):
        if len(places) < 2 or not 0 <= block < num_blocks:
            continue
        where = ", ".join(f"block_table[{request}, {logical}]" for request, logical in places.items())
        belongs = f"block {block} belongs to {_and(rows[request].name for request in places)}"
        ends = [(rows[request], (logical + 1) * block_size) for request, logical in places.items()]
        writers = [row.name for row, end in ends if row.num_new and end > row.num_tokens - row.num_new]
        partial = [row.name for row, end in ends if row.num_tokens < end]
        if len(set(places.values())) > 1:
            text = f"{belongs} at different logical blocks: the same tokens cannot stand at two positions."
            yield Breach("shared at different places", where, text, (block,))
        elif writers:
            text = f"{belongs}, and this step writes to it for {_and(writers)}. A block that is written has one owner: copy it first."
            yield Breach("shared block is written", where, text, (block,))
        elif partial:
            text = f"{belongs}, and is not full for {_and(partial)}. Only full blocks are shared: the next token would be written to both."
            yield Breach("shared block is not full", where, text, (block,))


def wrong_slots(
    slots: Sequence[int],
    rows: Sequence[Row],
    starts: Sequence[int] | None,
    block_size: int,
    num_blocks: int,
    *,
    judge_end: bool,
) -> Iterator[Breach]:
    """Slots outside the cache, written twice, or not where the token's position is by block_table and seq_lens.

    starts: query_start_loc, None where it is not known whose a token is.
    """
    end = num_blocks * block_size
    first_token: dict[int, int] = {}
    for token, slot in enumerate(slots):
        where = f"slot_mapping[{token}]"
        if slot < -1 or (slot >= end and judge_end):
            text = f"expected a slot from 0 to {end - 1}, or -1 for a token that is not written, got {slot}."
            yield Breach("slot out of range", where, text)
        elif slot in first_token:
            text = f"slot {slot} is written for token {first_token[slot]} already: one of the two is lost."
            yield Breach("slot written twice", where, text, (slot // block_size,), (slot,))
        elif slot >= 0:
            first_token[slot] = token
    if starts is not None:
        holders = _holders(rows, block_size)
        for request, row in enumerate(rows):
            start, stop = starts[request], starts[request + 1]
            others = {slot: text for slot, (whose, text) in holders.items() if whose != request}
            first = row.num_tokens - (stop - start)
            step = Step(row.blocks, first, stop - start, block_size, num_blocks, (), others)
            if _leaves_out_new_tokens(row, step, slots[start:stop]):
                text = f"the slots are those of positions from {row.num_tokens} on, so seq_lens leaves out this step's tokens: expected {row.num_tokens + step.count}, got {row.num_tokens}."
                yield Breach("wrong length", f"seq_lens[{request}]", text)
            else:
                yield from _wrong_slots_of(row, step, slots[start:stop], start)


def _leaves_out_new_tokens(row: Row, step: Step, entries: Sequence[int]) -> bool:
    """Whether these are the slots that come after seq_lens, by the whole row of the table."""
    whole = replace(step, table=[*row.blocks, *row.past], first=row.num_tokens)
    return step.count > 0 and list(entries) == whole.right() and list(entries) != step.right()


def _wrong_slots_of(row: Row, step: Step, entries: Sequence[int], start: int) -> Iterator[Breach]:
    """One breach for all tokens of a request that are wrong for the same reason."""
    end = step.num_blocks * step.block_size
    own = {step.slot(position): position for position in range(row.num_tokens)}
    same: dict[str, list[int]] = defaultdict(list)
    for index, reason in enumerate(explain(entries, step)):
        if reason and 0 <= entries[index] < end:
            same[reason].append(index)
    for number, (reason, indexes) in enumerate(same.items()):
        if number == SHOWN:
            left = sum(len(each) for each in list(same.values())[SHOWN:])
            reason = (
                f"{reason} So it is for {left} of its tokens, each in a way of its own."
                if left > 1
                else reason
            )
            indexes = [index for each in list(same.values())[SHOWN:] for index in each]
        elif number > SHOWN:
            return
        got = [entries[index] for index in indexes]
        right = [step.slot(step.first + index) for index in indexes]
        blocks = tuple(dict.fromkeys(slot // step.block_size for slot in got))
        outside = not set(blocks) <= set(row.blocks)
        name = "slot outside its request's blocks" if outside else "slot does not match the position"
        where = (
            f"slot_mapping[{start + indexes[0]}]"
            if len(indexes) == 1
            else f"slot_mapping{[start + index for index in indexes]}"
        )
        positions = ", ".join(str(step.first + index) for index in indexes)
        plural = "" if len(indexes) == 1 else "s"
        theirs = [own.get(slot) for slot in got]
        known = "" if None in theirs else f" (its position{plural} {_list(theirs)})"
        belongs = f"{row.name}'s position{plural} {positions}: expected slot{plural} {_list(right)}, got {_list(got)}{known}"
        yield Breach(name, where, f"{belongs}. {reason[0].upper()}{reason[1:]}", blocks, tuple(got))


def _holders(rows: Sequence[Row], block_size: int) -> dict[int, tuple[int, str]]:
    """Who holds which slot."""
    holders = {}
    for request, row in enumerate(rows):
        for position in range(row.num_tokens):
            block, offset = row.blocks[position // block_size], position % block_size
            holders[block * block_size + offset] = request, f"{row.name}'s position {position}"
    return holders


def _list(slots: Sequence[int | None]) -> str:
    return ", ".join("none" if slot is None else str(slot) for slot in slots)


def _and(names: Iterator[str] | Sequence[str]) -> str:
    return " and ".join(names)
