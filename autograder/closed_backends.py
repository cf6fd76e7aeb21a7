"""The backends that is_faulty and minimise are tested on: right ones, and faults with other amounts and on other bases than the
notebook's. The hidden suite draws them, and has variants that stand only here.

In grading a backend's computation runs on the judge's side: learner's code gets results of it and nothing else.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from autograder.suite import Suite
from course.closed_backends.engine import Spec, run
from course.closed_backends.faults import FAULTS, VARIANTS, Variant, mapped_heads, only_last_token
from course.closed_backends.right import RIGHT, Attend, Result, requests, state
from course.differential.case import Case
from course.differential.compare import Results
from course.differential.tensors import inputs

MAX_CALLS = 1500  # of one backend, by one call of an answer


def past_a_full_block(attend: Attend, case: Case, index: int, memory: dict[Any, Any], amount: int) -> Result:
    step = inputs(case, index)
    output, lse = attend(step)
    for row, part in enumerate(case.steps[index]):
        if part.query_len and part.seq_len and part.seq_len % case.block_size == 0:
            last = only_last_token(step, row, part.seq_len + 1, 1)
            at = int(step.query_start_loc[row + 1]) - 1
            output[at : at + 1], lse[at : at + 1] = attend(last)
    return output, lse


def window_from_the_end(
    attend: Attend, case: Case, index: int, memory: dict[Any, Any], amount: int
) -> Result:
    step = inputs(case, index)
    output, lse = attend(step)
    if step.window is None:
        return output, lse
    for tokens, query, key, value, seen in requests(step):
        near = torch.arange(len(key)) >= len(key) - step.window
        out, lse[tokens] = state(query, key, value, seen & near, step.scale)
        output[tokens] = out.to(output.dtype)
    return output, lse


def wrapped_unsigned(attend: Attend, case: Case, index: int, memory: dict[Any, Any], amount: int) -> Result:
    elements = case.block_size * case.num_kv_heads * case.head_size * amount
    tables = [[block * elements % 2**32 // elements for block in p.blocks] for p in case.steps[index]]
    return attend(inputs(case, index, tables))


def lse_of_zero(attend: Attend, case: Case, index: int, memory: dict[Any, Any], amount: int) -> Result:
    output, lse = attend(inputs(case, index))
    return output, lse.masked_fill(lse == -math.inf, 0.0)


def last_tokens_only(attend: Attend, case: Case, index: int, memory: dict[Any, Any], amount: int) -> Result:
    step = inputs(case, index)
    output, lse = attend(step)
    for tokens, query, key, value, seen in requests(step):
        if len(key) > amount:
            near = seen[:, -amount:]
            out, lse[tokens] = state(query, key[-amount:], value[-amount:], near, step.scale)
            output[tokens] = out.to(output.dtype)
    return output, lse


def rows_by_place(attend: Attend, case: Case, index: int, memory: dict[Any, Any], amount: int) -> Result:
    """A row is kept for its place in the batch, whoever stands there, as long as it is no longer than before."""
    tables = []
    for place, part in enumerate(case.steps[index]):
        known = memory.get(place, ())
        memory[place] = known[: len(part.blocks)] if len(part.blocks) <= len(known) else part.blocks
        tables.append(memory[place])
    return attend(inputs(case, index, tables))


_HIDDEN_VARIANTS: dict[str, Variant] = {
    "past-a-full-block": Variant(
        "stale-tail",
        "attends to the slot after a full last block",
        "requests that end with a full block",
        past_a_full_block,
    ),
    "window-from-the-end": Variant(
        "window",
        "measures every query's window from the end of the sequence",
        "a window, and requests with more than one query token",
        window_from_the_end,
    ),
    "wrapped-unsigned": Variant(
        "offset-32-bit",
        "computes the offset of a block in 32 bits without a sign",
        "block numbers so high that block * elements passes 2**32",
        wrapped_unsigned,
    ),
    "interleaved-heads": Variant(
        "gqa-map",
        "gives the last kv heads to the first query heads",
        "several kv heads",
        mapped_heads(lambda h, heads, kv_heads: kv_heads - 1 - h * kv_heads // heads),
    ),
    "last-tokens-only": Variant(
        "split-cap",
        "keeps only the newest splits of a long request",
        "long requests",
        last_tokens_only,
    ),
    "lse-of-zero": Variant(
        "zero-length",
        "returns lse 0 for a request of length 0",
        "a request of length 0 with a query token, in the lse alone",
        lse_of_zero,
    ),
    "rows-by-place": Variant(
        "stale-block-table",
        "keeps the row of whoever stood at this place of the batch before",
        "a second step in which another request, or other blocks, stand at a place of the batch",
        rows_by_place,
    ),
}
_ALL = {**VARIANTS, **_HIDDEN_VARIANTS}

# The visible suite: variant, amount and base. Two of each kind, so that a kind of input that was never tried shows.
_VISIBLE: dict[str, tuple[Spec, ...]] = {
    "stale-tail": (Spec("block_by_block", "extra-slots", 2), Spec("gathered", "weight-zero")),
    "window": (Spec("padded", "window-shifted", -1), Spec("gathered", "window-in-chunks", 1)),
    "offset-32-bit": (Spec("padded", "wrapped-offset"), Spec("half_weights", "wrapped-offset", 2)),
    "gqa-map": (Spec("splits_backwards", "modulo-heads"), Spec("padded", "power-of-two-groups")),
    "layout": (Spec("gathered", "read-as-nhd", 3), Spec("block_by_block", "read-as-nhd", 1)),
    "lse-base": (Spec("in_double", "merged-in-base-2", 64), Spec("padded", "lse-in-base-2")),
    "split-cap": (Spec("half_weights", "first-tokens-only", 160), Spec("gathered", "splits-of-first", 64)),
    "stale-block-table": (Spec("padded", "rows-only-grow"), Spec("half_weights", "resumed-rows")),
    "zero-length": (Spec("splits_backwards", "nan-for-empty"), Spec("in_double", "shifted-rows")),
    "fp8-scale": (Spec("padded", "wrong-scales", 1), Spec("gathered", "wrong-scales", 3)),
}
assert _VISIBLE.keys() == FAULTS.keys()
# What the hidden suite draws an amount from, where there is a choice.
_AMOUNTS = {
    "extra-slots": (1, 3, 99),
    "window-shifted": (-1, 1),
    "window-in-chunks": (-1, 1),
    "wrapped-offset": (1, 2),
    "wrapped-unsigned": (1, 2),
    "read-as-nhd": (1, 2, 3),
    "merged-in-base-2": (16, 32, 48, 64),
    "first-tokens-only": (64, 96, 128, 192),
    "last-tokens-only": (64, 96, 128, 192),
    # Less than 32 would show on other inputs than a long request after a short one, on which alone the table says it does.
    "splits-of-first": (32, 48, 64),
    "wrong-scales": (1, 2, 3),
}
# Triton in the interpreter takes a second where the others take a millisecond: it is right, and among the right ones.
_BASES = tuple(name for name in RIGHT if name != "triton")


def right_ones(suite: Suite) -> list[Spec]:
    """The right backends of a suite, in an order of its own: all but Triton's, or in the hidden suite five that it draws."""
    names = list(RIGHT) if suite.hidden else list(_BASES)
    order = torch.randperm(len(names), generator=suite.generator("right backends")).tolist()
    return [Spec(names[i]) for i in (order[:5] if suite.hidden else order)]


