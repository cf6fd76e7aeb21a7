"""Ten kinds of fault, each of which somebody shipped. A fault bends the inputs or the result of a right way to attend.

A `Bend` takes the right way, the case, the step's number, a memory that lasts for the case, and an amount. Each is seen only on
inputs of some kind, which the table says: `shows`. Lesson 4 cites the report that each kind is modelled on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from course.closed_backends.right import (
    Attend,
    Result,
    merged,
    requests,
    split_states,
    state,
    tokens_of,
)
from course.differential.case import Case
from course.differential.tensors import Inputs, inputs

Bend = Callable[[Attend, Case, int, dict[Any, Any], int], Result]

# The words of q13_diagnosis, and what each means.
FAULTS = {
    "stale-tail": "slots that the request never wrote are read",
    "window": "the sliding window is off",
    "offset-32-bit": "the offset of a block overflows 32 bits",
    "gqa-map": "a query head reads the wrong kv head",
    "layout": "an HND cache is read as NHD",
    "lse-base": "natural and base-2 logarithms are mixed up",
    "split-cap": "what lies past a fixed number of splits is left out",
    "stale-block-table": "a block table's row is not renewed when a request comes back elsewhere",
    "zero-length": "a request without tokens is not taken into account",
    "fp8-scale": "an fp8 cache's scale is forgotten or mistaken",
}
RIGHT = "right"


@dataclass(frozen=True)
class Variant:
    """does: a clause about the backend. shows: on which inputs alone it differs from a right one."""

    fault: str
    does: str
    shows: str
    bend: Bend


def extra_slots(attend: Attend, case: Case, index: int, memory: dict[Any, Any], amount: int) -> Result:
    step = inputs(case, index)
    output, lse = attend(step)
    for row, part in enumerate(case.steps[index]):
        extra = min(amount, -part.seq_len % case.block_size)
        if extra and part.query_len:
            last = only_last_token(step, row, part.seq_len + extra, extra)
            at = int(step.query_start_loc[row + 1]) - 1
            output[at : at + 1], lse[at : at + 1] = attend(last)
    return output, lse


def weight_zero(attend: Attend, case: Case, index: int, memory: dict[Any, Any], amount: int) -> Result:
    step = inputs(case, index)
    output, lse = attend(step)
    for row, part in enumerate(case.steps[index]):
        whole = -(-part.seq_len // case.block_size) * case.block_size
        tail = tokens_of(step, 1, row, whole, torch.float32)[part.seq_len :]
        tokens = slice(*step.query_start_loc[row : row + 2].tolist())
        output[tokens] += (0.0 * tail).sum().to(output.dtype)
    return output, lse


def shifted_window(attend: Attend, case: Case, index: int, memory: dict[Any, Any], amount: int) -> Result:
    step = inputs(case, index)
    if step.window is None:
        return attend(step)
    return attend(replace(step, window=max(1, step.window + amount)))


def window_in_chunks(attend: Attend, case: Case, index: int, memory: dict[Any, Any], amount: int) -> Result:
    step = inputs(case, index)
    output, lse = attend(step)
    if step.window is None:
        return output, lse
    bent = attend(replace(step, window=max(1, step.window + amount)))
    for row, part in enumerate(case.steps[index]):
        if part.query_len > 1:
            tokens = slice(*step.query_start_loc[row : row + 2].tolist())
            output[tokens], lse[tokens] = bent[0][tokens], bent[1][tokens]
    return output, lse


def wrapped_offset(attend: Attend, case: Case, index: int, memory: dict[Any, Any], amount: int) -> Result:
    """amount: keys and values lie in `amount` tensors' worth of one block."""
    elements = case.block_size * case.num_kv_heads * case.head_size * amount

    def wrap(block: int) -> int:
        offset = (block * elements + 2**31) % 2**32 - 2**31
        return offset // elements if offset >= 0 else -1

    return attend(inputs(case, index, [[wrap(block) for block in part.blocks] for part in case.steps[index]]))


def mapped_heads(choose: Callable[[int, int, int], int]) -> Bend:
    """A bend whose query head h reads kv head choose(h, num_heads, num_kv_heads)."""

    def bend(attend: Attend, case: Case, index: int, memory: dict[Any, Any], amount: int) -> Result:
        step = inputs(case, index)
        which = torch.tensor([choose(h, case.num_heads, case.num_kv_heads) for h in range(case.num_heads)])
        keys, values = (cache.float()[:, :, which].to(cache.dtype) for cache in step.as_nhd())
        return attend(replace(step, key_cache=keys, value_cache=values, layout="NHD"))

    return bend


