"""A block pool that can be worked by hand: operations, predictions of `slot_mapping`, and every step kept to go back to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from course.widgets.block_table.picture import Row, Slot, letters, slots_of, to_html, to_text
from course.widgets.block_table.slots import Step, read_guess, reveal
from kernels.block_pool import BlockPool, OutOfBlocksError

__all__ = ["Explorer", "example_pool"]

KEPT = 100  # steps that can be gone back to
TEXT = 100_000  # a request's own tokens are TEXT * its number + their position: no two texts are alike


@dataclass
class _Moment:
    """All that changes from step to step, beside the pool. Replaced, never changed."""

    sentence: str
    pool: dict[str, Any]
    waiting: dict[str, list[int] | int] = field(default_factory=dict)
    texts: dict[str, list[int]] = field(default_factory=dict)
    new: dict[str, int] = field(default_factory=dict)
    copies: list[tuple[int, int]] = field(default_factory=list)
    reveal: dict[str, Any] | None = None


def example_pool() -> BlockPool:
    """16 blocks of 4 tokens, free in no order, as after a while of serving; B begins like A and shares two blocks with it."""
    pool = BlockPool(16, 4)
    order = (9, 2, 12, 5, 14, 7, 0, 11, 4, 13, 1, 8, 3, 15, 6, 10)
    for block in range(16):
        pool.allocate(block, 4)
    for block in reversed(order):  # the one that is freed last is handed out first
        pool.free(block)
    a, b, c = (list(range(number * TEXT, number * TEXT + 12)) for number in (1, 2, 3))
    pool.allocate("A", token_ids=a[:10])
    pool.allocate("B", token_ids=[*a[:8], *b[8:11]])
    pool.allocate("C", token_ids=c[:5])
    return pool


class Explorer:
    """Operations on a `kernels.BlockPool`, the one that is handed in, and what the pool says of them.

    pool: the pool; it may be changed elsewhere too, before the next operation here. Requests are named by `str(request)`.
    """

    def __init__(self, pool: BlockPool | None = None) -> None:
        self.pool = example_pool() if pool is None else pool
        self._arrivals: dict[str, int] = {}
        self._now = _Moment("The beginning.", self.pool.snapshot())
        self._now.texts = self._texts()
        self._steps = [self._now]
        self._at = 0
        self.rows()

    # What the page may ask for

    def allocate(self, num_tokens: int, like: str = "", common: int | None = None) -> str:
        """Admits a request with the next free letter.

        like: a request, here now or earlier, whose first `common` tokens (all that fit, if None) it begins with.
        """
        texts, name = self._texts(), self._new_name()
        text = self._own_text(name, range(_whole("num_tokens", num_tokens, 0)))
        if like:
            if like not in texts:
                raise ValueError(
                    f"like: expected a request whose tokens are known, one of {sorted(texts)}, got {like!r}"
                )
            shared = texts[like][: len(text) if common is None else _whole("common", common, 0)]
            text[: len(shared)] = shared[: len(text)]
        cached = self._try(lambda: self.pool.allocate(name, token_ids=text))
        found = (
            f", {cached} of them found in the cache: {cached // self.pool.block_size} shared blocks"
            if cached
            else ""
        )
        return self._step(
            f"{name} came with {_count(len(text), 'token')}{found}.",
            new={name: len(text) - cached},
        )

    def append(self, request: str, num_tokens: int = 1) -> str:
        """Makes room for a request's next tokens, as a step of the model does."""
        copies, first = self._append(request, num_tokens)
        slots = self.pool.slot_mapping(self._id(request), first)
        sentence = f"{request} got {_count(num_tokens, 'token')}, written to {_many('slot', slots)}.{_copied(copies)}"
        return self._step(sentence, new={request: num_tokens}, copies=copies)

    def predict(self, request: str, num_tokens: int, guess: str | Sequence[int]) -> str:
        """Takes a request's next step, and holds the guess of its `slot_mapping` against what came of it.

        guess: the slots, as numbers or as a text such as "20, 21".
        """
        entries = read_guess(guess)
        before = self.pool.block_table(self._id(request))
        holders = self._holders()
        copies, first = self._append(request, num_tokens)
        table = self.pool.block_table(self._id(request))
        step = Step(table, first, num_tokens, self.pool.block_size, self.pool.num_blocks, before, holders)
        shown = reveal(request, entries, step)
        return self._step(
            f"{request}'s slot_mapping is {step.right()}: {shown['verdict']}.{_copied(copies)}",
            new={request: num_tokens},
            copies=copies,
            reveal=shown,
        )

    def fork(self, request: str) -> str:
        """A second request with all of this one's tokens, as beam search or parallel sampling has it: no block is copied yet."""
        child = self._new_name()
        self.pool.fork(self._id(request), child)
        return self._step(f"{child} is a fork of {request} and shares all its blocks.")

    def free(self, request: str) -> str:
        """A request is done: its blocks go back, full ones stay cached."""
        if request in self._now.waiting:
            waiting = {name: text for name, text in self._now.waiting.items() if name != request}
            return self._step(f"{request} no longer waits.", waiting=waiting)
        before, texts = self.pool.num_free, self._texts()
        self.pool.free(self._id(request))
        gained = _count(self.pool.num_free - before, "block")
        return self._step(f"{request} is done: {gained} became free.", texts=texts)

    def preempt(self, request: str) -> str:
        """Takes a running request's blocks away; it waits, and has to compute again what is no longer cached."""
        key = self._id(request)
        text, length = self.pool.token_ids(key), self.pool.seq_len(key)
        before, texts = self.pool.num_free, self._texts()
        self.pool.free(key)
        return self._step(
            f"{request} was preempted: {_count(self.pool.num_free - before, 'block')} became free, and it waits.",
            waiting={**self._now.waiting, request: length if text is None else text},
            texts=texts,
        )

    def resume(self, request: str) -> str:
        """Lets a preempted request in again, with whatever is still cached of it."""
        if request not in self._now.waiting:
            raise ValueError(
                f"request: expected one that waits, {sorted(self._now.waiting)}, got {request!r}"
            )
        text = self._now.waiting[request]
        if isinstance(text, int):
            length, cached = text, self._try(lambda: self.pool.allocate(request, text))
        else:
            length, cached = len(text), self._try(lambda: self.pool.allocate(request, token_ids=text))
        waiting = {name: each for name, each in self._now.waiting.items() if name != request}
        return self._step(
            f"{request} is back: {cached} of its {_count(length, 'token')} were still cached, "
            f"{length - cached} are computed again.",
            waiting=waiting,
            new={request: length - cached},
        )

    def evict(self, block: int | None = None) -> str:
        """Forgets what a free block holds; without a block, the one that an allocation would evict next."""
        which = "It would have been the next" if block is None else "It was chosen by hand"
        evicted = self.pool.evict(block)
        return self._step(f"Block {evicted} was evicted from the cache. {which}.")

    def go(self, step: int) -> str:
        """Back to a step, or forward again. The next operation forgets the steps after it."""
        self._at = min(max(_whole("step", step, 0), 0), len(self._steps) - 1)
        self._now = self._steps[self._at]
        self.pool.restore(self._now.pool)
        return f"Step {self._at}: {self._now.sentence}"

    # What is shown

    def rows(self) -> list[Row]:
        """The requests as they are drawn."""
        rows = []
        for name, key in self._ids().items():
            arrival = self._arrivals.setdefault(name, len(self._arrivals))
            label = name if len(name) <= 2 else letters(arrival)
            cached = self.pool.num_cached_tokens(key)
            new = min(self._now.new.get(name, 0), self.pool.seq_len(key))
            blocks = self.pool.block_table(key)
            rows.append(Row(name, label, arrival, self.pool.seq_len(key), blocks, new, cached))
        return rows

    def slots(self, block: int) -> list[Slot]:
        """What lies in each slot of a physical block."""
        self.pool.ref_count(block)
        return slots_of(block, self.rows(), self.pool.block_size)

    def to_dict(self) -> dict[str, Any]:
        pool = self.pool.to_dict()
        texts = self._texts()
        cached = self._cached([each["block"] for each in pool["blocks"] if each["cached"]], texts)
        waiting = {
            name: text if isinstance(text, int) else len(text) for name, text in self._now.waiting.items()
        }
        return {
            "live": True,
            "block_size": self.pool.block_size,
            "num_blocks": self.pool.num_blocks,
            "requests": [row.to_dict() for row in self.rows()],
            "free": pool["free"],
            "cached": cached,
            "waiting": waiting,
            "texts": sorted(texts, key=lambda name: (len(name), name)),
            "copies": [list(pair) for pair in self._now.copies],
            "reveal": self._now.reveal,
            "step": self._at,
            "last": len(self._steps) - 1,
            "sentences": [moment.sentence for moment in self._steps[: self._at + 1]][-6:],
            "writes": [],
            "breaches": [],
        }

    def describe(self) -> str:
        pool = self.pool.describe().splitlines()[0]
        waiting = [f"{name} waits." for name in self._now.waiting]
        return "\n".join([pool, *to_text(self.rows(), self.pool.block_size), *waiting])

    def to_html(self) -> str:
        pool = self.pool.describe().splitlines()[0]
        free = ", ".join(map(str, self.pool.to_dict()["free"])) or "none"
        return f"{to_html(pool, self.rows(), self.pool.block_size)}<p>Free blocks in the order of handing out: {free}.</p>"

    # Inside

    def _ids(self) -> dict[str, Any]:
        """The pool's requests by the names that the page has for them."""
        return {str(request): request for request in self.pool.requests}

    def _id(self, name: str) -> Any:
        ids = self._ids()
        if name not in ids:
            raise ValueError(f"request: expected one that runs, {list(ids)}, got {name!r}")
        return ids[name]

    def _texts(self) -> dict[str, list[int]]:
        """The tokens of all requests that are or were here, where they are known."""
        texts = {name: self.pool.token_ids(key) for name, key in self._ids().items()}
        return {**self._now.texts, **{name: text for name, text in texts.items() if text is not None}}

    def _new_name(self) -> str:
        taken = {*self._now.texts, *self._ids(), *self._now.waiting}
        return next(name for name in map(letters, range(len(taken) + 1)) if name not in taken)

    def _own_text(self, name: str, positions: range) -> list[int]:
        number = self._arrivals.get(name, len(self._arrivals))
        return [TEXT * (1 + number) + position for position in positions]

    def _cached(self, blocks: list[int], texts: dict[str, list[int]]) -> dict[str, str]:
        """Of each cached block, its tokens in words: whose they are, if somebody's that came here."""
        size = self.pool.block_size
        whose: dict[tuple[int, tuple[int, ...]], str] = {}
        for name, text in texts.items():
            for first in range(0, len(text) - size + 1, size):
                whose.setdefault((first, tuple(text[first : first + size])), f"{name}'s")
        words = {}
        for block in blocks:
            first, tokens = self.pool.cached_tokens(block) or (0, [])
            name = whose.get((first, tuple(tokens)), "somebody's")
            words[str(block)] = f"{name} tokens {first} to {first + size - 1}"
        return words

    def _holders(self) -> dict[int, str]:
        holders = {}
        for row in self.rows():
            slots = self.pool.slot_mapping(self._id(row.name))
            holders.update({slot: f"{row.name}'s position {position}" for position, slot in enumerate(slots)})
        return holders

    def _append(self, request: str, num_tokens: int) -> tuple[list[tuple[int, int]], int]:
        """The copies, and the position of the first new token."""
        key, count = self._id(request), _whole("num_tokens", num_tokens, 1)
        first, text = self.pool.seq_len(key), self.pool.token_ids(key)
        if text is None:
            return self._try(lambda: self.pool.append(key, count)), first
        new = self._own_text(request, range(first, first + count))
        return self._try(lambda: self.pool.append(key, token_ids=new)), first

    def _try(self, action: Any) -> Any:
        try:
            return action()
        except OutOfBlocksError as full:
            raise ValueError(f"{full}. Free or preempt a request, then try again.") from full

    def _step(self, sentence: str, **changes: Any) -> str:
        """Keeps the pool as it is now as a step of its own."""
        kept = {"waiting": self._now.waiting, "texts": self._texts(), **changes}
        self._now = _Moment(sentence, self.pool.snapshot(), **kept)
        self._steps = [*self._steps[: self._at + 1], self._now][-KEPT:]
        self._at = len(self._steps) - 1
        self.rows()  # who came takes its colour now, in the order of coming
        return sentence


def _whole(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name}: expected a whole number of at least {least}, got {value!r}")
    return value


def _copied(copies: list[tuple[int, int]]) -> str:
    return "".join(f" Block {a} is shared, so it was copied to block {b} first." for a, b in copies)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _many(noun: str, numbers: Sequence[int]) -> str:
    if len(numbers) > 8:
        return f"{noun}s {', '.join(map(str, numbers[:6]))}, … {numbers[-1]}"
    return f"{noun}{'' if len(numbers) == 1 else 's'} {', '.join(map(str, numbers))}"
