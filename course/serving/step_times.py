"""How long a step of the whole model takes: attention in every layer, and a stated constant for all the rest.

Attention comes from measurements of an H200 (`Replay`) or from this machine's GPU (`course.serving.on_gpu`). The rest is
no measurement: 8 billion parameters are read from memory once a step, and worked through once a token, each at the most
that the H200 did in the same benchmark. So it is a floor, and attention's share of a step is a ceiling.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Protocol

from course.serving import kernel_times
from course.serving.simulate import Step

NUM_LAYERS = 32
NUM_PARAMETERS = 8_000_000_000  # in bfloat16


class StepTimes(Protocol):
    """Where attention's times come from. source: "replay" or "gpu"."""

    source: str

    @property
    def gpu(self) -> str:
        """The GPU that they were measured on."""

    def describe(self) -> str:
        """Where the numbers come from, for whoever reads the result."""

    def attention_us(self, contender: str, seed: str) -> Callable[[Step], float]:
        """Microseconds of one layer's attention in a step, in one run. seed: of what differs from run to run."""


class Replay:
    """The committed measurements, fitted, with the noise of the measured rounds.

    It adds up how much of attention's time lies within the measurements; `describe` says so.
    """

    source = "replay"

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.total_us = 0.0
        self.within_us = 0.0

    @property
    def gpu(self) -> str:
        return str(kernel_times.committed()["gpu"])

    def describe(self) -> str:
        lines = ["REPLAY: nothing was timed here.", kernel_times.describe(self.asked)]
        if self.total_us:
            share = 100 * self.within_us / self.total_us
            lines.append(
                f"In this plan's runs {share:.0f} % of attention's time is of decodes and prompts as large as measured ones "
                f"({kernel_times.ranges()}). For the rest they were continued: trust it less."
            )
        return "\n".join([*lines, describe_rest()])

    def attention_us(self, contender: str, seed: str) -> Callable[[Step], float]:
        costs = kernel_times.costs(contender)
        if contender not in self.asked:
            self.asked.append(contender)
        slower_decode, slower_prefill = costs.run_factors(random.Random(f"noise/{contender}/{seed}"))

        def us(step: Step) -> float:
            decode = slower_decode * costs.decode_us(step.decodes)
            prefill = slower_prefill * costs.prefill_us(step.prompts)
            self.total_us += decode + prefill
            self.within_us += decode * kernel_times.decode_within(step.decodes)
            self.within_us += prefill * kernel_times.prefill_within(step.prompts)
            return decode + prefill

        return us


def rest_us(num_tokens: int) -> float:
    """Microseconds of everything but attention, for a step of so many tokens."""
    kept = kernel_times.committed()
    reading = 2 * NUM_PARAMETERS / kept["read_bytes_per_s"]
    computing = 2 * NUM_PARAMETERS * num_tokens / kept["flop_per_s"]
    return 1e6 * float(max(reading, computing))


def step_us(attention_us: Callable[[Step], float]) -> Callable[[Step], float]:
    """Microseconds of a step of the whole model, given one layer's attention."""
    return lambda step: NUM_LAYERS * attention_us(step) + rest_us(step.num_tokens)


def describe_rest() -> str:
    """What the constant is, for whoever reads the result."""
    return (
        f"The rest of the model is calculated, not measured: {NUM_PARAMETERS / 1e9:.0f} billion parameters in {NUM_LAYERS} "
        f"layers, {rest_us(1) / 1e3:.1f} ms to read them once a step or {rest_us(10**6) / 1e6:.1f} us a token to compute, "
        "whichever is more. No time for scheduling, sampling or the network."
    )
