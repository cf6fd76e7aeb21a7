"""What the two checks of question 2 share: batches as a scheduler hands them over, and the truth about them."""

from __future__ import annotations

import random
from collections.abc import Sequence

from autograder.suite import Case, Suite


class Draw:
    """Draws batches for one suite: block tables of shuffled physical blocks, computed and new tokens."""

    def __init__(self, suite: Suite) -> None:
        self._suite = suite

    def batch(
        self,
        label: str,
        block_size: int,
        requests: Sequence[tuple[int, int]],
        *,
        shared: int = 0,
        spare: int = 0,
    ) -> Case:
        """A case with one (num_computed_tokens, num_new_tokens) for each request.

        shared: that many first blocks are common to all requests. spare: blocks that each request owns beyond its end.
        """
        rng = self._random(label)
        needed = [-(-(computed + new) // block_size) for computed, new in requests]
        num_blocks = sum(needed) + spare * len(requests) + 5
        free = rng.sample(range(num_blocks), num_blocks)
        prefix = [free.pop() for _ in range(shared)]
        tables = []
        for count in needed:
            own = [free.pop() for _ in range(count - shared if count else 0)]
            tables.append((prefix + own if count else []) + [free.pop() for _ in range(spare)])
        return Case(
            label,
            {
                "block_tables": tables,
                "num_computed_tokens": [computed for computed, _ in requests],
                "num_new_tokens": [new for _, new in requests],
                "block_size": block_size,
                "num_blocks": num_blocks,
                "shared": shared,
            },
        )

    def random_batch(self, label: str) -> Case:
        """A case of one to six requests of any kind."""
        rng = self._random(f"{label}: sizes")
        requests = []
        for _ in range(rng.randint(1, 6)):
            requests.append((rng.choice([0, rng.randint(0, 40)]), rng.choice([1, rng.randint(1, 20)])))
        if len(requests) > 2:
            requests[rng.randrange(len(requests))] = (0, 0)
        return self.batch(label, rng.choice([1, 3, 4, 8, 16]), requests, spare=rng.randint(0, 2))

    def _random(self, label: str) -> random.Random:
        return random.Random(f"{self._suite.seed}/{label}")


def common_cases(draw: Draw) -> list[Case]:
    """The families that both checks use; block size 4 keeps a printed batch readable."""
    n = 4
    return [
        draw.batch("prefill of one request", n, [(0, 6)]),
        draw.batch("decode of one request", n, [(5, 1)]),
        draw.batch("decode whose token opens a new block", n, [(8, 1)]),
        draw.batch("lengths around the block size", n, [(0, 1), (0, n - 1), (0, n), (0, n + 1), (0, 2 * n)]),
        draw.batch("chunked prefill: new tokens that start inside a block", n, [(5, 6), (2, 3)]),
        draw.batch("ragged batch of prefill, chunk and decode", n, [(0, 5), (9, 1), (6, 7), (3, 1)]),
        draw.batch("ragged batch with a zero-length request", n, [(7, 1), (0, 0), (0, 3)]),
        draw.batch("two requests that share a prefix", n, [(8, 2), (8, 5)], shared=2),
        draw.batch("blocks in reserve beyond the end", n, [(3, 2), (10, 1)], spare=2),
        draw.batch("block size 3", 3, [(4, 5), (0, 7)]),
        draw.batch("block size 16", 16, [(30, 5), (0, 17)]),
    ]


def slots(case: Case, request: int, first: int, last: int) -> list[int]:
    """The slots of a request's positions first to last (excluded), from its block table."""
    table, block_size = case.inputs["block_tables"][request], case.inputs["block_size"]
    return [table[p // block_size] * block_size + p % block_size for p in range(first, last)]


def seq_lens(case: Case) -> list[int]:
    """Tokens of each request in the cache, this step's included."""
    pairs = zip(case.inputs["num_computed_tokens"], case.inputs["num_new_tokens"], strict=True)
    return [computed + new for computed, new in pairs]


def num_owned_blocks(case: Case) -> list[int]:
    """How many entries of each request's row are read."""
    return [-(-length // case.inputs["block_size"]) for length in seq_lens(case)]
