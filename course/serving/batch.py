"""The tensors of one step, for whoever is timed: one layer's heads, random numbers, blocks in random places."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from course.serving.kernel_times import BLOCK_SIZE, HEAD_SIZE, NUM_HEADS, NUM_KV_HEADS
from course.serving.simulate import Step
from kernels.backends import CommonAttentionMetadata
from kernels.backends.batch import StepTensors

SCALE = HEAD_SIZE**-0.5


@dataclass(frozen=True)
class Batch:
    """requests: (query tokens, sequence length) of each. query, output: [num_tokens, NUM_HEADS, HEAD_SIZE]."""

    requests: list[tuple[int, int]]
    common: CommonAttentionMetadata
    query: torch.Tensor
    output: torch.Tensor
    num_blocks: int

    @property
    def device(self) -> torch.device:
        return self.query.device

    def split_caches(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values, each [num_blocks, BLOCK_SIZE, NUM_KV_HEADS, HEAD_SIZE]."""
        shape = (self.num_blocks, BLOCK_SIZE, NUM_KV_HEADS, HEAD_SIZE)
        keys, values = (torch.randn(shape, dtype=self.query.dtype, device=self.device) for _ in range(2))
        return keys, values


def bucket(step: Step) -> Step:
    """A step like many others: decodes counted in eights and all as long as their mean, lengths in steps of 128.

    So that a run, which has hundreds of steps, has tens of batches to be timed.
    """
    decodes = []
    if step.decodes:
        count = len(step.decodes) if len(step.decodes) < 8 else 8 * round(len(step.decodes) / 8)
        decodes = [_up(sum(step.decodes) / len(step.decodes), 128)] * count
    prompts = sorted((_up(count, 128), _up(length, 128)) for count, length in step.prompts)
    return Step(decodes, prompts)


def _up(value: float, unit: int) -> int:
    return int(-(-value // unit) * unit)


def make(step: Step, device: torch.device, dtype: torch.dtype = torch.bfloat16) -> Batch:
    """The batch of a step: its decodes first."""
    requests = [(1, length) for length in step.decodes] + step.prompts
    needed = [-(-length // BLOCK_SIZE) for _, length in requests]
    num_tokens = sum(count for count, _ in requests)
    scattered = torch.randperm(sum(needed), generator=torch.Generator().manual_seed(0)).split(needed)
    tensors = StepTensors(len(requests), num_tokens, max(needed), BLOCK_SIZE, device)
    common = tensors.fill(
        [blocks.tolist() for blocks in scattered],
        [length for _, length in requests],
        [count for count, _ in requests],
    )
    query = torch.randn(num_tokens, NUM_HEADS, HEAD_SIZE, dtype=dtype, device=device)
    return Batch(requests, common, query, torch.empty_like(query), sum(needed))
