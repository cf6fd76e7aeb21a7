"""Question 10, first part: causal attention of a ragged batch (prefill, chunks, decode) over a paged cache, in torch."""

from __future__ import annotations

import torch

from autograder.checks import paged_cases
from autograder.misconceptions import paged_causal as mistakes
from autograder.registry import Answer, Check, Output
from autograder.suite import Case, Suite


def cases(suite: Suite) -> list[Case]:
    """Small, because the same cases go through Triton's interpreter in the second part."""
    draw = paged_cases.Draw(suite)
    n = paged_cases.BLOCK_SIZE
    chosen = [
        draw.batch("prefill of one request", [(0, n + 3)], heads=(1, 1)),
        draw.batch("a chunk that starts inside a block", [(5, n)], heads=(2, 1), tails=1.0),
        draw.batch("a chunk behind several blocks", [(2 * n - 4, 9)], heads=(1, 1), scale=0.3),
        draw.batch("decode: the last token alone", [(n, 1), (n - 1, 1)], heads=(2, 1)),
        draw.batch(
            "prefill, chunk and decode together", [(0, 5), (n + 2, 4), (9, 1)], heads=(2, 2), tails=2.0
        ),
        draw.batch("requests without a token, and without a new one", [(3, 2), (0, 0), (6, 0), (0, 3)]),
        draw.batch("a query that fills a block exactly", [(0, n), (n, n)], heads=(1, 1)),
        draw.batch("four query heads to a kv head, head size 80", [(3, 4)], heads=(8, 2), head_size=80),
        draw.batch("seven query heads to a kv head, head size 128", [(2, 3)], heads=(7, 1), head_size=128),
        draw.batch("blocks of 32 tokens, shared", [(33, 3), (35, 2)], block_size=32, shared=1, scale=0.05),
        # Eight heads: on all draws but one in 2000 some row sees nothing but scores far below -1000.
        draw.batch("scores in the thousands", [(0, 9)], queries=30.0, keys=30.0, scale=1.0, heads=(8, 1)),
        draw.batch(
            "float16: products of query and key beyond 65504",
            [(7, 6)],
            dtype=torch.float16,
            queries=100.0,
            keys=100.0,
            scale=1 / 80000,
            heads=(2, 1),
        ),
    ]
    if suite.hidden:
        for i in range(3):
            label = f"random batch {i + 1}"
            requests = []
            for r in range(draw.integer(label, 1, 3)):
                computed = draw.integer(f"{label}, request {r}, computed", 0, 30)
                requests.append((computed, draw.integer(f"{label}, request {r}, new", 1, 9)))
            group = draw.integer(f"{label}, heads", 1, 4)
            chosen.append(draw.batch(label, requests, heads=(group, 1), scale=0.1 * (i + 1), tails=2.0))
    return chosen


def run(answer: Answer, case: Case) -> Output:
    return paged_cases.call(answer["paged_causal_attention"], case, paged_cases.CAUSAL, triton=False)


CHECK = Check(
    name="paged_causal_attention",
    grade_id="q10-torch",
    parts=("paged_causal_attention",),
    cases=cases,
    run=run,
    inspect=paged_cases.inspect,
    solution={"paged_causal_attention": mistakes.paged_causal_attention},
    misconceptions=mistakes.causal.misconceptions,
    right_variants=mistakes.causal.right_variants,
    same=paged_cases.same,
    hints=(
        "Write the positions down for one chunk: 5 tokens are in the cache, 3 are new, seq_len is 8. At which positions do "
        "the three queries sit, and which keys may each of them see?",
        "Request r's queries are rows query_start_loc[r] to query_start_loc[r + 1]. Query i of n sits at seq_len - n + i and "
        "sees key positions <= its own. Walk over all blocks up to seq_len, mask per query and key, and expect rows that "
        "see nothing of a block.",
        "query_position = torch.arange(seq_len - n, seq_len); key_position = torch.arange(start, start + held); scores = "
        "scores.masked_fill(key_position[None, :] > query_position[:, None], -inf). With m starting at -1e30 no row ever "
        "computes -inf - (-inf).",
    ),
)
