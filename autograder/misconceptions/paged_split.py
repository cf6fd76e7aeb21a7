"""Question 10b: what people write for split-KV attention, wrong and right; mistakes in torch, whose numbers tell them."""

import math

import torch
import triton
import triton.language as tl

from autograder.collect import Collector
from autograder.misconceptions import paged_decode_triton
from autograder.misconceptions.in_torch import stand_in
from autograder.misconceptions.triton_edit import with_kernel
from autograder.registry import Misconception

_PART = "paged_split_kv_attention"


# The same in torch, in which most of the mistakes below are made.
def in_torch(query, key_cache, value_cache, block_table, seq_lens, scale, num_splits):
    num_reqs, num_heads, head_size = query.shape
    block_size, num_kv_heads = key_cache.shape[1:3]
    group = num_heads // num_kv_heads
    output = torch.zeros_like(query)
    for request in range(num_reqs):
        seq_len = int(seq_lens[request])
        num_blocks = math.ceil(seq_len / block_size)
        blocks_per_split = math.ceil(num_blocks / num_splits)
        outs = torch.zeros(num_splits, num_heads, head_size, device=query.device)
        lses = torch.full((num_splits, num_heads), -math.inf, device=query.device)
        lengths = torch.zeros(num_splits, device=query.device)
        for split in range(num_splits):
            first = split * blocks_per_split * block_size
            end = min((split + 1) * blocks_per_split * block_size, seq_len)
            if first >= end:
                continue
            position = torch.arange(first, end, device=query.device)
            block = block_table[request][position // block_size].long()
            k = key_cache[block, position % block_size].float().repeat_interleave(group, dim=1)
            v = value_cache[block, position % block_size].float().repeat_interleave(group, dim=1)
            scores = torch.einsum("hd,khd->hk", query[request].float(), k) * scale
            m = scores.amax(dim=-1)
            p = torch.exp(scores - m[:, None])
            l = p.sum(dim=-1)
            outs[split] = torch.einsum("hk,khd->hd", p, v) / l[:, None]
            lses[split] = m + torch.log(l)
            lengths[split] = end - first
        largest = lses.amax(dim=0)
        weights = torch.exp(lses - torch.where(largest == -math.inf, 0.0, largest))
        total = weights.sum(dim=0)
        merged = (weights[..., None] * outs).sum(dim=0) / torch.where(total == 0, 1.0, total)[:, None]
        output[request] = merged.to(query.dtype)
    return output


split = Collector(in_torch)


def _edit(name, message, *lines):
    split.edit(name, message, *lines)


_edit(
    "empty-split-gives-nan",
    "a split without a token gives NaN: 0 / 0 is NaN, and so is its weight 0 times NaN when the splits are merged. Give it "
    "lse = -inf and an output of zeros, or leave it out.",
    (
        "torch.zeros(num_splits, num_heads, head_size",
        "torch.full((num_splits, num_heads, head_size), math.nan",
    ),
)
_edit(
    "empty-request-gives-nan",
    "a request of length 0 gives NaN: all of its splits are empty, so that every weight is 0 (or -inf - (-inf)). Its output "
    "is zeros.",
    ("torch.where(largest == -math.inf, 0.0, largest)", "largest"),
)
_edit(
    "empty-split-counts",
    "a split without a token counts as if its logarithm of the sum were 0: its lse has to be -inf.",
    ("torch.full((num_splits, num_heads), -math.inf", "torch.full((num_splits, num_heads), 0.0"),
)
_edit(
    "mean-of-the-splits",
    "the splits' outputs are averaged. A split counts by the weight behind it, exp(lse).",
    (
        "weights = torch.exp(lses - torch.where(largest == -math.inf, 0.0, largest))",
        "weights = (lses > -math.inf).float()",
    ),
)
_edit(
    "weights-by-length",
    "splits are merged by how many tokens they have. A split counts by the weight behind it, exp(lse).",
    (
        "weights = torch.exp(lses - torch.where(largest == -math.inf, 0.0, largest))",
        "weights = lengths[:, None].expand_as(lses)",
    ),
)
_edit(
    "base-2-lse-merged-as-natural",
    "lse is in base 2 (log2 of the sum, scores in log2 units) and is merged with exp. Use exp2, or multiply it by ln(2).",
    ("lses[split] = m + torch.log(l)", "lses[split] = (m + torch.log(l)) * math.log2(math.e)"),
)
_edit(
    "natural-lse-merged-as-base-2",
    "lse is a natural logarithm and is merged with exp2. Use exp.",
    ("weights = torch.exp(lses", "weights = torch.exp2(lses"),
)
_edit(
    "lse-without-the-maximum",
    "what a split hands on is log(l) without its maximum m: lse = m + log(l).",
    ("lses[split] = m + torch.log(l)", "lses[split] = torch.log(l)"),
)
_edit(
    "lse-without-the-sum",
    "what a split hands on is its maximum alone: lse = m + log(l).",
    ("lses[split] = m + torch.log(l)", "lses[split] = m"),
)
_edit(
    "l-added-instead-of-its-logarithm",
    "what a split hands on is m + l. It is m + log(l).",
    ("lses[split] = m + torch.log(l)", "lses[split] = m + l"),
)
_edit(
    "no-maximum-in-the-merge",
    "the merge takes exp(lse) without subtracting the largest lse: it overflows float32 from 89 on.",
    ("torch.exp(lses - torch.where(largest == -math.inf, 0.0, largest))", "torch.exp(lses)"),
)
_edit(
    "weights-do-not-add-up",
    "the merged sum is not divided by the sum of the weights.",
    (" / torch.where(total == 0, 1.0, total)[:, None]", ""),
)
_edit(
    "sums-merged-as-outputs",
    "splits hand on acc that is not divided by l, and the merge weighs it by exp(lse), which counts l twice. Divide first, "
    "or weigh by exp(m).",
    ("p, v) / l[:, None]", "p, v)"),
)
_edit(
    "rest-left-out",
    "blocks per split is rounded down: with 5 blocks and 2 splits the fifth is nobody's, and with more splits than blocks all "
    "are.",
    ("math.ceil(num_blocks / num_splits)", "num_blocks // num_splits"),
)
_edit(
    "last-split-left-out",
    "the last split is never computed: the loop over splits ends too early.",
    ("for split in range(num_splits):", "for split in range(max(1, num_splits - 1)):"),
)
_edit(
    "splits-overlap",
    "neighbouring splits share a token: the end of one is the start of the next, and belongs to one of them.",
    ("blocks_per_split * block_size, seq_len)", "blocks_per_split * block_size + 1, seq_len)"),
)
_edit(
    "splits-leave-a-gap",
    "the last token of each split is left out. Positions of a split are first to end, end not included.",
    ("blocks_per_split * block_size, seq_len)", "blocks_per_split * block_size - 1, seq_len)"),
)
_edit(
    "tail-attended",
    "the last split is read to the end of its last block. Only seq_len tokens are the request's.",
    ("blocks_per_split * block_size, seq_len)", "blocks_per_split * block_size, num_blocks * block_size)"),
)
_edit(
    "first-split-only",
    "only the first split reaches the output: the others are computed and not merged, or overwritten.",
    (
        "weights = torch.exp(lses",
        "weights = (torch.arange(num_splits, device=query.device) == 0)[:, None] * torch.exp(lses",
    ),
)
_edit(
    "every-split-reads-the-start",
    "each split looks its blocks up from the table's first entry: add the split's own first block.",
    (
        "block_table[request][position // block_size]",
        "block_table[request][(position - first) // block_size]",
    ),
)
_edit(
    "own-token-left-out",
    "the query's own token is left out: seq_lens counts it.",
    ("seq_len = int(seq_lens[request])", "seq_len = max(int(seq_lens[request]) - 1, 0)"),
)
_edit(
    "scale-left-out",
    "the scores are not multiplied by scale.",
    ("k) * scale", "k)"),
)
_edit(
    "kv-head-modulo",
    "query head h reads kv head h % num_kv_heads. It is h // num_queries_per_kv.",
    (
        "key_cache[block, position % block_size].float().repeat_interleave(group, dim=1)",
        "key_cache[block, position % block_size].float().repeat(1, group, 1)",
    ),
    (
        "value_cache[block, position % block_size].float().repeat_interleave(group, dim=1)",
        "value_cache[block, position % block_size].float().repeat(1, group, 1)",
    ),
)
_edit(
    "lse-in-float16",
    "lse is kept in the inputs' dtype. In float16 a large lse has an error of several percent in its weight: float32.",
    ("lses[split] = m + torch.log(l)", "lses[split] = (m + torch.log(l)).to(query.dtype)"),
)
_edit(
    "query-scaled-in-place",
    "the query is scaled in place: `query *= scale` changes the caller's tensor.",
    (
        "num_reqs, num_heads, head_size = query.shape",
        "num_reqs, num_heads, head_size = query.mul_(scale).shape",
    ),
    ("k) * scale", "k)"),
)


# The solution; source/03_build.py walks through it.
@triton.jit
def _split_kernel(
    query_ptr,
    key_cache_ptr,
    value_cache_ptr,
    block_table_ptr,
    seq_lens_ptr,
    split_out_ptr,
    split_lse_ptr,
    scale,
    num_splits,
    stride_query_req,
    stride_query_head,
    stride_key_block,
    stride_key_slot,
    stride_key_head,
    stride_value_block,
    stride_value_slot,
    stride_value_head,
    stride_table_req,
    NUM_HEADS: tl.constexpr,
    NUM_QUERIES_PER_KV: tl.constexpr,
    ROWS: tl.constexpr,
    HEAD_SIZE: tl.constexpr,
    HEAD_SIZE_PADDED: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    TILE_SIZE: tl.constexpr,
):
    request = tl.program_id(0)
    kv_head = tl.program_id(1)
    split = tl.program_id(2)
    row = tl.arange(0, ROWS)
    dim = tl.arange(0, HEAD_SIZE_PADDED)
    in_head = dim < HEAD_SIZE
    head = kv_head * NUM_QUERIES_PER_KV + row
    in_rows = row < NUM_QUERIES_PER_KV
    mask = in_rows[:, None] & in_head[None, :]
    at = request * stride_query_req + head[:, None] * stride_query_head + dim[None, :]
    query = tl.load(query_ptr + at, mask=mask, other=0.0)
    seq_len = tl.load(seq_lens_ptr + request)
    tokens_per_split = tl.cdiv(tl.cdiv(seq_len, BLOCK_SIZE), num_splits) * BLOCK_SIZE
    first = split * tokens_per_split
    end = tl.minimum(first + tokens_per_split, seq_len)
    m = tl.full([ROWS], -1e30, tl.float32)
    l = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, HEAD_SIZE_PADDED], tl.float32)
    for start in range(first, end, TILE_SIZE):
        position = start + tl.arange(0, TILE_SIZE)
        held = position < end
        table_at = block_table_ptr + request * stride_table_req + position // BLOCK_SIZE
        block = tl.load(table_at, mask=held, other=0).to(tl.int64)
        slot = position % BLOCK_SIZE
        key_at = block * stride_key_block + slot * stride_key_slot + kv_head * stride_key_head
        value_at = block * stride_value_block + slot * stride_value_slot + kv_head * stride_value_head
        mask_kv = held[:, None] & in_head[None, :]
        key = tl.load(key_cache_ptr + key_at[:, None] + dim[None, :], mask=mask_kv, other=0.0)
        value = tl.load(value_cache_ptr + value_at[:, None] + dim[None, :], mask=mask_kv, other=0.0)
        scores = tl.dot(query, tl.trans(key), input_precision="ieee") * scale
        scores = tl.where(held[None, :], scores, float("-inf"))
        m_new = tl.maximum(m, tl.max(scores, axis=1))
        alpha = tl.exp(m - m_new)
        p = tl.exp(scores - m_new[:, None])
        l = l * alpha + tl.sum(p, axis=1)
        acc = acc * alpha[:, None] + tl.dot(p.to(value.dtype), value, input_precision="ieee")
        m = m_new
    safe = tl.where(l == 0.0, 1.0, l)
    lse = tl.where(l == 0.0, float("-inf"), m + tl.log(safe))
    state = (request * NUM_HEADS + head) * num_splits + split
    tl.store(split_out_ptr + state[:, None] * HEAD_SIZE + dim[None, :], acc / safe[:, None], mask=mask)
    tl.store(split_lse_ptr + state, lse, mask=in_rows)


