"""Submissions of lesson 3, wrong and right, each a learner's notebook.

A submission is the instructor's notebook with one solution cell rewritten. In torch the text comes from the checks' own
mistakes and right variants; a Triton kernel is the lesson's own with something written wrong (or another way) in it.
"""

from __future__ import annotations

import re

from nbformat import NotebookNode

from autograder import registry
from bench.grading.submission import Submission, copy_of, from_check, lesson

LESSON = "03_build"
_MARKS = re.compile(r"^\s*### (BEGIN|END) SOLUTION\n", re.M)


# In torch: the checks' mistakes that are taken.
_TORCH = {
    "relocate_blocks": (
        "blocks-moved-backwards",
        "table-left-as-it-was",
        "inputs-changed",
        "table-of-another-dtype",
    ),
    "find_contract_breach": (
        "nothing-is-ever-found",
        "full-blocks-only",
        "called-once",
        "every-bit-compared",
        "tail-of-zeros",
    ),
    "paged_online_attention": (
        "kv-head-modulo",
        "everything-in-the-inputs-dtype",
        "tail-attended",
        "nan-times-zero",
        "nan-for-an-empty-request",
        "scale-left-out",
        "scale-applied-twice",
        "logical-block-as-physical",
        "block-size-16",
        "whole-sequence-gathered",
        "query-scaled-in-place",
        "softmax-of-each-block-averaged",
    ),
    "paged_causal_attention": (
        "own-token-hidden",
        "position-from-the-chunks-start",
        "position-from-the-batch",
        "only-the-last-block-masked",
        "query-rows-off-by-one-request",
        "blocks-of-the-chunk-only",
        "nan-on-a-hidden-block",
        "chunks-attend-to-themselves",
    ),
}
_Edits = tuple[tuple[str, str], ...]
_HEAD = "head = kv_head * NUM_QUERIES_PER_KV + row"
# In Triton: (name, misconception, edits of the cell), by grade id and cell.
_DECODE: tuple[tuple[str, str, _Edits], ...] = (
    ("scale forgotten", "scale-left-out", (('input_precision="ieee") * scale', 'input_precision="ieee")'),)),
    ("exp2 without log2(e)", "exp2-without-log2-e", (("tl.exp(m - m_new)", "tl.exp2(m - m_new)"), ("tl.exp(scores", "tl.exp2(scores"))),
    ("acc not rescaled", "acc-not-rescaled", (("acc * alpha[:, None] + tl.dot", "acc + tl.dot"),)),
    ("l not rescaled", "l-not-rescaled", (("l * alpha + tl.sum", "l + tl.sum"),)),
    ("not divided by l", "not-divided-by-l", (("out = acc / tl.where(l == 0.0, 1.0, l)[:, None]", "out = acc"),)),
    ("NaN for length 0", "nan-for-an-empty-request", (("tl.where(l == 0.0, 1.0, l)[:, None]", "l[:, None]"),)),
    ("32-bit offsets", "offsets-of-32-bits", ((".to(tl.int64)", ""),)),
    ("table ignored", "logical-block-as-physical", (("block = tl.load(table_at, mask=held, other=0).to(tl.int64)", "block = (position // BLOCK_SIZE).to(tl.int64)"),)),
    ("first request's row", "first-requests-table", (("block_table_ptr + request * stride_table_req", "block_table_ptr"),)),
    ("one token too many", "one-token-too-many", (("held = position < seq_len", "held = position < seq_len + 1"), ("range(0, seq_len, TILE_SIZE)", "range(0, tl.where(seq_len > 0, seq_len + 1, 0), TILE_SIZE)"))),
    ("own token left out", "own-token-left-out", (("seq_len = tl.load(seq_lens_ptr + request)", "seq_len = tl.maximum(tl.load(seq_lens_ptr + request) - 1, 0)"),)),
    ("kv head modulo", "kv-head-modulo", ((_HEAD, "head = kv_head + row * (tl.num_programs(1))"),)),
    ("block_size 16", "block-size-16", (("BLOCK_SIZE=block_size", "BLOCK_SIZE=16"),)),
    ("no mask on dimensions", "dimensions-not-masked", (("mask_kv = held[:, None] & in_head[None, :]", "mask_kv = held[:, None] & (dim >= 0)[None, :]"), ("& in_head[None, :]\n    query", "& (dim >= 0)[None, :]\n    query"))),
    ("padded keys not hidden", "padded-keys-have-weight", (('        scores = tl.where(held[None, :], scores, float("-inf"))\n', ""),)),
    ("everything in torch", "no-kernel", ()),
    ("calls the course's kernel", "the-courses-kernel", ()),
    ("a kernel for show", "kernel-for-show", ()),
    ("a kernel for show, then the course's", "kernel-for-show", ()),
)  # fmt: skip
_BYTES: tuple[tuple[str, str, _Edits], ...] = (("one head a program", "once-per-query-head", ()),)
_CAUSAL: tuple[tuple[str, str, _Edits], ...] = (
    ("< for <=", "own-token-hidden", (("position[None, :] <= query_position", "position[None, :] < query_position"),)),
    ("position from the chunk's start", "position-from-the-chunks-start", (("query_position = seq_len - num_new + token", "query_position = token"), ("seq_len - num_new + first_token + TOKENS", "seq_len"))),
    ("not causal", "not-causal", (("held[None, :] & (position[None, :] <= query_position[:, None])", "held[None, :] & (row >= 0)[:, None]"), ("tl.minimum(seq_len, seq_len - num_new + first_token + TOKENS)", "seq_len"))),
    ("padding rows stored", "padding-rows-stored", (("out.to(out_ptr.dtype.element_ty), mask=mask)", "out.to(out_ptr.dtype.element_ty), mask=(row < TOKENS * NUM_QUERIES_PER_KV)[:, None] & in_head[None, :])"),)),
    ("keys up to the first query", "keys-only-up-to-the-first-query", (("first_token + TOKENS)", "first_token + 1)"),)),
    ("scale forgotten", "scale-left-out", (('input_precision="ieee") * scale', 'input_precision="ieee")'),)),
    ("everything in torch", "no-kernel", ()),
    ("a kernel for show", "kernel-for-show", ()),
)  # fmt: skip
_SPLIT: tuple[tuple[str, str, _Edits], ...] = (
    ("NaN from empty splits", "empty-split-gives-nan", (("acc / safe[:, None]", "acc / l[:, None]"),)),
    ("empty splits count", "empty-split-counts", (('tl.where(l == 0.0, float("-inf"), m + tl.log(safe))', "tl.where(l == 0.0, 0.0, m + tl.log(safe))"),)),
    ("lse in base 2", "base-2-lse-merged-as-natural", (("m + tl.log(safe))", "(m + tl.log(safe)) * 1.4426950408889634)"),)),
    ("merged as base 2", "natural-lse-merged-as-base-2", (("alpha = tl.exp(m - m_new)\n        weight = tl.exp(lse - m_new)", "alpha = tl.exp2(m - m_new)\n        weight = tl.exp2(lse - m_new)"),)),
    ("lse without m", "lse-without-the-maximum", (("m + tl.log(safe))", "tl.log(safe))"),)),
    ("lse without l", "lse-without-the-sum", (("m + tl.log(safe))", "m)"),)),
    ("mean of the splits", "mean-of-the-splits", (("weight = tl.exp(lse - m_new)", 'weight = tl.where(lse > float("-inf"), 1.0, 0.0)'), ("        alpha = tl.exp(m - m_new)\n        weight", "        alpha = 1.0\n        weight"))),
    ("rest left out", "rest-left-out", (("tl.cdiv(tl.cdiv(seq_len, BLOCK_SIZE), num_splits)", "(tl.cdiv(seq_len, BLOCK_SIZE) // num_splits)"),)),
    ("weights do not add up", "weights-do-not-add-up", (("out = acc / tl.where(l == 0.0, 1.0, l)\n", "out = acc\n"),)),
    ("everything in torch", "no-kernel", ()),
    ("a kernel for show", "kernel-for-show", ()),
)  # fmt: skip
_RIGHT_DECODE: tuple[tuple[str, _Edits], ...] = (
    ("exp2 and log2 units", (("* scale\n", "* (scale * 1.4426950408889634)\n"), ("tl.exp(m - m_new)", "tl.exp2(m - m_new)"), ("tl.exp(scores", "tl.exp2(scores"))),
    ("tiles of 16", (("TILE_SIZE=32", "TILE_SIZE=16"),)),
    ("tiles of 128", (("TILE_SIZE=32", "TILE_SIZE=128"),)),
    ("float32 everywhere", (("query = tl.load(query_ptr + at, mask=mask, other=0.0)", "query = tl.load(query_ptr + at, mask=mask, other=0.0).to(tl.float32)"), ("mask=mask_kv, other=0.0)\n        value", "mask=mask_kv, other=0.0).to(tl.float32)\n        value"), ("value_cache_ptr + value_at[:, None] + dim[None, :], mask=mask_kv, other=0.0)", "value_cache_ptr + value_at[:, None] + dim[None, :], mask=mask_kv, other=0.0).to(tl.float32)"))),
    ("scale on the query", (("query = tl.load(query_ptr + at, mask=mask, other=0.0)", "query = tl.load(query_ptr + at, mask=mask, other=0.0).to(tl.float32) * scale"), ("tl.trans(key), input_precision=\"ieee\") * scale", "tl.trans(key.to(tl.float32)), input_precision=\"ieee\")"))),
)  # fmt: skip
_RIGHT_SPLIT: tuple[tuple[str, _Edits], ...] = (
    ("split by tokens", (("tl.cdiv(tl.cdiv(seq_len, BLOCK_SIZE), num_splits) * BLOCK_SIZE", "tl.cdiv(seq_len, num_splits)"),)),
)  # fmt: skip
_RIGHT_CAUSAL: tuple[tuple[str, _Edits], ...] = (
    ("all keys for every tile", (("tl.minimum(seq_len, seq_len - num_new + first_token + TOKENS)", "seq_len"),)),
    ("one token a program", (("tokens = max(1, 16 // num_queries_per_kv)", "tokens = 1"),)),
)  # fmt: skip


