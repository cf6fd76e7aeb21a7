"""Question 9: kernels that give the right numbers and read more of K and V than they have to."""

from autograder.collect import Collector
from autograder.misconceptions import paged_decode_triton as decode
from autograder.misconceptions.in_torch import stand_in
from autograder.misconceptions.triton_edit import with_kernel

SOLUTION = {"paged_online_attention_triton": decode.paged_online_attention_triton}
_PART = "paged_online_attention_triton"
_bytes = Collector(decode.paged_online_attention_triton)


def _edit(name, message, *lines):
    wrong = with_kernel(decode.paged_online_attention_triton, decode._paged_decode_kernel, name, *lines)
    _bytes.misconception(name, message, part=_PART)(wrong)


_bytes.misconception(
    "once-per-query-head",
    "each program works for one query head: query heads that share a kv head load its keys and values again, each for "
    "itself. Let a program work for all query heads of a kv head.",
    part=_PART,
)(decode.one_head_a_program)
_edit(
    "keys-loaded-twice",
    "the keys are loaded twice: for the maximum first and for the weights again. Online softmax needs one pass.",
    (
        "    for start in range(0, seq_len, TILE_SIZE):\n",
        "    for again in range(0, seq_len, TILE_SIZE):\n"
        "        at_p = again + tl.arange(0, TILE_SIZE)\n"
        "        seen = at_p < seq_len\n"
        "        found = tl.load(block_table_ptr + request * stride_table_req + at_p // BLOCK_SIZE, mask=seen, other=0)\n"
        "        k_at = found.to(tl.int64) * stride_key_block + at_p % BLOCK_SIZE * stride_key_slot\n"
        "        k_at += kv_head * stride_key_head\n"
        "        seen_kv = seen[:, None] & in_head[None, :]\n"
        "        k = tl.load(key_cache_ptr + k_at[:, None] + dim[None, :], mask=seen_kv, other=0.0)\n"
        '        s = tl.dot(query, tl.trans(k), input_precision="ieee") * scale\n'
        '        m = tl.maximum(m, tl.max(tl.where(seen[None, :], s, float("-inf")), axis=1))\n'
        "    for start in range(0, seq_len, TILE_SIZE):\n",
    ),
)
_edit(
    "whole-tiles-from-block-0",
    "lanes past the end of the sequence load something all the same (block 0, the tail) and are masked later. Give "
    "tl.load the mask: what is masked is not loaded.",
    (
        "key_at[:, None] + dim[None, :], mask=mask_kv, other=0.0)",
        "key_at[:, None] + dim[None, :], mask=in_head[None, :], other=0.0)",
    ),
    (
        "value_at[:, None] + dim[None, :], mask=mask_kv, other=0.0)",
        "value_at[:, None] + dim[None, :], mask=in_head[None, :], other=0.0)\n        value = tl.where(mask_kv, value, 0.0)",
    ),
)
_edit(
    "values-loaded-twice",
    "the values are loaded twice. Keep the tile that was loaded.",
    (
        "        m = m_new\n",
        "        m = m_new + 0 * tl.max(tl.load(value_cache_ptr + value_at[:, None] + dim[None, :], mask=mask_kv, other=0.0))\n",
    ),
)
_bytes.misconception(
    "no-kernel",
    "the function computes in torch, and no kernel of yours loads anything.",
    part=_PART,
)(stand_in(decode.paged_online_attention))

MISCONCEPTIONS = _bytes.misconceptions


# A tile of one block, as a first version has it.
_bytes.right("tiles-of-16", part=_PART)(
    with_kernel(
        decode.paged_online_attention_triton,
        decode._paged_decode_kernel,
        "tiles-of-16",
        ("for start in range(0, seq_len, TILE_SIZE):", "for start in range(0, seq_len, 16):"),
        ("position = start + tl.arange(0, TILE_SIZE)", "position = start + tl.arange(0, 16)"),
    )
)
RIGHT_VARIANTS = _bytes.right_variants
