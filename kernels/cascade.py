"""Attention of a batch whose requests begin with the same blocks: a system prompt that all of them share, say.

What: the same as `paged_attention`, with the shared beginning read once and not once a request.
Work: two launches of prefill.py's kernel and a merge. For the first, the whole batch is one request: all its query
tokens, packed into full tiles, attend to the common prefix, which lies before all of them, so that there is no causal
mask. For the second, each request attends to what follows the prefix. Attention over parts of a sequence merges
exactly when each part brings its lse (merge.py).
Reads the prefix once for each tile of queries, all requests together; writes two partial outputs in float32.
Bound: for decode, bytes, and the prefix's count once: with n requests the gain on it is up to n-fold.
"""

from dataclasses import replace

import torch

from kernels import contract, runtime
from kernels.contract import AttentionResult
from kernels.merge import launch_merge
from kernels.options import Scale, ScoreOptions
from kernels.prefill import launch_prefill

__all__ = ["cascade_attention"]


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
    """Causal attention of a ragged batch whose requests share their first blocks. The result is `paged_attention`'s.

    common_prefix_len: tokens that all requests share, a multiple of block_size, 0 for none. The first
        common_prefix_len // block_size entries are the same in every row of block_table (row 0 has them even if
        request 0 has no queries), and a request with queries has its query tokens after them: its seq_len is at least
        common_prefix_len and its query tokens.
    The other arguments, results and errors are those of `kernels.paged_attention`. A window or ALiBi would give each
    request another view of the prefix; they are not offered.
    """
    options = ScoreOptions(softcap=softcap, sinks=sinks, k_scale=k_scale, v_scale=v_scale)
    contract.check_paged(
        query, key_cache, value_cache, block_table, seq_lens, query_start_loc, scale, out, options, fp8=True
    )
    contract.check_common_prefix(common_prefix_len, key_cache, block_table, seq_lens, query_start_loc)
    runtime.check_launch("query", query)
    if out is None:
        out = torch.empty_like(query, memory_format=torch.contiguous_format)
    lse = query.new_empty(query.shape[:2], dtype=torch.float32)
    if len(query) == 0:
        return (out, lse) if return_lse else out

    caches = (key_cache, value_cache)
    outputs = query.new_empty(2, *query.shape, dtype=torch.float32)
    lses = lse.new_empty(2, *lse.shape)
    num_shared = common_prefix_len // key_cache.shape[1]
    # Made on the device from what lies there: a copy from the host could not be captured.
    prefix_len = torch.full_like(seq_lens[:1], common_prefix_len)
    all_tokens = query_start_loc[:: len(query_start_loc) - 1].contiguous()
    launch_prefill(
        query,
        *caches,
        block_table[:1, :num_shared],
        prefix_len,
        all_tokens,
        scale,
        replace(options, causal=False),
        outputs[0],
        lses[0],
    )
    launch_prefill(
        query,
        *caches,
        block_table[:, num_shared:],
        (seq_lens - common_prefix_len).clamp(min=0),
        query_start_loc,
        scale,
        replace(options, sinks=None),  # they count once: the merge adds the parts' sums
        outputs[1],
        lses[1],
    )
    launch_merge(outputs, lses, out, lse)
    return (out, lse) if return_lse else out
