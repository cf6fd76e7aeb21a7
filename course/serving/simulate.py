"""The clock: the scheduler of `kernels.backends` serves the traffic, and each step takes as long as its kernels do.

Nothing is computed: tokens are numbers. What is real is who runs with whom in which step, what blocks they have, who is
preempted and what is found in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from course.serving.workload import Arrival
from kernels.backends.scheduler import Request, Scheduled, Scheduler
from kernels.block_pool import BlockPool


@dataclass(frozen=True)
class Server:
    """What a server is started with. num_blocks * block_size tokens fit into its cache."""

    block_size: int
    num_blocks: int
    max_num_seqs: int
    max_num_batched_tokens: int


@dataclass(frozen=True)
class Step:
    """A step's batch, as its attention kernel sees it.

    decodes: the sequence length of each request with one query token, this one included. prompts: (query tokens, sequence
    length) of those with more.
    """

    decodes: list[int]
    prompts: list[tuple[int, int]]

    @property
    def num_tokens(self) -> int:
        return len(self.decodes) + sum(count for count, _ in self.prompts)


@dataclass
class Served:
    """What became of one request, in seconds of the simulated clock. tokens: when each of its tokens came."""

    arrival: float
    admitted: float = float("nan")
    tokens: list[float] = field(default_factory=list)


@dataclass
class Run:
    """One pass over the traffic.

    requests: in the order of arrival. timeline: at the start of each step the time, how many requests ran and how many
    waited. num_cached_tokens: prompt tokens that were found in the cache.
    """

    requests: list[Served]
    timeline: list[tuple[float, int, int]]
    num_preemptions: int
    num_cached_tokens: int

    @property
    def last_admission(self) -> float:
        """Afterwards nobody is left to come, and the batch runs empty."""
        return max(request.admitted for request in self.requests)


def simulate(
    arrivals: Sequence[Arrival],
    server: Server,
    step_us: Callable[[Step], float],
    warm_prefix: Sequence[int] = (),
) -> Run:
    """Serve the traffic to its end.

    step_us: microseconds that a step takes. warm_prefix: tokens that the cache holds before the first request comes.
    Raises ValueError for a request that has no room in the cache at all.
    """
    pool = BlockPool(server.num_blocks, server.block_size)
    scheduler = Scheduler(
        pool, max_num_batched_tokens=server.max_num_batched_tokens, max_num_seqs=server.max_num_seqs
    )
    if warm_prefix:
        pool.allocate("warm", token_ids=list(warm_prefix))
        pool.free("warm")
    served = [Served(arrival.time) for arrival in arrivals]
    timeline = []
    now, coming = 0.0, 0
    while coming < len(arrivals) or scheduler.waiting or scheduler.running:
        if not scheduler.waiting and not scheduler.running:
            now = max(now, arrivals[coming].time)
        while coming < len(arrivals) and arrivals[coming].time <= now:
            scheduler.add(arrivals[coming].prompt, arrivals[coming].output_tokens)
            coming += 1
        scheduled = scheduler.schedule()
        timeline.append((now, len(scheduler.running), len(scheduler.waiting)))
        for request, _ in scheduled:
            one = served[request.number]
            if one.admitted != one.admitted:  # NaN: never before
                one.admitted = now
        now += step_us(shape(scheduled)) * 1e-6
        for number in scheduler.update(scheduled, _next_token):
            served[number].tokens.append(now)
    return Run(served, timeline, scheduler.num_preemptions, scheduler.num_cached_tokens)


def shape(scheduled: Scheduled) -> Step:
    """A step as its kernel sees it."""
    step = Step([], [])
    for request, count in scheduled:
        if count == 1:
            step.decodes.append(request.num_computed + 1)
        else:
            step.prompts.append((count, request.num_computed + count))
    return step


def _next_token(request: Request, row: int) -> int:
    """An id that no other request has, so that answers are never taken for one another's in the cache."""
    return -1 - request.number