def faulty_ones(suite: Suite) -> dict[str, list[Spec]]:
    """Backends with a fault, by kind: the visible two, or in the hidden suite three that it draws."""
    if not suite.hidden:
        return {kind: list(specs) for kind, specs in _VISIBLE.items()}
    return {kind: _draw(kind, suite.generator(f"fault/{kind}")) for kind in FAULTS}


def _draw(kind: str, generator: torch.Generator) -> list[Spec]:
    """Three of a kind: every variant before one comes again, and no amount of it twice while there are others."""

    def shuffled(items: Sequence[Any]) -> list[Any]:
        return [items[i] for i in torch.randperm(len(items), generator=generator).tolist()]

    names = shuffled([name for name, variant in _ALL.items() if variant.fault == kind])
    amounts = {name: shuffled(_AMOUNTS.get(name, (1,))) for name in names}
    drawn = []
    for number in range(3):
        name = names[number % len(names)]
        amount = amounts[name][number // len(names) % len(amounts[name])]
        drawn.append(Spec(shuffled(_BASES)[0], name, amount))
    return drawn


def variant_of(spec: Spec) -> Variant:
    """What is wrong with a backend that has a fault."""
    return _ALL[spec.variant]


@dataclass(eq=False)
class HiddenBackend:
    """A backend as an answer is given it: a function of a Case. Raises RuntimeError after MAX_CALLS calls."""

    spec: Spec
    calls: int = 0

    def __call__(self, case: Case) -> Results:
        if type(case) is not Case:
            raise TypeError(f"a backend takes a Case, got a {type(case).__name__}")
        self.calls += 1
        if self.calls > MAX_CALLS:
            raise RuntimeError(f"this backend was called {MAX_CALLS} times and answers no more")
        return compute(self.spec, case)

    def __repr__(self) -> str:
        return "<closed backend>"


def compute(spec: Spec, case: Case) -> Results:
    """The results of any backend, computed once for the same case; copies."""
    return [(output.clone(), lse.clone()) for output, lse in _remembered(spec, case)]


@functools.lru_cache(maxsize=3000)
def _remembered(spec: Spec, case: Case) -> list[Result]:
    return run(spec, case, _ALL)
