"""A pool of cache blocks: which request owns which block. Plain Python, no tensors.

In small, what vLLM's KV cache manager does (vllm/v1/core/kv_cache_manager.py and block_pool.py): blocks are
handed out as a request grows, full blocks whose whole prefix is the same are shared, and a freed block keeps its
contents until somebody needs the room. Three things are simpler or our own: no block is reserved (vLLM's block 0
is nobody's), free blocks that hold nothing of use are handed out before cached ones (vLLM keeps one queue), and a
request can be forked, with copy-on-write. The pool moves no data: `append` tells which blocks to copy.
"""

import copy
import hashlib
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["BlockPool", "OutOfBlocksError"]

RequestId = Hashable
# What names a full block's contents: a digest of its tokens and of all tokens before them.
Prefix = bytes


class OutOfBlocksError(ValueError):
    """The pool has too few free blocks for what was asked. Nothing was changed."""


@dataclass
class _Request:
    blocks: list[int] = field(default_factory=list)
    num_tokens: int = 0
    # The tokens' ids, or None for a request that was not told them: its blocks are never shared by prefix.
    token_ids: list[int] | None = None
    # One for each full block, when token_ids are known.
    prefixes: list[Prefix] = field(default_factory=list)
    num_cached_tokens: int = 0


class BlockPool:
    """`num_blocks` blocks of `block_size` tokens each, and the requests that own them.

    A block is used (at least one request owns it) or free. A free block may still be cached: its contents are
    kept under their prefix and can be had again until the block is evicted. Blocks that are not cached are
    handed out first, then the cached one that was freed first.
    Every operation either succeeds or raises ValueError and changes nothing.
    """

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.num_blocks = _positive("num_blocks", num_blocks)
        self.block_size = _positive("block_size", block_size)
        self._ref_counts = [0] * num_blocks
        # Free blocks in the order in which they are handed out; a dict, so that one can leave the middle.
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(num_blocks))
        self._requests: dict[RequestId, _Request] = {}
        self._block_of_prefix: dict[Prefix, int] = {}
        self._prefix_of_block: dict[int, Prefix] = {}
        # Of each block with a prefix: the position of its first token, and its tokens' ids.
        self._tokens_of_block: dict[int, tuple[int, list[int]]] = {}

    # Changing the pool

    def allocate(
        self, request: RequestId, num_tokens: int | None = None, *, token_ids: Sequence[int] | None = None
    ) -> int:
        """Admit a request with its first tokens, given as a number or as token ids. Returns the cached tokens.

        With token ids, full blocks that hold the same tokens after the same prefix are shared instead of being
        filled again; the number of tokens that they hold is returned. At least the last token is never taken
        from the cache, because the model has to run on something to give the next one.
        Raises OutOfBlocksError when the free blocks are too few, ValueError for a request that is there
        already or a bad size.
        """
        self._check_new("request", request)
        if (num_tokens is None) == (token_ids is None):
            raise ValueError("num_tokens, token_ids: expected exactly one of the two")
        tokens = None if token_ids is None else _token_ids(token_ids)
        length = _not_negative("num_tokens", num_tokens) if tokens is None else len(tokens)

        prefixes = [] if tokens is None else self._extend_prefixes([], tokens)
        hits = self._find_cached(prefixes, length)
        num_new = self._blocks_for(length) - len(hits)
        num_free_hits = sum(self._ref_counts[block] == 0 for block in hits)
        self._check_room(num_new, self.num_free - num_free_hits, f"request {request!r}")

        for block in hits:
            self._take(block)
        blocks = hits + [self._take_free() for _ in range(num_new)]
        state = _Request(blocks, length, tokens, prefixes, len(hits) * self.block_size)
        self._requests[request] = state
        self._cache_full_blocks(state)
        return state.num_cached_tokens

    def append(
        self, request: RequestId, num_tokens: int | None = None, *, token_ids: Sequence[int] | None = None
    ) -> list[tuple[int, int]]:
        """Make room for more tokens, given as a number or as token ids (as the request was allocated).

        Returns the copies (source block, destination block) that the caller must make before it writes the new
        tokens: when the last block is partly filled and shared, the request gets a block of its own.
        """
        state = self._find("request", request)
        if (num_tokens is None) == (token_ids is None):
            raise ValueError("num_tokens, token_ids: expected exactly one of the two")
        tokens = None if token_ids is None else _token_ids(token_ids)
        if tokens is not None and state.token_ids is None:
            raise ValueError(
                f"token_ids: request {request!r} was allocated without token ids; expected num_tokens"
            )
        if tokens is None and state.token_ids is not None:
            raise ValueError(
                f"num_tokens: request {request!r} was allocated with token ids; expected token_ids"
            )
        added = _not_negative("num_tokens", num_tokens) if tokens is None else len(tokens)

        num_new = self._blocks_for(state.num_tokens + added) - len(state.blocks)
        writes_last = added > 0 and state.num_tokens % self.block_size != 0
        copies_last = writes_last and self._ref_counts[state.blocks[-1]] > 1
        self._check_room(num_new + copies_last, self.num_free, f"request {request!r}")

        copies = []
        if copies_last:
            source = state.blocks[-1]
            destination = self._take_free()
            self._ref_counts[source] -= 1
            state.blocks[-1] = destination
            copies.append((source, destination))
        state.blocks += [self._take_free() for _ in range(num_new)]
        state.num_tokens += added
        if state.token_ids is not None and tokens is not None:
            state.token_ids += tokens
            # A decoding request fills a block in one step of block_size: in the others there is nothing to name.
            if state.num_tokens // self.block_size > len(state.prefixes):
                state.prefixes = self._extend_prefixes(state.prefixes, state.token_ids)
                self._cache_full_blocks(state)
        return copies

    def fork(self, parent: RequestId, child: RequestId) -> None:
        """Admit `child` with all of `parent`'s tokens. It shares every block until one of them appends."""
        state = self._find("parent", parent)
        self._check_new("child", child)
        for block in state.blocks:
            self._ref_counts[block] += 1
        token_ids = None if state.token_ids is None else list(state.token_ids)
        self._requests[child] = _Request(
            list(state.blocks), state.num_tokens, token_ids, list(state.prefixes), state.num_tokens
        )

    def free(self, request: RequestId) -> None:
        """Give all blocks of a request back. A block that others share stays used; a full one stays cached."""
        state = self._find("request", request)
        del self._requests[request]
        # Last block first: when room is needed, the end of a prefix is evicted before its beginning.
        for block in reversed(state.blocks):
            self._ref_counts[block] -= 1
            if self._ref_counts[block] == 0:
                self._free[block] = None
                if block not in self._prefix_of_block:
                    self._free.move_to_end(block, last=False)

    def evict(self, block: int | None = None) -> int:
        """Forget what a free cached block holds; without a block, the one that would be evicted next. Returns the block.

        It is handed out first from now on. Raises ValueError for a block that is used or not cached, and where no
        free block is cached.
        """
        if block is None:
            block = next((each for each in self._free if each in self._prefix_of_block), None)
            if block is None:
                raise ValueError("block: expected a free cached block to be there, got a pool without any")
        elif self.ref_count(block) > 0 or block not in self._prefix_of_block:
            state = "used" if self._ref_counts[block] else "free and holds nothing of use"
            raise ValueError(f"block: expected a free cached block, got {block}, which is {state}")
        self._forget(block)
        self._free.move_to_end(block, last=False)
        return block

    def snapshot(self) -> dict[str, Any]:
        """The pool as it is now, for `restore`. What happens to the pool later does not change it."""
        return _kept(vars(self))

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Bring back the pool that `snapshot` kept."""
        vars(self).update(_kept(snapshot))

    # Looking at the pool

    @property
    def num_free(self) -> int:
        """Blocks that no request owns, cached ones included."""
        return len(self._free)

    @property
    def requests(self) -> list[RequestId]:
        """The requests in the order in which they came."""
        return list(self._requests)

    def block_table(self, request: RequestId) -> list[int]:
        """The request's blocks in logical order: token i lies in entry i // block_size."""
        return list(self._find("request", request).blocks)

    def seq_len(self, request: RequestId) -> int:
        """Tokens that the request has room for so far."""
        return self._find("request", request).num_tokens

    def token_ids(self, request: RequestId) -> list[int] | None:
        """The request's tokens, or None where the pool was told only how many there are."""
        tokens = self._find("request", request).token_ids
        return None if tokens is None else list(tokens)

    def num_cached_tokens(self, request: RequestId) -> int:
        """Tokens that were in the cache when the request came: by a shared prefix, or by a fork."""
        return self._find("request", request).num_cached_tokens

    def count_cached(self, token_ids: Sequence[int]) -> int:
        """How many of these tokens a request that came with them would find in the cache; the last is never taken."""
        tokens = _token_ids(token_ids)
        before, found = b"", 0
        for start in range(0, len(tokens) - self.block_size, self.block_size):
            before = self._prefix(before, tokens[start : start + self.block_size])
            if before not in self._block_of_prefix:
                break
            found += self.block_size
        return found

    def slot_mapping(self, request: RequestId, start: int = 0, stop: int | None = None) -> list[int]:
        """The slots block * block_size + offset of the tokens at positions start to stop, stop excluded."""
        state = self._find("request", request)
        stop = state.num_tokens if stop is None else stop
        if not (_is_int(start) and _is_int(stop) and 0 <= start <= stop <= state.num_tokens):
            raise ValueError(
                f"start, stop: expected 0 <= start <= stop <= {state.num_tokens} (the tokens of request "
                f"{request!r}), got {start!r} and {stop!r}"
            )
        size = self.block_size
        return [state.blocks[position // size] * size + position % size for position in range(start, stop)]

    def ref_count(self, block: int) -> int:
        """How many requests own the block."""
        if not _is_int(block) or not 0 <= block < self.num_blocks:
            raise ValueError(f"block: expected a block id from 0 to {self.num_blocks - 1}, got {block!r}")
        return self._ref_counts[block]

    def cached_tokens(self, block: int) -> tuple[int, list[int]] | None:
        """What a cached block holds: the position of its first token, and its tokens' ids. None for other blocks."""
        self.ref_count(block)
        held = self._tokens_of_block.get(block)
        return None if held is None else (held[0], list(held[1]))

    def to_dict(self) -> dict[str, Any]:
        """The whole state as lists, dicts and numbers, for a picture or a check."""
        owners: list[list[RequestId]] = [[] for _ in range(self.num_blocks)]
        for request, state in self._requests.items():
            for block in state.blocks:
                owners[block].append(request)
        return {
            "num_blocks": self.num_blocks,
            "block_size": self.block_size,
            "num_free": self.num_free,
            "free": list(self._free),
            "blocks": [
                {
                    "block": block,
                    "ref_count": count,
                    "owners": owners[block],
                    "cached": block in self._prefix_of_block,
                }
                for block, count in enumerate(self._ref_counts)
            ],
            "requests": [
                {
                    "request": request,
                    "num_tokens": state.num_tokens,
                    "num_cached_tokens": state.num_cached_tokens,
                    "blocks": list(state.blocks),
                }
                for request, state in self._requests.items()
            ],
        }

    def describe(self) -> str:
        """The state for a person: one line for the pool and one for each request."""
        used = self.num_blocks - self.num_free
        cached = sum(block in self._prefix_of_block for block in self._free)
        lines = [
            f"{self.num_blocks} blocks of {self.block_size} tokens: {used} used, {self.num_free} free "
            f"({cached} of them cached)"
        ]
        for request, state in self._requests.items():
            blocks = ", ".join(
                f"{block} (shared by {self._ref_counts[block]})"
                if self._ref_counts[block] > 1
                else str(block)
                for block in state.blocks
            )
            lines.append(f"request {request!r}: {state.num_tokens} tokens in blocks [{blocks}]")
        return "\n".join(lines)

    # Inside

    def _blocks_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self.block_size)

    def _find(self, name: str, request: RequestId) -> _Request:
        if not isinstance(request, Hashable) or request not in self._requests:
            raise ValueError(
                f"{name}: expected a request of this pool, got {request!r}; it never came or was freed"
            )
        return self._requests[request]

    def _check_new(self, name: str, request: RequestId) -> None:
        if not isinstance(request, Hashable):
            raise ValueError(
                f"{name}: expected a name that can be a dict's key, got {type(request).__name__}"
            )
        if request in self._requests:
            raise ValueError(f"{name}: expected a new request, got {request!r}, which is in the pool already")

    def _check_room(self, needed: int, available: int, who: str) -> None:
        if needed > available:
            raise OutOfBlocksError(
                f"out of blocks: {who} needs {needed} more, and {available} of {self.num_blocks} are free for it"
            )

    def _take(self, block: int) -> None:
        self._free.pop(block, None)
        self._ref_counts[block] += 1

    def _take_free(self) -> int:
        """Hand out the first free block. If it is cached, every free block is: it is evicted from the cache."""
        block = next(iter(self._free))
        if block in self._prefix_of_block:
            self._forget(block)
        self._take(block)
        return block

    def _forget(self, block: int) -> None:
        """Evict a block from the cache."""
        del self._block_of_prefix[self._prefix_of_block.pop(block)]
        del self._tokens_of_block[block]

    def _find_cached(self, prefixes: list[Prefix], num_tokens: int) -> list[int]:
        """The cached blocks that a request can begin with. They never reach to its last token."""
        blocks = []
        for prefix in prefixes[: max(0, num_tokens - 1) // self.block_size]:
            if prefix not in self._block_of_prefix:
                break
            blocks.append(self._block_of_prefix[prefix])
        return blocks

    def _cache_full_blocks(self, state: _Request) -> None:
        """Remember full blocks by their prefix. Where two blocks hold the same, the first stays in the cache."""
        if state.token_ids is None:
            return
        for index, (block, prefix) in enumerate(zip(state.blocks, state.prefixes, strict=False)):
            if prefix not in self._block_of_prefix and block not in self._prefix_of_block:
                self._block_of_prefix[prefix] = block
                self._prefix_of_block[block] = prefix
                first = index * self.block_size
                self._tokens_of_block[block] = first, state.token_ids[first : first + self.block_size]

    def _prefix(self, before: Prefix, block: list[int]) -> Prefix:
        """The name of a full block: of its tokens, after the block of that name."""
        return hashlib.sha256(before + repr(block).encode()).digest()

    def _extend_prefixes(self, known: list[Prefix], tokens: list[int]) -> list[Prefix]:
        """The names of all full blocks of a sequence of tokens, of which the first are known."""
        prefixes = list(known)
        size = self.block_size
        for start in range(len(known) * size, len(tokens) - size + 1, size):
            before = prefixes[-1] if prefixes else b""
            prefixes.append(self._prefix(before, tokens[start : start + size]))
        return prefixes


def _kept(pool: dict[str, Any]) -> dict[str, Any]:
    """A copy of all that changes. What is in a list or dict is never changed itself, but for the requests."""
    kept = {name: copy.copy(value) for name, value in pool.items()}
    kept["_requests"] = {
        request: _Request(*(copy.copy(part) for part in vars(state).values()))
        for request, state in pool["_requests"].items()
    }
    return kept


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _positive(name: str, value: int) -> int:
    if not _is_int(value) or value < 1:
        raise ValueError(f"{name}: expected a whole number of at least 1, got {value!r}")
    return value


def _not_negative(name: str, value: int | None) -> int:
    if value is None or not _is_int(value) or value < 0:
        raise ValueError(f"{name}: expected a whole number of at least 0, got {value!r}")
    return value


def _token_ids(token_ids: Sequence[int]) -> list[int]:
    if not isinstance(token_ids, Sequence):
        raise ValueError(f"token_ids: expected a list of whole numbers, got {type(token_ids).__name__}")
    tokens = list(token_ids)
    if set(map(type, tokens)) <= {int}:  # the usual case, at once
        return tokens
    for index, token in enumerate(tokens):
        if not _is_int(token):
            raise ValueError(f"token_ids[{index}]: expected a whole number, got {token!r}")
    return tokens
