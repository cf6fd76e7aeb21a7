"""Paged attention in plain torch: slow, short, and the definition of what is right.

The functions have the names and signatures of the Triton ones, so that one can stand in for the other. They
accumulate in float32, or in float64 when the inputs are float64, and run on any device. They work forward
only, request by request.
"""

import math

import torch

from kernels import contract
from kernels.contract import AttentionResult

__all__ = ["dense_attention", "merge_attn_states", "paged_attention", "paged_decode", "reshape_and_cache"]


def dense_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    *,
    causal: bool = True,
    return_lse: bool = False,
) -> AttentionResult:
    """Attention of one request whose keys and values lie in order. No paging.

    query: [n_q, num_heads, head_size]; key, value: [n_kv, num_kv_heads, head_size], the same dtype: float16,
    bfloat16, float32 or float64. The queries are the last n_q tokens of the sequence: with `causal`, query i
    sits at position n_kv - n_q + i and sees the positions up to and including its own; otherwise it sees all.

    Returns the output [n_q, num_heads, head_size] in query's dtype and, with `return_lse`, the natural
    logarithm of the sum of exponentials [n_q, num_heads] in float32 (float64 for float64 inputs). A query
    that sees nothing gets zeros and -inf. Raises ValueError when an argument breaks the contract.
    """
    contract.check_dense(query, key, value, scale, causal)
    n_q, num_heads, _ = query.shape
    n_kv, num_kv_heads, _ = key.shape
    dtype = _accumulator(query)

    # Query head h reads kv head h // num_queries_per_kv.
    num_queries_per_kv = num_heads // num_kv_heads
    key = key.to(dtype).repeat_interleave(num_queries_per_kv, dim=1)
    value = value.to(dtype).repeat_interleave(num_queries_per_kv, dim=1)

    scores = torch.einsum("qhd,khd->qhk", query.to(dtype), key) * scale
    if causal:
        query_position = torch.arange(n_q, device=query.device) + (n_kv - n_q)
        key_position = torch.arange(n_kv, device=query.device)
        hidden = key_position[None, :] > query_position[:, None]
        scores = scores.masked_fill(hidden[:, None, :], -math.inf)

    lse = torch.logsumexp(scores, dim=-1)
    sees_nothing = lse == -math.inf
    weights = torch.softmax(scores, dim=-1).masked_fill(sees_nothing[:, :, None], 0.0)
    output = torch.einsum("qhk,khd->qhd", weights, value).to(query.dtype)
    return (output, lse) if return_lse else output


def paged_attention(
    query: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    query_start_loc: torch.Tensor,
    scale: float,
    *,
    out: torch.Tensor | None = None,
    return_lse: bool = False,
) -> AttentionResult:
    """Causal attention of a ragged batch over a paged cache: look the blocks up, put them in order, attend
    densely.

    Same contract as `kernels.paged_attention`, and float64 as well. Raises ValueError when an argument breaks
    it.
    """
    contract.check_paged(
        query,
        key_cache,
        value_cache,
        block_table,
        seq_lens,
        query_start_loc,
        scale,
        out,
        contract.REFERENCE_DTYPES,
    )
    return _attend_requests(
        query, key_cache, value_cache, block_table, seq_lens, query_start_loc.tolist(), scale, out, return_lse
    )


def paged_decode(
    query: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    scale: float,
    *,
    out: torch.Tensor | None = None,
    return_lse: bool = False,
) -> AttentionResult:
    """Attention of one query token a request, the last of its sequence, over a paged cache.

    Same contract as `kernels.paged_decode`, and float64 as well. Raises ValueError when an argument breaks
    it.
    """
    contract.check_paged(
        query, key_cache, value_cache, block_table, seq_lens, None, scale, out, contract.REFERENCE_DTYPES
    )
    query_start_loc = list(range(len(query) + 1))
    return _attend_requests(
        query, key_cache, value_cache, block_table, seq_lens, query_start_loc, scale, out, return_lse
    )


def reshape_and_cache(
    key: torch.Tensor,
    value: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    slot_mapping: torch.Tensor,
) -> None:
    """Write each token's key and value to its slot, in place. A slot of -1 is not written.

    Same contract as `kernels.reshape_and_cache`, and float64 as well. Raises ValueError when an argument
    breaks it.
    """
    contract.check_cache_write(key, value, key_cache, value_cache, slot_mapping, contract.REFERENCE_DTYPES)
    block_size = key_cache.shape[1]
    written = slot_mapping >= 0
    block = slot_mapping[written] // block_size
    offset = slot_mapping[written] % block_size
    key_cache[block, offset] = key[written]
    value_cache[block, offset] = value[written]


def merge_attn_states(outputs: torch.Tensor, lses: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Combine attention over disjoint parts of a sequence into attention over the whole.

    outputs: [num_splits, num_tokens, num_heads, head_size]; lses: [num_splits, num_tokens, num_heads],
    natural logarithm. A split that saw nothing has lse -inf, and its output may hold anything. Returns
    (output, lse); where every split is empty these are zeros and -inf. Same contract as
    `kernels.merge_attn_states`, and float64 as well.
    """
    contract.check_states(outputs, lses, contract.REFERENCE_DTYPES)
    dtype = _accumulator(outputs)
    lse = torch.logsumexp(lses, dim=0)
    empty = lses == -math.inf
    weights = torch.softmax(lses, dim=0).masked_fill(empty, 0.0).to(dtype)
    parts = outputs.to(dtype).masked_fill(empty[..., None], 0.0)
    output = (weights[..., None] * parts).sum(dim=0).to(outputs.dtype)
    return output, lse


def _attend_requests(
    query: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    query_start_loc: list[int],
    scale: float,
    out: torch.Tensor | None,
    return_lse: bool,
) -> AttentionResult:
    output = torch.empty_like(query) if out is None else out
    lse = query.new_empty(query.shape[:2], dtype=_accumulator(query))
    for request, seq_len in enumerate(seq_lens.tolist()):
        tokens = slice(query_start_loc[request], query_start_loc[request + 1])
        key = _gather(key_cache, block_table[request], seq_len)
        value = _gather(value_cache, block_table[request], seq_len)
        output[tokens], lse[tokens] = dense_attention(query[tokens], key, value, scale, return_lse=True)
    return (output, lse) if return_lse else output


def _gather(cache: torch.Tensor, blocks: torch.Tensor, seq_len: int) -> torch.Tensor:
    """A request's tokens in order, [seq_len, num_kv_heads, head_size]; `blocks` is its row of the table."""
    block_size = cache.shape[1]
    num_blocks = (seq_len + block_size - 1) // block_size
    return cache[blocks[:num_blocks]].flatten(0, 1)[:seq_len]


def _accumulator(tensor: torch.Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32
