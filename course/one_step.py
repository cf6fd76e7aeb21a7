"""One step of a small model over `kernels.backends`, from block tables to the output: short enough to trace whole.

    model = SmallAttention(backend="PAGED_TORCH")
    output = run_step(model)

A model's attention on one side, whoever runs it on the other: in vLLM these are
`vllm/model_executor/models/llama.py:124` (`LlamaAttention`) and
`vllm/v1/worker/gpu_model_runner.py:415` (`GPUModelRunner`). Neither knows what the other does.
"""

from typing import Any

import torch

import kernels
from kernels.backends import (
    Attention,
    AttentionBackendEnum,
    CommonAttentionMetadata,
    attention_layers,
    set_forward_context,
)

HIDDEN_SIZE, NUM_HEADS, NUM_KV_HEADS, HEAD_SIZE = 64, 4, 2, 16
BLOCK_SIZE, NUM_BLOCKS = 16, 8

# One step: a request that decodes its 19th token, and one that brings a prompt of 5. No block is where one would guess.
BLOCK_TABLES = [[5, 2], [7]]
NUM_COMPUTED_TOKENS = [18, 0]
NUM_NEW_TOKENS = [1, 5]


class SmallAttention(torch.nn.Module):
    """The attention of one layer of a model. It knows heads and sizes, and no block, slot, length or kernel."""

    def __init__(self, backend: str = "PAGED_TORCH") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.sizes = [NUM_HEADS * HEAD_SIZE, NUM_KV_HEADS * HEAD_SIZE, NUM_KV_HEADS * HEAD_SIZE]
        self.qkv_proj = torch.nn.Linear(HIDDEN_SIZE, sum(self.sizes), bias=False)
        self.o_proj = torch.nn.Linear(NUM_HEADS * HEAD_SIZE, HIDDEN_SIZE, bias=False)
        self.attn = Attention(
            NUM_HEADS,
            HEAD_SIZE,
            HEAD_SIZE**-0.5,
            num_kv_heads=NUM_KV_HEADS,
            prefix="model.layers.0.self_attn.attn",
            attn_backend=AttentionBackendEnum[backend].get_class(),
        )
        self.to(kernels.device())

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """hidden_states: [num_tokens, HIDDEN_SIZE], the result too."""
        q, k, v = self.qkv_proj(hidden_states).split(self.sizes, dim=-1)
        return self.o_proj(self.attn(q, k, v))


@torch.no_grad()
def run_step(model: torch.nn.Module, with_slots: bool = True) -> torch.Tensor:
    """What a model's runner does in one step: caches, metadata, context, then the model. [num_tokens, HIDDEN_SIZE].

    with_slots: whether the forward context gets the slot mapping. Without it, nothing is written to the cache.
    """
    common = common_metadata()
    layers = attention_layers(model)
    attn_metadata = {}
    layer: Any
    for name, layer in layers.items():
        backend = layer.get_attn_backend()
        shape = backend.get_kv_cache_shape(NUM_BLOCKS, BLOCK_SIZE, NUM_KV_HEADS, HEAD_SIZE)
        layer.kv_cache = torch.zeros(shape, device=kernels.device())
        builder = backend.get_builder_cls()(layer.get_kv_cache_spec(BLOCK_SIZE), [name], kernels.device())
        attn_metadata[name] = builder.build(0, common)
    slot_mapping = dict.fromkeys(layers, common.slot_mapping) if with_slots else None
    hidden_states = torch.randn(
        common.num_actual_tokens, HIDDEN_SIZE, generator=torch.Generator().manual_seed(1)
    )
    with set_forward_context(attn_metadata, layers, slot_mapping=slot_mapping):
        output: torch.Tensor = model(hidden_states.to(kernels.device()))
    return output


def common_metadata() -> CommonAttentionMetadata:
    """The step's batch, as in lesson 1: where to read, where to write, how much there is."""
    requests = list(zip(BLOCK_TABLES, NUM_COMPUTED_TOKENS, NUM_NEW_TOKENS, strict=True))
    slots = [
        table[position // BLOCK_SIZE] * BLOCK_SIZE + position % BLOCK_SIZE
        for table, computed, new in requests
        for position in range(computed, computed + new)
    ]
    widest = max(map(len, BLOCK_TABLES))
    block_table = [table + [0] * (widest - len(table)) for table in BLOCK_TABLES]
    seq_lens = [computed + new for _, computed, new in requests]
    query_start_loc = [sum(NUM_NEW_TOKENS[:i]) for i in range(len(requests) + 1)]
    device = kernels.device()
    return CommonAttentionMetadata(
        query_start_loc=torch.tensor(query_start_loc, dtype=torch.int32, device=device),
        query_start_loc_cpu=torch.tensor(query_start_loc, dtype=torch.int32),
        seq_lens=torch.tensor(seq_lens, dtype=torch.int32, device=device),
        num_reqs=len(requests),
        num_actual_tokens=len(slots),
        max_query_len=max(NUM_NEW_TOKENS),
        max_seq_len=max(seq_lens),
        block_table_tensor=torch.tensor(block_table, dtype=torch.int32, device=device),
        slot_mapping=torch.tensor(slots, dtype=torch.int64, device=device),
    )