def read_as_nhd(attend: Attend, case: Case, index: int, memory: dict[Any, Any], amount: int) -> Result:
    """amount: 1 for the keys, 2 for the values, 3 for both."""
    step = inputs(case, index)
    if case.layout == "NHD":
        return attend(step)
    shape = (-1, case.block_size, case.num_kv_heads, case.head_size)
    wrong = [cache.reshape(shape) for cache in (step.key_cache, step.value_cache)]
    right = step.as_nhd()
    keys, values = (wrong[i] if amount & (i + 1) else right[i] for i in (0, 1))
    return attend(replace(step, key_cache=keys, value_cache=values, layout="NHD"))


def merged_in_base_2(attend: Attend, case: Case, index: int, memory: dict[Any, Any], amount: int) -> Result:
    """amount: tokens of a split. Natural logarithms are taken for logarithms to base 2."""
    step = inputs(case, index)
    output, lse = attend(step)
    for tokens, query, key, value, seen in requests(step):
        if len(key) > amount:
            states = split_states(query, key, value, seen, step.scale, amount)
            out, _ = merged([(part, one * math.log(2.0)) for part, one in states])
            output[tokens] = out.to(output.dtype)
    return output, lse


def lse_in_base_2(attend: Attend, case: Case, index: int, memory: dict[Any, Any], amount: int) -> Result:
    output, lse = attend(inputs(case, index))
    return output, lse / math.log(2.0)


def first_tokens_only(attend: Attend, case: Case, index: int, memory: dict[Any, Any], amount: int) -> Result:
    """amount: tokens that the splits reach, all together."""
    step = inputs(case, index)
    output, lse = attend(step)
    for tokens, query, key, value, seen in requests(step):
        if len(key) > amount:
            out, lse[tokens] = state(query, key[:amount], value[:amount], seen[:, :amount], step.scale)
            output[tokens] = out.to(output.dtype)
    return output, lse


