"""Cases are plain data: they travel, they say what is wrong with them, and cutting one request leaves the others alone."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course import differential
from course.differential import Case, Part
from tests.course.differential.random_cases import random_case


@given(st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_a_case_comes_back_from_plain_data(seed: int) -> None:
    case = random_case(seed)
    assert Case.from_plain(case.to_plain()) == case
    assert hash(Case.from_plain(case.to_plain())) == hash(case)
    for step in case.steps:
        owned = [block for part in step for block in part.blocks]
        assert len(owned) == len(set(owned))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_heads": 3}, "num_heads: expected a multiple of num_kv_heads=2"),
        ({"layout": "DNH"}, "layout: expected NHD or HND, got DNH"),
        ({"window": 0}, "window: expected a whole number from 1"),
        ({"k_scale": float("nan")}, "k_scale: expected a number"),
        ({"num_kv_heads": True}, "num_kv_heads: expected a whole number"),
        ({"unowned": ["nan"]}, "unowned: expected nan or zeros or large"),
        ({"steps": ()}, "steps: expected 1 to 4 steps"),
        ({"steps": ((Part(0, 1, 5, (3,)),),)}, "request 0: blocks: expected 2 for 5 tokens"),
        ({"steps": ((Part(0, 1, 9**9, (3,)),),)}, "seq_len: expected a whole number from 0 to 320"),
        ({"steps": ((Part(0, 3, 2, (3,)),),)}, "query_len: expected a whole number from 0 to 2"),
        ({"steps": ((Part(0, 1, 2, (3,)), Part(1, 1, 2, (3,))),)}, "expected every block with one request"),
        ({"steps": ((Part(0, 1, 2, (3,)), Part(0, 1, 2, (4,))),)}, "expected every request once"),
        ({"steps": ((Part(0, 1, 2, (-1,)),),)}, "blocks: expected a whole number from 0"),
    ],
)
def test_what_is_no_case_is_told_which_field_is_wrong(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(Case.of([4], num_heads=4, num_kv_heads=2), **change)


@pytest.mark.parametrize(
    "plain", [None, 3, {}, {1: 2}, {"steps": 1}, {"steps": [[[1]]]}, {"steps": [], "x": 1}]
)
def test_plain_data_that_is_no_case_is_refused(plain: object) -> None:
    with pytest.raises(ValueError, match="expected"):
        Case.from_plain(plain)


def test_then_keeps_blocks_or_moves_them() -> None:
    case = Case.of([9, 6]).then({1: 7}).then({0: 13, 1: 8}, moved=[0])
    first, second, third = case.steps
    assert [part.request for part in second] == [1]
    assert second[0].blocks == first[1].blocks == third[1].blocks
    assert not set(third[0].blocks) & {block for part in first for block in part.blocks}
    grown = Case.of([4]).then({0: 5})
    assert grown.steps[1][0].blocks[:1] == grown.steps[0][0].blocks


def test_cutting_one_request_leaves_the_others_numbers_as_they_were() -> None:
    both = Case.of([9, 20], num_heads=4, num_kv_heads=2)
    alone = replace(both, steps=((both.steps[0][1],),), num_heads=2, num_kv_heads=1)
    ones, two = differential.inputs(both, 0), differential.inputs(alone, 0)
    assert torch.equal(ones.query[1:, :2], two.query)
    blocks = two.block_table[0, :5].long(), ones.block_table[1, :5].long()
    assert torch.equal(two.key_cache[blocks[0]], ones.key_cache[blocks[1]][:, :, :1])
    shorter = differential.inputs(Case.of([9, 5], num_heads=4, num_kv_heads=2), 0)
    assert torch.equal(shorter.key_cache[shorter.block_table[1, 0]], ones.key_cache[ones.block_table[1, 0]])


def test_what_nobody_owns_holds_what_the_case_says() -> None:
    for unowned, found in (("nan", torch.isnan), ("zeros", lambda t: t == 0), ("large", lambda t: t == 100)):
        step = differential.inputs(Case.of([5], unowned=unowned), 0)
        tail = step.key_cache[step.block_table[0, 1]][1:]
        assert bool(found(tail).all())
        assert bool(found(step.value_cache[-1]).all())
        assert not bool(found(step.key_cache[step.block_table[0, 0]]).any())
