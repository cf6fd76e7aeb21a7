"""Attention over a paged cache in seven right ways, which differ in order and rounding.

Each takes the `Inputs` of a step and returns (output [num_tokens, num_heads, head_size] in query's dtype, lse [num_tokens,
num_heads] float32, natural logarithm).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch

import kernels
from course.differential.tensors import Inputs
from kernels import reference

Result = tuple[torch.Tensor, torch.Tensor]
Attend = Callable[[Inputs], Result]

SPLIT = 24


def gathered(step: Inputs) -> Result:
    """The course's reference: look the blocks up, attend densely."""
    query, keys, values, table, lens, starts = step.arguments()
    output, lse = reference.paged_attention(
        query, keys, values, table, lens, starts, step.scale, **_options(step)
    )
    return output, lse.float()


def triton(step: Inputs) -> Result:
    """The course's Triton kernels, on the GPU or in the interpreter."""
    device = kernels.device()
    query, keys, values, table, lens, starts = (tensor.to(device) for tensor in step.arguments())
    output, lse = kernels.paged_attention(
        query, keys, values, table, lens, starts, step.scale, **_options(step)
    )
    return output.cpu(), lse.cpu()


def in_double(step: Inputs) -> Result:
    """Float64 throughout, rounded at the end."""
    output, lse = empty(step)
    for tokens, query, key, value, seen in requests(step, torch.float64):
        out, one = state(query, key, value, seen, step.scale)
        output[tokens], lse[tokens] = out.to(output.dtype), one.float()
    return output, lse


def block_by_block(step: Inputs) -> Result:
    """Online softmax, a block at a time from the first."""
    output, lse = empty(step)
    block_size = step.as_nhd()[0].shape[1]
    for tokens, query, key, value, seen in requests(step):
        out, one = query.new_zeros(query.shape), query.new_full(query.shape[:2], -math.inf)
        for start in range(0, len(key), block_size):
            piece = slice(start, start + block_size)
            out, one = merged(
                [(out, one), state(query, key[piece], value[piece], seen[:, piece], step.scale)]
            )
        output[tokens], lse[tokens] = out.to(output.dtype), one
    return output, lse


def splits_backwards(step: Inputs) -> Result:
    """Split-KV: every request in splits, the last first, merged at the end."""
    output, lse = empty(step)
    for tokens, query, key, value, seen in requests(step):
        states = split_states(query, key, value, seen, step.scale, SPLIT)
        out, one = merged(states[::-1])
        output[tokens], lse[tokens] = out.to(output.dtype), one
    return output, lse


def padded(step: Inputs) -> Result:
    """Every request as long as the longest, what is not there masked."""
    output, lse = empty(step)
    longest = int(step.seq_lens.max()) + 3
    for tokens, query, key, value, seen in requests(step):
        more = longest - len(key)
        key, value = (torch.cat([part, part.new_zeros(more, *part.shape[1:])]) for part in (key, value))
        seen = torch.cat([seen, seen.new_zeros(len(seen), more)], dim=1)
        out, one = state(query, key, value, seen, step.scale)
        output[tokens], lse[tokens] = out.to(output.dtype), one
    return output, lse


def half_weights(step: Inputs) -> Result:
    """Base 2; for float16 the weights are rounded to float16 and so are the partial outputs, as tensor cores have them."""
    output, lse = empty(step)
    half = output.dtype == torch.float16
    for tokens, query, key, value, seen in requests(step):
        group = query.shape[1] // key.shape[1]
        scores = torch.einsum("qhd,khd->qhk", query * (step.scale * math.log2(math.e)), expand(key, group))
        scores = scores.masked_fill(~seen[:, None, :], -math.inf)
        highest = scores.amax(-1, keepdim=True) if len(key) else scores.new_full((*scores.shape[:2], 1), 0.0)
        highest = highest.masked_fill(highest == -math.inf, 0.0)
        weights = torch.exp2(scores - highest)
        total = weights.sum(-1)
        if half:
            weights = weights.half().float()
        acc = torch.zeros_like(query)
        for start in range(0, len(key), 16):
            piece = slice(start, start + 16)
            acc += torch.einsum("qhk,khd->qhd", weights[..., piece], expand(value[piece], group))
            acc = acc.half().float() if half else acc
        output[tokens] = (acc / total.clamp(min=1e-30)[..., None]).to(output.dtype)
        lse[tokens] = (total.log2() + highest[..., 0]) * math.log(2.0)
    return output, lse


