"""Question 9, third part: the Triton kernel reads each key and value once per kv head, not once per query head.

Every load is counted, in Triton's interpreter. On a GPU the output is that of the compiled kernel, and a second run, in
the interpreter, is counted.
"""

from __future__ import annotations

import torch

from autograder import watched
from autograder.checks import paged_cases
from autograder.failure import Problem
from autograder.misconceptions import kv_bytes as mistakes
from autograder.registry import Answer, Check, Output
from autograder.suite import Case, Suite

# What a kernel may load more than once: a few tokens at the seams of tiles, say.
ALLOWANCE = 1.25


def cases(suite: Suite) -> list[Case]:
    draw = paged_cases.Draw(suite)
    lengths = [draw.integer("lengths", 40, 60), 33] if suite.hidden else [50, 33]
    made = [
        draw.decode("eight query heads to a kv head", lengths[:1], heads=(8, 1)),
        draw.decode("four query heads to each of two kv heads", lengths[1:], heads=(8, 2)),
        draw.decode("seven query heads to a kv head, float16", [17], heads=(7, 1), dtype=torch.float16),
        draw.decode("one query head to a kv head", [20, 7], heads=(2, 2)),
    ]
    if suite.hidden:
        ragged = [draw.integer("ragged", 17, 40), 16, draw.integer("short", 1, 15)]
        made.append(draw.decode("a ragged batch, three query heads to a kv head", ragged, heads=(6, 2)))
    return made


def run(answer: Answer, case: Case) -> Output:
    arguments = paged_cases.copied(case, paged_cases.DECODE)
    output, seen = watched.call(answer["paged_online_attention_triton"], arguments, count=True)
    return {
        "output": output,
        "launched": bool(seen.launches),
        **_times(seen, case),
    }


def _times(seen: watched.Observation, case: Case) -> dict[str, float]:
    """Bytes loaded of each cache, over those that have to be."""
    keys = case.inputs["key_cache"]
    least = int(case.inputs["seq_lens"].sum()) * keys[0, 0].numel() * keys.element_size()
    return {name: seen.loaded.get(name, 0) / least for name in ("key_cache", "value_cache")}


def inspect(output: Output, case: Case) -> Problem | None:
    problem = paged_cases.output_problem(output["output"], case)
    if problem:
        return Problem(f"{problem.headline}: bytes count once it is right", problem.detail)
    if not output["launched"]:
        return Problem("no Triton kernel ran", "Only what a kernel of yours loads can be counted.")
    for name in ("key_cache", "value_cache"):
        if output[name] < 0.99:
            return Problem(f"the kernel did not read all of {name}", f"It read {output[name]:.2f} of it.")
        if output[name] > ALLOWANCE:
            return Problem(
                f"{name} is read more often than once per kv head",
                f"The kernel loads {output[name]:.2f} times the bytes that the requests own. "
                f"{case.inputs['query'].shape[1] // case.inputs['key_cache'].shape[2]} query heads share a kv head.",
            )
    return None


def same(a: Output, b: Output, case: Case) -> bool:
    """Whether as much was read of both caches; among right outputs."""
    wrong = [inspect(output, case) is not None for output in (a, b)]
    if wrong[0] != wrong[1] or a["launched"] != b["launched"]:
        return False
    return all(abs(a[name] - b[name]) < 0.05 for name in ("key_cache", "value_cache"))


CHECK = Check(
    name="kv_bytes",
    grade_id="q9-bytes",
    parts=("paged_online_attention_triton",),
    cases=cases,
    run=run,
    inspect=inspect,
    solution=mistakes.SOLUTION,
    misconceptions=mistakes.MISCONCEPTIONS,
    right_variants=mistakes.RIGHT_VARIANTS,
    same=same,
    hints=(
        "Count: with one program for each query head, how many programs load the same key? What would a program have to "
        "hold so that one is enough?",
        "Let the grid be (num_reqs, num_kv_heads). A program loads its num_queries_per_kv queries as a tile [rows, "
        "head_size]; m and l become vectors, acc a tile. scores [rows, BLOCK_SIZE] is a matrix product of queries and "
        "keys.",
        'tl.dot(query, tl.trans(key), input_precision="ieee") gives the scores and tl.dot(p.to(value.dtype), value, '
        'input_precision="ieee") the sum. It takes at least 16 rows: pad rows to max(16, power of two) and mask those '
        "past num_queries_per_kv when you load the queries and when you store.",
    ),
)
