"""Question 10b, the bonus: on a GPU, with one long request, splitting beats the learner's own single pass.

Both are timed in one run, in turn, after a warm-up, with the second-level cache cleared before each run; each timed run has a query
of its own, and its output is held against the truth. Without a GPU nothing can be timed: the case's label says so, and right outputs
get the bonus.
"""

from __future__ import annotations

import statistics

import torch

import kernels
from autograder import watched
from autograder.checks import paged_cases
from autograder.compare import error_budget
from autograder.failure import Problem
from autograder.misconceptions import split_kv_race as mistakes
from autograder.registry import Answer, Check, Output
from autograder.suite import Case, Suite
from kernels import reference

# A single pass over one request keeps as many multiprocessors busy as there are kv heads. Splitting wins by 5 and more.
LEAST_RATIO = 1.5
NUM_SPLITS = 32
NUM_RUNS = 6  # timed, of each


def cases(suite: Suite) -> list[Case]:
    draw = paged_cases.Draw(suite)
    if kernels.INTERPRET:
        lengths = [70, draw.integer("length", 33, 90)] if suite.hidden else [70]
        untimed = "no GPU: nothing is timed, and the bonus is not lost"
        return [
            draw.decode(
                f"one request of {length} tokens ({untimed})",
                [length],
                heads=(2, 1),
                num_splits=4,
                in_parallel=True,
            )
            for length in lengths
        ]
    # In float16, with weights that differ from split to split, and neither blocks nor splits full: here too wrong answers are
    # wrong by far more than the rounding of so long a sum.
    generator = suite.generator("queries")
    return [
        draw.decode(
            f"one request of {round(length / 1024)}k tokens, 4 kv heads, {NUM_SPLITS} splits",
            [length],
            heads=(16, 4),
            head_size=128,
            dtype=torch.float16,
            queries=2.0,
            num_splits=NUM_SPLITS,
            timed=(2.0 * torch.randn(NUM_RUNS, 1, 16, 128, generator=generator)).to(
                kernels.device(), torch.float16
            ),
        )
        for length in ([16363, 32747] if suite.hidden else [16363])
    ]


def run(answer: Answer, case: Case) -> Output:
    """The output and what speaks against it; where nothing does, on a GPU, the race as well."""
    function, rival = answer["paged_split_kv_attention"], answer["paged_online_attention_triton"]
    output = paged_cases.call(function, case, (*paged_cases.DECODE, "num_splits"), triton=True)
    if kernels.INTERPRET or paged_cases.inspect(output, case) is not None:
        return {**output, "ratio": None}
    arguments = paged_cases.copied(case, paged_cases.DECODE)
    seen = watched.race(function, rival, arguments, [case.inputs["num_splits"]], case.inputs["timed"])
    ratio = statistics.median(seen["rival_us"]) / statistics.median(seen["us"])
    return {**output, "outputs": seen["outputs"], "ratio": ratio}


def inspect(output: Output, case: Case) -> Problem | None:
    problem = paged_cases.inspect(output, case)
    if problem:
        return problem
    if "outputs" in output:
        expected = truths(case, torch.float64)
        budget = error_budget(
            expected, [truths(case, case.inputs["query"].dtype)], case.inputs["query"].dtype
        )
        for one, right in zip(output["outputs"], expected, strict=True):
            problem = paged_cases.held_against(one, case, right[None], budget)
            if problem:
                return problem
    ratio = output["ratio"]
    if ratio is not None and ratio < LEAST_RATIO:
        return Problem(
            "splitting does not beat your single pass",
            f"It was {ratio:.2f} times as fast, in one run on {kernels.describe()}; {LEAST_RATIO} is asked for.",
        )
    return None


def truths(case: Case, dtype: torch.dtype) -> torch.Tensor:
    """The right outputs of the timed queries, [NUM_RUNS, num_heads, head_size]: queries that see the whole of one sequence."""
    num_tokens, blocks = int(case.inputs["seq_lens"][0]), case.inputs["block_table"][0].cpu().long()
    keys, values = (
        case.inputs[name].cpu()[blocks].flatten(0, 1)[:num_tokens].to(dtype)
        for name in ("key_cache", "value_cache")
    )
    queries = case.inputs["timed"].cpu()[:, 0].to(dtype)
    found = reference.dense_attention(queries, keys, values, case.inputs["scale"], causal=False)
    assert isinstance(found, torch.Tensor)
    return found


def same(a: Output, b: Output, case: Case) -> bool:
    """Whether two answers are wrong alike. Right ones may be slow, or no kernel's."""
    problems = [inspect(output, case) for output in (a, b)]
    headlines = [problem.headline if problem else "" for problem in problems]
    return headlines[0] == headlines[1] and paged_cases.same(a, b, case)


CHECK = Check(
    name="split_kv_race",
    grade_id="q10b-race",
    parts=("paged_split_kv_attention", "paged_online_attention_triton"),
    cases=cases,
    run=run,
    inspect=inspect,
    solution=mistakes.SOLUTION,
    misconceptions=mistakes.MISCONCEPTIONS,
    right_variants=mistakes.RIGHT_VARIANTS,
    same=same,
    hints=(
        "How many programs does each of your two kernels have for one request with 4 kv heads? A GPU has more than a hundred "
        "multiprocessors.",
        "num_splits belongs in the grid, (num_reqs, num_kv_heads, num_splits): as a loop inside a program it runs nothing in "
        "parallel.",
        "If the splits are in the grid and nothing is won, look at the merge: a loop over splits in Python launches a kernel "
        "for each. One launch for all requests and heads is enough.",
    ),
)