RIGHT: dict[str, Attend] = {
    each.__name__: each
    for each in (gathered, triton, in_double, block_by_block, splits_backwards, padded, half_weights)
}


# Pieces, which faults use too.


def empty(step: Inputs) -> Result:
    """An output and an lse to fill in: those of tokens that see nothing."""
    return torch.zeros_like(step.query), step.query.new_full(
        step.query.shape[:2], -math.inf, dtype=torch.float32
    )


def requests(
    step: Inputs, dtype: torch.dtype = torch.float32
) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]]:
    """For each request with query tokens: where they stand, query, keys and values in order, and who sees what.

    query [n, num_heads, head_size], key and value [seq_len, num_kv_heads, head_size], seen [n, seq_len] bool.
    """
    starts = step.query_start_loc.tolist()
    for request, seq_len in enumerate(step.seq_lens.tolist()):
        tokens = slice(starts[request], starts[request + 1])
        if tokens.start == tokens.stop:
            continue
        key, value = (tokens_of(step, cache, request, seq_len, dtype) for cache in (0, 1))
        yield (
            tokens,
            step.query[tokens].to(dtype),
            key,
            value,
            sight(tokens.stop - tokens.start, seq_len, step.window),
        )


def tokens_of(step: Inputs, which: int, request: int, seq_len: int, dtype: torch.dtype) -> torch.Tensor:
    """Keys (0) or values (1) of a request's first seq_len slots, [seq_len, num_kv_heads, head_size]."""
    cache = step.as_nhd()[which]
    blocks = step.block_table[request, : -(-seq_len // cache.shape[1])].long()
    scale = (step.k_scale, step.v_scale)[which]
    found = cache.to(dtype)[blocks].flatten(0, 1)[:seq_len]
    return found if scale is None else found * scale


def sight(num_queries: int, seq_len: int, window: int | None) -> torch.Tensor:
    """[num_queries, seq_len] bool: the last tokens of a sequence see what is before them, within the window."""
    distance = (torch.arange(num_queries) + seq_len - num_queries)[:, None] - torch.arange(seq_len)[None, :]
    return (distance >= 0) & (distance < (window or seq_len + 1))


def expand(tokens: torch.Tensor, group: int) -> torch.Tensor:
    """[n, num_kv_heads, head_size] -> [n, num_heads, head_size]"""
    return tokens.repeat_interleave(group, dim=1)


def state(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, seen: torch.Tensor, scale: float
) -> Result:
    """(output, lse) over these keys, in query's dtype."""
    group = query.shape[1] // key.shape[1]
    scores = torch.einsum("qhd,khd->qhk", query, expand(key, group)) * scale
    scores = scores.masked_fill(~seen[:, None, :], -math.inf)
    lse = torch.logsumexp(scores, dim=-1)
    weights = torch.exp(scores - lse.masked_fill(lse == -math.inf, 0.0)[..., None])
    return torch.einsum("qhk,khd->qhd", weights, expand(value, group)), lse


def split_states(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, seen: torch.Tensor, scale: float, size: int
) -> list[Result]:
    """The states of splits of `size` tokens; one empty split for an empty sequence."""
    pieces = [slice(start, start + size) for start in range(0, max(1, len(key)), size)]
    return [state(query, key[piece], value[piece], seen[:, piece], scale) for piece in pieces]


def merged(states: list[Result]) -> Result:
    """Partial states as one."""
    lses = torch.stack([lse for _, lse in states])
    lse = torch.logsumexp(lses, dim=0)
    weights = torch.exp(lses - lse.masked_fill(lse == -math.inf, 0.0))
    parts = [weight[..., None] * out for weight, (out, _) in zip(weights, states, strict=True)]
    return torch.stack(parts).sum(dim=0), lse


def _options(step: Inputs) -> dict[str, Any]:
    options: dict[str, Any] = {"sliding_window": step.window, "return_lse": True}
    if step.k_scale is not None:
        options |= {"k_scale": step.k_scale, "v_scale": step.v_scale}
    return options
