"""The cases of question 12: which of the suite's checks make one, two checks more, and a tiny model on the learner's backend."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from autograder.suite import Case, Suite
from kernels import runtime
from kernels.backends import AttentionBackend, AttentionCGSupport, conformance
from kernels.backends.conformance import ConformanceError, NotSupported, Setup, Trial
from kernels.backends.dense_torch import DenseTorchBackend
from kernels.backends.engine import Engine
from kernels.backends.tiny_model import TinyConfig, TinyModel

CUSTOM = "CUSTOM"


def named_custom(setup: Setup) -> None:
    """get_name gives the member of AttentionBackendEnum under which a backend from outside is registered, CUSTOM."""
    name = setup.backend.get_name()
    if name != CUSTOM:
        raise ConformanceError(f'get_name: expected "CUSTOM", got {name!r}')


def one_row_a_token(setup: Setup) -> None:
    """The cache holds head_size numbers a token, kv_lora_rank and the part for the position, and nothing else."""
    shape = setup.backend.get_kv_cache_shape(7, setup.block_size, 1, setup.head_size, "auto")
    numbers = torch.Size(shape).numel() / (7 * setup.block_size)
    if numbers != setup.head_size:
        raise ConformanceError(
            f"get_kv_cache_shape: expected {setup.head_size} numbers a token, got {numbers:g}, of {shape} for 7 blocks of "
            f"{setup.block_size} tokens with num_kv_heads 1"
        )


def the_cache_is_all_there_is(setup: Setup) -> None:
    """A block's contents may be moved to another block between two steps: what counts is what lies in the cache."""
    trial = Trial(setup)
    size = setup.block_size
    request = trial.request(2 * size + 3)
    trial.step_right([(request, 2 * size + 1)])
    sizes = (size, setup.num_kv_heads, setup.head_size, setup.kv_cache_dtype)
    block_dim = setup.backend.get_kv_cache_block_dim(*sizes)
    new = [trial.free_blocks.pop() for _ in request.blocks]
    cache = trial.layer.kv_cache
    for old, place in zip(request.blocks, new, strict=True):
        cache.select(block_dim, place).copy_(cache.select(block_dim, old))
        cache.select(block_dim, old).fill_(float("nan"))
    request.blocks = new
    trial.step_right([(request, 1)])


def a_graph_finds_the_next_step(setup: Setup) -> None:
    """Who claims CUDA graphs makes metadata whose tensors hold the next step's numbers: a replay reads the old addresses."""
    support = setup.backend.get_builder_cls().get_cudagraph_support()
    if support == AttentionCGSupport.NEVER:
        raise NotSupported("get_cudagraph_support says NEVER")
    size = setup.block_size
    # (tokens computed before, query tokens) of the captured batch, then of those that a graph would replay.
    decodes = [[(size, 1), (3, 1)], [(1, 1), (2 * size + 1, 1)]]
    _replay(setup, decodes, "decodes")
    if support == AttentionCGSupport.ALWAYS:
        _replay(setup, [[(size, 3), (3, 4)], [(2, 1), (size + 1, 6)]], "chunks")


def _replay(setup: Setup, batches: list[list[tuple[int, int]]], what: str) -> None:
    """As a graph would: the first batch's metadata serves the later ones, in memory that is filled anew."""
    trial = Trial(setup, num_blocks=48)
    captured: Any = None
    for lengths in batches:
        batch = [(trial.request(computed + count), count) for computed, count in lengths]
        trial.step_right(
            [(request, computed) for (request, _), (computed, _) in zip(batch, lengths, strict=True)]
        )
        common, _ = trial.metadata(batch)
        if captured is None:
            captured = trial.builder.build_for_cudagraph_capture(common)
        else:
            captured.batch = common  # the same memory, with this step's numbers
        output = trial.run(trial.inputs(batch), common, captured)
        try:
            trial.expect_right(trial.advance(batch, output, common, captured))
        except ConformanceError as error:
            raise ConformanceError(f"{what}, with the metadata of the captured step: {error}") from None


@dataclass(frozen=True)
class Group:
    """A case: what it is about, and the checks that make it, run until one fails."""

    label: str
    checks: tuple[Callable[[Setup], None], ...]


def _of(label: str, *names: str | Callable[[Setup], None]) -> Group:
    return Group(label, tuple(conformance.CHECKS[name] if isinstance(name, str) else name for name in names))


