"""The clock: steps take what they are said to take, and every request gets its tokens in order and in time."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course.serving.simulate import Server, Step, simulate
from course.serving.workload import Arrival, Arrivals, Lengths, Workload, traffic

SERVER = Server(block_size=4, num_blocks=64, max_num_seqs=4, max_num_batched_tokens=16)


def arrival(time, length, output, first=0):
    return Arrival(time, list(range(first, first + length)), output)


def test_a_request_alone_takes_its_steps():
    run = simulate([arrival(2.0, 20, 3)], SERVER, lambda step: 1e6 * step.num_tokens)
    (request,) = run.requests
    # 16 and 4 prompt tokens, then a token a step.
    assert request.admitted == 2.0
    assert request.tokens == [22.0, 23.0, 24.0]
    assert run.last_admission == 2.0


def test_a_step_is_handed_over_as_its_kernel_sees_it():
    seen = []
    simulate(
        [arrival(0.0, 5, 3), arrival(0.0, 20, 1, first=100)], SERVER, lambda step: seen.append(step) or 1.0
    )
    assert seen == [
        Step([], [(5, 5), (11, 11)]),
        Step([6], [(9, 20)]),
        Step([7], []),
    ]


def test_who_comes_later_waits_for_the_step_that_runs():
    run = simulate([arrival(0.0, 4, 2), arrival(0.1, 4, 1, first=50)], SERVER, lambda step: 1e6)
    assert [request.tokens for request in run.requests] == [[1.0, 2.0], [2.0]]
    assert run.requests[1].admitted == 1.0
    assert run.timeline == [(0.0, 1, 0), (1.0, 2, 0)]


def test_a_warm_prefix_is_not_computed():
    prefix = list(range(12))
    asked = [Arrival(0.0, [*prefix, 70, 71], 1)]
    cold = simulate(asked, SERVER, lambda step: 1e6 * step.num_tokens)
    warm = simulate(asked, SERVER, lambda step: 1e6 * step.num_tokens, warm_prefix=prefix)
    assert cold.requests[0].tokens == [14.0]
    assert warm.requests[0].tokens == [2.0]
    assert (cold.num_cached_tokens, warm.num_cached_tokens) == (0, 12)


@settings(max_examples=60, deadline=None)
@given(
    st.floats(0.2, 500),
    st.floats(0.2, 4),
    st.integers(0, 30),
    st.integers(20, 60),
    st.integers(1, 6),
    st.integers(1, 64),
)
def test_everybody_is_served_whatever_comes(rate, burstiness, shared, num_blocks, num_seqs, budget):
    asked = traffic(
        Workload(
            Arrivals("poisson", rate, burstiness),
            Lengths("uniform", 1, 30),
            Lengths("uniform", 1, 9),
            20,
            shared,
        ),
        "any",
    )
    server = Server(4, num_blocks, num_seqs, budget)
    us = []
    run = simulate(asked, server, lambda step: us.append(1000.0 * step.num_tokens) or us[-1])
    for wanted, got in zip(asked, run.requests, strict=True):
        assert len(got.tokens) == wanted.output_tokens
        assert wanted.time == got.arrival <= got.admitted < got.tokens[0]
        assert got.tokens == sorted(set(got.tokens))
    # First come, first served; nobody is idle while somebody waits.
    assert [one.admitted for one in run.requests] == sorted(one.admitted for one in run.requests)
    busy = sum(us) * 1e-6
    assert max(one.tokens[-1] for one in run.requests) <= asked[-1].time + busy + 1e-9


def test_what_has_no_room_at_all_is_refused():
    with pytest.raises(ValueError, match="the cache's room"):
        simulate([arrival(0.0, 300, 1)], SERVER, lambda step: 1.0)
