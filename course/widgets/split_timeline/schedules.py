"""Ways to cut a decode batch into programs, and how long programs take on multiprocessors: a model that counts tokens.

The unit of time is what a multiprocessor needs to read one token's key and value of one kv head. All times are estimates.
"""

from __future__ import annotations

import functools
import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["BEGIN", "NAMES", "Program", "Share", "Timeline", "merge_time", "run", "shares"]

NAMES = {
    "one": "one program for each request and kv head",
    "fixed": "a fixed number of splits",
    "balanced": "balanced splits (kernels/schedule.py)",
}
# A program takes as long as 256 tokens to begin and end: `kernels.schedule.choose_num_splits` counts so too.
BEGIN = 256
# One partial state, float32, written by a split and read by the merge, for 4 query heads of 128; in tokens of bfloat16.
STATE = 2 * (4 * 128 * 4) / (2 * 128 * 2)
BLOCK_SIZE = 16  # a fixed split is a number of blocks
TILE_SIZE = 64  # a balanced one of tiles
MIN_SPLIT_SIZE = 256  # balanced splits are not made shorter: `kernels.decode.choose_config`


@dataclass(frozen=True)
class Share:
    """What one program reads: tokens `first` to `end` of a request, for one kv head. Empty where the two are equal."""

    request: int
    kv_head: int
    split: int
    num_splits: int
    first: int
    end: int


@dataclass(frozen=True)
class Program:
    """A share at its place in time: from `start` to `stop` on multiprocessor `sm`."""

    share: Share
    sm: int
    start: int
    stop: int


@dataclass(frozen=True)
class Timeline:
    """One schedule's programs over `num_sms` multiprocessors, and the merge that comes after them (0 where none is)."""

    programs: tuple[Program, ...]
    num_sms: int
    merge: int

    @property
    def makespan(self) -> int:
        """When the last program ends."""
        return max((program.stop for program in self.programs), default=0)

    @property
    def total(self) -> int:
        return self.makespan + self.merge

    @property
    def idle(self) -> float:
        """The share of all multiprocessors' time, until the last program ends, in which none runs."""
        busy = sum(program.stop - program.start for program in self.programs)
        return 1 - busy / (self.num_sms * self.makespan) if self.makespan else 0.0

    @property
    def beginning(self) -> float:
        """The share of that time that goes into beginning and ending programs."""
        whole = self.num_sms * self.makespan
        return BEGIN * len(self.programs) / whole if whole else 0.0


def shares(
    name: str, seq_lens: Sequence[int], num_kv_heads: int, num_sms: int, num_splits: int
) -> list[Share]:
    """A schedule's programs in the order of their launch. num_splits: those of "fixed"."""
    if name == "balanced":
        return list(_balanced(tuple(seq_lens), num_kv_heads, num_sms))
    num_splits = num_splits if name == "fixed" else 1
    # As lesson 3 launches them, (request, kv head, split): the first index runs fastest.
    return [
        _fixed(request, kv_head, split, num_splits, seq_len)
        for split in range(num_splits)
        for kv_head in range(num_kv_heads)
        for request, seq_len in enumerate(seq_lens)
    ]


def _fixed(request: int, kv_head: int, split: int, num_splits: int, seq_len: int) -> Share:
    size = math.ceil(math.ceil(seq_len / BLOCK_SIZE) / num_splits) * BLOCK_SIZE
    first = min(split * size, seq_len)
    return Share(request, kv_head, split, num_splits, first, min(first + size, seq_len))


@functools.lru_cache(maxsize=64)
def _balanced(seq_lens: tuple[int, ...], num_kv_heads: int, num_sms: int) -> tuple[Share, ...]:
    """The kernels' own schedule, asked for as many splits as run side by side here: one on each multiprocessor."""
    from course.widgets.split_timeline.plan import balanced_splits  # loads triton

    made = []
    for request, number, num_splits in balanced_splits(seq_lens, num_kv_heads, num_sms, MIN_SPLIT_SIZE):
        # As `kernels.decode` divides: neighbours take the kv heads of one split, and splits are whole tiles.
        split, kv_head = divmod(number, num_kv_heads)
        tiles = math.ceil(seq_lens[request] / TILE_SIZE)
        first, end = (
            min(one * tiles // num_splits * TILE_SIZE, seq_lens[request]) for one in (split, split + 1)
        )
        made.append(Share(request, kv_head, split, num_splits, first, end))
    return tuple(made)


def run(shares: Sequence[Share], num_sms: int) -> Timeline:
    """Each program, in order, on the multiprocessor that is free first; one at a time on each."""
    free = [(0, sm) for sm in range(num_sms)]
    programs = []
    for share in shares:
        start, sm = heapq.heappop(free)
        stop = start + BEGIN + share.end - share.first
        programs.append(Program(share, sm, start, stop))
        heapq.heappush(free, (stop, sm))
    return Timeline(tuple(programs), num_sms, merge_time(shares, num_sms))


def merge_time(shares: Sequence[Share], num_sms: int) -> int:
    """A second launch, and the partial states of all that was split, written and read by all multiprocessors together."""
    states = sum(share.num_splits > 1 for share in shares)
    return BEGIN + math.ceil(states * STATE / num_sms) if states else 0
