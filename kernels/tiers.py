"""Which implementation runs, and why: one function that a person can read and ask.

A tier is a way to run the same attention: "hopper" (Gluon, for one generation of GPUs), "triton" (any GPU that Triton
compiles for) or "interpreter" (Triton's kernels, run by Python on the CPU). The choice looks at the machine, at shapes
and at dtypes, never at values, so that it costs no wait and a CUDA graph keeps it.
"""

from dataclasses import dataclass

import torch

from kernels import contract, runtime
from kernels.options import Scale, ScoreOptions

__all__ = ["Choice", "explain", "explain_decode"]

# Positions. What is shorter is not worth another program and a merge: decode.py cuts no sequence into shorter splits.
SHORTEST_SPLIT = 256
# Heads from which on latent decode's Hopper program was measured to be faster: it multiplies for 64, however few there are.
FEW_LATENT_HEADS = 16


@dataclass(frozen=True)
class Choice:
    """tier: "hopper", "triton" or "interpreter". why: a sentence."""

    tier: str
    why: str

    def __str__(self) -> str:
        return f"{self.tier}: {self.why}"


def choose_tier(
    query: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    scale: float,
    options: ScoreOptions,
) -> Choice:
    """The tier for a `paged_attention` with these arguments; the others make no difference."""
    if runtime.INTERPRET:
        return Choice("interpreter", f"kernels run on: {runtime.describe()}")
    if options.batch_invariant:
        return Choice("triton", "batch_invariant asks for tiles that depend on the model's sizes alone")
    from kernels import hopper_prefill

    objection = hopper_prefill.objection(
        query, key_cache, value_cache, scale, k_scale=options.k_scale, v_scale=options.v_scale
    )
    if objection:
        return Choice("triton", f"of the Hopper kernel: {objection}")
    return Choice("hopper", "the GPU is of the Hopper generation, and dtypes and shapes fit its kernel")


def choose_decode_tier(
    query: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    block_table: torch.Tensor,
    options: ScoreOptions,
) -> Choice:
    """The tier for a `paged_decode` with these arguments. The figures are in bench/results/tuning-h200.md."""
    if runtime.INTERPRET:
        return Choice("interpreter", f"kernels run on: {runtime.describe()}")
    from kernels import hopper_decode

    objection = hopper_decode.objection(
        query,
        key_cache,
        value_cache,
        k_scale=options.k_scale,
        v_scale=options.v_scale,
        batch_invariant=options.batch_invariant,
    )
    if objection:
        return Choice("triton", f"of the Hopper kernel: {objection}")
    most_seen = options.most_seen(block_table.shape[1] * key_cache.shape[1])
    if most_seen <= SHORTEST_SPLIT:
        return Choice(
            "triton",
            f"a query sees {most_seen} positions at most: nothing to cut, and so nothing to plan or to merge",
        )
    return Choice(
        "hopper",
        "the GPU is of the Hopper generation, and its program cuts the batch into shares of one length",
    )


def choose_latent_tier(
    query: torch.Tensor, latent_cache: torch.Tensor, scale: float, *, kv_lora_rank: int, kv_scale: Scale
) -> Choice:
    """The tier for a `latent_decode` with these arguments. The figures are in bench/results/tuning-h100.json."""
    if runtime.INTERPRET:
        return Choice("interpreter", f"kernels run on: {runtime.describe()}")
    from kernels import hopper_latent

    objection = hopper_latent.objection(
        query, latent_cache, scale, kv_lora_rank=kv_lora_rank, kv_scale=kv_scale
    )
    if objection:
        return Choice("triton", f"of the Hopper kernel: {objection}")
    if query.shape[1] < FEW_LATENT_HEADS:
        return Choice("triton", f"the Hopper kernel multiplies for 64 heads, and there are {query.shape[1]}")
    return Choice(
        "hopper", "the GPU is of the Hopper generation, and its program fetches and multiplies at once"
    )


def explain(
    query: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    query_start_loc: torch.Tensor,
    scale: float,
    *,
    causal: bool = True,
    sliding_window: int | None = None,
    softcap: float | None = None,
    alibi_slopes: torch.Tensor | None = None,
    sinks: torch.Tensor | None = None,
    k_scale: Scale = None,
    v_scale: Scale = None,
    batch_invariant: bool = False,
    out: torch.Tensor | None = None,
    return_lse: bool = False,
) -> Choice:
    """What `paged_attention` would do with these arguments, and why. Nothing is computed.

        >>> print(kernels.explain(query, key_cache, value_cache, block_table, seq_lens, query_start_loc, scale))
        interpreter: kernels run on: CPU (Triton interpreter)

    Raises ValueError when an argument breaks the contract.
    """
    options = ScoreOptions(
        causal, sliding_window, softcap, alibi_slopes, sinks, k_scale, v_scale, batch_invariant
    )
    contract.check_paged(
        query, key_cache, value_cache, block_table, seq_lens, query_start_loc, scale, out, options, fp8=True
    )
    return choose_tier(query, key_cache, value_cache, scale, options)


def explain_decode(
    query: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    scale: float,
    *,
    sliding_window: int | None = None,
    softcap: float | None = None,
    alibi_slopes: torch.Tensor | None = None,
    sinks: torch.Tensor | None = None,
    k_scale: Scale = None,
    v_scale: Scale = None,
    batch_invariant: bool = False,
    out: torch.Tensor | None = None,
    return_lse: bool = False,
) -> Choice:
    """What `paged_decode` would do with these arguments and no `tier`, and why. Nothing is computed.

    Raises ValueError when an argument breaks the contract.
    """
    options = ScoreOptions(
        True, sliding_window, softcap, alibi_slopes, sinks, k_scale, v_scale, batch_invariant
    )
    contract.check_paged(
        query, key_cache, value_cache, block_table, seq_lens, None, scale, out, options, fp8=True
    )
    return choose_decode_tier(query, key_cache, value_cache, block_table, options)
