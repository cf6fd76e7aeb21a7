"""Question 8, first part: blocks moved to other places, with a table that still finds them."""

from __future__ import annotations

import torch

from autograder.compare import same_tensors, tensor_problem
from autograder.failure import AnswerProblem, Problem
from autograder.guard import unchanged
from autograder.misconceptions import relocate_blocks as mistakes
from autograder.registry import Answer, Check, Output
from autograder.suite import Case, Suite

NAMES = ("key_cache", "value_cache", "block_table")


def cases(suite: Suite) -> list[Case]:
    def draw(label: str, new_ids: list[int] | int, table: list[list[int]], dtype: torch.dtype) -> Case:
        """new_ids: where each block goes, or how many blocks there are, to be shuffled."""
        generator = suite.generator(label)
        ids = torch.tensor(new_ids) if isinstance(new_ids, list) else _shuffled(new_ids, generator)
        shape = (len(ids), 4, 2, 8)
        keys, values = (torch.randn(shape, generator=generator).to(dtype) for _ in range(2))
        keys[:, -1], values[:, -1] = torch.nan, torch.nan  # what slots hold is no concern of a move
        table_tensor = torch.tensor(table, dtype=torch.int32)
        inputs = {"key_cache": keys, "value_cache": values, "block_table": table_tensor, "new_ids": ids}
        return Case(label, inputs)

    chosen = [
        draw("two blocks change places", [1, 0], [[0, 1]], torch.float32),
        draw("three blocks in a circle", [1, 2, 0], [[0, 1, 2]], torch.float32),
        draw("nothing moves", [0, 1, 2, 3], [[2, 0], [3, 1]], torch.float32),
        draw("block 0 moves to the end", [4, 0, 1, 2, 3], [[0, 3, 1]], torch.float32),
        draw("two requests that share a block", 8, [[6, 1, 2], [6, 7, 0]], torch.float32),
        draw("blocks that no request owns", 16, [[5, 3], [9, 0]], torch.float16),
    ]
    if suite.hidden:
        for i in range(4):
            order = torch.randperm(12, generator=suite.generator(f"table {i}")).tolist()
            chosen.append(draw(f"random blocks {i + 1}", 12, [order[:4], order[4:8]], torch.float32))
    return chosen


def _shuffled(count: int, generator: torch.Generator) -> torch.Tensor:
    """A permutation that is not its own inverse, so that there and back are two things."""
    while True:
        ids = torch.randperm(count, generator=generator)
        if not torch.equal(ids[ids], torch.arange(count)):
            return ids


def run(answer: Answer, case: Case) -> Output:
    given = {name: value.clone() for name, value in case.inputs.items()}
    with unchanged(**given):
        got = answer["relocate_blocks"](*given.values())
    if not isinstance(got, tuple | list) or len(got) != 3:
        kind = f"{len(got)} values" if isinstance(got, tuple | list) else f"a {type(got).__name__}"
        raise AnswerProblem(
            Problem(f"relocate_blocks must return (key_cache, value_cache, block_table), got {kind}")
        )
    return dict(zip(NAMES, got, strict=True))


def inspect(output: Output, case: Case) -> Problem | None:
    for name in NAMES:
        given = case.inputs[name]
        problem = tensor_problem(
            f"the new {name}", output[name], tuple(given.shape), (given.dtype,), given.device
        )
        if problem:
            return problem
    table, new_ids = case.inputs["block_table"], case.inputs["new_ids"]
    for request, row in enumerate(table.tolist()):
        for logical, block in enumerate(row):
            where, expected = int(output["block_table"][request, logical]), int(new_ids[block])
            place = f"request {request}, logical block {logical} (it was block {block}; new_ids[{block}] = {expected})"
            if where != expected:
                return Problem(
                    "the new block_table has wrong values", f"{place}: expected {expected}, got {where}"
                )
            for name in NAMES[:2]:
                if not same_tensors(output[name][expected], case.inputs[name][block]):
                    return Problem(f"the new {name} holds something else there", place)
    return None


def same(a: Output, b: Output, case: Case) -> bool:
    """Whether two answers agree in table and in the blocks that are owned before or after; others hold anything."""
    table = case.inputs["block_table"]
    owned = case.inputs["new_ids"][table.long()].unique()
    for name in NAMES:
        x, y = a[name], b[name]
        if not (isinstance(x, torch.Tensor) and isinstance(y, torch.Tensor)) or x.shape != y.shape:
            return False
        if name != "block_table":
            x, y = x[owned], y[owned]
        if not same_tensors(x, y):
            return False
    return True


CHECK = Check(
    name="relocate_blocks",
    grade_id="q8-relocate",
    parts=("relocate_blocks",),
    cases=cases,
    run=run,
    inspect=inspect,
    solution={"relocate_blocks": mistakes.relocate_blocks},
    misconceptions=mistakes.relocate.misconceptions,
    right_variants=mistakes.relocate.right_variants,
    same=same,
    hints=(
        "Two things move together: what lies in a block, and the number by which the table calls it. Follow one block, say "
        "block 2 with new_ids[2] = 5, through both.",
        "What lay in block i lies in block new_ids[i] afterwards; a table entry that was i becomes new_ids[i]. Read from the "
        "old caches and write into new ones.",
        "new_cache = torch.empty_like(cache); new_cache[new_ids] = cache, for keys and values; new_table = "
        "new_ids[block_table.long()].to(block_table.dtype).",
    ),
)
