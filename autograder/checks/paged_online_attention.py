"""Question 9, first part: paged attention of one query token a request, in torch, block by block."""

from __future__ import annotations

import torch

from autograder.checks import paged_cases
from autograder.misconceptions import paged_decode as mistakes
from autograder.registry import Answer, Check, Output
from autograder.suite import Case, Suite


def cases(suite: Suite) -> list[Case]:
    """Small, because the same cases go through Triton's interpreter in the second part."""
    draw = paged_cases.Draw(suite)
    n = paged_cases.BLOCK_SIZE
    chosen = [
        draw.decode("one request of one full block", [n], heads=(1, 1)),
        draw.decode("lengths around the block size", [1, n - 1, n, n + 1], heads=(2, 1), tails=3.0),
        draw.decode("a ragged batch with a request of length 0", [5, 0, 2 * n + 3], heads=(2, 2), tails=1.0),
        draw.decode("eight query heads to a kv head, NaN in the tail", [n + 4], heads=(8, 1), scale=0.2),
        draw.decode("four query heads to a kv head, head size 80", [n + 2], heads=(8, 2), head_size=80),
        draw.decode("seven query heads to a kv head, head size 128", [7], heads=(7, 1), head_size=128),
        draw.decode("blocks of 32 tokens", [33, 70], heads=(2, 1), block_size=32, scale=0.3),
        draw.decode("two requests that share a block", [n + 5, n + 9], shared=1, heads=(2, 1), scale=0.05),
        draw.decode("scores in the hundreds", [5 * n, 5], queries=10.0, keys=10.0, scale=1.0, heads=(2, 1)),
        draw.decode(
            "float16: products of query and key beyond 65504",
            [2 * n + 1],
            dtype=torch.float16,
            queries=100.0,
            keys=100.0,
            scale=1 / 80000,
            heads=(2, 1),
        ),
        draw.decode(
            "float16: large values, and a sum of them beyond 65504",
            [4 * n - 1],
            dtype=torch.float16,
            values=(6000.0, 300.0),
            scale=0.01,
            heads=(2, 1),
        ),
        draw.decode("a long sequence: nothing may copy all of it", [24 * n - 5], heads=(2, 1), long=True),
        draw.decode(
            "a cache whose third block lies beyond element 2**31",
            [3 * n],
            dtype=torch.float16,
            heads=(2, 1),
            spread=True,
        ),
    ]
    if suite.hidden:
        for i in range(3):
            label = f"random batch {i + 1}"
            lengths = [draw.integer(f"{label}, request {r}", 0, 50) for r in range(draw.integer(label, 1, 3))]
            group = draw.integer(f"{label}, heads", 1, 8)
            chosen.append(draw.decode(label, lengths, heads=(group, 1), scale=0.1 * (i + 1), tails=2.0))
    return chosen


def run(answer: Answer, case: Case) -> Output:
    return paged_cases.call(answer["paged_online_attention"], case, paged_cases.DECODE, triton=False)


CHECK = Check(
    name="paged_online_attention",
    grade_id="q9-torch",
    parts=("paged_online_attention",),
    cases=cases,
    run=run,
    inspect=paged_cases.inspect,
    solution={"paged_online_attention": mistakes.paged_online_attention},
    misconceptions=mistakes.decode.misconceptions,
    right_variants=mistakes.decode.right_variants,
    same=paged_cases.same,
    hints=(
        "Take the single-head loop of rung 0 and put two loops around it: one over requests, one over heads. Which of the "
        "cache's heads does query head h read, when neighbours share one?",
        "For each request: m, l, acc in float32, one of each a head. For each block: its physical number from "
        "block_table[request, j], of its slots the first min(block_size, seq_len - j * block_size). kv head = head // "
        "(num_heads // num_kv_heads). A request of length 0 keeps its zeros.",
        "scores = k @ q * scale; m_new = max(m, scores.max()); alpha = exp(m - m_new); p = exp(scores - m_new); l = l * "
        "alpha + p.sum(); acc = acc * alpha + p @ v; m = m_new. After the last block output = (acc / l).to(query.dtype). "
        "Slice k and v to the slots that are held before anything is computed with them.",
    ),
)
