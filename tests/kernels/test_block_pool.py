"""The block pool: by example, by its refusals, and by a machine that does everything in any order."""

import copy
import json

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kernels.block_pool import BlockPool, OutOfBlocksError


def test_blocks_are_handed_out_as_a_request_grows():
    pool = BlockPool(num_blocks=4, block_size=4)
    pool.allocate("a", 3)
    assert pool.block_table("a") == [0]
    assert pool.append("a", 1) == []
    assert pool.block_table("a") == [0]
    pool.append("a", 1)
    assert pool.block_table("a") == [0, 1]
    assert pool.seq_len("a") == 5
    assert pool.num_free == 2


def test_slot_mapping_is_block_times_size_plus_offset():
    pool = BlockPool(num_blocks=5, block_size=4)
    pool.allocate("first", 1)
    pool.allocate("a", 6)
    pool.free("first")
    pool.append("a", 3)
    assert pool.block_table("a") == [1, 2, 0]
    assert pool.slot_mapping("a") == [4, 5, 6, 7, 8, 9, 10, 11, 0]
    assert pool.slot_mapping("a", 6, 9) == [10, 11, 0]
    assert pool.slot_mapping("a", 4, 4) == []


def test_a_request_may_be_empty():
    pool = BlockPool(2, 4)
    pool.allocate("a", 0)
    assert pool.block_table("a") == []
    assert pool.num_free == 2
    pool.append("a", 1)
    assert pool.block_table("a") == [0]


def test_full_blocks_after_the_same_prefix_are_shared():
    pool = BlockPool(8, 4)
    assert pool.allocate("a", token_ids=[1, 2, 3, 4, 5, 6, 7, 8, 9]) == 0
    assert pool.allocate("b", token_ids=[1, 2, 3, 4, 5, 6, 7, 8, 7, 7]) == 8
    assert pool.block_table("b")[:2] == pool.block_table("a")[:2]
    assert pool.block_table("b")[2] != pool.block_table("a")[2]
    assert pool.ref_count(pool.block_table("a")[0]) == 2
    # The same four tokens after another prefix are another block.
    assert pool.allocate("c", token_ids=[5, 6, 7, 8, 9]) == 0


def test_the_last_token_is_never_taken_from_the_cache():
    """Of 8 cached tokens a request of just these 8 may use 4: the model must run on at least one token."""
    pool = BlockPool(8, 4)
    pool.allocate("a", token_ids=range(8))
    assert pool.allocate("b", token_ids=range(8)) == 4
    assert pool.allocate("c", token_ids=range(9)) == 8


def test_blocks_that_fill_up_later_are_cached_too():
    pool = BlockPool(8, 4)
    pool.allocate("a", token_ids=[1, 2, 3])
    pool.append("a", token_ids=[4])
    assert pool.allocate("b", token_ids=[1, 2, 3, 4, 5]) == 4


def test_freed_blocks_stay_cached_until_the_room_is_needed():
    pool = BlockPool(3, 2)
    pool.allocate("a", token_ids=[1, 2, 3, 4])
    pool.free("a")
    assert pool.num_free == 3
    assert pool.allocate("again", token_ids=[1, 2, 3, 4, 5]) == 4
    pool.free("again")
    pool.allocate("everything", 6)
    pool.free("everything")
    assert pool.allocate("too late", token_ids=[1, 2, 3, 4, 5]) == 0


def test_cached_blocks_that_a_request_takes_are_no_room_for_its_new_ones():
    pool = BlockPool(3, 2)
    pool.allocate("a", token_ids=[1, 2, 3, 4])
    pool.allocate("other", 1)
    pool.free("a")
    before = state_of(pool)
    with pytest.raises(OutOfBlocksError, match="'b' needs 1 more, and 0 of 3 are free for it"):
        pool.allocate("b", token_ids=[1, 2, 3, 4, 5])
    assert state_of(pool) == before


def test_eviction_takes_the_end_of_a_prefix_first():
    pool = BlockPool(3, 2)
    pool.allocate("a", token_ids=[1, 2, 3, 4, 5])
    pool.free("a")
    pool.allocate("b", 3)  # two blocks: the uncached one, then one of the two cached
    pool.free("b")
    assert pool.allocate("c", token_ids=[1, 2, 3, 4, 5]) == 2


