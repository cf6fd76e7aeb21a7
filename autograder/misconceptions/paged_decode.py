"""Question 9 in torch: what people write for paged attention of one query token a request, wrong and right."""

import math

import torch

from autograder.collect import Collector


# The solution, in which the mistakes below are made; source/03_build.py walks through it.
def paged_online_attention(query, key_cache, value_cache, block_table, seq_lens, scale):
    num_reqs, num_heads, head_size = query.shape
    block_size, num_kv_heads = key_cache.shape[1:3]
    num_queries_per_kv = num_heads // num_kv_heads
    output = torch.zeros_like(query)
    for request in range(num_reqs):
        seq_len = int(seq_lens[request])
        if seq_len == 0:
            continue
        q = query[request].float().view(num_kv_heads, num_queries_per_kv, head_size)
        m = torch.full(q.shape[:2], -math.inf, dtype=q.dtype, device=q.device)
        l = torch.zeros_like(m)
        acc = torch.zeros_like(q)
        for start in range(0, seq_len, block_size):
            block = int(block_table[request, start // block_size])
            held = min(block_size, seq_len - start)
            k = key_cache[block, :held].float()
            v = value_cache[block, :held].float()
            scores = torch.einsum("gqd,kgd->gqk", q, k) * scale
            m_new = torch.maximum(m, scores.amax(dim=-1))
            alpha = torch.exp(m - m_new)
            p = torch.exp(scores - m_new[..., None])
            l = l * alpha + p.sum(dim=-1)
            acc = acc * alpha[..., None] + torch.einsum("gqk,kgd->gqd", p, v)
            m = m_new
        output[request] = (acc / l[..., None]).view(num_heads, head_size).to(query.dtype)
    return output


decode = Collector(paged_online_attention)

decode.edit(
    "kv-head-modulo",
    "query head h reads kv head h % num_kv_heads. Neighbouring query heads share a kv head: it is "
    "h // num_queries_per_kv.",
    (
        "view(num_kv_heads, num_queries_per_kv, head_size)",
        "view(num_queries_per_kv, num_kv_heads, head_size).transpose(0, 1)",
    ),
    (".view(num_heads, head_size)", ".transpose(0, 1).reshape(num_heads, head_size)"),
)
decode.edit(
    "everything-in-the-inputs-dtype",
    "scores and sums are kept in the inputs' own dtype. float16 ends at 65504 and has three digits: compute in float32 "
    "and round once, at the end.",
    ("query[request].float()", "query[request]"),
    ("key_cache[block, :held].float()", "key_cache[block, :held]"),
    ("value_cache[block, :held].float()", "value_cache[block, :held]"),
)
decode.edit(
    "sums-in-the-inputs-dtype",
    "acc is kept in the inputs' own dtype. In float16 it overflows at 65504, long before it is divided by l: keep it "
    "in float32.",
    ("acc = torch.zeros_like(q)", "acc = torch.zeros_like(q, dtype=query.dtype)"),
    (
        'acc * alpha[..., None] + torch.einsum("gqk,kgd->gqd", p, v)',
        '(acc * alpha[..., None] + torch.einsum("gqk,kgd->gqd", p, v)).to(query.dtype)',
    ),
)
decode.edit(
    "tail-attended",
    "the last block is attended to its end. Only seq_len tokens are the request's; the slots after them hold anything.",
    ("held = min(block_size, seq_len - start)", "held = block_size"),
)
decode.edit(
    "nan-times-zero",
    "the tail's scores are masked and its values are not: weight 0 times a value of NaN is NaN. Replace the values "
    "there by 0, or do not load them.",
    ("key_cache[block, :held].float()", "key_cache[block].float()"),
    ("value_cache[block, :held].float()", "value_cache[block].float()"),
    (
        '"gqd,kgd->gqk", q, k) * scale',
        '"gqd,kgd->gqk", q, k) * scale\n'
        "            scores = scores.masked_fill(torch.arange(block_size, device=q.device) >= held, -math.inf)",
    ),
)
decode.edit(
    "nan-for-an-empty-request",
    "a request of length 0 gives NaN: nothing was added up, so that l is 0 and m is -inf, and 0 / 0 and -inf - (-inf) "
    "are NaN. Its output is zeros.",
    ("if seq_len == 0:", "if seq_len < 0:"),
)
decode.edit(
    "scale-left-out",
    "the scores are not multiplied by scale.",
    ('"gqd,kgd->gqk", q, k) * scale', '"gqd,kgd->gqk", q, k)'),
)
decode.edit(
    "scale-applied-twice",
    "scale is applied twice, to the query and to the scores, say.",
    ('"gqd,kgd->gqk", q, k) * scale', '"gqd,kgd->gqk", q, k) * scale * scale'),
)
decode.edit(
    "scale-from-the-head-size",
    "the scores are multiplied by head_size ** -0.5 whatever the argument `scale` says. Models choose other scales.",
    ('"gqd,kgd->gqk", q, k) * scale', '"gqd,kgd->gqk", q, k) * head_size**-0.5'),
)
decode.edit(
    "scale-divided",
    "the scores are divided by scale. It is a factor, head_size ** -0.5 for most models.",
    ('"gqd,kgd->gqk", q, k) * scale', '"gqd,kgd->gqk", q, k) / scale'),
)
decode.edit(
    "acc-not-rescaled",
    "acc is not rescaled when the maximum grows: it needs the factor exp(m_old - m_new), as l does.",
    ("acc * alpha[..., None] + torch", "acc + torch"),
)
decode.edit(
    "l-not-rescaled",
    "l is not rescaled when the maximum grows: it needs the factor exp(m_old - m_new), as acc does.",
    ("l * alpha + p.sum(dim=-1)", "l + p.sum(dim=-1)"),
)
decode.edit(
    "no-max-subtraction",
    "exp(score) is taken without subtracting the maximum: it overflows float32 from 89 on.",
    (
        "m_new = torch.maximum(m, scores.amax(dim=-1))",
        "m_new = torch.zeros_like(m)",
    ),
)
decode.edit(
    "maximum-of-this-block-only",
    "the maximum is this block's alone. It must never fall, or exp(m_old - m_new) overflows when an earlier block held "
    "larger scores.",
    ("m_new = torch.maximum(m, scores.amax(dim=-1))", "m_new = scores.amax(dim=-1)"),
)
decode.edit(
    "not-divided-by-l",
    "acc is not divided by l at the end: the weights do not add up to 1.",
    ("(acc / l[..., None])", "acc"),
)
decode.edit(
    "exp2-without-log2-e",
    "exp2 takes the place of exp and the scores are not multiplied by log2(e): that is another softmax.",
    ("torch.exp(m - m_new)", "torch.exp2(m - m_new)"),
    ("torch.exp(scores - m_new[..., None])", "torch.exp2(scores - m_new[..., None])"),
)
decode.edit(
    "logical-block-as-physical",
    "the logical block number is used as the physical one: block_table says where each block lies.",
    ("int(block_table[request, start // block_size])", "start // block_size"),
)
decode.edit(
    "contiguous-blocks",
    "the request's blocks are taken to lie one after the other behind the first. Ask block_table for every block.",
    (
        "int(block_table[request, start // block_size])",
        "(int(block_table[request, 0]) + start // block_size) % len(key_cache)",
    ),
)
decode.edit(
    "first-requests-table",
    "every request reads the block table's row 0, which is the first request's.",
    ("block_table[request, start // block_size]", "block_table[0, start // block_size]"),
)
decode.edit(
    "sorted-blocks",
    "the request's blocks are read in the order of their numbers. Entry j of the table is where block j lies; with a "
    "partial last block the wrong tokens are left out.",
    (
        "int(block_table[request, start // block_size])",
        "int(block_table[request, : -(-seq_len // block_size)].sort().values[start // block_size])",
    ),
)
decode.edit(
    "partial-block-left-out",
    "only full blocks are read: the tokens in the last, partial block are left out. Divide upwards.",
    ("range(0, seq_len, block_size)", "range(0, seq_len - seq_len % block_size, block_size)"),
)
decode.edit(
    "last-block-left-out",
    "the loop ends one block too early.",
    ("range(0, seq_len, block_size)", "range(0, seq_len - block_size, block_size)"),
)
decode.edit(
    "one-token-too-many",
    "one slot past the end is attended: seq_len tokens are the positions 0 to seq_len - 1.",
    ("min(block_size, seq_len - start)", "min(block_size, seq_len + 1 - start)"),
)
decode.edit(
    "own-token-left-out",
    "the query's own token is left out. seq_lens counts this step's token: its key is in the cache already.",
    ("seq_len = int(seq_lens[request])", "seq_len = max(int(seq_lens[request]) - 1, 0)"),
)
decode.edit(
    "longest-length-for-all",
    "every request is given the longest request's length. Shorter ones read entries of the table that mean nothing.",
    ("seq_len = int(seq_lens[request])", "seq_len = int(seq_lens.max())"),
)
decode.edit(
    "block-size-16",
    "block_size is taken to be 16. It is key_cache.shape[1].",
    ("block_size, num_kv_heads = key_cache.shape[1:3]", "block_size, num_kv_heads = 16, key_cache.shape[2]"),
)
decode.edit(
    "query-scaled-in-place",
    "the query is scaled in place: `query *= scale` changes the caller's tensor. `query = query * scale` makes a new one.",
    (
        "num_reqs, num_heads, head_size = query.shape",
        "num_reqs, num_heads, head_size = query.mul_(scale).shape",
    ),
    ('"gqd,kgd->gqk", q, k) * scale', '"gqd,kgd->gqk", q, k)'),
)
decode.edit(
    "cache-cleaned-in-place",
    "NaN in the cache is replaced in place. The blocks of other requests are not yours to change; mask what you do not own.",
    ("output = torch.zeros_like(query)", "output = torch.zeros_like(query); value_cache.nan_to_num_()"),
)
decode.edit(
    "float32-output",
    "the output is float32 whatever the query is. It has the query's dtype.",
    ("torch.zeros_like(query)", "torch.zeros_like(query, dtype=torch.float32)"),
    (".to(query.dtype)", ""),
)


@decode.misconception(
    "softmax-of-each-block-averaged",
    "each block's softmax is taken on its own and the results are averaged. A block with large scores must outweigh the "
    "others: that is what l and the rescaling are for.",
    part="paged_online_attention",
)
def average_of_blocks(query, key_cache, value_cache, block_table, seq_lens, scale):
    output = torch.zeros_like(query)
    block_size, group = key_cache.shape[1], query.shape[1] // key_cache.shape[2]
    for request, seq_len in enumerate(seq_lens.tolist()):
        parts = []
        for start in range(0, seq_len, block_size):
            block, held = int(block_table[request, start // block_size]), min(block_size, seq_len - start)
            k = key_cache[block, :held].float().repeat_interleave(group, dim=1)
            v = value_cache[block, :held].float().repeat_interleave(group, dim=1)
            weights = torch.softmax(torch.einsum("hd,khd->hk", query[request].float(), k) * scale, dim=-1)
            parts.append(torch.einsum("hk,khd->hd", weights, v))
        if parts:
            output[request] = torch.stack(parts).mean(dim=0).to(query.dtype)
    return output


@decode.misconception(
    "whole-sequence-gathered",
    "the whole sequence is copied into one tensor first. It gives the right numbers and costs what paging saves: every "
    "key and value is read, written and read again. Go block by block.",
    part="paged_online_attention",
)
def gathered(query, key_cache, value_cache, block_table, seq_lens, scale):
    output = torch.zeros_like(query)
    block_size, group = key_cache.shape[1], query.shape[1] // key_cache.shape[2]
    for request, seq_len in enumerate(seq_lens.tolist()):
        blocks = block_table[request, : -(-seq_len // block_size)].long()
        k = key_cache[blocks].flatten(0, 1)[:seq_len].float().repeat_interleave(group, dim=1)
        v = value_cache[blocks].flatten(0, 1)[:seq_len].float().repeat_interleave(group, dim=1)
        weights = torch.softmax(torch.einsum("hd,khd->hk", query[request].float(), k) * scale, dim=-1)
        output[request] = torch.einsum("hk,khd->hd", weights, v).to(query.dtype)
    return output


@decode.right("loop-over-heads", part="paged_online_attention")
def loop_over_heads(query, key_cache, value_cache, block_table, seq_lens, scale):
    output = torch.zeros_like(query)
    block_size, group = key_cache.shape[1], query.shape[1] // key_cache.shape[2]
    for request, seq_len in enumerate(seq_lens.tolist()):
        for head in range(query.shape[1]):
            q, m, l = query[request, head].float(), -1e30, 0.0
            acc = torch.zeros_like(q)
            for j in range(math.ceil(seq_len / block_size)):
                held = min(block_size, seq_len - j * block_size)
                k = key_cache[block_table[request, j], :held, head // group].float()
                v = value_cache[block_table[request, j], :held, head // group].float()
                scores = k @ q * scale
                m_new = max(m, scores.max().item())
                p = torch.exp(scores - m_new)
                l = l * math.exp(m - m_new) + p.sum().item()
                acc = acc * math.exp(m - m_new) + p @ v
                m = m_new
            if seq_len:
                output[request, head] = (acc / l).to(query.dtype)
    return output


@decode.right("base-2-and-tiles-of-two-blocks", part="paged_online_attention")
def base_2(query, key_cache, value_cache, block_table, seq_lens, scale):
    num_reqs, num_heads, head_size = query.shape
    _, block_size, num_kv_heads, _ = key_cache.shape
    group = num_heads // num_kv_heads
    output = []
    for request in range(num_reqs):
        q = query[request].to(torch.float32) * (scale / math.log(2))
        m = torch.full((num_heads,), -1e30, device=query.device)
        l = torch.zeros_like(m)
        out = torch.zeros(num_heads, head_size, device=query.device)
        length = int(seq_lens[request])
        for start in range(0, length, 2 * block_size):
            position = torch.arange(start, min(start + 2 * block_size, length), device=query.device)
            block = block_table[request][position // block_size].long()
            k = key_cache[block, position % block_size].float().repeat_interleave(group, dim=1)
            v = value_cache[block, position % block_size].float().repeat_interleave(group, dim=1)
            scores = (k * q).sum(-1).T
            m_new = torch.maximum(m, scores.amax(-1))
            p, old = torch.exp2(scores - m_new[:, None]), l * torch.exp2(m - m_new)
            l, m = old + p.sum(-1), m_new
            out = out * (old / l)[:, None] + torch.einsum("hk,khd->hd", p, v) / l[:, None]
        output.append(out.to(query.dtype))
    return torch.stack(output)


@decode.right("all-requests-at-once", part="paged_online_attention")
def all_requests_at_once(query, key_cache, value_cache, block_table, seq_lens, scale):
    _, block_size, num_kv_heads, head_size = key_cache.shape
    q = query.float().unflatten(1, (num_kv_heads, -1))
    m = torch.full(q.shape[:-1], -torch.inf, device=q.device)
    l, acc = torch.zeros_like(m), torch.zeros_like(q)
    slot = torch.arange(block_size, device=q.device)
    for j in range(-(-int(seq_lens.max()) // block_size)):
        seen = (j * block_size + slot)[None, :] < seq_lens[:, None]
        block = torch.where(seen[:, 0], block_table[:, min(j, block_table.shape[1] - 1)], 0).long()
        k = key_cache[block].float().masked_fill(~seen[:, :, None, None], 0.0)
        v = value_cache[block].float().masked_fill(~seen[:, :, None, None], 0.0)
        scores = torch.einsum("rgqd,rkgd->rgqk", q, k) * scale
        scores = scores.masked_fill(~seen[:, None, None, :], -torch.inf)
        m_new = torch.maximum(m, scores.amax(-1))
        shift = m_new.masked_fill(m_new == -torch.inf, 0.0)
        alpha, p = torch.exp(m - shift), torch.exp(scores - shift[..., None])
        l, acc = l * alpha + p.sum(-1), acc * alpha[..., None] + torch.einsum("rgqk,rkgd->rgqd", p, v)
        m = m_new
    return (acc / l.clamp(min=1e-30)[..., None]).flatten(1, 2).to(query.dtype)
