"""Question 3, second part: merging the states of parts, in any order, must give the softmax over the whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from autograder.checks import softmax_states
from autograder.failure import Problem
from autograder.guard import unchanged
from autograder.misconceptions import online_softmax
from autograder.registry import Answer, Check, Output
from autograder.suite import Case, Suite

PARTS = ("online_softmax_update", "merge_states", "finalize")
SOLUTION = {name: getattr(online_softmax, name) for name in PARTS}
Merge = Callable[[Any, Any], Any]


def cases(suite: Suite) -> list[Case]:
    """Each tile becomes a state of its own (two of them share one where `shared` says so); then they are merged."""
    draw = softmax_states.Draw(suite)
    chosen = [
        draw.tiles("two halves", (3,), [4, 4]),
        draw.tiles("parts of different length", (3,), [1, 9, 3]),
        draw.tiles("no batch dimension", (), [3, 2]),
        draw.tiles("two batch dimensions", (2, 3), [4, 2, 5]),
        draw.tiles("the first part has the larger scores", (4,), [4, 4], offsets=[8.0, 0.0]),
        draw.tiles("the second part has the larger scores", (4,), [4, 4], offsets=[0.0, 8.0]),
        draw.tiles("scores of the parts far apart", (4,), [3, 3, 3], offsets=[-150.0, 150.0, 0.0]),
        draw.tiles("an empty part first", (3,), [2, 4, 4], masked_tiles=[0]),
        draw.tiles("an empty part last", (3,), [4, 4, 2], masked_tiles=[2]),
        draw.tiles("two empty parts", (3,), [2, 2, 4], masked_tiles=[0, 1]),
        draw.tiles("nothing but empty parts", (2,), [2, 2, 2], masked_tiles=[0, 1, 2]),
        draw.tiles("eight parts", (2,), [2, 3, 1, 4, 2, 2, 5, 1], offsets=[0, 3, -2, 5, 1, -4, 2, 6]),
    ]
    if suite.hidden:
        chosen += [draw.random_tiles(f"random parts {i + 1}") for i in range(6)]
    return chosen


def run(answer: Answer, case: Case) -> Output:
    update, finalize = answer["online_softmax_update"], answer["finalize"]

    def merge(a: Any, b: Any) -> Any:
        with unchanged(a=a, b=b):
            merged = answer["merge_states"](a, b)
        return softmax_states.require_state(merged, a, "merge_states")

    def state_of(scores: torch.Tensor, values: torch.Tensor) -> Any:
        with unchanged(scores=scores, values=values):
            state = update(softmax_states.empty(case), scores, values)
        return softmax_states.require_state(state, start, "online_softmax_update")

    start = softmax_states.empty(case)
    parts = [state_of(*tile) for tile in softmax_states.copied_tiles(case)]
    orders = {
        "from the left": _from_the_left,
        "from the right": _from_the_right,
        "as a tree": _as_a_tree,
    }
    outputs = {name: finalize(order(merge, parts)) for name, order in orders.items()}
    outputs["with a state that has seen nothing"] = finalize(
        merge(start, _from_the_left(merge, [*parts, start]))
    )
    return outputs


def _from_the_left(merge: Merge, parts: list[Any]) -> Any:
    state = parts[0]
    for part in parts[1:]:
        state = merge(state, part)
    return state


def _from_the_right(merge: Merge, parts: list[Any]) -> Any:
    state = parts[-1]
    for part in reversed(parts[:-1]):
        state = merge(part, state)
    return state


def _as_a_tree(merge: Merge, parts: list[Any]) -> Any:
    while len(parts) > 1:
        merged = [merge(parts[i], parts[i + 1]) for i in range(0, len(parts) - 1, 2)]
        parts = merged + parts[len(parts) - len(parts) % 2 :]
    return parts[0]


def inspect(output: Output, case: Case) -> Problem | None:
    for order, value in output.items():
        problem = softmax_states.output_problem(value, case)
        if problem:
            return Problem(f"merged {order}, {problem.headline}", problem.detail)
    return None


def fallbacks(answer: Answer) -> list[Answer]:
    """A mistake in update or finalize has cost its points already: a right merge is judged on right states."""
    return [{**SOLUTION, "merge_states": answer["merge_states"]}]


CHECK = Check(
    name="merge_states",
    grade_id="q3-merge",
    parts=PARTS,
    cases=cases,
    run=run,
    inspect=inspect,
    solution=SOLUTION,
    misconceptions=online_softmax.merge.misconceptions,
    right_variants=online_softmax.RIGHT_VARIANTS,
    fallbacks=fallbacks,
    hints=(
        "Two states have summed terms exp(s - m_a) and exp(s - m_b). Before sums can be added they must be measured "
        "against the same maximum. Which one never overflows?",
        "With m = maximum(m_a, m_b), side a's sums get the factor exp(m_a - m) and side b's exp(m_b - m). It is "
        "online_softmax_update with a whole state in the place of a tile.",
        "l = l_a * exp(m_a - m) + l_b * exp(m_b - m), acc likewise. Where m is -inf (both sides have seen nothing), "
        "subtract 0 instead: the factors are then exp(-inf) = 0.",
    ),
)
