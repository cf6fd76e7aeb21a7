"""FlashAttention-3 as vLLM ships and calls it: one kernel for prefill and decode, reading the paged cache."""

import functools
from collections.abc import Callable

import torch

from bench.contender import Contender, refuse, refuse_unusual
from bench.inputs import FP8, Inputs


def prepare(inputs: Inputs, *, fp8: bool) -> Callable[[], torch.Tensor]:
    refuse_unusual(inputs, window=True, fp8=fp8, latent=True)
    refuse(fp8 and inputs.case.kv_dtype == "bfloat16", "fp8 cache only")
    from vllm.vllm_flash_attn import flash_attn_interface as fa

    case = inputs.case
    window = [-1, -1] if case.sliding_window is None else [case.sliding_window - 1, 0]
    out = inputs.empty_output()
    query, key, extra = inputs.query, inputs.key_cache, {}
    if (
        case.latent_size is not None
    ):  # the rotary part is the key, the latent part is the value and q_v meets it
        latent = case.latent_size
        query, key, extra["q_v"] = (
            query[..., latent:].contiguous(),
            key[..., latent:],
            query[..., :latent].contiguous(),
        )
    if fp8:  # the cache is only read with fp8 queries; vLLM quantises them before the call
        q_scale = query.abs().max().item() / torch.finfo(FP8).max
        query = (query / q_scale).to(FP8)
        for name, scale in (("q", q_scale), ("k", inputs.k_scale), ("v", inputs.v_scale)):
            extra[f"{name}_descale"] = torch.full(
                (len(case.requests), case.num_kv_heads), scale, device=inputs.device
            )

    # vLLM asks for the schedule once a step and uses it in every layer: it is not timed.
    schedule = fa.get_scheduler_metadata(
        batch_size=len(case.requests),
        max_seqlen_q=inputs.max_query_len,
        max_seqlen_k=inputs.max_seq_len,
        num_heads_q=case.num_heads,
        num_heads_kv=case.num_kv_heads,
        headdim=query.shape[-1],
        headdim_v=case.value_size,
        cache_seqlens=inputs.seq_lens,
        qkv_dtype=query.dtype,
        cu_seqlens_q=inputs.query_start_loc,
        page_size=case.block_size,
        causal=True,
        window_size=tuple(window),
        num_splits=0,
    )

    def call() -> torch.Tensor:
        fa.flash_attn_varlen_func(
            q=query,
            k=key,
            v=inputs.value_cache,
            out=out,
            cu_seqlens_q=inputs.query_start_loc,
            max_seqlen_q=inputs.max_query_len,
            seqused_k=inputs.seq_lens,
            max_seqlen_k=inputs.max_seq_len,
            softmax_scale=inputs.scale,
            causal=True,
            window_size=window,
            block_table=inputs.block_table,
            fa_version=3,
            scheduler_metadata=schedule,
            num_splits=0,
            **extra,
        )
        return out

    return call


CONTENDERS = (
    Contender(
        "FlashAttention-3",
        functools.partial(prepare, fp8=False),
        note="vLLM 0.22.1's build; its schedule is made outside the timing",
    ),
    Contender(
        "FlashAttention-3, fp8 queries",
        functools.partial(prepare, fp8=True),
        note="an easier task with a larger error: queries and softmax weights are rounded to fp8",
        error_limit=0.1,
    ),
)
