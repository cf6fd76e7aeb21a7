"""Question 9, second part: the same attention in a Triton kernel. The same cases; what ran is looked at as well."""

from __future__ import annotations

from autograder.checks import paged_cases, paged_online_attention
from autograder.misconceptions import paged_decode_triton as mistakes
from autograder.registry import Answer, Check, Output
from autograder.suite import Case


def run(answer: Answer, case: Case) -> Output:
    return paged_cases.call(answer["paged_online_attention_triton"], case, paged_cases.DECODE, triton=True)


CHECK = Check(
    name="paged_online_attention_triton",
    grade_id="q9-triton",
    parts=("paged_online_attention_triton",),
    cases=paged_online_attention.cases,
    run=run,
    inspect=paged_cases.inspect,
    solution={"paged_online_attention_triton": mistakes.paged_online_attention_triton},
    misconceptions=mistakes.decode_triton.misconceptions,
    right_variants=mistakes.decode_triton.right_variants,
    same=paged_cases.same,
    hints=(
        "Which loop of your torch version becomes the grid, and which stays a loop inside the kernel? Start with one "
        "program for each request and query head; keep m and l as scalars and acc as one vector.",
        "Every tl.load needs a mask that is true where there is something to read, and other=0.0: slots past seq_len, "
        "dimensions past HEAD_SIZE (tl.arange takes powers of two only), table entries past the end. Masked scores "
        'become float("-inf"). Widen the block number with .to(tl.int64) before it is multiplied by a stride.',
        "For each block: block = tl.load(table_row + j).to(tl.int64); slot = tl.arange(0, BLOCK_SIZE); key [BLOCK_SIZE, "
        "HEAD_SIZE_PADDED] from key_cache_ptr + block * stride_block + slot[:, None] * stride_slot + kv_head * "
        "stride_head + dim[None, :]; scores = tl.sum(key * query[None, :], axis=1) * scale; then the update as in "
        "torch. Store acc / l, or zeros where seq_len is 0.",
    ),
)
