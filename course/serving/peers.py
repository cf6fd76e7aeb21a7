"""Other implementations of paged attention, where they are installed: each takes a batch and returns the call to time.

What an engine does once a step (schedules, plans) happens before the call, as in bench/peers. All compute one layer, causal,
bfloat16, with the sizes of `kernel_times`. Each raises ImportError where its library is missing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from course.serving.batch import SCALE, Batch
from course.serving.kernel_times import BLOCK_SIZE, HEAD_SIZE, NUM_HEADS, NUM_KV_HEADS

_SEGMENTS = 16  # NUM_PAR_SOFTMAX_SEGMENTS of vLLM's Triton backend
_WORKSPACE_BYTES = 512 << 20


def vllm_triton(batch: Batch) -> Callable[[], Any]:
    from vllm.v1.attention.ops.triton_unified_attention import unified_attention
    from vllm.v1.kv_cache_interface import KVQuantMode

    keys, values = batch.split_caches()
    common = batch.common
    threshold = max(1, 128 // NUM_KV_HEADS)
    segments = (threshold, NUM_HEADS, _SEGMENTS)
    scales = torch.ones(len(batch.requests), NUM_KV_HEADS, device=batch.device)
    arguments: dict[str, Any] = {
        "q": batch.query,
        "k": keys,
        "v": values,
        "out": batch.output,
        "cu_seqlens_q": common.query_start_loc,
        "max_seqlen_q": common.max_query_len,
        "seqused_k": common.seq_lens,
        "max_seqlen_k": common.max_seq_len,
        "softmax_scale": SCALE,
        "causal": True,
        "window_size": (-1, -1),
        "block_table": common.block_table_tensor,
        "softcap": 0,
        "q_descale": None,
        "k_descale": scales,
        "v_descale": scales,
        "seq_threshold_3D": threshold,
        "num_par_softmax_segments": _SEGMENTS,
        "softmax_segm_output": torch.empty(*segments, HEAD_SIZE, device=batch.device),
        "softmax_segm_max": torch.empty(segments, device=batch.device),
        "softmax_segm_expsum": torch.empty(segments, device=batch.device),
        "kv_quant_mode": KVQuantMode.NONE,
    }
    return lambda: unified_attention(**arguments)


def flash_attention_3(batch: Batch) -> Callable[[], Any]:
    from vllm.vllm_flash_attn import flash_attn_interface as fa

    keys, values = batch.split_caches()
    common = batch.common
    schedule = fa.get_scheduler_metadata(
        batch_size=len(batch.requests),
        max_seqlen_q=common.max_query_len,
        max_seqlen_k=common.max_seq_len,
        num_heads_q=NUM_HEADS,
        num_heads_kv=NUM_KV_HEADS,
        headdim=HEAD_SIZE,
        headdim_v=HEAD_SIZE,
        cache_seqlens=common.seq_lens,
        qkv_dtype=batch.query.dtype,
        cu_seqlens_q=common.query_start_loc,
        page_size=BLOCK_SIZE,
        causal=True,
        window_size=(-1, -1),
        num_splits=0,
    )
    return lambda: fa.flash_attn_varlen_func(
        q=batch.query,
        k=keys,
        v=values,
        out=batch.output,
        cu_seqlens_q=common.query_start_loc,
        max_seqlen_q=common.max_query_len,
        seqused_k=common.seq_lens,
        max_seqlen_k=common.max_seq_len,
        softmax_scale=SCALE,
        causal=True,
        window_size=[-1, -1],
        block_table=common.block_table_tensor,
        fa_version=3,
        scheduler_metadata=schedule,
        num_splits=0,
    )


def flashinfer(batch: Batch) -> Callable[[], Any]:
    """Two kernels, as its backend in vLLM has it: one for the decodes of a step, one for its prompts."""
    import flashinfer as library

    caches = batch.split_caches()
    decodes = sum(count == 1 for count, _ in batch.requests)
    sizes = (NUM_HEADS, NUM_KV_HEADS, HEAD_SIZE, BLOCK_SIZE)
    dtypes = {"sm_scale": SCALE, "q_data_type": batch.query.dtype, "kv_data_type": batch.query.dtype}
    calls = []
    if decodes:
        decode = library.BatchDecodeWithPagedKVCacheWrapper(
            _workspace(batch), "NHD", use_tensor_cores=True, backend="fa2"
        )
        decode.plan(*_pages(batch, 0, decodes), *sizes, **dtypes)
        parts = batch.query[:decodes], caches, batch.output[:decodes]
        calls.append(lambda wrapper=decode, p=parts: wrapper.run(p[0], p[1], out=p[2]))
    if decodes < len(batch.requests):
        prompts = library.BatchPrefillWithPagedKVCacheWrapper(_workspace(batch), "NHD", backend="fa3")
        starts = batch.common.query_start_loc[decodes:] - decodes
        prompts.plan(starts, *_pages(batch, decodes, len(batch.requests)), *sizes, causal=True, **dtypes)
        parts = batch.query[decodes:], caches, batch.output[decodes:]
        calls.append(lambda wrapper=prompts, p=parts: wrapper.run(p[0], p[1], out=p[2]))
    return lambda: [call() for call in calls]


def _workspace(batch: Batch) -> torch.Tensor:
    return torch.zeros(_WORKSPACE_BYTES, dtype=torch.uint8, device=batch.device)


def _pages(batch: Batch, first: int, last: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(indptr, indices, last_page_len) of some of the requests: the block table without its empty entries."""
    lengths = batch.common.seq_lens[first:last]
    counts = (lengths + BLOCK_SIZE - 1) // BLOCK_SIZE
    indptr = torch.nn.functional.pad(counts.cumsum(0), (1, 0)).to(torch.int32)
    rows = batch.common.block_table_tensor[first:last]
    indices = torch.cat([row[:count] for row, count in zip(rows, counts.tolist(), strict=True)])
    return indptr, indices, ((lengths - 1) % BLOCK_SIZE + 1).to(torch.int32)
