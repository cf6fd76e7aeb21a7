"""`paged_attention`: the arguments checked, a tier chosen, its kernel launched. The kernels are in other files."""

import torch

from kernels import contract, hopper_prefill, prefill, runtime
from kernels.contract import AttentionResult
from kernels.options import Scale, ScoreOptions
from kernels.tiers import choose_tier

__all__ = ["paged_attention"]


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
    """Attention of a ragged batch over a paged cache that already holds this step's tokens.

    query: [num_tokens, num_heads, head_size], float16, bfloat16 (GPU only) or float32; the requests' tokens
        one after another. The n_q query tokens of a request are the last of its sequence: query i sits at position
        seq_len - n_q + i and sees the positions up to and including its own.
    key_cache, value_cache: [num_blocks, block_size, num_kv_heads, head_size], query's dtype, float8_e4m3fn or
        float8_e5m2; num_heads is a multiple of num_kv_heads, and query head h reads kv head
        h // (num_heads // num_kv_heads). Strides are free but for the last dimension's, which is 1.
    block_table: [num_reqs, max_num_blocks] int32; entries past a request's end are never read.
    seq_lens: [num_reqs] int32, tokens in the cache, this step's included; 0 is legal.
    query_start_loc: [num_reqs + 1] int32, where each request's tokens start, and the end, num_tokens.
    scale: what scores are multiplied with, usually head_size ** -0.5.

    causal: False lets every query see its request's whole sequence.
    sliding_window: the number of keys that a query sees, its own included: it sees positions p with
        query position - sliding_window < p. (vLLM's kernels take one less, the number of keys before its own.) Without
        `causal` the window still ends only the look back.
    softcap: scores become softcap * tanh(score / softcap).
    alibi_slopes: [num_heads] float32; slope * |query position - key position| is taken off each score, after softcap.
    sinks: [num_heads] float32, one more logit for each head in the softmax's denominator, with no value. lse counts it.
    k_scale, v_scale: what the cache's numbers are to be multiplied with: a number, or a float32 tensor on the device
        with one element or one for each kv head. Positive.
    batch_invariant: the same request gives the same bits in any batch, for which tiles are chosen from the model's
        sizes alone. Slower where a batch has few tokens.
    out: where to write the output, like query; made when None.

    Returns the output [num_tokens, num_heads, head_size] and, with `return_lse`, the natural logarithm of the
    sum of exponentials [num_tokens, num_heads] in float32. A token that sees nothing gets zeros and -inf (its sink, if
    there are sinks). `kernels.explain` says for the same arguments which kernel runs.
    Raises ValueError when an argument breaks the contract. On a GPU that is said of shapes, dtypes, devices and
    strides; the environment's KERNELS_DEBUG=1 adds values (lengths, block ids, starts), at the price of a wait.
    """
    options = ScoreOptions(
        causal, sliding_window, softcap, alibi_slopes, sinks, k_scale, v_scale, batch_invariant
    )
    contract.check_paged(
        query, key_cache, value_cache, block_table, seq_lens, query_start_loc, scale, out, options, fp8=True
    )
    runtime.check_launch("query", query)
    tier = choose_tier(query, key_cache, value_cache, scale, options).tier
    run_prefill = hopper_prefill.run_prefill if tier == "hopper" else prefill.run_prefill
    return run_prefill(
        query, key_cache, value_cache, block_table, seq_lens, query_start_loc, scale, options, out, return_lse
    )
