"""The loop around a model: blocks and tokens by `Scheduler`, then the model runs on them, step after step.

So does vLLM, `vllm/v1/worker/gpu_model_runner.py:3955` (`execute_model`) for the half that runs the model.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any

import torch

from kernels.backends.batch import StepTensors
from kernels.backends.forward_context import set_forward_context
from kernels.backends.layer import attention_layers
from kernels.backends.scheduler import Request, Scheduled, Scheduler
from kernels.backends.tiny_model import TinyModel
from kernels.block_pool import BlockPool

__all__ = ["Engine"]


class Engine:
    """Greedy generation with a paged cache.

    pool: who owns which block. scheduler: who runs, and how often one lost its blocks.
    smallest_lead: of any chosen token's logit over the next best. Where it is no larger than rounding, two right
    backends may choose differently.
    """

    def __init__(
        self,
        model: TinyModel,
        *,
        num_blocks: int = 32,
        block_size: int = 16,
        max_num_batched_tokens: int = 64,
        max_num_seqs: int = 8,
    ) -> None:
        """Raises ValueError for sizes below 1, and when the backend does not take blocks of that size."""
        backend = model.attn_backend
        if not backend.supports_block_size(block_size):
            raise ValueError(f"block_size: {backend.get_name()} does not support {block_size}")
        self.model = model
        self.pool = BlockPool(num_blocks, block_size)
        self.scheduler = Scheduler(
            self.pool, max_num_batched_tokens=max_num_batched_tokens, max_num_seqs=max_num_seqs
        )
        self.layers = attention_layers(model)
        self.tensors = StepTensors(max_num_seqs, max_num_batched_tokens, num_blocks, block_size, model.device)
        self._allocate_caches()
        self.finished: dict[int, list[int]] = {}
        self.smallest_lead = float("inf")

    @property
    def waiting(self) -> deque[Request]:
        return self.scheduler.waiting

    @property
    def running(self) -> list[Request]:
        return self.scheduler.running

    @property
    def num_preemptions(self) -> int:
        return self.scheduler.num_preemptions

    @property
    def num_cached_tokens(self) -> int:
        return self.scheduler.num_cached_tokens

    def _allocate_caches(self) -> None:
        """One cache and one builder for all layers alike. vLLM groups layers whose caches differ."""
        backend = self.model.attn_backend
        for layer in self.layers.values():
            attn: Any = layer
            spec = attn.get_kv_cache_spec(self.pool.block_size)
            shape = backend.get_kv_cache_shape(
                self.pool.num_blocks, spec.block_size, spec.num_kv_heads, spec.head_size, attn.kv_cache_dtype
            )
            # A backend that reads what nobody wrote is to be noticed.
            attn.kv_cache = torch.full(shape, float("nan")).to(spec.dtype).to(self.model.device)
        self.builder = backend.get_builder_cls()(spec, list(self.layers), self.model.device)

    def add_request(self, prompt: Sequence[int], max_new_tokens: int) -> int:
        """Have a request wait. Returns its number. Raises ValueError for one that could never run."""
        vocab_size = self.model.config.vocab_size
        if not prompt or not all(0 <= token < vocab_size for token in prompt):
            raise ValueError(
                f"prompt: expected tokens from 0 to {vocab_size - 1}, at least one, got {list(prompt)}"
            )
        return self.scheduler.add(prompt, max_new_tokens).number

    def generate(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[list[int]]:
        """The new tokens of each prompt."""
        numbers = [self.add_request(prompt, max_new_tokens) for prompt in prompts]
        while self.waiting or self.running:
            self.step()
        return [self.finished.pop(number) for number in numbers]

    def step(self) -> dict[int, int]:
        """Run the model once. Returns the new token of each request that has one."""
        scheduled = self.scheduler.schedule()
        if not scheduled:
            return {}
        hidden = self._execute_model(scheduled)
        new_tokens = self.scheduler.update(scheduled, lambda request, row: self._sample(hidden[row]))
        for request, _ in scheduled:
            if request.is_finished:
                self.finished[request.number] = request.tokens[request.num_prompt_tokens :]
        return new_tokens

    def _execute_model(self, scheduled: Scheduled) -> torch.Tensor:
        """Hidden states [num_tokens, hidden_size] of the scheduled tokens, one request after another."""
        common = self.tensors.fill(
            [self.pool.block_table(request.number) for request, _ in scheduled],
            [request.num_computed + count for request, count in scheduled],
            [count for _, count in scheduled],
        )
        attn_metadata = self.builder.build(0, common)
        input_ids: list[int] = []
        positions: list[int] = []
        for request, count in scheduled:
            input_ids += request.tokens[request.num_computed : request.num_computed + count]
            positions += range(request.num_computed, request.num_computed + count)
        with set_forward_context(
            dict.fromkeys(self.layers, attn_metadata),
            self.layers,
            slot_mapping=dict.fromkeys(self.layers, common.slot_mapping),
        ):
            hidden: torch.Tensor = self.model(
                torch.tensor(input_ids, device=self.model.device),
                torch.tensor(positions, device=self.model.device),
            )
        return hidden

    def _sample(self, hidden: torch.Tensor) -> int:
        logits = self.model.compute_logits(hidden[None])[0]
        best = torch.topk(logits, 2)
        self.smallest_lead = min(self.smallest_lead, (best.values[0] - best.values[1]).item())
        return int(best.indices[0])
