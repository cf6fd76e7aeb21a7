"""Question 10 in torch: what people write for causal attention of a ragged batch over a paged cache, wrong and right."""

import math

import torch

from autograder.collect import Collector


# The solution, in which the mistakes below are made; source/03_build.py walks through it.
def paged_causal_attention(query, key_cache, value_cache, block_table, seq_lens, query_start_loc, scale):
    num_heads, head_size = query.shape[1:]
    block_size, num_kv_heads = key_cache.shape[1:3]
    num_queries_per_kv = num_heads // num_kv_heads
    output = torch.zeros_like(query)
    for request in range(len(seq_lens)):
        first, last = int(query_start_loc[request]), int(query_start_loc[request + 1])
        seq_len, num_new = int(seq_lens[request]), last - first
        if num_new == 0:
            continue
        q = query[first:last].float().unflatten(1, (num_kv_heads, num_queries_per_kv))
        query_position = torch.arange(seq_len - num_new, seq_len, device=q.device)
        m = torch.full(q.shape[:-1], -1e30, device=q.device)
        l = torch.zeros_like(m)
        acc = torch.zeros_like(q)
        for start in range(0, seq_len, block_size):
            block = int(block_table[request, start // block_size])
            held = min(block_size, seq_len - start)
            k = key_cache[block, :held].float()
            v = value_cache[block, :held].float()
            key_position = torch.arange(start, start + held, device=q.device)
            visible = key_position[None, :] <= query_position[:, None]
            scores = torch.einsum("tgqd,kgd->tgqk", q, k) * scale
            scores = scores.masked_fill(~visible[:, None, None, :], -math.inf)
            m_new = torch.maximum(m, scores.amax(dim=-1))
            alpha = torch.exp(m - m_new)
            p = torch.exp(scores - m_new[..., None])
            l = l * alpha + p.sum(dim=-1)
            acc = acc * alpha[..., None] + torch.einsum("tgqk,kgd->tgqd", p, v)
            m = m_new
        output[first:last] = (acc / l[..., None]).flatten(1, 2).to(query.dtype)
    return output


causal = Collector(paged_causal_attention)
_VISIBLE = "visible = key_position[None, :] <= query_position[:, None]"
_POSITION = "torch.arange(seq_len - num_new, seq_len, device=q.device)"

causal.edit(
    "own-token-hidden",
    "a query does not see its own token: the mask is < where it should be <=. A first token then sees nothing at all.",
    (_VISIBLE, "visible = key_position[None, :] < query_position[:, None]"),
    ("(acc / l[..., None])", "(acc / torch.where(l > 0, l, 1.0)[..., None])"),
)
causal.edit(
    "own-token-hidden-and-nan",
    "a query does not see its own token (< for <=), and the first token of a sequence, which then sees nothing, becomes "
    "NaN by 0 / 0.",
    (_VISIBLE, "visible = key_position[None, :] < query_position[:, None]"),
)
causal.edit(
    "position-from-the-chunks-start",
    "query positions are counted from the chunk's start, as if the request had no earlier tokens. Query i of n sits at "
    "seq_len - n + i; a mask aligned top-left is this mistake.",
    (_POSITION, "torch.arange(num_new, device=q.device)"),
)
causal.edit(
    "position-one-too-late",
    "query positions are one too large: each query sees one token of the future (the last one, past its end).",
    (_POSITION, "torch.arange(seq_len - num_new + 1, seq_len + 1, device=q.device)"),
)
causal.edit(
    "position-from-the-batch",
    "query positions are counted over the whole batch: token i of the query tensor is taken to sit at position i. Each "
    "request counts for itself.",
    (_POSITION, "torch.arange(first, last, device=q.device)"),
)
causal.edit(
    "not-causal",
    "nothing is masked: every query sees the whole sequence, tokens after its own included. That is right for decode, "
    "where the only query is the last token.",
    (_VISIBLE, "visible = key_position[None, :] <= query_position[:, None] + seq_len"),
)
causal.edit(
    "mask-upside-down",
    "the mask is upside down: queries see what comes after them and not what came before.",
    (_VISIBLE, "visible = key_position[None, :] >= query_position[:, None]"),
)
causal.edit(
    "mask-by-blocks",
    "the mask goes by whole blocks: a query sees all of its own block, the tokens after it included.",
    (_VISIBLE, "visible = key_position[None, :] // block_size <= query_position[:, None] // block_size"),
)
causal.edit(
    "only-the-last-block-masked",
    "the mask is applied in the last block only. A long chunk of queries begins several blocks before it.",
    (
        _VISIBLE,
        "visible = (key_position[None, :] <= query_position[:, None]) | (start + block_size < seq_len)",
    ),
)
causal.edit(
    "blocks-of-the-chunk-only",
    "only the new tokens' keys are read: the loop over blocks ends after num_new tokens instead of seq_len. Earlier "
    "tokens are in the cache too.",
    ("for start in range(0, seq_len, block_size):", "for start in range(0, num_new, block_size):"),
)
causal.edit(
    "query-rows-off-by-one-request",
    "each request takes the rows of the one before it: request i's queries are query_start_loc[i] to "
    "query_start_loc[i + 1].",
    (
        "first, last = int(query_start_loc[request]), int(query_start_loc[request + 1])",
        "first, last = int(query_start_loc[request - 1]) if request else 0, int(query_start_loc[request])",
    ),
)
causal.edit(
    "one-query-a-request",
    "only one query of each request is computed, the last: that is decode. A prefill has many.",
    (
        "output[first:last] = (acc / l[..., None]).flatten(1, 2).to(query.dtype)",
        "output[last - 1] = (acc / l[..., None]).flatten(1, 2).to(query.dtype)[-1]",
    ),
)
causal.edit(
    "kv-head-modulo",
    "query head h reads kv head h % num_kv_heads. Neighbouring query heads share a kv head: it is "
    "h // num_queries_per_kv.",
    (
        "unflatten(1, (num_kv_heads, num_queries_per_kv))",
        "unflatten(1, (num_queries_per_kv, num_kv_heads)).transpose(1, 2)",
    ),
    (".flatten(1, 2).to", ".transpose(1, 2).flatten(1, 2).to"),
)
causal.edit(
    "tail-attended",
    "the last block is read to its end, and its tail's scores are masked while its values are not: weight 0 times a value "
    "of NaN is NaN.",
    ("held = min(block_size, seq_len - start)", "held = block_size"),
)
causal.edit(
    "scale-left-out",
    "the scores are not multiplied by scale.",
    ("q, k) * scale", "q, k)"),
)
causal.edit(
    "scale-from-the-head-size",
    "the scores are multiplied by head_size ** -0.5 whatever the argument `scale` says.",
    ("q, k) * scale", "q, k) * head_size**-0.5"),
)
causal.edit(
    "masked-with-a-number-too-small",
    "masked scores are set to -1000 or so instead of -inf. Where real scores lie below that, the masked ones win.",
    ("-math.inf)", "-1000.0)"),
)
causal.edit(
    "masked-with-zero",
    "masked scores are set to 0, and exp(0) is not 0: a masked score is -inf.",
    ("-math.inf)", "0.0)"),
)
causal.edit(
    "nan-on-a-hidden-block",
    "m starts as -inf, and for a row that sees nothing of a block -inf - (-inf) is NaN. Start with a finite number, or "
    "subtract 0 there.",
    ("-1e30, device=q.device)", "-math.inf, device=q.device)"),
    ("range(0, seq_len, block_size)", "reversed(range(0, seq_len, block_size))"),
)
causal.edit(
    "no-max-subtraction",
    "exp(score) is taken without subtracting the maximum: it overflows float32 from 89 on.",
    ("m_new = torch.maximum(m, scores.amax(dim=-1))", "m_new = torch.zeros_like(m)"),
    ("alpha = torch.exp(m - m_new)", "alpha = torch.ones_like(m)"),
)
causal.edit(
    "acc-not-rescaled",
    "acc is not rescaled when the maximum grows: it needs the factor exp(m_old - m_new), as l does.",
    ("acc * alpha[..., None] + torch", "acc + torch"),
)
causal.edit(
    "logical-block-as-physical",
    "the logical block number is used as the physical one: block_table says where each block lies.",
    ("int(block_table[request, start // block_size])", "start // block_size"),
)
causal.edit(
    "sums-in-the-inputs-dtype",
    "everything is computed in the inputs' own dtype. Compute in float32 and round once, at the end.",
    ("query[first:last].float()", "query[first:last]"),
    ("key_cache[block, :held].float()", "key_cache[block, :held]"),
    ("value_cache[block, :held].float()", "value_cache[block, :held]"),
    ("-1e30, device=q.device)", "-6e4, device=q.device, dtype=q.dtype)"),
)
causal.edit(
    "query-scaled-in-place",
    "the query is scaled in place: `query *= scale` changes the caller's tensor.",
    ("num_heads, head_size = query.shape[1:]", "num_heads, head_size = query.mul_(scale).shape[1:]"),
    ("q, k) * scale", "q, k)"),
)


@causal.misconception(
    "chunks-attend-to-themselves",
    "queries see the new tokens of their own request only, and not what is in the cache from earlier steps.",
    part="paged_causal_attention",
)
def only_the_new_tokens(query, key_cache, value_cache, block_table, seq_lens, query_start_loc, scale):
    output = torch.zeros_like(query)
    block_size, group = key_cache.shape[1], query.shape[1] // key_cache.shape[2]
    starts = query_start_loc.tolist()
    for request, seq_len in enumerate(seq_lens.tolist()):
        first, last = starts[request], starts[request + 1]
        position = torch.arange(seq_len - (last - first), seq_len, device=query.device)
        block = block_table[request][position // block_size].long()
        k = key_cache[block, position % block_size].float().repeat_interleave(group, dim=1)
        v = value_cache[block, position % block_size].float().repeat_interleave(group, dim=1)
        scores = torch.einsum("thd,khd->thk", query[first:last].float(), k) * scale
        hidden = position[None, :] > position[:, None]
        p = torch.softmax(scores.masked_fill(hidden[:, None, :], -math.inf), dim=-1)
        output[first:last] = torch.einsum("thk,khd->thd", p, v).to(query.dtype)
    return output


@causal.right("token-by-token", part="paged_causal_attention")
def token_by_token(query, key_cache, value_cache, block_table, seq_lens, query_start_loc, scale):
    output = torch.zeros_like(query)
    block_size, group = key_cache.shape[1], query.shape[1] // key_cache.shape[2]
    for request in range(len(seq_lens)):
        first, last = int(query_start_loc[request]), int(query_start_loc[request + 1])
        for token in range(first, last):
            sees = int(seq_lens[request]) - (last - 1 - token)
            m, l, acc = torch.tensor(-torch.inf), torch.tensor(0.0), torch.tensor([[0.0]])
            seen = False
            for j in range(math.ceil(sees / block_size)):
                held = min(block_size, sees - j * block_size)
                k = key_cache[block_table[request, j], :held].float().repeat_interleave(group, dim=1)
                v = value_cache[block_table[request, j], :held].float().repeat_interleave(group, dim=1)
                s = (k * query[token].float()).sum(-1) * scale  # [held, num_heads]
                new = torch.maximum(m, s.amax(0)) if seen else s.amax(0)
                p = torch.exp(s - new)
                now, add = p.sum(0), torch.einsum("kh,khd->hd", p, v)
                if seen:
                    now, add = now + l * torch.exp(m - new), add + acc * torch.exp(m - new)[:, None]
                m, l, acc, seen = new, now, add, True
            output[token] = (acc / l[:, None]).to(query.dtype)
    return output


@causal.right("blocks-from-the-last-in-base-2", part="paged_causal_attention")
def from_the_last(query, key_cache, value_cache, block_table, seq_lens, query_start_loc, scale):
    _, num_heads, head_size = query.shape
    _, block_size, num_kv_heads, _ = key_cache.shape
    group = num_heads // num_kv_heads
    output = torch.empty_like(query)
    for r, (n, a, b) in enumerate(
        zip(seq_lens.tolist(), query_start_loc[:-1].tolist(), query_start_loc[1:].tolist())
    ):
        q = query[a:b].to(torch.float32).transpose(0, 1) * (scale * math.log2(math.e))
        at = torch.arange(n - (b - a), n, device=query.device)[:, None]
        m = torch.full((num_heads, b - a, 1), -torch.inf, device=query.device)
        l = torch.zeros_like(m)
        acc = torch.zeros(num_heads, b - a, head_size, device=query.device)
        for j in reversed(range((n + block_size - 1) // block_size)):
            position = j * block_size + torch.arange(block_size, device=query.device)
            k = key_cache[block_table[r, j]].float().where((position < n)[:, None, None], 0)
            v = value_cache[block_table[r, j]].float().where((position < n)[:, None, None], 0)
            k = k.transpose(0, 1).repeat_interleave(group, dim=0)
            v = v.transpose(0, 1).repeat_interleave(group, dim=0)
            s = (q @ k.transpose(1, 2)).masked_fill(position[None, :] > at, -torch.inf)
            new = torch.maximum(m, s.amax(-1, keepdim=True))
            zero = new.masked_fill(new == -torch.inf, 0)
            p, alpha = torch.exp2(s - zero), torch.exp2(m - zero)
            l, acc, m = l * alpha + p.sum(-1, keepdim=True), acc * alpha + p @ v, new
        output[a:b] = (acc / l).transpose(0, 1).to(query.dtype)
    return output
