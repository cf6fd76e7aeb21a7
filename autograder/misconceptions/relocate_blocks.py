"""Question 8, first part: what people write to move blocks, wrong and right."""

import torch

from autograder.collect import Collector


# The solution, in which the mistakes below are made; source/03_build.py walks through it.
def relocate_blocks(key_cache, value_cache, block_table, new_ids):
    new_key_cache = torch.empty_like(key_cache)
    new_value_cache = torch.empty_like(value_cache)
    new_key_cache[new_ids] = key_cache
    new_value_cache[new_ids] = value_cache
    new_table = new_ids[block_table.long()].to(block_table.dtype)
    return new_key_cache, new_value_cache, new_table


relocate = Collector(relocate_blocks)
_MOVES = (
    ("new_key_cache[new_ids] = key_cache", "new_key_cache = key_cache[new_ids]"),
    ("new_value_cache[new_ids] = value_cache", "new_value_cache = value_cache[new_ids]"),
)
relocate.edit(
    "blocks-moved-backwards",
    "blocks move the other way: key_cache[new_ids] puts block new_ids[i] at i. new_ids says where block i goes, so it is "
    "new_cache[new_ids] = cache. (Swapping two blocks hides the difference.)",
    *_MOVES,
)
relocate.edit(
    "table-renumbered-backwards",
    "the table is renumbered with the inverse of new_ids. An entry that was b becomes new_ids[b].",
    ("new_ids[block_table.long()]", "torch.argsort(new_ids)[block_table.long()]"),
)
relocate.edit(
    "both-backwards",
    "new_ids is read the other way round, for caches and table alike. Attention gives the right numbers, and the blocks lie "
    "where nobody asked for them: block i goes to new_ids[i].",
    *_MOVES,
    ("new_ids[block_table.long()]", "torch.argsort(new_ids)[block_table.long()]"),
)
relocate.edit(
    "table-left-as-it-was",
    "the blocks move and the table stays as it was: it points at where they lay before.",
    ("new_ids[block_table.long()].to(block_table.dtype)", "block_table.clone()"),
)
relocate.edit(
    "caches-left-as-they-were",
    "the table is renumbered and the blocks stay where they were.",
    ("new_key_cache[new_ids] = key_cache", "new_key_cache = key_cache.clone()"),
    ("new_value_cache[new_ids] = value_cache", "new_value_cache = value_cache.clone()"),
)
relocate.edit(
    "values-left-behind",
    "the keys move and the values stay where they were.",
    ("new_value_cache[new_ids] = value_cache", "new_value_cache = value_cache.clone()"),
)
relocate.edit(
    "table-is-new-ids",
    "the rows of the table are filled with new_ids in order, whatever they held. Each entry b becomes new_ids[b].",
    (
        "new_ids[block_table.long()].to",
        "new_ids[torch.arange(block_table.numel()).reshape(block_table.shape) % len(new_ids)].to",
    ),
)
relocate.edit(
    "table-sorted",
    "the rows of the new table are sorted. Their order is the order of the tokens.",
    (
        "new_ids[block_table.long()].to(block_table.dtype)",
        "new_ids[block_table.long()].to(block_table.dtype).sort(dim=1).values",
    ),
)
relocate.edit(
    "table-of-another-dtype",
    "the new table has the dtype of new_ids. A kernel expects block_table as it was, int32.",
    (".to(block_table.dtype)", ""),
)


@relocate.misconception(
    "moved-one-after-the-other-in-place",
    "blocks are moved one after the other inside one copy: a block that another has overwritten is lost before it is moved. "
    "Read from the old cache, write into a new one.",
    part="relocate_blocks",
)
def one_after_the_other(key_cache, value_cache, block_table, new_ids):
    keys, values = key_cache.clone(), value_cache.clone()
    for old, new in enumerate(new_ids.tolist()):
        keys[new], values[new] = keys[old], values[old]
    return keys, values, new_ids[block_table.long()].to(block_table.dtype)


@relocate.misconception(
    "inputs-changed",
    "the caller's caches are written to. Whoever still reads through the old table finds other tokens there: make new "
    "tensors.",
    part="relocate_blocks",
)
def inputs_changed(key_cache, value_cache, block_table, new_ids):
    keys, values = key_cache.clone(), value_cache.clone()
    key_cache[new_ids], value_cache[new_ids] = keys, values
    return key_cache, value_cache, new_ids[block_table.long()].to(block_table.dtype)


@relocate.right("owned-blocks-only", part="relocate_blocks")
def owned_blocks_only(key_cache, value_cache, block_table, new_ids):
    keys, values, table = torch.zeros_like(key_cache), torch.zeros_like(value_cache), block_table.clone()
    for request, row in enumerate(block_table.tolist()):
        for j, block in enumerate(row):
            keys[new_ids[block]], values[new_ids[block]] = key_cache[block], value_cache[block]
            table[request, j] = new_ids[block]
    return keys, values, table


@relocate.right("by-the-inverse", part="relocate_blocks")
def by_the_inverse(key_cache, value_cache, block_table, new_ids):
    old_ids = torch.argsort(new_ids)
    table = torch.gather(new_ids.expand(len(block_table), -1), 1, block_table.to(torch.int64))
    return [key_cache[old_ids], value_cache.index_select(0, old_ids), table.int()]