def splits_of_first(attend: Attend, case: Case, index: int, memory: dict[Any, Any], amount: int) -> Result:
    """As many splits of `amount` tokens for every request as the batch's first one needs."""
    step = inputs(case, index)
    output, lse = attend(step)
    reach = max(1, -(-case.steps[index][0].seq_len // amount)) * amount
    for tokens, query, key, value, seen in requests(step):
        if len(key) > reach:
            out, lse[tokens] = state(query, key[:reach], value[:reach], seen[:, :reach], step.scale)
            output[tokens] = out.to(output.dtype)
    return output, lse


def rows_only_grow(attend: Attend, case: Case, index: int, memory: dict[Any, Any], amount: int) -> Result:
    tables = []
    for part in case.steps[index]:
        known = memory.get(part.request, ())[: len(part.blocks)]
        memory[part.request] = known + part.blocks[len(known) :]
        tables.append(memory[part.request])
    return attend(inputs(case, index, tables))


def resumed_rows(attend: Attend, case: Case, index: int, memory: dict[Any, Any], amount: int) -> Result:
    before = {part.request for part in case.steps[index - 1]} if index else set()
    tables = []
    for part in case.steps[index]:
        known = memory.get(part.request, ())[: len(part.blocks)] if part.request not in before else ()
        memory[part.request] = known + part.blocks[len(known) :]
        tables.append(memory[part.request])
    return attend(inputs(case, index, tables))


def nan_for_empty(attend: Attend, case: Case, index: int, memory: dict[Any, Any], amount: int) -> Result:
    step = inputs(case, index)
    output, lse = attend(step)
    for row, part in enumerate(case.steps[index]):
        if part.seq_len == 0:
            output[slice(*step.query_start_loc[row : row + 2].tolist())] = torch.nan
    return output, lse


def shifted_rows(attend: Attend, case: Case, index: int, memory: dict[Any, Any], amount: int) -> Result:
    """Requests without query tokens are left out of the lengths, and not of the table."""
    parts = case.steps[index]
    step = inputs(case, index)
    rows = [row for row, part in enumerate(parts) if part.query_len]
    if len(rows) == len(parts) or not rows:
        return attend(step)
    starts = [0]
    for row in rows:
        starts.append(starts[-1] + parts[row].query_len)
    width = max(step.block_table.shape[1], 1)
    bent = replace(
        step,
        block_table=step.block_table[: len(rows), :width],
        seq_lens=step.seq_lens[rows],
        query_start_loc=torch.tensor(starts, dtype=torch.int32),
    )
    return attend(bent)


def wrong_scales(attend: Attend, case: Case, index: int, memory: dict[Any, Any], amount: int) -> Result:
    """amount: 1 forgets the keys' scale, 2 the values', 3 takes each for the other."""
    step = inputs(case, index)
    if step.k_scale is None:
        return attend(step)
    scales = {1: (1.0, step.v_scale), 2: (step.k_scale, 1.0), 3: (step.v_scale, step.k_scale)}[amount]
    return attend(replace(step, k_scale=scales[0], v_scale=scales[1]))


def only_last_token(step: Inputs, row: int, seq_len: int, extra: int) -> Inputs:
    """The last token of a request as a batch of its own, with another length; the window reaches `extra` slots more."""
    end = int(step.query_start_loc[row + 1])
    return replace(
        step,
        query=step.query[end - 1 : end],
        block_table=step.block_table[row : row + 1],
        seq_lens=torch.tensor([seq_len], dtype=torch.int32),
        query_start_loc=torch.tensor([0, 1], dtype=torch.int32),
        window=None if step.window is None else step.window + extra,
    )


_TAIL = "requests whose last block has a tail"
_CHUNK = "requests with more than one query token"
VARIANTS: dict[str, Variant] = {
    "extra-slots": Variant("stale-tail", "attends to slots past a request's end", _TAIL, extra_slots),
    "weight-zero": Variant(
        "stale-tail",
        "multiplies the values in a tail by weight 0",
        f"{_TAIL}, with NaN in the slots that nobody owns",
        weight_zero,
    ),
    "window-shifted": Variant(
        "window", "sees one token too many or too few", "a window shorter than a request", shifted_window
    ),
    "window-in-chunks": Variant(
        "window",
        "sees one token too many or too few in chunks",
        f"a window, and {_CHUNK}",
        window_in_chunks,
    ),
    "wrapped-offset": Variant(
        "offset-32-bit",
        "computes the offset of a block in 32 bits",
        "block numbers so high that block * elements passes 2**31",
        wrapped_offset,
    ),
    "modulo-heads": Variant(
        "gqa-map",
        "takes kv head h % num_kv_heads",
        "several kv heads, each with several query heads",
        mapped_heads(lambda h, heads, kv_heads: h % kv_heads),
    ),
    "power-of-two-groups": Variant(
        "gqa-map",
        "rounds the query heads of a kv head up to a power of two",
        "several kv heads, and a number of query heads for each that is no power of two",
        mapped_heads(lambda h, heads, kv_heads: h // (1 << (heads // kv_heads - 1).bit_length())),
    ),
    "read-as-nhd": Variant(
        "layout",
        "reads an HND cache as NHD",
        "layout HND with several kv heads and block_size above 1",
        read_as_nhd,
    ),
    "merged-in-base-2": Variant(
        "lse-base",
        "merges natural logarithms as if their base were 2",
        "requests of more tokens than one split has",
        merged_in_base_2,
    ),
    "lse-in-base-2": Variant(
        "lse-base", "returns the lse to base 2", "every request, in the lse alone", lse_in_base_2
    ),
    "first-tokens-only": Variant(
        "split-cap",
        "leaves out what lies past its largest number of splits",
        "long requests",
        first_tokens_only,
    ),
    "splits-of-first": Variant(
        "split-cap",
        "gives every request as many splits as the first one needs",
        "a long request after a short one",
        splits_of_first,
    ),
    "rows-only-grow": Variant(
        "stale-block-table",
        "appends to a request's row and never replaces it",
        "a second step in which a request's blocks are others",
        rows_only_grow,
    ),
    "resumed-rows": Variant(
        "stale-block-table",
        "keeps the old row of a request that was away",
        "a request that is preempted, left out of a step, and comes back with other blocks",
        resumed_rows,
    ),
    "nan-for-empty": Variant(
        "zero-length",
        "divides 0 by 0 for a request of length 0",
        "a request of length 0 with a query token",
        nan_for_empty,
    ),
    "shifted-rows": Variant(
        "zero-length",
        "drops requests without query tokens from the lengths and not from the table",
        "a request without query tokens before one with some",
        shifted_rows,
    ),
    "wrong-scales": Variant(
        "fp8-scale",
        "forgets a scale of an fp8 cache, or takes one for the other",
        "an fp8 cache with scales that are not 1 and not equal",
        wrong_scales,
    ),
}
