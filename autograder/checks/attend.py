"""Question 2, second part: the metadata put to work. Cache write, then paged attention, must equal dense attention."""

from __future__ import annotations

import torch

import kernels
from autograder.checks import batches
from autograder.checks import build_metadata as metadata_check
from autograder.compare import error_budget, value_problem
from autograder.failure import AnswerProblem, Problem
from autograder.misconceptions import build_metadata as mistakes
from autograder.registry import Check, Output
from autograder.suite import Case, Suite
from kernels import contract, reference

NUM_HEADS, NUM_KV_HEADS, HEAD_SIZE = 4, 2, 16
SCALE = HEAD_SIZE**-0.5


def cases(suite: Suite) -> list[Case]:
    draw = batches.Draw(suite)
    chosen = batches.common_cases(draw)
    if suite.hidden:
        chosen += [draw.random_batch(f"random batch {i + 1}") for i in range(4)]
    return [
        _with_tensors(suite, case, torch.float16 if i % 4 == 3 else torch.float32)
        for i, case in enumerate(chosen)
    ]


def _with_tensors(suite: Suite, case: Case, dtype: torch.dtype) -> Case:
    """Adds each request's whole keys and values, and the queries of its new tokens, on the CPU."""
    generator = suite.generator(case.label)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(dtype)

    num_shared = case.inputs["shared"] * case.inputs["block_size"]
    prefix = [draw(num_shared, NUM_KV_HEADS, HEAD_SIZE) for _ in range(2)]
    keys: list[torch.Tensor] = []
    values: list[torch.Tensor] = []
    for length in batches.seq_lens(case):
        for kv, shared in zip((keys, values), prefix, strict=True):
            own = draw(length, NUM_KV_HEADS, HEAD_SIZE)
            own[: min(num_shared, length)] = shared[:length]
            kv.append(own)
    queries = [draw(new, NUM_HEADS, HEAD_SIZE) for new in case.inputs["num_new_tokens"]]
    return Case(
        case.label, {**case.inputs, "keys": keys, "values": values, "queries": queries, "dtype": dtype}
    )


def _attend(case: Case, metadata: Output) -> torch.Tensor:
    """Writes this step's keys and values through slot_mapping, then attends. Slots that nobody wrote hold NaN."""
    key_cache, value_cache = _cache_before(case)
    query = torch.cat(case.inputs["queries"])
    key, value = (_new_tokens(case, name) for name in ("keys", "values"))
    slot_mapping = metadata["slot_mapping"]
    table, lens, starts = metadata["block_table"], metadata["seq_lens"], metadata["query_start_loc"]
    try:
        # On CPU tensors the contract looks at values too: a wrong slot must not reach a GPU as an address.
        contract.check_cache_write(key, value, key_cache, value_cache, slot_mapping)
        contract.check_paged(query, key_cache, value_cache, table, lens, starts, SCALE, None)
        device = kernels.device()
        key_cache, value_cache = key_cache.to(device), value_cache.to(device)
        kernels.reshape_and_cache(
            key.to(device), value.to(device), key_cache, value_cache, slot_mapping.to(device)
        )
        table, lens, starts = table.to(device), lens.to(device), starts.to(device)
        return kernels.paged_attention(query.to(device), key_cache, value_cache, table, lens, starts, SCALE)
    except (ValueError, AttributeError) as error:
        raise AnswerProblem(Problem("the kernels refuse your metadata", str(error))) from error


def _cache_before(case: Case) -> tuple[torch.Tensor, torch.Tensor]:
    """The cache as earlier steps left it: the computed tokens in their slots, NaN everywhere else."""
    block_size = case.inputs["block_size"]
    caches = []
    for kv in (case.inputs["keys"], case.inputs["values"]):
        shape = (case.inputs["num_blocks"], block_size, NUM_KV_HEADS, HEAD_SIZE)
        cache = torch.full(shape, torch.nan, dtype=case.inputs["dtype"])
        for request, computed in enumerate(case.inputs["num_computed_tokens"]):
            slots = batches.slots(case, request, 0, computed)
            cache.view(-1, NUM_KV_HEADS, HEAD_SIZE)[slots] = kv[request][:computed]
        caches.append(cache)
    return caches[0], caches[1]


def _new_tokens(case: Case, name: str) -> torch.Tensor:
    pairs = zip(case.inputs[name], case.inputs["num_computed_tokens"], strict=True)
    return torch.cat([kv[computed:] for kv, computed in pairs])


def _dense(case: Case, dtype: torch.dtype) -> torch.Tensor:
    """Each request on its own, with its keys and values in order: no block, no table, no slot."""
    outputs = []
    for query, key, value in zip(
        case.inputs["queries"], case.inputs["keys"], case.inputs["values"], strict=True
    ):
        if len(query):
            outputs.append(reference.dense_attention(query.to(dtype), key.to(dtype), value.to(dtype), SCALE))
    return torch.cat(outputs)


def inspect(metadata: Output, case: Case) -> Problem | None:
    try:
        output = _attend(case, metadata)
    except AnswerProblem as refusal:
        return refusal.problem
    expected = _dense(case, torch.float64)
    budget = error_budget(expected, [_dense(case, case.inputs["dtype"])], case.inputs["dtype"])
    return value_problem("the attention output", output, expected, budget, lambda index: _place(index, case))


def _place(index: tuple[int, ...], case: Case) -> str:
    token, head, element = index
    for request, new in enumerate(case.inputs["num_new_tokens"]):
        if token < new:
            position = case.inputs["num_computed_tokens"][request] + token
            block = position // case.inputs["block_size"]
            return (
                f"request {request}, new token {token} (position {position}, logical block {block}), head {head}, "
                f"element {element}"
            )
        token -= new
    return f"token {token}, head {head}, element {element}"


CHECK = Check(
    name="attend",
    grade_id="q2-attend",
    parts=("build_metadata",),
    cases=cases,
    run=metadata_check.call,
    inspect=inspect,
    solution={"build_metadata": mistakes.build_metadata},
    misconceptions=mistakes.MISCONCEPTIONS,
    right_variants=mistakes.RIGHT_VARIANTS,
    same=metadata_check.same,
    hints=(
        'Run autograder.check("build_metadata", build_metadata) first: this check puts the same metadata to work.',
        "Follow one token by hand: through slot_mapping into the cache, and back out through block_table and seq_lens. "
        "Do both roads lead to the same slot? NaN in the output means that a slot was read that nobody wrote.",
        *metadata_check.HINTS[1:],
    ),
)