def submissions() -> list[Submission]:
    """All of them, wrong ones first."""
    wrong, right = [], []
    for name, mistakes in _TORCH.items():
        mistaken, others = from_check(LESSON, registry.get(name), mistakes)
        wrong += mistaken
        right += others
    for test, cell, list_of in (
        ("q9-triton", "q9-triton-code", _DECODE),
        ("q9-bytes", "q9-triton-code", _BYTES),
        ("q10-triton", "q10-triton-code", _CAUSAL),
        ("q10b-split", "q10b-split-code", _SPLIT),
    ):
        wrong += [Submission(n, test, _notebook(cell, _text(cell, n, edits)), m) for n, m, edits in list_of]
    for test, cell, rights in (
        ("q9-triton", "q9-triton-code", _RIGHT_DECODE),
        ("q10-triton", "q10-triton-code", _RIGHT_CAUSAL),
        ("q10b-split", "q10b-split-code", _RIGHT_SPLIT),
    ):
        right += [Submission(n, test, _notebook(cell, _text(cell, n, edits)), None) for n, edits in rights]
    return wrong + right


def _for_show(name: str, returned: str) -> str:
    return f"\n\n_my_kernel = {name}\n\n\ndef {name}(*arguments):\n    _my_kernel(*arguments)\n    return {returned}\n"