@triton.jit
def _merge_kernel(
    split_out_ptr,
    split_lse_ptr,
    out_ptr,
    num_splits,
    stride_out_req,
    stride_out_head,
    NUM_HEADS: tl.constexpr,
    HEAD_SIZE: tl.constexpr,
    HEAD_SIZE_PADDED: tl.constexpr,
):
    request = tl.program_id(0)
    head = tl.program_id(1)
    dim = tl.arange(0, HEAD_SIZE_PADDED)
    in_head = dim < HEAD_SIZE
    first = (request * NUM_HEADS + head) * num_splits
    m = -1e30
    l = 0.0
    acc = tl.zeros([HEAD_SIZE_PADDED], tl.float32)
    for split in range(0, num_splits):
        lse = tl.load(split_lse_ptr + first + split)
        out = tl.load(split_out_ptr + (first + split) * HEAD_SIZE + dim, mask=in_head, other=0.0)
        m_new = tl.maximum(m, lse)
        alpha = tl.exp(m - m_new)
        weight = tl.exp(lse - m_new)
        l = l * alpha + weight
        acc = acc * alpha + weight * out
        m = m_new
    out = acc / tl.where(l == 0.0, 1.0, l)
    at = request * stride_out_req + head * stride_out_head + dim
    tl.store(out_ptr + at, out.to(out_ptr.dtype.element_ty), mask=in_head)


