"""Paged attention in plain torch: slow, short, and the definition of what is right.

The functions have the names and signatures of the Triton ones, but for `tier`, so that one can stand in for the other. They
accumulate in float32, or in float64 when the inputs are float64, and run on any device. They work forward
only, request by request. What each keyword argument means to a score is said once, in `_attend`.
"""

import functools
import math

import torch

from kernels import contract
from kernels.contract import AttentionResult
from kernels.options import PLAIN, Scale, ScoreOptions

__all__ = [
    "cascade_attention",
    "dense_attention",
    "latent_decode",
    "merge_attn_states",
    "paged_attention",
    "paged_decode",
    "paged_prefill",
    "reshape_and_cache",
]

_check_paged = functools.partial(contract.check_paged, dtypes=contract.REFERENCE_DTYPES, fp8=True)


def dense_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    *,
    causal: bool = True,
    sliding_window: int | None = None,
    softcap: float | None = None,
    alibi_slopes: torch.Tensor | None = None,
    sinks: torch.Tensor | None = None,
    return_lse: bool = False,
) -> AttentionResult:
    """Attention of one request whose keys and values lie in order. No paging.

    query: [n_q, num_heads, head_size]; key, value: [n_kv, num_kv_heads, head_size], the same dtype: float16,
    bfloat16, float32 or float64. The queries are the last n_q tokens of the sequence: with `causal`, query i
    sits at position n_kv - n_q + i and sees the positions up to and including its own; otherwise it sees all.
    sliding_window, softcap, alibi_slopes, sinks: as in `kernels.paged_attention`.

    Returns the output [n_q, num_heads, head_size] in query's dtype and, with `return_lse`, the natural
    logarithm of the sum of exponentials [n_q, num_heads] in float32 (float64 for float64 inputs). A query
    that sees nothing gets zeros and -inf. Raises ValueError when an argument breaks the contract.
    """
    options = ScoreOptions(causal, sliding_window, softcap, alibi_slopes, sinks)
    contract.check_dense(query, key, value, scale, options)
    dtype = _accumulator(query)
    output, lse = _attend(query.to(dtype), key.to(dtype), value.to(dtype), scale, options)
    output = output.to(query.dtype)
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
    causal: bool = True,
    sliding_window: int | None = None,
    softcap: float | None = None,
    alibi_slopes: torch.Tensor | None = None,
    sinks: torch.Tensor | None = None,
    k_scale: Scale = None,
    v_scale: Scale = None,
    batch_invariant: bool = False,
    out: torch.Tensor | None = None,
    return_lse: bool = False,
) -> AttentionResult:
    """Attention of a ragged batch over a paged cache: look the blocks up, put them in order, attend densely.

    Same contract as `kernels.paged_attention`, and float64 as well. Request by request as it is, it is always
    batch-invariant. Raises ValueError when an argument breaks the contract.
    """
    options = ScoreOptions(
        causal, sliding_window, softcap, alibi_slopes, sinks, k_scale, v_scale, batch_invariant
    )
    _check_paged(query, key_cache, value_cache, block_table, seq_lens, query_start_loc, scale, out, options)
    return _attend_paged(
        query, key_cache, value_cache, block_table, seq_lens, query_start_loc, scale, options, out, return_lse
    )


# How the batch is cut does not change what is right.
paged_prefill = paged_attention


def paged_decode(
    query: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    scale: float,
    *,
    sliding_window: int | None = None,
    softcap: float | None = None,
    alibi_slopes: torch.Tensor | None = None,
    sinks: torch.Tensor | None = None,
    k_scale: Scale = None,
    v_scale: Scale = None,
    batch_invariant: bool = False,
    out: torch.Tensor | None = None,
    return_lse: bool = False,
) -> AttentionResult:
    """Attention of one query token a request, the last of its sequence, over a paged cache.

    Same contract as `kernels.paged_decode`, and float64 as well. Raises ValueError when an argument breaks
    it.
    """
    causal = True  # or not: the query is its sequence's last, and sees all of it either way
    options = ScoreOptions(
        causal, sliding_window, softcap, alibi_slopes, sinks, k_scale, v_scale, batch_invariant
    )
    _check_paged(query, key_cache, value_cache, block_table, seq_lens, None, scale, out, options)
    starts = torch.arange(len(query) + 1, dtype=torch.int32)
    return _attend_paged(
        query, key_cache, value_cache, block_table, seq_lens, starts, scale, options, out, return_lse
    )


