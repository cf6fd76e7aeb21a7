"""A case: a batch of requests through one or more steps, as plain data that can be drawn, compared, cut down and sent."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

# What a case may hold. Every fault of the closed backends shows within these limits.
MAX_SEQ_LEN, MAX_QUERY_LEN, MAX_REQUESTS, MAX_STEPS, MAX_HEADS = 320, 16, 6, 4, 12
BLOCK_SIZES, HEAD_SIZES = (1, 2, 4, 8, 16), (8, 16)
MAX_BLOCK = 2**31 - 1
LAYOUTS, DTYPES, KV_DTYPES, UNOWNED = (
    ("NHD", "HND"),
    ("float32", "float16"),
    ("auto", "fp8"),
    ("nan", "zeros", "large"),
)


@dataclass(frozen=True)
class Part:
    """One request in one step.

    request: its number, the same in every step. query_len: tokens of this step, the last of the sequence. seq_len: tokens in
    the cache, this step's included. blocks: physical numbers of the blocks that hold them, in order.
    """

    request: int
    query_len: int
    seq_len: int
    blocks: tuple[int, ...]


@dataclass(frozen=True)
class Case:
    """What a backend is called with. Nothing in it can be changed; `dataclasses.replace` makes another case.

    steps: the requests of each step. layout: "NHD" or "HND". dtype: of query, output and cache. kv_dtype: "auto" for a cache of
    dtype, or "fp8" (e4m3). k_scale, v_scale: what an fp8 cache's numbers are to be multiplied with. window: tokens that a query
    sees, its own included, or None. magnitude: standard deviation of queries, keys and values. unowned: what slots that no
    request of the step owns hold, "nan", "zeros" or "large". seed: draws the numbers; a token's key and value depend on seed,
    request, position and head alone, so that cutting one request leaves the others as they were.
    Raises ValueError, which names the field, for what is no case.
    """

    steps: tuple[tuple[Part, ...], ...]
    num_heads: int = 2
    num_kv_heads: int = 1
    head_size: int = 8
    block_size: int = 4
    window: int | None = None
    layout: str = "NHD"
    dtype: str = "float32"
    kv_dtype: str = "auto"
    k_scale: float = 1.0
    v_scale: float = 1.0
    magnitude: float = 1.0
    unowned: str = "nan"
    seed: int = 0

    def __post_init__(self) -> None:
        _check(self)

    @classmethod
    def of(
        cls,
        seq_lens: Sequence[int],
        query_lens: Sequence[int] | None = None,
        *,
        lowest_block: int = 0,
        **fields: Any,
    ) -> Self:
        """A case of one step: requests 0, 1, ... with these lengths; a query token each where query_lens is left out.

        Their blocks are scattered, and none is below lowest_block. fields: those of `Case`.
        """
        lens = [1] * len(seq_lens) if query_lens is None else list(query_lens)
        block_size, seed = fields.get("block_size", 4), fields.get("seed", 0)
        needed = [_count(n, block_size) for n in seq_lens]
        blocks = _scattered(sum(needed), lowest_block, seed, taken=set())
        parts = []
        for request, (query_len, seq_len) in enumerate(zip(lens, seq_lens, strict=True)):
            parts.append(
                Part(request, query_len, seq_len, tuple(blocks.pop() for _ in range(needed[request])))
            )
        return cls(steps=(tuple(parts),), **fields)

    def then(
        self,
        seq_lens: Mapping[int, int],
        query_lens: Mapping[int, int] | None = None,
        *,
        moved: Sequence[int] = (),
    ) -> Self:
        """This case with one more step, for the requests that seq_lens names; those that it leaves out are not in the step.

        query_lens: 1 for a request that it does not name. moved: requests that get new blocks for all their tokens, as after a
        preemption; the others keep theirs and get more where they need them.
        """
        last = {part.request: part for step in self.steps for part in step}
        kept = {
            r: () if r in moved or r not in last else last[r].blocks[: _count(n, self.block_size)]
            for r, n in seq_lens.items()
        }
        used = {block for step in self.steps for part in step for block in part.blocks}
        missing = sum(_count(n, self.block_size) - len(kept[r]) for r, n in seq_lens.items())
        fresh = _scattered(missing, min(used, default=0), self.seed + len(self.steps), taken=used)
        parts = []
        for request, seq_len in seq_lens.items():
            more = _count(seq_len, self.block_size) - len(kept[request])
            blocks = kept[request] + tuple(fresh.pop() for _ in range(more))
            query_len = (query_lens or {}).get(request, 1)
            parts.append(Part(request, query_len, seq_len, blocks))
        return replace(self, steps=(*self.steps, tuple(parts)))

    def to_plain(self) -> dict[str, Any]:
        """As numbers, texts, lists and a dict."""
        made = asdict(self)
        made["steps"] = [
            [[p.request, p.query_len, p.seq_len, list(p.blocks)] for p in step] for step in self.steps
        ]
        return made

    @classmethod
    def from_plain(cls, plain: Any) -> Self:
        """What `to_plain` made. Raises ValueError for anything else."""
        if type(plain) is not dict or not all(type(name) is str for name in plain):
            raise ValueError("expected a case as a dict")
        try:
            steps = tuple(tuple(Part(r, q, n, tuple(b)) for r, q, n, b in step) for step in plain["steps"])
            return cls(**{**plain, "steps": steps})
        except (TypeError, KeyError) as error:
            raise ValueError(f"expected a case as a dict: {error}") from None


def everyday(seed: int) -> Case:
    """A case like those of the regression test that let the faults through: what is easy to write down."""
    rng = random.Random(seed)
    lens = [4 * rng.randint(1, 6) for _ in range(rng.randint(1, 3))]
    return Case.of(lens, num_heads=2, num_kv_heads=2, unowned="zeros", seed=seed)


def _count(seq_len: int, block_size: int) -> int:
    """How many blocks hold so many tokens."""
    return -(-seq_len // block_size)


def _scattered(count: int, lowest: int, seed: int, taken: set[int]) -> list[int]:
    """Block numbers that nobody has, from `lowest` on, in no order."""
    free = [b for b in range(lowest, lowest + 2 * (count + len(taken)) + 2) if b not in taken]
    return random.Random(seed).sample(free, count)


def _check(case: Case) -> None:
    def refuse(name: str, expected: str, got: object) -> None:
        raise ValueError(f"{name}: expected {expected}, got {str(got)[:60]}")

    def whole(name: str, value: object, low: int, high: int) -> None:
        if type(value) is not int or not low <= value <= high:
            refuse(name, f"a whole number from {low} to {high}", value)

    choices = {
        "layout": LAYOUTS,
        "dtype": DTYPES,
        "kv_dtype": KV_DTYPES,
        "unowned": UNOWNED,
        "block_size": BLOCK_SIZES,
        "head_size": HEAD_SIZES,
    }
    for name, allowed in choices.items():
        if type(getattr(case, name)) not in (str, int) or getattr(case, name) not in allowed:
            refuse(name, " or ".join(map(str, allowed)), getattr(case, name))
    whole("num_heads", case.num_heads, 1, MAX_HEADS)
    whole("num_kv_heads", case.num_kv_heads, 1, MAX_HEADS)
    if case.num_heads % case.num_kv_heads:
        refuse("num_heads", f"a multiple of num_kv_heads={case.num_kv_heads}", case.num_heads)
    if case.window is not None:
        whole("window", case.window, 1, MAX_SEQ_LEN)
    whole("seed", case.seed, 0, 2**31 - 1)
    for name in ("k_scale", "v_scale", "magnitude"):
        value = getattr(case, name)
        if type(value) not in (int, float) or not 2**-6 <= value <= 2**6:
            refuse(name, "a number from 1/64 to 64", value)
    if type(case.steps) is not tuple or not 1 <= len(case.steps) <= MAX_STEPS:
        refuse("steps", f"1 to {MAX_STEPS} steps, a tuple", case.steps)
    for number, step in enumerate(case.steps):
        if type(step) is not tuple or not 1 <= len(step) <= MAX_REQUESTS:
            refuse(f"steps[{number}]", f"1 to {MAX_REQUESTS} requests, a tuple", step)
        if not all(type(part) is Part for part in step):
            refuse(f"steps[{number}]", "a tuple of Part", step)
        _check_step(f"steps[{number}]", step, case.block_size, whole)


def _check_step(name: str, step: tuple[Part, ...], block_size: int, whole: Any) -> None:
    for part in step:
        where = f"{name}, request {part.request}"
        whole(f"{where}: request", part.request, 0, 2**31 - 1)
        whole(f"{where}: seq_len", part.seq_len, 0, MAX_SEQ_LEN)
        # A request of length 0 may have a query token: it sees nothing.
        whole(f"{where}: query_len", part.query_len, 0, min(MAX_QUERY_LEN, max(1, part.seq_len)))
        if type(part.blocks) is not tuple or len(part.blocks) != _count(part.seq_len, block_size):
            wanted = _count(part.seq_len, block_size)
            raise ValueError(
                f"{where}: blocks: expected {wanted} for {part.seq_len} tokens, got {part.blocks}"
            )
        for block in part.blocks:
            whole(f"{where}: blocks", block, 0, MAX_BLOCK)
    owned = [block for part in step for block in part.blocks]
    if len(set(owned)) != len(owned):
        raise ValueError(f"{name}: expected every block with one request, got one twice")
    if len({part.request for part in step}) != len(step):
        raise ValueError(f"{name}: expected every request once, got one twice")
