"""Question 9 in Triton: the kernel, and what goes wrong only there. Its other mistakes are those of `paged_decode`."""

import math

import torch
import triton
import triton.language as tl

import kernels
from autograder.collect import Collector
from autograder.misconceptions.in_torch import stand_in
from autograder.misconceptions.paged_decode import decode, paged_online_attention
from autograder.misconceptions.triton_edit import with_kernel


# The solution, in which the mistakes below are made; source/03_build.py walks through it.
@triton.jit
def _paged_decode_kernel(
    query_ptr,
    key_cache_ptr,
    value_cache_ptr,
    block_table_ptr,
    seq_lens_ptr,
    out_ptr,
    scale,
    stride_query_req,
    stride_query_head,
    stride_key_block,
    stride_key_slot,
    stride_key_head,
    stride_value_block,
    stride_value_slot,
    stride_value_head,
    stride_table_req,
    NUM_QUERIES_PER_KV: tl.constexpr,
    ROWS: tl.constexpr,
    HEAD_SIZE: tl.constexpr,
    HEAD_SIZE_PADDED: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    TILE_SIZE: tl.constexpr,
):
    request = tl.program_id(0)
    kv_head = tl.program_id(1)
    row = tl.arange(0, ROWS)
    dim = tl.arange(0, HEAD_SIZE_PADDED)
    in_head = dim < HEAD_SIZE
    head = kv_head * NUM_QUERIES_PER_KV + row
    at = request * stride_query_req + head[:, None] * stride_query_head + dim[None, :]
    mask = (row < NUM_QUERIES_PER_KV)[:, None] & in_head[None, :]
    query = tl.load(query_ptr + at, mask=mask, other=0.0)
    seq_len = tl.load(seq_lens_ptr + request)
    m = tl.full([ROWS], -1e30, tl.float32)
    l = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, HEAD_SIZE_PADDED], tl.float32)
    for start in range(0, seq_len, TILE_SIZE):
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
        scores = tl.where(held[None, :], scores, float("-inf"))
        m_new = tl.maximum(m, tl.max(scores, axis=1))
        alpha = tl.exp(m - m_new)
        p = tl.exp(scores - m_new[:, None])
        l = l * alpha + tl.sum(p, axis=1)
        acc = acc * alpha[:, None] + tl.dot(p.to(value.dtype), value, input_precision="ieee")
        m = m_new
    out = acc / tl.where(l == 0.0, 1.0, l)[:, None]
    tl.store(out_ptr + at, out.to(out_ptr.dtype.element_ty), mask=mask)


