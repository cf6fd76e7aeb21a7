"""The loop around a model: which tokens run in a step, where their keys and values go, what is done when room is short.

Each step takes up to `max_num_batched_tokens` tokens: first of the requests that run, one each or the next chunk of a
prompt, then of those that wait. Blocks come from `kernels.BlockPool`, which shares full blocks of the same prefix. When
it has none left, the request that came last is preempted: its blocks are freed, and it is computed again later.

So does vLLM, `vllm/v1/worker/gpu_model_runner.py:3955` (`execute_model`) for the half that runs the model. The other
half, its scheduler, has priorities, speculative tokens, several processes and more besides, and finds a prefix in the
whole prompt, where this one finds it in the first chunk.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from kernels.backends.batch import StepTensors
from kernels.backends.forward_context import set_forward_context
from kernels.backends.layer import attention_layers
from kernels.backends.tiny_model import TinyModel
from kernels.block_pool import BlockPool, OutOfBlocksError

__all__ = ["Engine"]


@dataclass
class _Request:
    """tokens: the prompt's and those that came. num_computed: how many of them have keys and values in the cache."""

    number: int
    tokens: list[int]
    num_prompt_tokens: int
    max_new_tokens: int
    num_computed: int = 0

    @property
    def is_finished(self) -> bool:
        return len(self.tokens) == self.num_prompt_tokens + self.max_new_tokens


class Engine:
    """Greedy generation with a paged cache.

    pool: who owns which block. num_preemptions, num_cached_tokens: how often a request lost its blocks, and how many
    tokens were found in the cache instead of being computed.
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
        for name, number in (
            ("max_num_batched_tokens", max_num_batched_tokens),
            ("max_num_seqs", max_num_seqs),
        ):
            if number < 1:
                raise ValueError(f"{name}: expected at least 1, got {number}")
        if not backend.supports_block_size(block_size):
            raise ValueError(f"block_size: {backend.get_name()} does not support {block_size}")
        self.model = model
        self.pool = BlockPool(num_blocks, block_size)
        self.max_num_batched_tokens = max_num_batched_tokens
        self.max_num_seqs = max_num_seqs
        self.layers = attention_layers(model)
        self.tensors = StepTensors(max_num_seqs, max_num_batched_tokens, num_blocks, block_size, model.device)
        self._allocate_caches()
        self.waiting: deque[_Request] = deque()
        self.running: list[_Request] = []
        self.finished: dict[int, list[int]] = {}
        self.num_requests = 0
        self.num_preemptions = 0
        self.num_cached_tokens = 0
        self.smallest_lead = float("inf")

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
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens: expected at least 1, got {max_new_tokens}")
        room = self.pool.num_blocks * self.pool.block_size
        if len(prompt) + max_new_tokens > room:
            raise ValueError(
                f"prompt, max_new_tokens: expected up to {room} tokens together, the cache's room, "
                f"got {len(prompt)} and {max_new_tokens}"
            )
        number = self.num_requests
        self.num_requests += 1
        self.waiting.append(_Request(number, list(prompt), len(prompt), max_new_tokens))
        return number

    def generate(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[list[int]]:
        """The new tokens of each prompt."""
        numbers = [self.add_request(prompt, max_new_tokens) for prompt in prompts]
        while self.waiting or self.running:
            self.step()
        return [self.finished.pop(number) for number in numbers]

    def step(self) -> dict[int, int]:
        """Run the model once. Returns the new token of each request that has one."""
        scheduled = self._schedule()
        if not scheduled:
            return {}
        hidden = self._execute_model(scheduled)
        new_tokens = {}
        end = 0
        for request, count in scheduled:
            end += count
            request.num_computed += count
            if request.num_computed < len(request.tokens):
                continue  # a prompt's chunk: its last token is still to come
            new_tokens[request.number] = self._sample(hidden[end - 1])
            request.tokens.append(new_tokens[request.number])
            if request.is_finished:
                self.pool.free(request.number)
                self.running.remove(request)
                self.finished[request.number] = request.tokens[request.num_prompt_tokens :]
        return new_tokens

    def _schedule(self) -> list[tuple[_Request, int]]:
        """Requests and how many of their tokens run in this step; the pool has room for them."""
        budget = self.max_num_batched_tokens
        scheduled = []
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
            chunk = request.tokens[:budget]
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

    def _preempt(self, request: _Request) -> None:
        """Free the blocks; the tokens stay known and are computed again. The last to come is the first to go."""
        self.pool.free(request.number)
        self.running.remove(request)
        self.waiting.appendleft(request)
        request.num_computed = 0
        self.num_preemptions += 1

    def _execute_model(self, scheduled: list[tuple[_Request, int]]) -> torch.Tensor:
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
