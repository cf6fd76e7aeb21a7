"""Which implementation runs, and why: one function that a person can read and ask.

A tier is a way to run the same attention: "hopper" (Gluon, for one generation of GPUs), "triton" (any GPU that Triton
compiles for) or "interpreter" (Triton's kernels, run by Python on the CPU). The choice looks at the machine, at shapes
and at dtypes, never at values, so that it costs no wait and a CUDA graph keeps it.
"""

from dataclasses import dataclass

import torch

from kernels import contract, runtime
from kernels.contract import Scale

__all__ = ["Choice", "explain"]

# True once tests/kernels/test_hopper_prefill.py has passed on a Hopper GPU: an emulation and a compiler are not one.
HOPPER_PREFILL_IS_PROVEN = False
# The same for tests/kernels/test_hopper_latent.py.
HOPPER_LATENT_IS_PROVEN = False


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
    *,
    k_scale: Scale = None,
    v_scale: Scale = None,
    batch_invariant: bool = False,
) -> Choice:
    """The tier for a `paged_attention` with these arguments; the others make no difference."""
    if runtime.INTERPRET:
        return Choice("interpreter", f"kernels run on: {runtime.describe()}")
    if batch_invariant:
        return Choice("triton", "batch_invariant asks for tiles that depend on the model's sizes alone")
    if not HOPPER_PREFILL_IS_PROVEN:
        return Choice(
            "triton", "the Hopper kernel has not yet passed its tests on a GPU; it can be called by name"
        )
    from kernels import hopper_prefill

    objection = hopper_prefill.supports(
        query, key_cache, value_cache, scale, k_scale=k_scale, v_scale=v_scale
    )
    if objection:
        return Choice("triton", f"of the Hopper kernel: {objection}")
    return Choice("hopper", "the GPU is of the Hopper generation, and dtypes and shapes fit its kernel")


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

    Raises ValueError where `paged_attention` would.
    """
    contract.check_paged(
        query,
        key_cache,
        value_cache,
        block_table,
        seq_lens,
        query_start_loc,
        scale,
        out,
        sliding_window=sliding_window,
        softcap=softcap,
        alibi_slopes=alibi_slopes,
        sinks=sinks,
        k_scale=k_scale,
        v_scale=v_scale,
        fp8_cache=True,
    )
    return choose_tier(
        query,
        key_cache,
        value_cache,
        scale,
        k_scale=k_scale,
        v_scale=v_scale,
        batch_invariant=batch_invariant,
    )