def paged_online_attention_triton(query, key_cache, value_cache, block_table, seq_lens, scale):
    num_reqs, num_heads, head_size = query.shape
    block_size, num_kv_heads = key_cache.shape[1:3]
    output = torch.empty_like(query)
    _paged_decode_kernel[(num_reqs, num_kv_heads)](
        query,
        key_cache,
        value_cache,
        block_table,
        seq_lens,
        output,
        scale,
        *query.stride()[:2],
        *key_cache.stride()[:3],
        *value_cache.stride()[:3],
        block_table.stride(0),
        NUM_QUERIES_PER_KV=num_heads // num_kv_heads,
        ROWS=max(16, triton.next_power_of_2(num_heads // num_kv_heads)),
        HEAD_SIZE=head_size,
        HEAD_SIZE_PADDED=triton.next_power_of_2(head_size),
        BLOCK_SIZE=block_size,
        TILE_SIZE=32,
    )
    return output


decode_triton = Collector(paged_online_attention_triton)


# Their names and messages are those of the first part; what only torch can do is left out.
_NOT_HERE = {"whole-sequence-gathered", "float32-output", "everything-in-the-inputs-dtype", "block-size-16"}
for _mistake in decode.misconceptions:
    if _mistake.name not in _NOT_HERE:
        decode_triton.misconception(_mistake.name, _mistake.message, part="paged_online_attention_triton")(
            stand_in(_mistake.parts["paged_online_attention"])
        )


def _kernel_edit(name, message, *lines):
    wrong = with_kernel(paged_online_attention_triton, _paged_decode_kernel, name, *lines)
    decode_triton.misconception(name, message, part="paged_online_attention_triton")(wrong)


decode_triton.misconception(
    "no-kernel",
    "the function computes in torch. The exercise is a kernel: a function under @triton.jit that you launch with "
    "kernel[grid](...).",
    part="paged_online_attention_triton",
)(stand_in(paged_online_attention))


@decode_triton.misconception(
    "the-courses-kernel",
    "the function calls the course's kernel. Read it as much as you like (kernels/gqa_decode.py), and write your own.",
    part="paged_online_attention_triton",
)
def the_courses_kernel(query, key_cache, value_cache, block_table, seq_lens, scale):
    return kernels.paged_decode(query, key_cache, value_cache, block_table, seq_lens, scale)


@decode_triton.misconception(
    "kernel-for-show",
    "a kernel runs and something else computes the output. What your kernel writes has to be what you return.",
    part="paged_online_attention_triton",
)
def kernel_for_show(query, key_cache, value_cache, block_table, seq_lens, scale):
    nothing = torch.zeros_like(seq_lens)
    paged_online_attention_triton(query, key_cache, value_cache, block_table, nothing, scale)
    return paged_online_attention(query, key_cache, value_cache, block_table, seq_lens, scale)


_kernel_edit(
    "offsets-of-32-bits",
    "block number times stride is computed in 32 bits. A cache can hold more than 2**31 elements: widen the block "
    "number first, `block.to(tl.int64)`.",
    (".to(tl.int64)", ""),
)


_kernel_edit(
    "block-size-16",
    "block_size is taken to be 16. It is key_cache.shape[1]: with blocks of 32 the table is read past its end and half of "
    "each block is not found.",
    ("position // BLOCK_SIZE", "position // 16"),
    ("position % BLOCK_SIZE", "position % 16"),
)
_kernel_edit(
    "padded-keys-have-weight",
    "keys that were not loaded count: a key of zeros has the score 0, and exp(0 - m) is a weight. Set the scores of lanes past "
    'the end to float("-inf").',
    ('scores = tl.where(held[None, :], scores, float("-inf"))', "scores = scores + 0.0"),
)
_kernel_edit(
    "dimensions-not-masked",
    "lanes past head_size are not masked: the tile is a power of two, and where the head is smaller these lanes read the next "
    "head or slot, or past the end of the cache.",
    ("mask_kv = held[:, None] & in_head[None, :]", "mask_kv = held[:, None] & (dim >= 0)[None, :]"),
    (
        "mask = (row < NUM_QUERIES_PER_KV)[:, None] & in_head[None, :]",
        "mask = (row < NUM_QUERIES_PER_KV)[:, None] & (dim >= 0)[None, :]",
    ),
)


@triton.jit
def _one_head_kernel(
    query,
    keys,
    values,
    table,
    lengths,
    out,
    scale,
    q0,
    q1,
    k0,
    k1,
    k2,
    v0,
    v1,
    v2,
    t0,
    GROUP: tl.constexpr,
    D: tl.constexpr,
    D2: tl.constexpr,
    B: tl.constexpr,
):
    r, h = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    d, slot = tl.arange(0, D2), tl.arange(0, B)
    q = tl.load(query + r * q0 + h * q1 + d, mask=d < D, other=0.0).to(tl.float32) * scale
    n = tl.load(lengths + r)
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
        s = tl.where(held, tl.sum(k.to(tl.float32) * q[None, :], axis=1) * 1.4426950408889634, float("-inf"))
        new = tl.maximum(m, tl.max(s, axis=0))
        p = tl.exp2(s - new)
        l = l * tl.exp2(m - new) + tl.sum(p, axis=0)
        acc = acc * tl.exp2(m - new) + tl.sum(p[:, None] * v.to(tl.float32), axis=0)
        m = new
    # Without a token the loop did not run: 0 / 1.
    tl.store(out + r * q0 + h * q1 + d, acc / tl.where(n > 0, l, 1.0), mask=d < D)


@decode_triton.right("one-head-a-program-in-base-2", part="paged_online_attention_triton")
def one_head_a_program(query, key_cache, value_cache, block_table, seq_lens, scale):
    output = torch.empty_like(query)
    _one_head_kernel[query.shape[:2]](
        query,
        key_cache,
        value_cache,
        block_table,
        seq_lens,
        output,
        scale,
        *query.stride()[:2],
        *key_cache.stride()[:3],
        *value_cache.stride()[:3],
        block_table.stride(0),
        GROUP=query.shape[1] // key_cache.shape[2],
        D=query.shape[2],
        D2=1 << math.ceil(math.log2(query.shape[2])),
        B=key_cache.shape[1],
    )
    return output


# Keys of the tail are loaded and their scores masked: they lie in a block that the request owns. Values are not.
decode_triton.right("keys-of-the-tail-loaded", part="paged_online_attention_triton")(
    with_kernel(
        paged_online_attention_triton,
        _paged_decode_kernel,
        "keys-of-the-tail-loaded",
        (
            "key = tl.load(key_cache_ptr + key_at[:, None] + dim[None, :], mask=mask_kv, other=0.0)",
            "key = tl.load(key_cache_ptr + key_at[:, None] + dim[None, :], mask=in_head[None, :] & (start < seq_len), "
            "other=0.0)",
        ),
        ("tl.load(table_at, mask=held, other=0)", "tl.load(table_at, mask=held, other=0)"),
    )
)
