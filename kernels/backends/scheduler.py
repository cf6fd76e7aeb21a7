"""Which tokens run in a step, and who gives up blocks when room is short. No tensor and no clock comes near it.

Each step takes up to `max_num_batched_tokens` tokens: first of the requests that run, one each or the next chunk of a
prompt, then of those that wait. Blocks come from `kernels.BlockPool`, which shares full blocks of the same prefix. When
it has none left, the request that came last is preempted: its blocks are freed, and it is computed again later.

The order of vLLM's own scheduler, `vllm/v1/core/sched/scheduler.py:329` (`schedule`), which has priorities, speculative
tokens, several processes and more besides. Two loops run on this one: `Engine` with a model, and the course's serving benchmark with measured times.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kernels.block_pool import BlockPool, OutOfBlocksError

__all__ = ["Request", "Scheduled", "Scheduler"]


@dataclass(eq=False)
class Request:
    """tokens: the prompt's and those that came. num_computed: how many of them have keys and values in the cache."""

    number: int
    tokens: list[int]
    num_prompt_tokens: int
    max_new_tokens: int
    num_computed: int = 0

    @property
    def is_finished(self) -> bool:
        return len(self.tokens) == self.num_prompt_tokens + self.max_new_tokens


# A step's requests, and how many of their tokens run in it.
Scheduled = list[tuple[Request, int]]


class Scheduler:
    """First come, first served.

    pool: who owns which block. num_preemptions, num_cached_tokens: how often a request lost its blocks, and how many
    tokens were found in the cache instead of being computed.
    """

    def __init__(self, pool: BlockPool, *, max_num_batched_tokens: int, max_num_seqs: int) -> None:
        """Raises ValueError for sizes below 1."""
        for name, number in (
            ("max_num_batched_tokens", max_num_batched_tokens),
            ("max_num_seqs", max_num_seqs),
        ):
            if number < 1:
                raise ValueError(f"{name}: expected at least 1, got {number}")
        self.pool = pool
        self.max_num_batched_tokens = max_num_batched_tokens
        self.max_num_seqs = max_num_seqs
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []
        self.num_requests = 0
        self.num_preemptions = 0
        self.num_cached_tokens = 0

    def add(self, prompt: Sequence[int], max_new_tokens: int) -> Request:
        """Have a request wait. Raises ValueError for one that could never run."""
        if not prompt:
            raise ValueError("prompt: expected at least one token")
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens: expected at least 1, got {max_new_tokens}")
        room = self.pool.num_blocks * self.pool.block_size
        if len(prompt) + max_new_tokens > room:
            raise ValueError(
                f"prompt, max_new_tokens: expected up to {room} tokens together, the cache's room, "
                f"got {len(prompt)} and {max_new_tokens}"
            )
        request = Request(self.num_requests, list(prompt), len(prompt), max_new_tokens)
        self.num_requests += 1
        self.waiting.append(request)
        return request

    def schedule(self) -> Scheduled:
        """The next step; the pool has room for all of its tokens."""
        budget = self.max_num_batched_tokens
        scheduled: Scheduled = []
        preempted = False
        for request in list(self.running):
            count = min(len(request.tokens) - request.num_computed, budget)
            if request not in self.running or count == 0:
                continue
            chunk = request.tokens[request.num_computed : request.num_computed + count]
            while request in self.running:
                try:
                    # It asks for no copies: only a forked request's last block is shared before it is full.
                    self.pool.append(request.number, token_ids=chunk)
                except OutOfBlocksError:
                    self._preempt(self.running[-1])
                    preempted = True
                else:
                    scheduled.append((request, count))
                    budget -= count
                    break

        while self.waiting and budget and not preempted and len(self.running) < self.max_num_seqs:
            request = self.waiting[0]
            # What the cache has costs nothing of the budget.
            chunk = request.tokens[: self.pool.count_cached(request.tokens) + budget]
            try:
                num_cached = self.pool.allocate(request.number, token_ids=chunk)
            except OutOfBlocksError:
                break
            self.waiting.popleft()
            self.running.append(request)
            request.num_computed = num_cached
            self.num_cached_tokens += num_cached
            scheduled.append((request, len(chunk) - num_cached))
            budget -= len(chunk) - num_cached
        return scheduled

    def update(self, scheduled: Scheduled, new_token: Callable[[Request, int], int]) -> dict[int, int]:
        """After the step ran: who has a new token, who is finished. Returns the new token of each request that has one.

        new_token: of a request whose last token is this row (counted from 0) of the step's.
        """
        new_tokens = {}
        end = 0
        for request, count in scheduled:
            end += count
            request.num_computed += count
            if request.num_computed < len(request.tokens):
                continue  # a prompt's chunk: its last token is still to come
            new_tokens[request.number] = new_token(request, end - 1)
            request.tokens.append(new_tokens[request.number])
            if request.is_finished:
                self.pool.free(request.number)
                self.running.remove(request)
        return new_tokens

    def _preempt(self, request: Request) -> None:
        """Free the blocks; the tokens stay known and are computed again. The last to come is the first to go."""
        self.pool.free(request.number)
        self.running.remove(request)
        self.waiting.appendleft(request)
        request.num_computed = 0
        self.num_preemptions += 1
