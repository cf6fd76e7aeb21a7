"""torch's FlexAttention over the paged cache, as vLLM's backend FLEX_ATTENTION does it.

The cache is one long sequence of physical slots. A block mask lists the request's blocks for each tile of queries. In
blocks that a tile sees only in part, the mask function goes back from the physical slot to the position.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch

from bench.cases import Case
from bench.contender import Contender, refuse, refuse_unusual
from bench.inputs import Inputs, block_table

Q_TILE = 128


@functools.lru_cache(maxsize=1)
def _attention(case: Case, device: torch.device) -> Callable[..., torch.Tensor]:
    """attention(query, key, value, scale=): compiled once for all copies of a case, which have one block table."""
    from torch.nn.attention.flex_attention import BlockMask, flex_attention

    n_q, seq_len = case.requests[0]
    block_size, num_blocks = case.block_size, sum(case.num_blocks)
    table = block_table(case).long()
    num_reqs, width = table.shape

    # Tile t of the queries sees the positions below first_end[t] in every row, and below last_end[t] in some.
    tile = torch.arange(-(-n_q // Q_TILE))
    first_end = seq_len - n_q + tile * Q_TILE + 1
    last_end = (first_end + Q_TILE - 1).clamp(max=seq_len)
    num_full = first_end // block_size
    num_partial = -(-last_end // block_size) - num_full
    column = (num_full[:, None] + torch.arange(num_blocks)).clamp(max=width - 1)
    full = torch.nn.functional.pad(table, (0, num_blocks - width))[:, None, None].expand(-1, 1, len(tile), -1)
    partial = table[:, column][:, None]

    def count(blocks: torch.Tensor) -> torch.Tensor:
        return blocks.expand(num_reqs, 1, -1).to(device, torch.int32)

    position_of = torch.full(
        (num_reqs, num_blocks), seq_len
    )  # of a block's first slot; past the end: not the request's
    position_of.scatter_(1, table, (torch.arange(width) * block_size).expand(num_reqs, -1))
    position_of = position_of.to(device)

    def is_seen(request, head, query, slot):  # type: ignore[no-untyped-def]
        return position_of[request, slot // block_size] + slot % block_size <= query + (seq_len - n_q)

    mask = BlockMask.from_kv_blocks(
        count(num_partial),
        partial.to(device, torch.int32),
        count(num_full),
        full.to(device, torch.int32),
        BLOCK_SIZE=(Q_TILE, block_size),
        mask_mod=is_seen,
        seq_lengths=(n_q, num_blocks * block_size),
    )
    options: Any = {"BLOCK_N": min(64, block_size)}
    compiled = torch.compile(flex_attention, dynamic=False) if device.type == "cuda" else flex_attention
    return functools.partial(compiled, block_mask=mask, enable_gqa=True, kernel_options=options)


def prepare(inputs: Inputs) -> Callable[[], torch.Tensor]:
    """Its output is [num_reqs, num_heads, n_q, head_size]."""
    refuse_unusual(inputs)
    requests = inputs.case.requests
    refuse(len(set(requests)) != 1, "one call does requests of one length only")
    attention = _attention(inputs.case, inputs.device)
    key, value = (
        cache.flatten(0, 1).transpose(0, 1)[None] for cache in (inputs.key_cache, inputs.value_cache)
    )
    query = inputs.query.unflatten(0, (len(requests), -1)).transpose(1, 2).contiguous()
    return lambda: attention(query, key, value, scale=inputs.scale)


CONTENDERS = (Contender("FlexAttention", prepare, note="torch.compile, tiles of one block of the cache"),)
