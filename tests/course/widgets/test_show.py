"""`course.show`: right metadata passes, each breach is named where it is, and nothing is said of entries past a request's end."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import course
from autograder.misconceptions import build_metadata as answers
from kernels.block_pool import BlockPool

BATCH = ([[5, 2, 6], [7], [3, 1]], [8, 2, 0], [1, 1, 5], 4)


def int32(values: Any) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)


def kinds(**tensors: Any) -> dict[str, list[str]]:
    """Where, by the kind of breach."""
    view = course.show(**{"block_size": 4, "num_blocks": 8, **tensors})
    found: dict[str, list[str]] = {}
    for breach in view.model.breaches:
        found.setdefault(breach.name, []).append(breach.where)
    return found


# Of the wrong answers to question 2, those that this batch can show: the breach and a part of what is said.
WRONG = {
    "logical-block-as-physical": (
        "slot outside its request's blocks",
        "logical block was taken for the physical",
    ),
    "contiguous-blocks": ("slot outside its request's blocks", "taken to lie one after the other"),
    "offset-from-new-token-index": ("slot does not match the position", "counted from the first new token"),
    "position-without-computed-tokens": ("slot does not match the position", "positions were counted from 0"),
    "position-one-too-early": ("slot does not match the position", "one position too early"),
    "slots-of-the-whole-sequence": ("wrong values", "end at the 17 tokens of slot_mapping, got 7"),
    "seq-lens-without-new-tokens": (
        "wrong length",
        "seq_lens leaves out this step's tokens: expected 9, got 8",
    ),
    "seq-lens-in-whole-blocks": ("slot does not match the position", "got 24 (its position 8)"),
    "seq-lens-of-the-longest": ("duplicate block", "block 0 is B's logical block 1 already"),
    "padding-in-front": ("shared block is written", "block 0 belongs to B and C"),
    "sorted-block-table": ("slot does not match the position", "logical block 0 lies in physical block 1"),
    "query-start-loc-without-zero": ("wrong shape", "num_reqs + 1 = 4 entries"),
    "query-start-loc-without-total": ("wrong shape", "num_reqs + 1 = 4 entries"),
    "query-start-loc-of-seq-lens": ("wrong values", "got 17"),
    "query-lens-for-query-start-loc": ("wrong values", "got 5"),
    "slot-mapping-int32": ("wrong dtype", "expected int64, got int32"),
    "everything-int64": ("wrong dtype", "block_table: wrong dtype. expected int32, got int64"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_answer_is_named(name: str) -> None:
    [wrong] = [each for each in answers.MISCONCEPTIONS if each.name == name]
    kind, part = WRONG[name]
    view = course.show(**wrong.parts["build_metadata"](*BATCH), block_size=4, num_blocks=8)
    assert kind in [breach.name for breach in view.model.breaches]
    assert part.lower() in view.describe().lower()
    assert len(view.model.breaches) <= 5  # one for each mistake and request, not for each token


def test_every_wrong_answer_that_shows_in_one_step_is_among_them() -> None:
    assert {each.name for each in answers.MISCONCEPTIONS} - set(WRONG) == {"pads-the-callers-lists"}


@pytest.mark.parametrize("variant", answers.RIGHT_VARIANTS, ids=lambda variant: variant.name)
def test_right_answers_pass_whatever_their_padding(variant: Any) -> None:
    view = course.show(**variant.parts["build_metadata"](*BATCH), block_size=4, num_blocks=8)
    assert view.breaches == []
    assert [row["blocks"] for row in view.state["requests"]] == BATCH[0]


@given(st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_what_the_pool_makes_is_right(seed: int) -> None:
    """Shared prefixes, forks that were copied, requests without a new token: no false alarm."""
    rng = random.Random(seed)
    pool = BlockPool(40, rng.choice([1, 3, 4]))
    prompt = [rng.randrange(2) for _ in range(12)]
    for request in range(rng.randint(1, 4)):
        tokens = prompt[: rng.randint(0, 12)] + [10 + request] * rng.randint(0, 3)
        pool.allocate(request, token_ids=tokens)
    slots, starts, rows = [], [0], []
    for request in pool.requests:
        first, new = pool.seq_len(request), rng.randint(0, 5)
        pool.append(request, token_ids=[100 + request] * new)
        slots += pool.slot_mapping(request, first)
        starts.append(len(slots))
    width = max(len(pool.block_table(request)) for request in pool.requests) + 1
    for request in pool.requests:
        table = pool.block_table(request)
        rows.append(table + [rng.choice([-1, 0, 2**31 - 1]) for _ in range(width - len(table))])
    view = course.show(
        int32(rows),
        torch.tensor(slots, dtype=torch.int64),
        int32([pool.seq_len(request) for request in pool.requests]),
        int32(starts),
        block_size=pool.block_size,
        num_blocks=40,
    )
    assert view.breaches == []


def test_blocks_are_judged_before_the_end_only() -> None:
    table = int32([[0, -1], [9, 2], [4, -7]])
    found = kinds(block_table=table, slot_mapping=None, seq_lens=int32([8, 7, 4]))
    assert found == {"negative block": ["block_table[0, 1]"], "block out of range": ["block_table[1, 0]"]}
    view = course.show(table, None, int32([4, 0, 4]), block_size=4, num_blocks=8)
    assert view.breaches == []
    assert [row["past"] for row in view.state["requests"]] == [[-1], [9, 2], [-7]]


def test_sharing_is_for_full_blocks_at_the_same_place_that_nobody_writes() -> None:
    table, none = int32([[0, 1], [0, 1]]), torch.tensor([], dtype=torch.int64)
    idle = {"slot_mapping": none, "query_start_loc": int32([0, 0, 0])}
    assert kinds(block_table=table, seq_lens=int32([8, 8]), **idle) == {}
    partial = kinds(block_table=table, seq_lens=int32([6, 8]), **idle)
    assert partial == {"shared block is not full": ["block_table[0, 1], block_table[1, 1]"]}
    written = kinds(block_table=table, seq_lens=int32([7, 8]), slot_mapping=torch.tensor([6, 7]))
    assert list(written) == ["shared block is written"]
    elsewhere = kinds(block_table=int32([[0, 1], [1, 2]]), seq_lens=int32([8, 8]), **idle)
    assert list(elsewhere) == ["shared at different places"]
    twice = kinds(block_table=int32([[3, 3]]), seq_lens=int32([8]), slot_mapping=None)
    assert twice == {"duplicate block": ["block_table[0, 1]"]}


def test_slots_are_held_against_the_cache_and_each_other() -> None:
    table, lens, starts = int32([[0, 1], [2, 3]]), int32([6, 5]), int32([0, 2, 3])
    given = {"block_table": table, "seq_lens": lens, "query_start_loc": starts}
    assert kinds(**given, slot_mapping=torch.tensor([4, 5, 12])) == {}
    assert kinds(**given, slot_mapping=torch.tensor([4, -1, 12])) == {}  # -1: not written
    assert kinds(**given, slot_mapping=torch.tensor([4, -2, 32])) == {
        "slot out of range": ["slot_mapping[1]", "slot_mapping[2]"]
    }
    twice = kinds(**given, slot_mapping=torch.tensor([4, 4, 12]))
    assert twice["slot written twice"] == ["slot_mapping[1]"]


def test_what_is_no_tensor_or_has_another_shape_is_drawn_as_far_as_it_goes() -> None:
    view = course.show([[0, 1]], [4], [5], block_size=4, num_blocks=4)  # type: ignore[arg-type]
    assert [breach.name for breach in view.model.breaches] == ["not a tensor"] * 3
    assert view.state["requests"][0]["blocks"] == [0, 1]
    flat = course.show(int32([0, 1]), torch.tensor([4]), int32([5]), block_size=4, num_blocks=4)
    assert [breach.where for breach in flat.model.breaches] == ["block_table"]
    assert flat.state["requests"][0]["blocks"] == [0, 1]
    short = kinds(block_table=int32([[0], [1]]), slot_mapping=None, seq_lens=int32([9]))
    assert short == {"wrong shape": ["seq_lens"], "wrong length": ["seq_lens[0]"]}
    unknown = kinds(block_table=int32([[0, 1]]), seq_lens=int32([6]), slot_mapping=torch.tensor([4, 5]))
    assert unknown == {"missing": ["query_start_loc"]}
    with pytest.raises(ValueError, match="block_size: expected a whole number of at least 1, got 0"):
        course.show(int32([[0]]), None, int32([1]), block_size=0)


def test_lengths_may_be_left_out_and_the_picture_is_plain_data() -> None:
    view = course.show(int32([[1, 2]]), block_size=4)
    assert view.breaches == []
    assert view.state["requests"][0]["num_tokens"] == 8
    assert view.state["num_blocks"] == 3
    assert json.loads(json.dumps(view.state)) == json.loads(json.dumps(view.model.to_dict()))
    data, _ = view._repr_mimebundle_()
    assert "No breach of the contract" in data["text/html"]
