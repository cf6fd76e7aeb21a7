"""Paged attention: references in torch, a block pool, and Triton kernels for a GPU or Triton's interpreter.

    import kernels

    kernels.reshape_and_cache(key, value, key_cache, value_cache, slot_mapping)
    output = kernels.paged_attention(
        query, key_cache, value_cache, block_table, seq_lens, query_start_loc, scale
    )

`kernels.reference` has the same functions in plain torch. `kernels.explain` says which kernel serves given arguments.

The files in the order in which a learner meets their ideas. What is right: reference.py, contract.py, options.py.
Whose block is whose: block_pool.py, paging.py, kv_cache.py. Decode: single_query.py (one query, one head), softmax.py,
gqa_decode.py (all heads of a kv head in one tile), merge.py, schedule.py and decode.py (splits, planned on the
device). Prefill: scores.py, prefill_tiles.py, prefill.py. Other caches: latent.py, cascade.py. For one generation of
GPUs, in Gluon: hopper_decode.py, hopper_prefill.py, hopper_latent.py, their programs beside them. Who chooses: tiers.py,
attention.py.
How a model gets to them, with vLLM's roles: backends/.

Nothing loads Triton before a Triton function is asked for; import `kernels` before `triton` all the same, because it
chooses the interpreter on a machine without a GPU.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from kernels.runtime import INTERPRET, describe, device

if TYPE_CHECKING:
    from kernels import backends, block_pool, contract, reference
    from kernels.attention import paged_attention
    from kernels.block_pool import BlockPool
    from kernels.cascade import cascade_attention
    from kernels.decode import paged_decode
    from kernels.kv_cache import reshape_and_cache
    from kernels.latent import latent_decode
    from kernels.merge import merge_attn_states
    from kernels.prefill import paged_prefill
    from kernels.tiers import explain, explain_decode

__all__ = [
    "INTERPRET",
    "BlockPool",
    "backends",
    "block_pool",
    "cascade_attention",
    "contract",
    "describe",
    "device",
    "explain",
    "explain_decode",
    "latent_decode",
    "merge_attn_states",
    "paged_attention",
    "paged_decode",
    "paged_prefill",
    "reference",
    "reshape_and_cache",
]

_SUBMODULES = ("backends", "block_pool", "contract", "reference")
_HOME = {
    "BlockPool": "block_pool",
    "cascade_attention": "cascade",
    "explain": "tiers",
    "explain_decode": "tiers",
    "latent_decode": "latent",
    "merge_attn_states": "merge",
    "paged_attention": "attention",
    "paged_decode": "decode",
    "paged_prefill": "prefill",
    "reshape_and_cache": "kv_cache",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name in _SUBMODULES:
        return import_module(f"kernels.{name}")
    if name in _HOME:
        value = getattr(import_module(f"kernels.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'kernels' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