def test_a_cached_block_says_what_it_holds_until_it_is_evicted():
    pool = BlockPool(4, 2)
    pool.allocate("a", token_ids=[1, 2, 3, 4, 5])
    assert pool.token_ids("a") == [1, 2, 3, 4, 5]
    assert [pool.cached_tokens(block) for block in range(4)] == [(0, [1, 2]), (2, [3, 4]), None, None]
    pool.free("a")
    # The end of a prefix goes before its beginning.
    assert pool.evict() == 1
    assert pool.cached_tokens(1) is None
    assert pool.to_dict()["free"][0] == 1
    assert pool.allocate("again", token_ids=[1, 2, 3, 4, 5]) == 2
    pool.free("again")
    assert pool.evict(0) == 0
    assert pool.allocate("c", token_ids=[1, 2, 3]) == 0


def test_a_snapshot_brings_everything_back():
    pool = BlockPool(4, 2)
    pool.allocate("a", token_ids=[1, 2, 3])
    kept, before = pool.snapshot(), state_of(pool)
    for _ in range(2):  # a snapshot serves more than once
        pool.append("a", token_ids=[4, 5])
        pool.free("a")
        pool.allocate("b", 5)
        assert state_of(pool) != before
        pool.restore(kept)
        assert state_of(pool) == before


def test_requests_without_token_ids_share_nothing():
    pool = BlockPool(4, 2)
    pool.allocate("a", 2)
    assert pool.allocate("b", 2) == 0
    assert pool.block_table("a") != pool.block_table("b")


def test_fork_shares_and_append_copies():
    pool = BlockPool(4, 4)
    pool.allocate("parent", 6)
    pool.fork("parent", "child")
    assert pool.block_table("child") == pool.block_table("parent") == [0, 1]
    assert pool.num_free == 2
    assert pool.append("child", 1) == [(1, 2)]
    assert pool.block_table("child") == [0, 2]
    assert pool.append("parent", 1) == []  # it owns block 1 alone by now
    assert pool.block_table("parent") == [0, 1]


def test_fork_at_a_block_boundary_needs_no_copy():
    pool = BlockPool(4, 4)
    pool.allocate("parent", 4)
    pool.fork("parent", "child")
    assert pool.append("child", 1) == []
    assert pool.block_table("child") == [0, 1]


def test_copy_on_write_needs_a_free_block():
    pool = BlockPool(1, 4)
    pool.allocate("parent", 2)
    pool.fork("parent", "child")
    with pytest.raises(OutOfBlocksError, match="'child' needs 1 more, and 0 of 1 are free"):
        pool.append("child", 1)
    assert pool.append("child", 0) == []


def test_long_prompts_are_named_in_linear_time():
    """A digest of digests: a name per block, not a chain that Python has to walk."""
    pool = BlockPool(20_001, 1)
    pool.allocate("a", token_ids=range(20_000))
    pool.free("a")
    assert pool.allocate("b", token_ids=range(20_001)) == 20_000


def test_to_dict_is_plain_data():
    pool = BlockPool(3, 2)
    pool.allocate("a", token_ids=[1, 2, 3])
    pool.fork("a", "b")
    state = json.loads(json.dumps(pool.to_dict()))
    assert state["num_free"] == 1
    assert state["free"] == [2]
    assert state["blocks"][0] == {"block": 0, "ref_count": 2, "owners": ["a", "b"], "cached": True}
    assert state["blocks"][1]["cached"] is False
    assert state["requests"][1] == {"request": "b", "num_tokens": 3, "num_cached_tokens": 3, "blocks": [0, 1]}


def test_describe_is_for_a_person():
    pool = BlockPool(4, 2)
    pool.allocate("a", 3)
    pool.fork("a", "b")
    pool.append("b", 1)
    assert pool.describe().splitlines() == [
        "4 blocks of 2 tokens: 3 used, 1 free (0 of them cached)",
        "request 'a': 3 tokens in blocks [0 (shared by 2), 1]",
        "request 'b': 4 tokens in blocks [0 (shared by 2), 2]",
    ]


