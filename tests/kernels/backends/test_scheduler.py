"""The scheduler on any traffic: nobody starves, no block leaks, no token is lost, and who came first goes first."""

from dataclasses import dataclass

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from kernels.backends.scheduler import Request, Scheduler
from kernels.block_pool import BlockPool

BLOCK_SIZE = 4


@dataclass
class Traffic:
    """Requests as (prompt, new tokens, the step before which it comes), and a server."""

    requests: list[tuple[list[int], int, int]]
    num_blocks: int
    max_num_batched_tokens: int
    max_num_seqs: int

    def scheduler(self) -> Scheduler:
        return Scheduler(
            BlockPool(self.num_blocks, BLOCK_SIZE),
            max_num_batched_tokens=self.max_num_batched_tokens,
            max_num_seqs=self.max_num_seqs,
        )


@st.composite
def traffics(draw: st.DrawFn) -> Traffic:
    """Prompts out of few tokens and with a few prefixes, so that blocks are shared; room for little more than one request."""
    prefixes = draw(st.lists(st.lists(st.integers(0, 2), max_size=12), min_size=1, max_size=2))
    one = st.tuples(
        st.sampled_from(prefixes),
        st.lists(st.integers(0, 2), min_size=1, max_size=9),
        st.integers(1, 7),
        st.integers(0, 6),
    )
    drawn = draw(st.lists(one, min_size=1, max_size=7))
    requests = sorted(
        [(prefix + own, new, step) for prefix, own, new, step in drawn], key=lambda request: request[2]
    )
    longest = max(len(prompt) + new for prompt, new, _ in requests)
    least = -(-longest // BLOCK_SIZE)
    return Traffic(
        requests,
        num_blocks=draw(st.integers(least, least + 4)),
        max_num_batched_tokens=draw(st.integers(1, 20)),
        max_num_seqs=draw(st.integers(1, 4)),
    )


def new_token(request: Request, row: int) -> int:
    """Depends on the request and its length alone, as a model's answer does."""
    return (31 * request.number + len(request.tokens)) % 3


def check_step(scheduler: Scheduler, scheduled: list[tuple[Request, int]], traffic: Traffic) -> None:
    pool = scheduler.pool
    assert 0 < sum(count for _, count in scheduled) <= traffic.max_num_batched_tokens
    assert all(count > 0 for _, count in scheduled)
    assert len(scheduler.running) <= traffic.max_num_seqs
    assert len({request.number for request, _ in scheduled}) == len(scheduled)
    # Whoever runs has the blocks for the tokens of the step, and nobody else has any.
    assert set(pool.requests) == {request.number for request in scheduler.running}
    for request, count in scheduled:
        assert pool.seq_len(request.number) == request.num_computed + count <= len(request.tokens)
    # First come, first served: those who run came before those who wait, each in the order of arrival.
    running, waiting = ([one.number for one in group] for group in (scheduler.running, scheduler.waiting))
    assert running + waiting == sorted(running + waiting)
    # The first always gets on: it is never the one to be preempted.
    assert scheduled[0][0] is scheduler.running[0]


@settings(max_examples=150, deadline=None)
@given(traffics())
def test_any_traffic_is_served_whole(traffic):
    scheduler = traffic.scheduler()
    coming = list(traffic.requests)
    asked: list[tuple[Request, list[int], int]] = []
    given_tokens: dict[int, list[int]] = {}
    computed = step = 0
    # Each step gives the first request at least one token, and a preempted one starts over behind those before it.
    bound = 1 + 7 * sum(len(prompt) + new for prompt, new, _ in traffic.requests) + 7
    while coming or scheduler.waiting or scheduler.running:
        assert step < bound, "somebody starves"
        while coming and coming[0][2] <= step:
            prompt, new, _ = coming.pop(0)
            asked.append((scheduler.add(prompt, new), prompt, new))
        ran, preempted = set(scheduler.running), scheduler.num_preemptions
        scheduled = scheduler.schedule()
        if scheduler.num_preemptions > preempted:
            # Whom one makes room for is not somebody new: blocks would go back and forth.
            assert set(scheduler.running) < ran
        if scheduler.waiting or scheduler.running:
            check_step(scheduler, scheduled, traffic)
        computed += sum(count for _, count in scheduled)
        for number, token in scheduler.update(scheduled, new_token).items():
            given_tokens.setdefault(number, []).append(token)
        step += 1
    for request, prompt, new in asked:
        assert request.tokens == prompt + given_tokens[request.number]
        assert len(given_tokens[request.number]) == new
    # Everything but each last token was computed once, found in the cache, or computed again after a preemption.
    wanted = sum(len(prompt) + new - 1 for _, prompt, new in asked)
    assert computed + scheduler.num_cached_tokens >= wanted
    if scheduler.num_preemptions == 0:
        assert computed + scheduler.num_cached_tokens == wanted
    assert scheduler.pool.num_free == traffic.num_blocks
    assert scheduler.pool.requests == []
    event(f"preempted: {scheduler.num_preemptions > 0}, shared: {scheduler.num_cached_tokens > 0}")


@settings(max_examples=60, deadline=None)
@given(traffics())
def test_room_changes_when_tokens_come_and_not_which(traffic):
    """A pool without want and a small one give every request the same tokens."""
    answers = []
    for num_blocks in (traffic.num_blocks, 400):
        scheduler = Traffic(traffic.requests, num_blocks, traffic.max_num_batched_tokens, 4).scheduler()
        asked = [scheduler.add(prompt, new) for prompt, new, _ in traffic.requests]
        while scheduler.waiting or scheduler.running:
            scheduler.update(scheduler.schedule(), new_token)
        answers.append([request.tokens for request in asked])
        if num_blocks == 400:
            assert scheduler.num_preemptions == 0
    assert answers[0] == answers[1]


def served(scheduler: Scheduler) -> list[list[tuple[int, int]]]:
    steps = []
    while scheduler.waiting or scheduler.running:
        scheduled = scheduler.schedule()
        steps.append([(request.number, count) for request, count in scheduled])
        scheduler.update(scheduled, new_token)
    return steps


def test_a_prefix_in_the_cache_costs_nothing_of_the_budget():
    """However small the budget: 12 of 14 tokens are there, and the two others run in one step."""
    scheduler = Scheduler(BlockPool(16, BLOCK_SIZE), max_num_batched_tokens=4, max_num_seqs=2)
    prefix = list(range(12))
    scheduler.add([*prefix, 90], 1)
    assert served(scheduler) == [[(0, 4)], [(0, 4)], [(0, 4)], [(0, 1)]]
    scheduler.add([*prefix, 91, 92], 1)
    assert served(scheduler) == [[(1, 2)]]
    assert scheduler.num_cached_tokens == 12


def test_the_last_to_come_gives_its_blocks_up_and_is_computed_again():
    scheduler = Scheduler(BlockPool(4, BLOCK_SIZE), max_num_batched_tokens=32, max_num_seqs=4)
    first, second = scheduler.add([1] * 7, 6), scheduler.add([2] * 7, 6)
    steps = served(scheduler)
    assert scheduler.num_preemptions == 1
    assert steps[0] == [(0, 7), (1, 7)]
    assert steps[2] == [(0, 1)]
    assert first.is_finished
    assert second.is_finished


@pytest.mark.parametrize(
    ("prompt", "max_new_tokens", "message"),
    [
        ([], 1, "prompt: expected at least one token"),
        ([1], 0, "max_new_tokens: expected at least 1, got 0"),
        ([1] * 30, 3, "expected up to 32 tokens together, the cache's room, got 30 and 3"),
    ],
)
def test_what_could_never_run_is_refused(prompt, max_new_tokens, message):
    scheduler = Scheduler(BlockPool(8, BLOCK_SIZE), max_num_batched_tokens=8, max_num_seqs=4)
    with pytest.raises(ValueError, match=message):
        scheduler.add(prompt, max_new_tokens)