def latent_decode(
    query: torch.Tensor,
    latent_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    scale: float,
    *,
    kv_lora_rank: int,
    kv_scale: Scale = None,
    out: torch.Tensor | None = None,
    return_lse: bool = False,
) -> AttentionResult:
    """Decode over a cache of latents (MLA): one kv head, whose values are the first part of its keys.

    Same contract as `kernels.latent_decode`, and float64 as well. Raises ValueError when an argument breaks
    it.
    """
    contract.check_latent(
        query,
        latent_cache,
        block_table,
        seq_lens,
        scale,
        kv_lora_rank,
        kv_scale,
        out,
        contract.REFERENCE_DTYPES,
    )
    num_reqs, num_heads, _ = query.shape
    dtype = _accumulator(query)
    output = query.new_empty(num_reqs, num_heads, kv_lora_rank) if out is None else out
    lse = query.new_empty(num_reqs, num_heads, dtype=dtype)
    for request, seq_len in enumerate(seq_lens.tolist()):
        latent = _gather(latent_cache[:, :, None], block_table[request], seq_len, dtype, kv_scale)
        result, lse[request : request + 1] = _attend(
            query[request : request + 1].to(dtype), latent, latent[..., :kv_lora_rank], scale
        )
        output[request : request + 1] = result.to(query.dtype)
    return (output, lse) if return_lse else output


def cascade_attention(
    query: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    query_start_loc: torch.Tensor,
    scale: float,
    *,
    common_prefix_len: int,
    softcap: float | None = None,
    sinks: torch.Tensor | None = None,
    k_scale: Scale = None,
    v_scale: Scale = None,
    out: torch.Tensor | None = None,
    return_lse: bool = False,
) -> AttentionResult:
    """Attention of a batch whose requests begin with the same blocks: the same as without knowing that.

    Same contract as `kernels.cascade_attention`, and float64 as well. Raises ValueError when an argument
    breaks it.
    """
    options = ScoreOptions(softcap=softcap, sinks=sinks, k_scale=k_scale, v_scale=v_scale)
    _check_paged(query, key_cache, value_cache, block_table, seq_lens, query_start_loc, scale, out, options)
    contract.check_common_prefix(common_prefix_len, key_cache, block_table, seq_lens, query_start_loc)
    return _attend_paged(
        query, key_cache, value_cache, block_table, seq_lens, query_start_loc, scale, options, out, return_lse
    )


def reshape_and_cache(
    key: torch.Tensor,
    value: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    slot_mapping: torch.Tensor,
    *,
    k_scale: Scale = None,
    v_scale: Scale = None,
) -> None:
    """Write each token's key and value to its slot, in place. A slot of -1 is not written.

    Same contract as `kernels.reshape_and_cache`, and float64 as well. Raises ValueError when an argument
    breaks it.
    """
    contract.check_cache_write(
        key,
        value,
        key_cache,
        value_cache,
        slot_mapping,
        contract.REFERENCE_DTYPES,
        k_scale=k_scale,
        v_scale=v_scale,
    )
    block_size = key_cache.shape[1]
    written = slot_mapping >= 0
    block = slot_mapping[written] // block_size
    offset = slot_mapping[written] % block_size
    _bits(key_cache)[block, offset] = _bits(_quantize(key[written], key_cache.dtype, k_scale))
    _bits(value_cache)[block, offset] = _bits(_quantize(value[written], value_cache.dtype, v_scale))


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