_WITHOUT_EDITS = {
    ("q9-triton-code", "everything in torch"): "paged_online_attention_triton = paged_online_attention",
    ("q10-triton-code", "everything in torch"): "paged_causal_attention_triton = paged_causal_attention",
    ("q10b-split-code", "everything in torch"): (
        "def paged_split_kv_attention(*arguments):\n    return paged_online_attention(*arguments[:-1])"
    ),
    ("q9-triton-code", "calls the course's kernel"): (
        "def paged_online_attention_triton(*arguments):\n    return kernels.paged_decode(*arguments)"
    ),
}
# The lesson's own kernel runs, on everything it should, and something else is returned.
_APPENDED = {
    ("q9-triton-code", "a kernel for show"): _for_show(
        "paged_online_attention_triton", "paged_online_attention(*arguments)"
    ),
    ("q9-triton-code", "a kernel for show, then the course's"): _for_show(
        "paged_online_attention_triton", "kernels.paged_decode(*arguments)"
    ),
    ("q10-triton-code", "a kernel for show"): _for_show(
        "paged_causal_attention_triton", "paged_causal_attention(*arguments)"
    ),
    ("q10b-split-code", "a kernel for show"): _for_show(
        "paged_split_kv_attention", "paged_online_attention(*arguments[:-1])"
    ),
}
_ONE_HEAD: _Edits = (
    ("kv_head = tl.program_id(1)", "kv_head = tl.program_id(1) // NUM_QUERIES_PER_KV"),
    (_HEAD, "head = tl.program_id(1) + row"),
    ("mask = (row < NUM_QUERIES_PER_KV)[:, None]", "mask = (row < 1)[:, None]"),
    ("(num_reqs, num_kv_heads)", "(num_reqs, num_heads)"),
)


def _notebook(cell: str, text: str) -> NotebookNode:
    """The instructor's notebook with another text in one cell."""
    notebook = copy_of(LESSON)
    for each in notebook.cells:
        if each.id == cell:
            each.source = text
    return notebook


def _text(cell: str, name: str, edits: _Edits) -> str:
    """The solution's text with the edits. Raises ValueError when one does not fit exactly once."""
    if (cell, name) in _WITHOUT_EDITS:
        return _WITHOUT_EDITS[cell, name]
    text = next(_MARKS.sub("", each.source) for each in lesson(LESSON).cells if each.id == cell)
    if (cell, name) in _APPENDED:
        return text + _APPENDED[cell, name]
    for right, wrong in edits or _ONE_HEAD:
        if text.count(right) != 1:
            raise ValueError(f"{cell}, {name}: expected exactly once, got {text.count(right)}: {right!r}")
        text = text.replace(right, wrong)
    return text
