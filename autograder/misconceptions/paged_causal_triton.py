"""Question 10 in Triton: the kernel, and what goes wrong only there. Its other mistakes are those of `paged_causal`."""

import torch
import triton
import triton.language as tl

import kernels
from autograder.collect import Collector
from autograder.misconceptions.in_torch import stand_in
from autograder.misconceptions.paged_causal import causal, paged_causal_attention
from autograder.misconceptions.triton_edit import with_kernel

_PART = "paged_causal_attention_triton"


# The solution, in which the mistakes below are made; source/03_build.py walks through it.
@triton.jit
def _paged_causal_kernel(
    query_ptr,
    key_cache_ptr,
    value_cache_ptr,
    block_table_ptr,
    seq_lens_ptr,
    query_start_loc_ptr,
    out_ptr,
    scale,
    stride_query_token,
    stride_query_head,
    stride_key_block,
    stride_key_slot,
    stride_key_head,
    stride_value_block,
    stride_value_slot,
    stride_value_head,
    stride_table_req,
    NUM_QUERIES_PER_KV: tl.constexpr,
    TOKENS: tl.constexpr,
    ROWS: tl.constexpr,
    HEAD_SIZE: tl.constexpr,
    HEAD_SIZE_PADDED: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    TILE_SIZE: tl.constexpr,
):
    request = tl.program_id(0)
    kv_head = tl.program_id(1)
    first_row = tl.load(query_start_loc_ptr + request)
    num_new = tl.load(query_start_loc_ptr + request + 1) - first_row
    first_token = tl.program_id(2) * TOKENS
    if first_token >= num_new:
        return
    seq_len = tl.load(seq_lens_ptr + request)
    row = tl.arange(0, ROWS)
    token = first_token + row // NUM_QUERIES_PER_KV
    head = kv_head * NUM_QUERIES_PER_KV + row % NUM_QUERIES_PER_KV
    dim = tl.arange(0, HEAD_SIZE_PADDED)
    in_head = dim < HEAD_SIZE
    in_tile = (row < TOKENS * NUM_QUERIES_PER_KV) & (token < num_new)
    mask = in_tile[:, None] & in_head[None, :]
    at = (first_row + token)[:, None] * stride_query_token + head[:, None] * stride_query_head + dim[None, :]
    query = tl.load(query_ptr + at, mask=mask, other=0.0)
    query_position = seq_len - num_new + token
    end = tl.minimum(seq_len, seq_len - num_new + first_token + TOKENS)
    m = tl.full([ROWS], -1e30, tl.float32)
    l = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, HEAD_SIZE_PADDED], tl.float32)
    for start in range(0, end, TILE_SIZE):
        position = start + tl.arange(0, TILE_SIZE)
        held = position < seq_len
        table_at = block_table_ptr + request * stride_table_req + position // BLOCK_SIZE
        block = tl.load(table_at, mask=held, other=0).to(tl.int64)
        slot = position % BLOCK_SIZE
        key_at = block * stride_key_block + slot * stride_key_slot + kv_head * stride_key_head
        value_at = block * stride_value_block + slot * stride_value_slot + kv_head * stride_value_head
        mask_kv = held[:, None] & in_head[None, :]
        key = tl.load(key_cache_ptr + key_at[:, None] + dim[None, :], mask=mask_kv, other=0.0)
        value = tl.load(value_cache_ptr + value_at[:, None] + dim[None, :], mask=mask_kv, other=0.0)
        scores = tl.dot(query, tl.trans(key), input_precision="ieee") * scale
        visible = held[None, :] & (position[None, :] <= query_position[:, None])
        scores = tl.where(visible, scores, float("-inf"))
        m_new = tl.maximum(m, tl.max(scores, axis=1))
        alpha = tl.exp(m - m_new)
        p = tl.exp(scores - m_new[:, None])
        l = l * alpha + tl.sum(p, axis=1)
        acc = acc * alpha[:, None] + tl.dot(p.to(value.dtype), value, input_precision="ieee")
        m = m_new
    out = acc / tl.where(l == 0.0, 1.0, l)[:, None]
    tl.store(out_ptr + at, out.to(out_ptr.dtype.element_ty), mask=mask)