def paged_split_kv_attention(query, key_cache, value_cache, block_table, seq_lens, scale, num_splits):
    num_reqs, num_heads, head_size = query.shape
    block_size, num_kv_heads = key_cache.shape[1:3]
    split_out = query.new_empty(num_reqs, num_heads, num_splits, head_size, dtype=torch.float32)
    split_lse = query.new_empty(num_reqs, num_heads, num_splits, dtype=torch.float32)
    output = torch.empty_like(query)
    _split_kernel[(num_reqs, num_kv_heads, num_splits)](
        query,
        key_cache,
        value_cache,
        block_table,
        seq_lens,
        split_out,
        split_lse,
        scale,
        num_splits,
        *query.stride()[:2],
        *key_cache.stride()[:3],
        *value_cache.stride()[:3],
        block_table.stride(0),
        NUM_HEADS=num_heads,
        NUM_QUERIES_PER_KV=num_heads // num_kv_heads,
        ROWS=max(16, triton.next_power_of_2(num_heads // num_kv_heads)),
        HEAD_SIZE=head_size,
        HEAD_SIZE_PADDED=triton.next_power_of_2(head_size),
        BLOCK_SIZE=block_size,
        TILE_SIZE=32,
    )
    _merge_kernel[(num_reqs, num_heads)](
        split_out,
        split_lse,
        output,
        num_splits,
        *output.stride()[:2],
        NUM_HEADS=num_heads,
        HEAD_SIZE=head_size,
        HEAD_SIZE_PADDED=triton.next_power_of_2(head_size),
    )
    return output


split.misconception(
    "no-kernel",
    "the function computes in torch. The exercise is a kernel that writes one state for each split, and a merge.",
    part="in_torch",
)(in_torch)


@split.misconception(
    "num-splits-ignored",
    "num_splits is not used: one program still reads the whole sequence. The numbers are right and nothing runs in parallel.",
    part=_PART,
)
def num_splits_ignored(query, key_cache, value_cache, block_table, seq_lens, scale, num_splits):
    return paged_decode_triton.paged_online_attention_triton(
        query, key_cache, value_cache, block_table, seq_lens, scale
    )


@split.right("merged-in-torch", part=_PART)
def merged_in_torch(query, key_cache, value_cache, block_table, seq_lens, scale, num_splits):
    num_reqs, num_heads, head_size = query.shape
    block_size, num_kv_heads = key_cache.shape[1:3]
    split_out = query.new_empty(num_reqs, num_heads, num_splits, head_size, dtype=torch.float32)
    split_lse = query.new_empty(num_reqs, num_heads, num_splits, dtype=torch.float32)
    _split_kernel[(num_reqs, num_kv_heads, num_splits)](
        query, key_cache, value_cache, block_table, seq_lens, split_out, split_lse, scale, num_splits,
        *query.stride()[:2], *key_cache.stride()[:3], *value_cache.stride()[:3], block_table.stride(0),
        NUM_HEADS=num_heads, NUM_QUERIES_PER_KV=num_heads // num_kv_heads, ROWS=16, HEAD_SIZE=head_size,
        HEAD_SIZE_PADDED=triton.next_power_of_2(head_size), BLOCK_SIZE=block_size, TILE_SIZE=16,
    )  # fmt: skip
    weights = torch.softmax(split_lse, dim=-1).nan_to_num(0.0)  # a request without a token has -inf in all
    return (weights[..., None] * split_out).sum(dim=2).to(query.dtype)


# A split is a share of the tokens, wherever a block ends.
split.right("split-by-tokens", part=_PART)(
    with_kernel(
        paged_split_kv_attention,
        _split_kernel,
        "split-by-tokens",
        ("tl.cdiv(tl.cdiv(seq_len, BLOCK_SIZE), num_splits) * BLOCK_SIZE", "tl.cdiv(seq_len, num_splits)"),
    )
)

SOLUTION = {_PART: paged_split_kv_attention}
# The Collector knows the torch text by its own name; what is handed in has the exercise's.
MISCONCEPTIONS = tuple(
    Misconception(found.name, found.message, {_PART: stand_in(found.parts["in_torch"])})
    if "in_torch" in found.parts
    else found
    for found in split.misconceptions
)
RIGHT_VARIANTS = split.right_variants