REFUSED = {
    "double free": (
        lambda pool: (pool.free("a"), pool.free("a")),
        "request: expected a request of this pool, got 'a'",
    ),
    "foreign request": (
        lambda pool: pool.block_table("who"),
        "request: expected a request of this pool, got 'who'",
    ),
    "free a foreign request": (lambda pool: pool.free("who"), "request: expected a request of this pool"),
    "fork of a foreign request": (
        lambda pool: pool.fork("who", "new"),
        "parent: expected a request of this pool",
    ),
    "fork onto a request": (lambda pool: pool.fork("a", "a"), "child: expected a new request, got 'a'"),
    "duplicate request": (lambda pool: pool.allocate("a", 1), "request: expected a new request, got 'a'"),
    "request with no hash": (
        lambda pool: pool.allocate([], 1),
        "request: expected a name that can be a dict's key",
    ),
    "look up with no hash": (lambda pool: pool.seq_len([]), "request: expected a request of this pool"),
    "negative size": (
        lambda pool: pool.allocate("b", -1),
        "num_tokens: expected a whole number of at least 0, got -1",
    ),
    "size as a float": (lambda pool: pool.allocate("b", 1.0), "num_tokens: expected a whole number"),
    "size as a bool": (lambda pool: pool.append("a", True), "num_tokens: expected a whole number"),
    "negative append": (
        lambda pool: pool.append("a", -2),
        "num_tokens: expected a whole number of at least 0",
    ),
    "neither size nor ids": (lambda pool: pool.allocate("b"), "num_tokens, token_ids: expected exactly one"),
    "size and ids": (
        lambda pool: pool.append("a", 1, token_ids=[1]),
        "num_tokens, token_ids: expected exactly one",
    ),
    "ids for one without": (
        lambda pool: pool.append("a", token_ids=[1]),
        "token_ids: request 'a' was allocated without",
    ),
    "size for one with ids": (
        lambda pool: (pool.allocate("t", token_ids=[1]), pool.append("t", 1)),
        "num_tokens: request 't' was allocated with token ids",
    ),
    "ids that are no numbers": (
        lambda pool: pool.allocate("b", token_ids=[1, "x"]),
        "token_ids[1]: expected a whole number, got 'x'",
    ),
    "ids that are no list": (lambda pool: pool.allocate("b", token_ids=5), "token_ids: expected a list"),
    "too many tokens": (
        lambda pool: pool.allocate("b", 17),
        "out of blocks: request 'b' needs 5 more, and 2 of 4 are free",
    ),
    "too many appended": (lambda pool: pool.append("a", 99), "out of blocks: request 'a' needs"),
    "evict a used block": (
        lambda pool: pool.evict(0),
        "block: expected a free cached block, got 0, which is used",
    ),
    "evict where nothing is cached": (
        lambda pool: pool.evict(),
        "block: expected a free cached block to be there",
    ),
    "evict an uncached block": (lambda pool: pool.evict(3), "got 3, which is free and holds nothing of use"),
    "evict a foreign block": (lambda pool: pool.evict(4), "block: expected a block id from 0 to 3, got 4"),
    "foreign block": (lambda pool: pool.ref_count(4), "block: expected a block id from 0 to 3, got 4"),
    "negative block": (lambda pool: pool.ref_count(-1), "block: expected a block id"),
    "slots past the end": (
        lambda pool: pool.slot_mapping("a", 0, 7),
        "start, stop: expected 0 <= start <= stop <= 6",
    ),
    "slots backwards": (lambda pool: pool.slot_mapping("a", 3, 2), "start, stop: expected 0 <= start"),
    "pool of no blocks": (
        lambda pool: BlockPool(0, 4),
        "num_blocks: expected a whole number of at least 1, got 0",
    ),
    "blocks of no tokens": (
        lambda pool: BlockPool(4, 0),
        "block_size: expected a whole number of at least 1",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_the_argument(name):
    act, message = REFUSED[name]
    pool = BlockPool(num_blocks=4, block_size=4)
    pool.allocate("a", 6)
    with pytest.raises(ValueError) as caught:
        act(pool)
    assert message in str(caught.value)


def state_of(pool):
    """Everything that the pool knows, its cache and the order of its free blocks included."""
    return copy.deepcopy({**vars(pool), "_free": list(pool._free), "_requests": list(pool._requests.items())})


class PoolMachine(RuleBasedStateMachine):
    """A model that knows each request's tokens as (who wrote it, which one), and each slot's contents."""

    def __init__(self):
        super().__init__()
        self.pool = BlockPool(num_blocks=7, block_size=3)
        self.tokens = {}  # request -> list of what must stand in its slots
        self.slots = {}  # slot -> what stands in it
        self.names = 0

    def attempt(self, action):
        """Run an operation; a refused one must have changed nothing."""
        before = state_of(self.pool)
        try:
            return action()
        except ValueError:
            assert state_of(self.pool) == before
            return None

    def write(self, request, start):
        """What a caller does after admitting tokens: fill the new slots, which nobody else may own."""
        for position, slot in enumerate(self.pool.slot_mapping(request, start), start):
            assert (
                self.pool.ref_count(slot // 3) == 1 or self.slots.get(slot) == self.tokens[request][position]
            )
            self.slots[slot] = self.tokens[request][position]

    def new_name(self):
        self.names += 1
        return f"r{self.names}"

    @rule(num_tokens=st.integers(-1, 12))
    def allocate_by_size(self, num_tokens):
        request = self.new_name()
        if self.attempt(lambda: self.pool.allocate(request, num_tokens)) is not None:
            self.tokens[request] = [(request, i) for i in range(num_tokens)]
            self.write(request, 0)

    @rule(token_ids=st.lists(st.integers(0, 1), max_size=12))
    def allocate_by_ids(self, token_ids):
        request = self.new_name()
        cached = self.attempt(lambda: self.pool.allocate(request, token_ids=token_ids))
        if cached is not None:
            assert cached % 3 == 0
            assert cached < max(1, len(token_ids))
            # Keys depend on all tokens before: what stands in a slot is the whole prefix.
            self.tokens[request] = [tuple(token_ids[: i + 1]) for i in range(len(token_ids))]
            self.write(request, cached)

    @precondition(lambda self: self.tokens)
    @rule(data=st.data(), num_tokens=st.integers(-1, 5), token_ids=st.lists(st.integers(0, 1), max_size=5))
    def append(self, data, num_tokens, token_ids):
        request = data.draw(st.sampled_from(sorted(self.tokens)))
        old = self.tokens[request]
        knows_ids = self.pool._requests[request].token_ids is not None
        if knows_ids:
            copies = self.attempt(lambda: self.pool.append(request, token_ids=token_ids))
            known = list(self.pool._requests[request].token_ids)
            new = [tuple(known[: i + 1]) for i in range(len(known))]
        else:
            copies = self.attempt(lambda: self.pool.append(request, num_tokens))
            new = old + [(request, len(old) + i) for i in range(max(0, num_tokens))]
        if copies is not None:
            for source, destination in copies:
                for offset in range(3):
                    self.slots[destination * 3 + offset] = self.slots.get(source * 3 + offset)
            self.tokens[request] = new
            self.write(request, len(old))

    @precondition(lambda self: self.tokens)
    @rule(data=st.data())
    def fork(self, data):
        parent = data.draw(st.sampled_from(sorted(self.tokens)))
        child = self.new_name()
        self.pool.fork(parent, child)
        self.tokens[child] = list(self.tokens[parent])

    @precondition(lambda self: self.tokens)
    @rule(data=st.data())
    def free(self, data):
        request = data.draw(st.sampled_from(sorted(self.tokens)))
        self.pool.free(request)
        del self.tokens[request]
        self.attempt(lambda: self.pool.free(request))
        assert request not in self.pool.requests

    @rule(block=st.none() | st.integers(0, 6))
    def evict(self, block):
        evicted = self.attempt(lambda: self.pool.evict(block))
        if evicted is not None:
            assert block in (None, evicted)
            assert self.pool.cached_tokens(evicted) is None
            assert self.pool.to_dict()["free"][0] == evicted

    @rule()
    def refuse_what_exists_or_does_not(self):
        for request in self.tokens:
            assert self.attempt(lambda request=request: self.pool.allocate(request, 1)) is None
        assert self.attempt(lambda: self.pool.append("nobody", 1)) is None

    @invariant()
    def references_equal_owners(self):
        for block in range(7):
            owners = [r for r in self.tokens if block in self.pool.block_table(r)]
            assert self.pool.ref_count(block) == len(owners)

    @invariant()
    def free_and_used_make_all(self):
        used = {block for request in self.tokens for block in self.pool.block_table(request)}
        assert self.pool.num_free + len(used) == 7
        assert used.isdisjoint(self.pool.to_dict()["free"])

    @invariant()
    def every_request_finds_its_own_tokens(self):
        for request, tokens in self.tokens.items():
            assert self.pool.seq_len(request) == len(tokens)
            assert len(self.pool.block_table(request)) == -(-len(tokens) // 3)
            assert [self.slots[slot] for slot in self.pool.slot_mapping(request)] == tokens

    @invariant()
    def cached_names_and_blocks_pair_up(self):
        pool = self.pool
        assert {block: prefix for prefix, block in pool._block_of_prefix.items()} == pool._prefix_of_block
        for block in range(7):
            if held := pool.cached_tokens(block):
                first, tokens = held
                for offset, token in enumerate(tokens):  # a slot's contents are a token and all before it
                    assert self.slots[block * 3 + offset][first + offset :] == (token,)
            assert (held is None) == (block not in pool._prefix_of_block)


PoolMachine.TestCase.settings = settings(
    max_examples=100, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestPoolMachine = PoolMachine.TestCase
