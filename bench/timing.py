"""Time on the GPU: CUDA graphs that walk over copies of the inputs, contenders taking turns.

A graph holds all of its launches, so that Python and the launch cost nothing. It walks over several copies of the inputs,
together larger than the L2 cache, so that no call finds its keys there from the call before. All contenders of a case
are replayed in turn, round after round, so that a GPU that grows warmer and slower does so for all of them.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

NUM_ROUNDS = 5
BURST_SECONDS = 0.02  # of one contender in one round
# Before the burst where arithmetic is the bound: there the GPU runs at its power limit, and a contender that follows a lazy
# one would start on a rested GPU, 10 % faster than it goes on.
SETTLE_SECONDS = 0.06
GRAPH_SECONDS = 1e-3  # at least: the events around a replay cost some microseconds


@dataclass
class Captured:
    """A graph that makes every call `passes` times, and what the calls of its last pass return.

    calls: held, because a graph replays with the memory of what they hold (a peer's plan, say), and does not hold it.
    """

    graph: torch.cuda.CUDAGraph
    outputs: list[Any]
    num_calls: int
    calls: Sequence[Callable[[], Any]]

    def replay(self) -> float:
        """Seconds of one call, the mean over one replay."""
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        self.graph.replay()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) * 1e-3 / self.num_calls


def capture(calls: Sequence[Callable[[], Any]], passes: int = 1) -> Captured:
    """Make all calls once, so that everything is compiled, then capture them."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for call in calls:
            call()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(passes):
            outputs = [call() for call in calls]
    graph.replay()
    torch.cuda.synchronize()
    return Captured(graph, outputs, passes * len(calls), calls)


def time_in_turns(
    captured: Mapping[str, Captured],
    report: Callable[[str], None] = lambda name: None,
    settle_seconds: float = 0.0,
) -> dict[str, list[float]]:
    """For each contender the medians of its rounds, in seconds a call.

    report: is told whose turn it is. settle_seconds: how long a contender runs before its turn is timed.
    """
    rounds: dict[str, list[float]] = {name: [] for name in captured}
    names = list(captured)
    for turn in range(NUM_ROUNDS):
        for name in names[turn % 2 :: 2] + names[1 - turn % 2 :: 2]:  # nobody always follows the same other
            report(name)
            one = captured[name]
            warm_up = one.replay() * one.num_calls
            for _ in range(int(settle_seconds / warm_up)):
                one.replay()
            replays = max(1, min(10, round(BURST_SECONDS / warm_up)))
            rounds[name].append(statistics.median(one.replay() for _ in range(replays)))
    return rounds


def measure_ceilings() -> dict[str, float]:
    """What this GPU does at most: bytes read a second, bytes copied (read and written), bfloat16 operations."""
    calls: dict[str, tuple[float, Callable[[], Any]]] = {}
    data = torch.randn(2**31, dtype=torch.bfloat16, device="cuda")
    rows, half = data.view(-1, 4096), data.numel() // 2
    calls["read_bytes_per_s"] = (2 * data.numel(), lambda: rows.amax(1))
    calls["copy_bytes_per_s"] = (2 * data.numel(), lambda: data[half:].copy_(data[:half]))
    left, right = torch.randn(2, 8192, 8192, dtype=torch.bfloat16, device="cuda")
    calls["matmul_flop_per_s"] = (2 * 8192**3, lambda: left @ right)
    times = time_in_turns({name: capture([call], passes=3) for name, (_, call) in calls.items()})
    return {name: work / statistics.median(times[name]) for name, (work, _) in calls.items()}