def paged_causal_attention_triton(
    query, key_cache, value_cache, block_table, seq_lens, query_start_loc, scale
):
    num_heads, head_size = query.shape[1:]
    block_size, num_kv_heads = key_cache.shape[1:3]
    num_queries_per_kv = num_heads // num_kv_heads
    output = torch.empty_like(query)
    max_query_len = int((query_start_loc[1:] - query_start_loc[:-1]).max())
    tokens = max(1, 16 // num_queries_per_kv)
    _paged_causal_kernel[(len(seq_lens), num_kv_heads, triton.cdiv(max_query_len, tokens))](
        query,
        key_cache,
        value_cache,
        block_table,
        seq_lens,
        query_start_loc,
        output,
        scale,
        *query.stride()[:2],
        *key_cache.stride()[:3],
        *value_cache.stride()[:3],
        block_table.stride(0),
        NUM_QUERIES_PER_KV=num_queries_per_kv,
        TOKENS=tokens,
        ROWS=max(16, triton.next_power_of_2(tokens * num_queries_per_kv)),
        HEAD_SIZE=head_size,
        HEAD_SIZE_PADDED=triton.next_power_of_2(head_size),
        BLOCK_SIZE=block_size,
        TILE_SIZE=32,
    )
    return output


causal_triton = Collector(paged_causal_attention_triton)


for _mistake in causal.misconceptions:
    if _mistake.name != "sums-in-the-inputs-dtype":
        causal_triton.misconception(_mistake.name, _mistake.message, part=_PART)(
            stand_in(_mistake.parts["paged_causal_attention"])
        )
causal_triton.misconception(
    "no-kernel",
    "the function computes in torch. The exercise is a kernel: a function under @triton.jit that you launch with "
    "kernel[grid](...).",
    part=_PART,
)(stand_in(paged_causal_attention))


@causal_triton.misconception(
    "the-courses-kernel",
    "the function calls the course's kernel. Read it as much as you like (kernels/prefill.py), and write your own.",
    part=_PART,
)
def the_courses_kernel(*arguments):
    return kernels.paged_attention(*arguments)


def _kernel_edit(name, message, *lines):
    wrong = with_kernel(paged_causal_attention_triton, _paged_causal_kernel, name, *lines)
    causal_triton.misconception(name, message, part=_PART)(wrong)


_kernel_edit(
    "padding-rows-stored",
    "a tile's padding rows are stored too: rows past the request's last token are the next request's, and behind the last "
    "request lies somebody else's memory. Mask the store.",
    (
        "tl.store(out_ptr + at, out.to(out_ptr.dtype.element_ty), mask=mask)",
        "tl.store(out_ptr + at, out.to(out_ptr.dtype.element_ty), mask=in_head[None, :] & (row >= 0)[:, None])",
    ),
)
_kernel_edit(
    "keys-only-up-to-the-first-query",
    "the loop over keys ends at the tile's first query. Later rows of the tile see more: it ends behind its last one.",
    ("seq_len - num_new + first_token + TOKENS)", "seq_len - num_new + first_token + 1)"),
)


@triton.jit
def _one_token_kernel(
    query, keys, values, table, lengths, starts, out, scale, q0, q1, k0, k1, k2, v0, v1, v2, t0, num_reqs,
    GROUP: tl.constexpr, D: tl.constexpr, D2: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    token, h = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    r = 0
    for i in range(0, num_reqs):
        r = tl.where(token >= tl.load(starts + i), i, r)
    n = tl.load(lengths + r) - (tl.load(starts + r + 1) - token) + 1  # what this token sees
    d, slot = tl.arange(0, D2), tl.arange(0, B)
    q = tl.load(query + token * q0 + h * q1 + d, mask=d < D, other=0.0).to(tl.float32)
    m, l = -float("inf"), 0.0
    acc = tl.zeros([D2], tl.float32)
    for j in range(tl.cdiv(n, B)):
        block = tl.load(table + r * t0 + j).to(tl.int64)
        held = j * B + slot < n
        mask = held[:, None] & (d < D)[None, :]
        k = tl.load(
            keys + block * k0 + slot[:, None] * k1 + h // GROUP * k2 + d[None, :], mask=mask, other=0.0
        )
        v = tl.load(
            values + block * v0 + slot[:, None] * v1 + h // GROUP * v2 + d[None, :], mask=mask, other=0.0
        )
        s = tl.where(held, tl.sum(k.to(tl.float32) * q[None, :], axis=1) * scale, float("-inf"))
        new = tl.maximum(m, tl.max(s, axis=0))
        p = tl.exp(s - new)
        l = l * tl.exp(m - new) + tl.sum(p, axis=0)
        acc = acc * tl.exp(m - new) + tl.sum(p[:, None] * v.to(tl.float32), axis=0)
        m = new
    tl.store(out + token * q0 + h * q1 + d, acc / l, mask=d < D)


@causal_triton.right("one-token-and-head-a-program", part=_PART)
def one_token_a_program(query, key_cache, value_cache, block_table, seq_lens, query_start_loc, scale):
    output = torch.zeros_like(query)
    num_heads, head_size = query.shape[1:]
    _one_token_kernel[query.shape[:2]](
        query, key_cache, value_cache, block_table, seq_lens, query_start_loc, output, scale,
        *query.stride()[:2], *key_cache.stride()[:3], *value_cache.stride()[:3], block_table.stride(0), len(seq_lens),
        GROUP=num_heads // key_cache.shape[2], D=head_size, D2=triton.next_power_of_2(head_size), B=key_cache.shape[1],
    )  # fmt: skip
    return output
