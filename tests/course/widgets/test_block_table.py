"""The block table's explorer without a browser: it does what the pool does, and explains a wrong slot by the mistake behind it."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from course import widgets
from course.widgets.block_table.model import Explorer
from course.widgets.block_table.picture import letters
from course.widgets.block_table.slots import Step, explain
from kernels.block_pool import BlockPool


def slots_by_hand(pool: BlockPool, block: int) -> dict[int, set[tuple[Any, int]]]:
    """Who has which position in each slot of a block, asked of the pool alone."""
    size = pool.block_size
    held: dict[int, set[tuple[Any, int]]] = {block * size + offset: set() for offset in range(size)}
    for request in pool.requests:
        for position, slot in enumerate(pool.slot_mapping(request)):
            if slot in held:
                held[slot].add((request, position))
    return held


def test_its_picture_is_the_pools_own() -> None:
    """Any operations in any order: what is drawn is what the pool says, and each step can be gone back to."""
    rng = random.Random(3)
    explorer = Explorer(BlockPool(12, 3))
    pool = explorer.pool
    done = [(0, explorer.describe())]
    worked = set()
    for _ in range(160):
        names, waiting = pool.requests, list(explorer.to_dict()["waiting"])
        name = rng.choice(names) if names else "nobody"
        operation = rng.choice(
            ["allocate", "append", "predict", "fork", "free", "preempt", "resume", "evict"]
        )
        arguments: dict[str, list[Any]] = {
            "allocate": [
                rng.randrange(9),
                rng.choice(["", *explorer.to_dict()["texts"]]),
                rng.choice([None, 4]),
            ],
            "append": [name, rng.randrange(1, 4)],
            "predict": [name, rng.randrange(1, 4), "1 2 3"],
            "resume": [rng.choice([*waiting, "nobody"])],
            "evict": [rng.choice([None, *range(12)])],
        }
        before = explorer.describe()
        try:
            getattr(explorer, operation)(*arguments.get(operation, [name]))
        except ValueError:
            assert explorer.describe() == before
            continue
        worked.add(operation)
        state = explorer.to_dict()
        done.append((state["step"], explorer.describe()))
        assert json.loads(json.dumps(state)) == state
        assert [row["blocks"] for row in state["requests"]] == [
            pool.block_table(each) for each in pool.requests
        ]
        assert state["free"] == pool.to_dict()["free"]
        assert {int(each) for each in state["cached"]} == {
            each["block"] for each in pool.to_dict()["blocks"] if each["cached"]
        }
        for block in range(12):
            drawn = {
                slot.slot: {(label, at) for label, at, _ in slot.holds} for slot in explorer.slots(block)
            }
            assert drawn == slots_by_hand(pool, block)
    assert worked == widgets.BlockTableExplorer.operations - {"go"}
    assert 30 < len(done) < 100  # so that all of them were kept
    for step, text in reversed(done):
        explorer.go(step)
        assert explorer.describe() == text


def test_a_fork_is_copied_when_it_writes() -> None:
    explorer = Explorer()
    explorer.fork("B")
    sentence = explorer.append("D", 1)
    assert explorer.to_dict()["copies"] == [[5, 0]]
    assert "Block 5 is shared, so it was copied to block 0 first." in sentence
    assert explorer.pool.ref_count(5) == 1


def test_a_prefix_is_shared_in_full_blocks_only() -> None:
    explorer = Explorer()
    assert "8 of them found in the cache: 2 shared blocks" in explorer.allocate(12, "A", 10)
    assert explorer.pool.block_table("D")[:2] == explorer.pool.block_table("A")[:2]
    assert explorer.pool.block_table("D")[2] != explorer.pool.block_table("A")[2]


def test_preempted_it_computes_again_what_was_evicted_meanwhile() -> None:
    explorer = Explorer(BlockPool(4, 2))
    explorer.allocate(6)
    explorer.preempt("A")
    assert explorer.to_dict()["waiting"] == {"A": 6}
    assert "A's tokens 4 to 5" in explorer.to_dict()["cached"].values()
    with pytest.raises(ValueError, match="got 3, which is free and holds nothing of use"):
        explorer.evict(3)
    assert "Block 2 was evicted" in explorer.evict()
    assert "4 of its 6 tokens were still cached, 2 are computed again" in explorer.resume("A")


def test_what_the_pool_refuses_is_said_with_a_way_out() -> None:
    explorer = Explorer(BlockPool(2, 2))
    explorer.allocate(4)
    with pytest.raises(
        ValueError, match="out of blocks: request 'A' needs 1 more.*Free or preempt a request"
    ):
        explorer.append("A", 1)
    with pytest.raises(ValueError, match="request: expected one that runs, .'A'., got 'B'"):
        explorer.append("B", 1)


def test_a_pool_that_somebody_else_uses_too_is_followed() -> None:
    pool = BlockPool(8, 4)
    pool.allocate(("any", "name"), 5)
    view = widgets.BlockTableExplorer(pool)
    pool.append(("any", "name"), 4)
    view.refresh()
    assert view.state["requests"][0]["blocks"] == [0, 1, 2]
    assert view.state["requests"][0]["name"] == "('any', 'name')"
    assert view.state["requests"][0]["label"] == "A"
    view.do("append", "('any', 'name')", 1)
    assert pool.seq_len(("any", "name")) == 10


# A request with blocks 5, 2, 6 of 4 tokens; positions 6 to 8 are new, their right slots 10, 11, 24.
STEP = Step([5, 2, 6], 6, 3, 4, 8, [5, 7, 6], {29: "B's position 1"})
MISTAKES = {
    "right": ([10, 11, 24], ""),
    "logical": ([6, 7, 8], "logical block was taken for the physical"),
    "index": ([8, 9, 26], "offset was counted from the first new token"),
    "from 0": ([20, 21, 22], "positions were counted from 0"),
    "contiguous": ([26, 27, 28], "taken to lie one after the other"),
    "early": ([9, 10, 11], "one position too early"),
    "late": ([11, 24, 25], "one position too late"),
    "block": ([2, 2, 6], "that is the physical block's number"),
    "start": ([8, 8, 24], "that is where the block begins"),
    "copied": ([30, 31, 24], "copy-on-write"),
    "stranger": ([29, 11, 24], "that slot holds B's position 1"),
    "offset": ([8 + 1, 11, 24], "one position too early"),
    "other block": (
        [14, 11, 24],
        "the offset is right, but block 3 is not the one: logical block 1 lies in physical block 2",
    ),
    "outside": ([32, 11, 24], "the cache ends at slot 31"),
    "negative": ([-1, 11, 24], "a negative slot means: do not write"),
    "too many": ([10, 11, 24, 25], "there are only 3 new tokens"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_wrong_slot_is_explained_by_its_mistake(name: str) -> None:
    entries, part = MISTAKES[name]
    reasons = explain(entries, STEP)
    wrong = [reason for reason in reasons if reason]
    right = STEP.right()
    assert [bool(reason) for reason in reasons] == [
        index >= 3 or entry != right[index] for index, entry in enumerate(entries)
    ]
    assert all(part in reason for reason in wrong)
    assert bool(wrong) == (name != "right")


def test_a_prediction_is_held_against_what_the_pool_did() -> None:
    explorer = Explorer()
    assert "1 of 2 right" in explorer.predict("C", 2, "29, 6")
    reveal = explorer.to_dict()["reveal"]
    assert [row["slot"] for row in reveal["rows"]] == explorer.pool.slot_mapping("C", 5) == [29, 30]
    assert [row["reason"][:28] for row in reveal["rows"]] == ["", "the logical block was taken "]
    explorer.go(0)
    explorer.fork("A")
    assert "0 of 1 right" in explorer.predict(
        "D", 1, [50]
    )  # in the shared block 12; the copy went to block 0
    assert "copy-on-write" in explorer.to_dict()["reveal"]["rows"][0]["reason"]
    explorer.predict("C", 1, "")
    assert "no entry" in explorer.to_dict()["reveal"]["rows"][0]["reason"]
    before = explorer.describe()
    with pytest.raises(ValueError, match="guess: expected whole numbers"):
        explorer.predict("C", 1, "block five")
    assert explorer.describe() == before


def test_the_page_asks_for_operations_and_nothing_else() -> None:
    view = widgets.BlockTableExplorer()
    view._handle_custom_msg({"operation": "append", "arguments": ["C", 1]}, [])
    assert view.state["requests"][2]["num_tokens"] == view.pool.seq_len("C") == 6
    assert "C got 1 token, written to slot 29" in view.summary
    for content, part in (
        ({"operation": "rows", "arguments": []}, "operation: expected one of"),
        ({"operation": "append", "arguments": ["C", 0]}, "num_tokens: expected a whole number of at least 1"),
        (
            {"operation": "allocate", "arguments": [3, "nobody"]},
            "like: expected a request whose tokens are known",
        ),
        ({"operation": "resume", "arguments": ["A"]}, "request: expected one that waits"),
    ):
        view._handle_custom_msg(content, [])
        assert part in view.fault
        assert view.pool.seq_len("C") == 6
    view._handle_custom_msg({"operation": "go", "arguments": [0]}, [])
    assert view.pool.seq_len("C") == 5


def test_it_shows_itself_as_text_and_table_too() -> None:
    data, _ = widgets.BlockTableExplorer()._repr_mimebundle_()
    assert "B: 11 tokens; logical→physical block: 0→9, 1→2, 2→5" in data["text/plain"]
    assert "<td style=text-align:left>0 → 9, 1 → 2, 2 → 5</td>" in data["text/html"]


def test_letters_never_run_out() -> None:
    assert [letters(index) for index in (0, 25, 26, 51, 52, 701, 702)] == [
        "A",
        "Z",
        "AA",
        "AZ",
        "BA",
        "ZZ",
        "AAA",
    ]
