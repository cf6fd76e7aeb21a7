"""Traffic: who asks when, with how long a prompt, for how many tokens. The same seed gives the same traffic to everyone.

Arrivals as `vllm bench serve` makes them (its own source, vllm/benchmarks/serve.py in the release, is not among the files
that the course keeps): at a rate, gaps drawn from a gamma distribution whose shape is the burstiness. 1 is a Poisson
process, less comes in bursts, more is more regular.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

POISSON, ALL_AT_ONCE, CLOSED_LOOP = PROCESSES = ("poisson", "all at once", "closed loop")
FIXED, UNIFORM, LOGNORMAL = DISTRIBUTIONS = ("fixed", "uniform", "lognormal")

# No two requests share a token but in the shared prefix: ids above this one are counted up, never drawn.
_FIRST_OWN_TOKEN = 1_000_000


@dataclass(frozen=True)
class Arrivals:
    """process: one of PROCESSES. rate: requests a second of a Poisson process; infinite for all at once."""

    process: str
    rate: float = float("inf")
    burstiness: float = 1.0

    def times(self, count: int, draw: random.Random) -> list[float]:
        """Seconds at which each of `count` requests comes, the first at 0."""
        if self.process == ALL_AT_ONCE:
            return [0.0] * count
        times, now = [], 0.0
        for _ in range(count):
            times.append(now)
            now += draw.gammavariate(self.burstiness, 1 / (self.rate * self.burstiness))
        return times


@dataclass(frozen=True)
class Lengths:
    """Tokens. distribution: one of DISTRIBUTIONS; all lie between low and high, the median is that of a lognormal one."""

    distribution: str
    low: int
    high: int
    median: float = 0.0
    sigma: float = 0.7

    def draw(self, draw: random.Random) -> int:
        if self.distribution == LOGNORMAL:
            length = round(self.median * draw.lognormvariate(0.0, self.sigma))
            return min(self.high, max(self.low, length))
        return draw.randint(self.low, self.high)

    @property
    def typical(self) -> float:
        """The middle of the distribution."""
        return self.median if self.distribution == LOGNORMAL else (self.low + self.high) / 2


@dataclass(frozen=True)
class Workload:
    """shared_prefix_tokens: how many tokens every prompt begins with alike (a system prompt), its own come after them."""

    arrivals: Arrivals
    prompt_tokens: Lengths
    output_tokens: Lengths
    num_requests: int
    shared_prefix_tokens: int = 0


@dataclass(frozen=True)
class Arrival:
    """One request of the traffic. time: seconds from the start. output_tokens: how many it will be given."""

    time: float
    prompt: list[int]
    output_tokens: int


def traffic(workload: Workload, seed: str) -> list[Arrival]:
    """The requests in the order in which they come. Lengths and arrivals have draws of their own."""
    times = workload.arrivals.times(workload.num_requests, random.Random(f"arrivals/{seed}"))
    draw = random.Random(f"lengths/{seed}")
    prefix = prefix_tokens(workload)
    made, next_token = [], _FIRST_OWN_TOKEN
    for time in times:
        own = workload.prompt_tokens.draw(draw)
        prompt = [*prefix, *range(next_token, next_token + own)]
        next_token += own
        made.append(Arrival(time, prompt, workload.output_tokens.draw(draw)))
    return made


def prefix_tokens(workload: Workload) -> list[int]:
    """The tokens that every prompt begins with."""
    return list(range(workload.shared_prefix_tokens))
