"""Question 2: what people write for `build_metadata`, wrong and right."""

import torch

from autograder.collect import Collector


# The solution, in which the mistakes below are made; source/01_warm_up.py walks through it.
def build_metadata(block_tables, num_computed_tokens, num_new_tokens, block_size):
    width = max(len(table) for table in block_tables)
    rows, slots, seq_lens, starts = [], [], [], [0]
    for table, computed, new in zip(block_tables, num_computed_tokens, num_new_tokens):
        rows.append(table + [0] * (width - len(table)))
        for position in range(computed, computed + new):
            slots.append(table[position // block_size] * block_size + position % block_size)
        seq_lens.append(computed + new)
        starts.append(starts[-1] + new)
    return {
        "block_table": torch.tensor(rows, dtype=torch.int32),
        "slot_mapping": torch.tensor(slots, dtype=torch.int64),
        "seq_lens": torch.tensor(seq_lens, dtype=torch.int32),
        "query_start_loc": torch.tensor(starts, dtype=torch.int32),
    }


_mistakes = Collector(build_metadata)

_mistakes.edit(
    "logical-block-as-physical",
    "the slot is computed from the logical block number (position // block_size) instead of the physical block "
    "that the request's block table holds there.",
    (
        "slots.append(table[position // block_size] * block_size + position % block_size)",
        "slots.append((position // block_size) * block_size + position % block_size)",
    ),
)
_mistakes.edit(
    "contiguous-blocks",
    "a request's blocks are taken to lie one after the other: first block * block_size + position. Ask the block "
    "table for every block.",
    (
        "slots.append(table[position // block_size] * block_size + position % block_size)",
        "slots.append(table[0] * block_size + position)",
    ),
)
_mistakes.edit(
    "offset-from-new-token-index",
    "the offset inside the block is counted from the first new token instead of from the position in the sequence.",
    (
        "slots.append(table[position // block_size] * block_size + position % block_size)",
        "slots.append(table[position // block_size] * block_size + (position - computed) % block_size)",
    ),
)
_mistakes.edit(
    "position-without-computed-tokens",
    "the new tokens' positions start at 0: the tokens that are already in the cache (num_computed_tokens) are "
    "forgotten, and the new ones overwrite them.",
    ("range(computed, computed + new)", "range(new)"),
)
_mistakes.edit(
    "position-one-too-early",
    "positions are off by one: the first new token sits at position num_computed_tokens, because positions count "
    "from 0.",
    ("range(computed, computed + new)", "range(computed - 1, computed + new - 1)"),
)
_mistakes.edit(
    "slots-of-the-whole-sequence",
    "slot_mapping holds a slot for every token of the sequence. Only this step's new tokens are written.",
    ("range(computed, computed + new)", "range(computed + new)"),
)
_mistakes.edit(
    "seq-lens-without-new-tokens",
    "seq_lens counts only the tokens of earlier steps. It includes this step's: by the time attention reads the "
    "cache, they have been written.",
    ("seq_lens.append(computed + new)", "seq_lens.append(computed)"),
)
_mistakes.edit(
    "seq-lens-in-whole-blocks",
    "seq_lens counts whole blocks (blocks * block_size). The last block is seldom full, and its tail holds anything.",
    ("seq_lens.append(computed + new)", "seq_lens.append(len(table) * block_size)"),
)
_mistakes.edit(
    "seq-lens-of-the-longest",
    "every request is given the longest request's length, so that shorter ones read padding: blocks that belong to "
    "somebody else.",
    (
        "torch.tensor(seq_lens, dtype=torch.int32)",
        "torch.full((len(seq_lens),), max(seq_lens), dtype=torch.int32)",
    ),
)
_mistakes.edit(
    "padding-in-front",
    "the block table's rows are padded in front. Entry j must be the request's block j; with padding first, the "
    "kernel reads the padding as block 0 of somebody else.",
    ("rows.append(table + [0] * (width - len(table)))", "rows.append([0] * (width - len(table)) + table)"),
)
_mistakes.edit(
    "sorted-block-table",
    "the rows of the block table are sorted. Their order is the order of the tokens: block j of a request is where "
    "its tokens j * block_size and on are.",
    (
        "rows.append(table + [0] * (width - len(table)))",
        "rows.append(sorted(table) + [0] * (width - len(table)))",
    ),
)
_mistakes.edit(
    "query-start-loc-without-zero",
    "query_start_loc has no leading 0. Request i's queries are [query_start_loc[i], query_start_loc[i + 1]), so it "
    "has num_reqs + 1 entries and starts with 0.",
    ("torch.tensor(starts, dtype=torch.int32)", "torch.tensor(starts[1:], dtype=torch.int32)"),
)
_mistakes.edit(
    "query-start-loc-without-total",
    "query_start_loc ends before the total. It has num_reqs + 1 entries; the last one is the number of new tokens, "
    "or the last request has no end.",
    ("torch.tensor(starts, dtype=torch.int32)", "torch.tensor(starts[:-1], dtype=torch.int32)"),
)
_mistakes.edit(
    "query-start-loc-of-seq-lens",
    "query_start_loc adds up the lengths of the sequences. It marks where each request's new tokens lie in the query, "
    "so it adds up num_new_tokens.",
    ("starts.append(starts[-1] + new)", "starts.append(starts[-1] + computed + new)"),
)
_mistakes.edit(
    "query-lens-for-query-start-loc",
    "query_start_loc holds each request's number of new tokens. The kernel needs where they start: the running sum.",
    ("starts.append(starts[-1] + new)", "starts.append(new)"),
)
_mistakes.edit(
    "slot-mapping-int32",
    "slot_mapping is int32. A slot number times the size of a slot passes 2**31 in a large cache: the contract asks "
    "for int64.",
    ("torch.tensor(slots, dtype=torch.int64)", "torch.tensor(slots, dtype=torch.int32)"),
)
_mistakes.edit(
    "everything-int64",
    "the tensors are left at torch's default int64. block_table, seq_lens and query_start_loc are int32 by contract; "
    "only slot_mapping is int64.",
    ("torch.tensor(rows, dtype=torch.int32)", "torch.tensor(rows)"),
    ("torch.tensor(seq_lens, dtype=torch.int32)", "torch.tensor(seq_lens)"),
    ("torch.tensor(starts, dtype=torch.int32)", "torch.tensor(starts)"),
)
_mistakes.edit(
    "pads-the-callers-lists",
    "the padding is appended to the caller's own lists: the next step would take it for blocks of the request. "
    "Pad a copy.",
    (
        "rows.append(table + [0] * (width - len(table)))",
        "table.extend([0] * (width - len(table)))\n        rows.append(table)",
    ),
)


@_mistakes.right("padding-minus-one", part="build_metadata")
def padding_minus_one(block_tables, num_computed_tokens, num_new_tokens, block_size):
    width = max(len(table) for table in block_tables)
    block_table = torch.full((len(block_tables), width), -1, dtype=torch.int32)
    slots = []
    for row, (table, computed, new) in enumerate(zip(block_tables, num_computed_tokens, num_new_tokens)):
        block_table[row, : len(table)] = torch.tensor(table, dtype=torch.int32)
        slots += [
            table[p // block_size] * block_size + p % block_size for p in range(computed, computed + new)
        ]
    new_tokens = torch.tensor(num_new_tokens)
    return {
        "block_table": block_table,
        "slot_mapping": torch.tensor(slots, dtype=torch.int64),
        "seq_lens": (torch.tensor(num_computed_tokens) + new_tokens).to(torch.int32),
        "query_start_loc": torch.nn.functional.pad(new_tokens.cumsum(0), (1, 0)).to(torch.int32),
    }


@_mistakes.right("wide-table-large-padding", part="build_metadata")
def wide_table_large_padding(block_tables, num_computed_tokens, num_new_tokens, block_size):
    block_table = torch.full((len(block_tables), 64), 2**31 - 1, dtype=torch.int32)
    slots, starts = [], [0]
    for row, table in enumerate(block_tables):
        for column, block in enumerate(table):
            block_table[row, column] = block
        first = num_computed_tokens[row]
        for position in range(first, first + num_new_tokens[row]):
            block, offset = divmod(position, block_size)
            slots.append(table[block] * block_size + offset)
        starts.append(len(slots))
    return {
        "query_start_loc": torch.tensor(starts, dtype=torch.int32),
        "seq_lens": torch.tensor(
            [c + n for c, n in zip(num_computed_tokens, num_new_tokens)], dtype=torch.int32
        ),
        "slot_mapping": torch.tensor(slots, dtype=torch.long),
        "block_table": block_table,
    }


@_mistakes.right("vectorised", part="build_metadata")
def vectorised(block_tables, num_computed_tokens, num_new_tokens, block_size):
    computed = torch.tensor(num_computed_tokens, dtype=torch.int64)
    new = torch.tensor(num_new_tokens, dtype=torch.int64)
    tables = [torch.tensor(table, dtype=torch.int64) for table in block_tables]
    block_table = torch.nn.utils.rnn.pad_sequence(tables, batch_first=True, padding_value=7)
    query_start_loc = torch.cat([torch.zeros(1, dtype=torch.int64), new.cumsum(0)])
    request = torch.repeat_interleave(torch.arange(len(new)), new)
    position = torch.arange(int(new.sum())) - query_start_loc[request] + computed[request]
    block = block_table[request, position // block_size]
    return {
        "block_table": block_table.to(torch.int32),
        "slot_mapping": block * block_size + position % block_size,
        "seq_lens": (computed + new).to(torch.int32),
        "query_start_loc": query_start_loc.to(torch.int32),
    }


MISCONCEPTIONS = _mistakes.misconceptions
RIGHT_VARIANTS = _mistakes.right_variants
