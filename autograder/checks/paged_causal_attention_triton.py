"""Question 10, second part: causal attention of a ragged batch in a Triton kernel. The same cases as in torch."""

from __future__ import annotations

from autograder.checks import paged_cases, paged_causal_attention
from autograder.misconceptions import paged_causal_triton as mistakes
from autograder.registry import Answer, Check, Output
from autograder.suite import Case


def run(answer: Answer, case: Case) -> Output:
    return paged_cases.call(answer["paged_causal_attention_triton"], case, paged_cases.CAUSAL, triton=True)


CHECK = Check(
    name="paged_causal_attention_triton",
    grade_id="q10-triton",
    parts=("paged_causal_attention_triton",),
    cases=paged_causal_attention.cases,
    run=run,
    inspect=paged_cases.inspect,
    solution={"paged_causal_attention_triton": mistakes.paged_causal_attention_triton},
    misconceptions=mistakes.causal_triton.misconceptions,
    right_variants=mistakes.causal_triton.right_variants,
    same=paged_cases.same,
    hints=(
        "Start from your decode kernel. What changes: a program has several query tokens, each with a position of its own; "
        "the request's rows start at query_start_loc; and the mask needs the query's position as well as the key's.",
        "The grid can be (num_reqs, num_kv_heads, cdiv(max_query_len, TOKENS)): a program whose first token lies past the "
        "request's last one returns at once. Row r of its tile is token first_token + r // NUM_QUERIES_PER_KV and head "
        "kv_head * NUM_QUERIES_PER_KV + r % NUM_QUERIES_PER_KV.",
        "query_position = seq_len - num_new + token, visible = (position[None, :] <= query_position[:, None]) & "
        "(position < seq_len)[None, :]. The loop ends at seq_len - num_new + (last token of the tile) + 1. The same mask, "
        "token < num_new, guards the load of the queries and the store.",
    ),
)