# In the order in which a backend grows.
GROUPS = (
    _of("the backend describes itself", "description", named_custom),
    _of("the shape of the cache", "cache_shape", one_row_a_token),
    _of("the builder's metadata", "builder_metadata"),
    _of("first prompts", "write_before_read", "prefill_of_any_length"),
    _of("the write", "slot_minus_one_is_not_written", "reading_writes_nothing"),
    _of("decodes", "decode_across_blocks", "head_counts"),
    _of("chunks, and all kinds in one batch", "chunked_equals_one_shot", "mixed_batch"),
    _of("rows of padding, inputs kept", "padding_is_ignored", "inputs_are_not_mutated"),
    _of(
        "scattered, shared and moved blocks",
        "scatter_invariance",
        "shared_blocks",
        the_cache_is_all_there_is,
    ),
    _of(
        "blocks that change hands",
        "what_nobody_owns_is_not_read",
        "reused_blocks",
        "blocks_change_after_preemption",
    ),
    _of(
        "length 0, long sequences, large scores",
        "requests_of_length_zero",
        "long_sequences",
        "large_scores",
        "head_sizes",
    ),
    _of("only what it can is claimed", "write_before_read", "fp8_cache", a_graph_finds_the_next_step),
)
HOLDS = {
    check.__name__: " ".join((check.__doc__ or "").split()) for group in GROUPS for check in group.checks
}

# Sizes of the engine's cache: with room, and with so little that requests are preempted and computed again.
ENGINES = {
    "a tiny model, prompts in chunks": {"num_blocks": 40, "max_num_batched_tokens": 6},
    "a tiny model, preemption and shared prefixes": {
        "num_blocks": 8,
        "max_num_batched_tokens": 10,
        "max_num_seqs": 4,
    },
}
_CONFIG = TinyConfig(kv_lora_rank=32)
_NUM_NEW = 5


def cases(suite: Suite) -> list[Case]:
    """Twelve groups of the suite's checks and two runs of a model. The hidden ones have other sizes, numbers and prompts."""
    sizes: dict[str, int] = {"num_heads": 4, "head_size": 40, "block_size": 4, "seed": 0}
    model_seed = 0
    if suite.hidden:
        generator = suite.generator("sizes")

        def draw(*values: int) -> int:
            return values[int(torch.randint(len(values), (1,), generator=generator))]

        sizes = {
            "num_heads": draw(2, 3, 6),
            "head_size": draw(24, 40, 48),
            "block_size": draw(4, 5, 8),
            "seed": int(torch.randint(2**31, (1,), generator=generator)),
        }
        model_seed = int(torch.randint(2**31, (1,), generator=generator))
    chosen = [Case(group.label, {"group": group.label, **sizes}) for group in GROUPS]
    prompts, expected, seed = said_by_the_dense_reference(model_seed)
    for label, engine in ENGINES.items():
        inputs = {"engine": engine, "prompts": prompts, "tokens": expected, "seed": seed}
        chosen.append(Case(label, inputs))
    return chosen


def run_model(
    backend: type[AttentionBackend], prompts: list[list[int]], seed: int, engine: dict[str, int]
) -> tuple[list[list[int]], Engine]:
    """The tokens that the tiny model of latents says on a backend, and the engine that had it say them."""
    device = runtime.device()
    made = Engine(TinyModel(_CONFIG, backend, device=device, seed=seed), block_size=4, **engine)
    return made.generate(prompts, _NUM_NEW), made


@cache
def said_by_the_dense_reference(first_seed: int) -> tuple[list[list[int]], list[list[int]], int]:
    """(prompts, their tokens, the weights' seed): keys and values of all heads, kept whole, room for everybody.

    Seeds for which rounding could choose a token are passed over.
    """
    for seed in range(first_seed, first_seed + 20):
        generator = torch.Generator().manual_seed(seed)
        system, *rest = torch.randint(_CONFIG.vocab_size, (4, 8), generator=generator).tolist()
        prompts = [[*system, *rest[0][:3]], [*system, rest[0][3]], rest[1][:5], [*system, *rest[2][:5]]]
        tokens, engine = run_model(DenseTorchBackend, prompts, seed, {"num_blocks": 40})
        if engine.smallest_lead > 1e-2:
            return prompts, tokens, seed
    raise RuntimeError("no weights whose tokens rounding cannot turn")
