"""Question 10b: decode with the sequence split over programs, and the partial states merged."""

from __future__ import annotations

import torch

from autograder.checks import paged_cases
from autograder.misconceptions import paged_split as mistakes
from autograder.registry import Answer, Check, Output
from autograder.suite import Case, Suite

ARGUMENTS = (*paged_cases.DECODE, "num_splits")


def cases(suite: Suite) -> list[Case]:
    draw = paged_cases.Draw(suite)
    n = paged_cases.BLOCK_SIZE
    chosen = [
        draw.decode("one split", [n + 3], num_splits=1, heads=(2, 1)),
        draw.decode("two splits of unlike weight", [2 * n], num_splits=2, heads=(2, 1), scale=0.5),
        draw.decode("splits that do not divide the blocks", [5 * n - 3], num_splits=2, in_parallel=True),
        draw.decode("more splits than blocks", [n + 1], num_splits=5, heads=(1, 1), tails=2.0),
        draw.decode(
            "a ragged batch with a request of length 0", [3, 0, 2 * n + 2], num_splits=3, heads=(1, 1)
        ),
        draw.decode(
            "four query heads to a kv head, head size 80", [n + 2], num_splits=2, heads=(8, 2), head_size=80
        ),
        draw.decode(
            "head size 128, blocks of 32", [70], num_splits=3, heads=(1, 1), head_size=128, block_size=32
        ),
        draw.decode("scores in the hundreds", [3 * n], num_splits=3, queries=10.0, keys=10.0, scale=1.0),
        draw.decode(
            "float16, scores in the hundreds close to each other",
            [3 * n],
            num_splits=3,
            dtype=torch.float16,
            keys=0.02,
            key_mean=8.0,
            queries=0.02,
            query_mean=8.0,
            scale=0.2,
        ),
    ]
    if suite.hidden:
        for i in range(2):
            label = f"random batch {i + 1}"
            lengths = [draw.integer(f"{label}, request {r}", 0, 50) for r in range(2)]
            num_splits = draw.integer(f"{label}, splits", 2, 6)
            chosen.append(draw.decode(label, lengths, num_splits=num_splits, scale=0.3, tails=2.0))
    return chosen


def run(answer: Answer, case: Case) -> Output:
    return paged_cases.call(answer["paged_split_kv_attention"], case, ARGUMENTS, triton=True)


CHECK = Check(
    name="paged_split_kv_attention",
    grade_id="q10b-split",
    parts=("paged_split_kv_attention",),
    cases=cases,
    run=run,
    inspect=paged_cases.inspect,
    solution=mistakes.SOLUTION,
    misconceptions=mistakes.MISCONCEPTIONS,
    right_variants=mistakes.RIGHT_VARIANTS,
    same=paged_cases.same,
    hints=(
        "You have both halves: your decode kernel, which walks over a range of blocks, and merge_states from lesson 1. What "
        "does a program have to write down so that somebody else can merge?",
        "Grid (num_reqs, num_kv_heads, num_splits). A split takes cdiv(cdiv(seq_len, BLOCK_SIZE), num_splits) blocks, "
        "rounded up, from split times that many on. It stores acc / l and lse = m + log(l) in float32 tensors "
        "[num_reqs, num_heads, num_splits, ...]. An empty split stores zeros and -inf.",
        "Merge for each request and head: m = max over the lses, weight = exp(lse - m), output = sum(weight * out) / "
        "sum(weight). Where all lses are -inf, subtract 0 instead of m and divide by 1. A loop over splits in a second "
        "kernel does it as the update does, with a split in the place of a block.",
    ),
)