def _attend_paged(
    query: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    query_start_loc: torch.Tensor,
    scale: float,
    options: ScoreOptions,
    out: torch.Tensor | None,
    return_lse: bool,
) -> AttentionResult:
    """`paged_attention` of arguments that were checked."""
    dtype = _accumulator(query)
    output = torch.empty_like(query) if out is None else out
    lse = query.new_empty(query.shape[:2], dtype=dtype)
    starts = query_start_loc.tolist()
    for request, seq_len in enumerate(seq_lens.tolist()):
        tokens = slice(starts[request], starts[request + 1])
        # A cache holds numbers divided by their scale: multiply, then everything is as without.
        key = _gather(key_cache, block_table[request], seq_len, dtype, options.k_scale)
        value = _gather(value_cache, block_table[request], seq_len, dtype, options.v_scale)
        result, lse[tokens] = _attend(query[tokens].to(dtype), key, value, scale, options)
        output[tokens] = result.to(query.dtype)
    return (output, lse) if return_lse else output


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    options: ScoreOptions = PLAIN,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(output, lse) of one request, all in float32 or all in float64; value may have another size than key."""
    n_q, num_heads, _ = query.shape
    n_kv, num_kv_heads, _ = key.shape
    query_position = torch.arange(n_q, device=query.device) + (n_kv - n_q)
    key_position = torch.arange(n_kv, device=query.device)
    distance = query_position[:, None] - key_position[None, :]
    hidden = torch.zeros_like(distance, dtype=torch.bool)
    if options.causal:
        hidden |= distance < 0
    # A window of w shows the query's own key and the w - 1 before it. Blocks that no query sees any more may have been
    # given to others: what they hold does not matter.
    if options.sliding_window is not None:
        hidden |= distance >= options.sliding_window
        unseen = hidden.all(dim=0)[:, None, None]
        key, value = key.masked_fill(unseen, 0.0), value.masked_fill(unseen, 0.0)

    # Query head h reads kv head h // num_queries_per_kv.
    num_queries_per_kv = num_heads // num_kv_heads
    key = key.repeat_interleave(num_queries_per_kv, dim=1)
    value = value.repeat_interleave(num_queries_per_kv, dim=1)
    scores = torch.einsum("qhd,khd->qhk", query, key) * scale

    # Softcap: scores bend towards +-softcap. In this order: scale, softcap, ALiBi, mask, as vLLM has it.
    if options.softcap is not None:
        scores = options.softcap * torch.tanh(scores / options.softcap)
    # ALiBi: a penalty that grows with the distance, at each head's own slope.
    if options.alibi_slopes is not None:
        penalty = options.alibi_slopes.to(scores.dtype)[None, :, None] * distance.abs()[:, None, :]
        scores = scores - penalty
    scores = scores.masked_fill(hidden[:, None, :], -math.inf)

    lse = torch.logsumexp(scores, dim=-1)
    sees_nothing = lse == -math.inf
    weights = torch.softmax(scores, dim=-1)
    # A sink is one more score in the sum of exponentials, with no value behind it to add to the output.
    if options.sinks is not None:
        without = lse
        lse = torch.logaddexp(lse, options.sinks.to(lse.dtype).expand_as(lse))
        weights = weights * torch.exp(without - lse)[:, :, None]
    weights = weights.masked_fill(sees_nothing[:, :, None], 0.0)
    return torch.einsum("qhk,khd->qhd", weights, value), lse


def _gather(
    cache: torch.Tensor, blocks: torch.Tensor, seq_len: int, dtype: torch.dtype, scale: Scale
) -> torch.Tensor:
    """A request's tokens in order, [seq_len, num_kv_heads, head_size]; `blocks` is its row of the table."""
    block_size = cache.shape[1]
    num_blocks = (seq_len + block_size - 1) // block_size
    bits = _bits(cache)[blocks[:num_blocks]].flatten(0, 1)[:seq_len]
    tokens = bits.view(cache.dtype).to(dtype)
    return tokens if scale is None else tokens * _per_head(scale, dtype)


def _quantize(tokens: torch.Tensor, dtype: torch.dtype, scale: Scale) -> torch.Tensor:
    """What a cache of `dtype` keeps of tokens [num_tokens, num_kv_heads, head_size]: their quotient by the scale.

    Numbers beyond the range of fp8 become its largest; NaN stays.
    """
    if dtype not in contract.FP8_DTYPES and scale is None:
        return tokens
    quotient = tokens.to(_accumulator(tokens))
    if scale is not None:
        if not isinstance(scale, torch.Tensor):
            # By a number torch does not divide on a GPU, it multiplies with the reciprocal: another last bit.
            scale = torch.full((1,), scale, device=quotient.device)
        quotient = quotient / _per_head(scale, quotient.dtype)
    if dtype in contract.FP8_DTYPES:
        largest = torch.finfo(dtype).max
        quotient = quotient.clamp(-largest, largest)
    return quotient.to(dtype)


def _per_head(scale: float | torch.Tensor, dtype: torch.dtype) -> float | torch.Tensor:
    """The scale in a shape that multiplies [num_tokens, num_kv_heads, head_size]."""
    return scale.to(dtype).view(-1, 1) if isinstance(scale, torch.Tensor) else scale


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    """The same memory as bytes where it holds fp8, which torch cannot index on every device."""
    return tensor.view(torch.uint8) if tensor.dtype in contract.FP8_DTYPES else tensor


def _accumulator(tensor: torch.Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32
