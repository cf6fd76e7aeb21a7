"""Question 2, first part: the metadata of a step, entry by entry."""

from __future__ import annotations

import copy
from typing import Any

import torch

from autograder.checks import batches
from autograder.compare import same_tensors, tensor_problem
from autograder.failure import AnswerProblem, Problem
from autograder.guard import unchanged
from autograder.misconceptions import build_metadata as mistakes
from autograder.registry import Answer, Check, Output
from autograder.suite import Case, Suite

DTYPES = {
    "block_table": torch.int32,
    "slot_mapping": torch.int64,
    "seq_lens": torch.int32,
    "query_start_loc": torch.int32,
}
HINTS = (
    "Take one new token of one request. At which position of the sequence does it stand? Which of the request's blocks "
    "is that, at which offset? And which physical block is it: who knows?",
    "position = num_computed_tokens + i for the i-th new token; logical block position // block_size, offset position % "
    "block_size; the physical block stands in the request's block table. seq_lens counts old and new tokens. "
    "query_start_loc is a running sum that starts with 0.",
    "slot = table[position // block_size] * block_size + position % block_size, for every new token, request after "
    "request. Pad the rows of block_table at the end to the longest one with anything. int64 for slot_mapping, int32 "
    "for the other three.",
)


def cases(suite: Suite) -> list[Case]:
    draw = batches.Draw(suite)
    chosen = batches.common_cases(draw)
    if suite.hidden:
        chosen += [draw.random_batch(f"random batch {i + 1}") for i in range(8)]
    return chosen


def call(answer: Answer, case: Case) -> Output:
    """What `build_metadata` returns for a case. Raises AnswerProblem if that is no dict or lacks an entry."""
    given = {
        name: copy.deepcopy(case.inputs[name])
        for name in ("block_tables", "num_computed_tokens", "num_new_tokens")
    }
    with unchanged(**given):
        got: Any = answer["build_metadata"](*given.values(), case.inputs["block_size"])
    if not isinstance(got, dict):
        raise AnswerProblem(Problem(f"build_metadata must return a dict, got a {type(got).__name__}"))
    missing = [name for name in DTYPES if name not in got]
    if missing:
        raise AnswerProblem(Problem(f"the dict that build_metadata returns lacks {', '.join(missing)}"))
    return {name: got[name] for name in DTYPES}


def expected(case: Case) -> dict[str, list[int]]:
    """The truth, except for block_table, whose padding is free."""
    starts, slots = [0], []
    pairs = zip(case.inputs["num_computed_tokens"], case.inputs["num_new_tokens"], strict=True)
    for request, (computed, new) in enumerate(pairs):
        starts.append(starts[-1] + new)
        slots += batches.slots(case, request, computed, computed + new)
    return {"seq_lens": batches.seq_lens(case), "query_start_loc": starts, "slot_mapping": slots}


def inspect(output: Output, case: Case) -> Problem | None:
    for name, values in expected(case).items():
        problem = tensor_problem(name, output[name], (len(values),), (DTYPES[name],), torch.device("cpu"))
        problem = problem or _first_wrong(name, output[name], values, case)
        if problem:
            return problem
    return _block_table_problem(output["block_table"], case)


def _first_wrong(name: str, got: torch.Tensor, values: list[int], case: Case) -> Problem | None:
    for i, (value, right) in enumerate(zip(got.tolist(), values, strict=True)):
        if value != right:
            return Problem(
                f"{name} has wrong values",
                f"{name}[{i}]{_meaning(name, i, case)}: expected {right}, got {value}. {_given(case)}",
            )
    return None


def _meaning(name: str, index: int, case: Case) -> str:
    if name != "slot_mapping":
        return ""
    for request, new in enumerate(case.inputs["num_new_tokens"]):
        if index < new:
            position = case.inputs["num_computed_tokens"][request] + index
            return f" (request {request}, new token {index}, position {position})"
        index -= new
    return ""


def _given(case: Case) -> str:
    names = ("block_tables", "num_computed_tokens", "num_new_tokens", "block_size")
    text = ", ".join(f"{name}={case.inputs[name]}" for name in names)
    return f"The call was build_metadata({text})."


def _block_table_problem(got: object, case: Case) -> Problem | None:
    owned = batches.num_owned_blocks(case)
    if type(got) is torch.Tensor and got.dim() == 2 and got.shape[1] >= max(owned):
        shape = (len(owned), got.shape[1])  # any width that holds the longest request is right
    else:
        shape = (len(owned), max(owned))
    problem = tensor_problem("block_table", got, shape, (DTYPES["block_table"],), torch.device("cpu"))
    if problem:
        return problem
    assert isinstance(got, torch.Tensor)
    for request, count in enumerate(owned):
        for block in range(count):
            right = case.inputs["block_tables"][request][block]
            value = int(got[request, block])
            if value != right:
                return Problem(
                    "block_table has wrong values",
                    f"request {request}, logical block {block}: expected {right}, got {value}. {_given(case)}",
                )
    return None


def same(a: Output, b: Output, case: Case) -> bool:
    """Whether two answers' metadata agree; block_table in the entries that are read, since its padding is free."""
    for name in DTYPES:
        x, y = a[name], b[name]
        if not (isinstance(x, torch.Tensor) and isinstance(y, torch.Tensor)):
            return False
        if name == "block_table":
            x, y = _owned_entries(x, case), _owned_entries(y, case)
        if not same_tensors(x, y):
            return False
    return True


def _owned_entries(block_table: torch.Tensor, case: Case) -> torch.Tensor:
    owned = batches.num_owned_blocks(case)
    if block_table.dim() != 2 or len(block_table) != len(owned):
        return block_table
    return torch.cat([row[:count] for row, count in zip(block_table, owned, strict=True)])


CHECK = Check(
    name="build_metadata",
    grade_id="q2-metadata",
    parts=("build_metadata",),
    cases=cases,
    run=call,
    inspect=inspect,
    solution={"build_metadata": mistakes.build_metadata},
    misconceptions=mistakes.MISCONCEPTIONS,
    right_variants=mistakes.RIGHT_VARIANTS,
    same=same,
    hints=HINTS,
)
