"""FlashInfer 0.6.4, each of its paths; plan() is outside the timing.

FlashInfer compiles a library at the first use of each path, head size, dtype and window: ten of them took 16 cores three
minutes. ~/.cache/flashinfer/*/*/cached_ops/NAME/NAME.so, brought to flashinfer/data/aot/NAME/NAME.so on a fresh machine, is
taken as it is; with FLASHINFER_DISABLE_JIT=1 a path without such a library is left out, and says so.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch

from bench.contender import Contender, Unsupported, refuse, refuse_unusual, shared_buffer
from bench.inputs import Inputs

WORKSPACE_BYTES = 512 << 20


def _pages(inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(paged_kv_indptr, paged_kv_indices, paged_kv_last_page_len): the block table without its empty entries."""
    block_size = inputs.case.block_size
    counts = (inputs.seq_lens + block_size - 1) // block_size
    indptr = torch.nn.functional.pad(counts.cumsum(0), (1, 0)).to(torch.int32)
    indices = torch.cat([row[:count] for row, count in zip(inputs.block_table, counts.tolist(), strict=True)])
    return indptr, indices, ((inputs.seq_lens - 1) % block_size + 1).to(torch.int32)


def _options(inputs: Inputs) -> dict[str, Any]:
    """What plan() is told in every path."""
    window = inputs.case.sliding_window
    return {
        "sm_scale": inputs.scale,
        "window_left": -1 if window is None else window - 1,
        "q_data_type": inputs.query.dtype,
        "kv_data_type": inputs.key_cache.dtype,
    }


def _run(wrapper: Any, inputs: Inputs) -> Callable[[], torch.Tensor]:
    out = inputs.empty_output()
    cache = (inputs.key_cache, inputs.value_cache)
    scales = {} if inputs.k_scale == 1.0 else {"k_scale": inputs.k_scale, "v_scale": inputs.v_scale}

    def call() -> torch.Tensor:
        wrapper.run(inputs.query, cache, out=out, **scales)
        return out

    return call


def prepare_decode(inputs: Inputs, *, tensor_cores: bool) -> Callable[[], torch.Tensor]:
    refuse_unusual(inputs, window=True, fp8=True)
    refuse(inputs.case.kind != "decode", "decode only")
    import flashinfer

    case = inputs.case
    indptr, indices, last = _pages(inputs)
    wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(
        shared_buffer(WORKSPACE_BYTES, inputs.device),
        "NHD",
        use_cuda_graph=True,
        use_tensor_cores=tensor_cores,
        paged_kv_indptr_buffer=indptr.clone(),
        paged_kv_indices_buffer=indices.clone(),
        paged_kv_last_page_len_buffer=last.clone(),
        backend="fa2" if tensor_cores else "auto",
    )
    sizes = (case.num_heads, case.num_kv_heads, case.head_size, case.block_size)
    wrapper.plan(indptr, indices, last, *sizes, **_options(inputs))
    return _run(wrapper, inputs)


def prepare_prefill(inputs: Inputs, *, backend: str) -> Callable[[], torch.Tensor]:
    refuse_unusual(inputs, window=True, fp8=True)
    case = inputs.case
    refuse(case.kind == "decode" and backend == "fa2", "that is its decode path with tensor cores")
    refuse(case.kv_dtype != "bfloat16" and backend == "fa3", "fa3 takes an fp8 cache only with fp8 queries")
    import flashinfer

    indptr, indices, last = _pages(inputs)
    starts = inputs.query_start_loc
    wrapper = flashinfer.BatchPrefillWithPagedKVCacheWrapper(
        shared_buffer(WORKSPACE_BYTES, inputs.device),
        "NHD",
        use_cuda_graph=True,
        qo_indptr_buf=starts.clone(),
        paged_kv_indptr_buf=indptr.clone(),
        paged_kv_indices_buf=indices.clone(),
        paged_kv_last_page_len_buf=last.clone(),
        backend=backend,
    )
    sizes = (case.num_heads, case.num_kv_heads, case.head_size, case.block_size)
    wrapper.plan(starts, indptr, indices, last, *sizes, causal=True, **_options(inputs))
    return _run(wrapper, inputs)


def prepare_xqa(inputs: Inputs) -> Callable[[], torch.Tensor]:
    refuse_unusual(inputs, window=True)
    case = inputs.case
    refuse(case.kind != "decode", "decode only")
    refuse(case.block_size not in (16, 32, 64, 128), "block sizes 16, 32, 64 and 128 only")
    from flashinfer.xqa import xqa

    out = inputs.empty_output()
    lengths = inputs.seq_lens[:, None].view(torch.uint32)
    semaphores = torch.zeros(len(case.requests) * case.num_kv_heads, dtype=torch.int32, device=inputs.device)
    workspace = shared_buffer(WORKSPACE_BYTES, inputs.device)

    def call() -> torch.Tensor:
        xqa(
            inputs.query[:, None],
            inputs.key_cache,
            inputs.value_cache,
            inputs.block_table,
            lengths,
            out[:, None],
            workspace,
            semaphores.view(torch.uint32),
            case.num_kv_heads,
            case.block_size,
            sliding_win_size=case.sliding_window or 0,
        )
        return out

    return call


def prepare_latent(inputs: Inputs, *, backend: str) -> Callable[[], torch.Tensor]:
    case = inputs.case
    refuse(case.latent_size is None, "latent attention only")
    assert case.latent_size is not None
    from flashinfer.mla import BatchMLAPagedAttentionWrapper

    indptr, indices, _ = _pages(inputs)
    starts, latent = inputs.query_start_loc, case.latent_size
    wrapper = BatchMLAPagedAttentionWrapper(
        shared_buffer(WORKSPACE_BYTES, inputs.device),
        use_cuda_graph=True,
        qo_indptr=starts.clone(),
        kv_indptr=indptr.clone(),
        kv_indices=indices.clone(),
        kv_len_arr=inputs.seq_lens.clone(),
        backend=backend,
    )
    wrapper.plan(
        starts,
        indptr,
        indices,
        inputs.seq_lens,
        case.num_heads,
        latent,
        case.head_size - latent,
        case.block_size,
        True,
        inputs.scale,
        inputs.query.dtype,
        inputs.key_cache.dtype,
    )
    out = inputs.empty_output()
    cache = inputs.key_cache[:, :, 0]

    def call() -> torch.Tensor:
        query = inputs.query
        wrapper.run(
            query[..., :latent], query[..., latent:], cache[..., :latent], cache[..., latent:], out=out
        )
        return out

    return call


def prepare_trtllm_gen(inputs: Inputs) -> Callable[[], torch.Tensor]:
    raise Unsupported("its kernels are binaries for Blackwell (sm_100) only")


CONTENDERS = (
    Contender("FlashInfer decode, CUDA cores", functools.partial(prepare_decode, tensor_cores=False)),
    Contender("FlashInfer decode, tensor cores", functools.partial(prepare_decode, tensor_cores=True)),
    Contender("FlashInfer xqa", prepare_xqa),
    Contender("FlashInfer prefill, fa2", functools.partial(prepare_prefill, backend="fa2")),
    Contender("FlashInfer prefill, fa3", functools.partial(prepare_prefill, backend="fa3")),
    Contender("FlashInfer MLA, fa2", functools.partial(prepare_latent, backend="fa2")),
    Contender("FlashInfer MLA, fa3", functools.partial(prepare_latent, backend="fa3")),
    Contender("FlashInfer trtllm-gen", prepare_trtllm_gen),
)
