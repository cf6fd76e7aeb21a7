"""vLLM's Triton kernel: vllm/v1/attention/ops/triton_unified_attention.py, called as its backend TRITON_ATTN does."""

from collections.abc import Callable

import torch

from bench.contender import Contender, refuse_unusual
from bench.inputs import Inputs

NUM_SEGMENTS = 16  # NUM_PAR_SOFTMAX_SEGMENTS of vllm/v1/attention/backends/triton_attn.py


def prepare(inputs: Inputs) -> Callable[[], torch.Tensor]:
    refuse_unusual(inputs, window=True, fp8=True)
    from vllm.v1.attention.ops.triton_unified_attention import unified_attention
    from vllm.v1.kv_cache_interface import KVQuantMode

    case, device = inputs.case, inputs.device
    window = case.sliding_window
    threshold = max(1, 128 // case.num_kv_heads)  # the largest batch that it splits
    padded = 1 << (case.head_size - 1).bit_length()
    segments = (threshold, case.num_heads, NUM_SEGMENTS)
    scales = (len(case.requests), case.num_kv_heads)
    out = inputs.empty_output()
    arguments = {
        "q": inputs.query,
        "k": inputs.key_cache,
        "v": inputs.value_cache,
        "out": out,
        "cu_seqlens_q": inputs.query_start_loc,
        "max_seqlen_q": inputs.max_query_len,
        "seqused_k": inputs.seq_lens,
        "max_seqlen_k": inputs.max_seq_len,
        "softmax_scale": inputs.scale,
        "causal": True,
        "window_size": (-1, -1) if window is None else (window - 1, 0),
        "block_table": inputs.block_table,
        "softcap": 0,
        "q_descale": None,
        "k_descale": torch.full(scales, inputs.k_scale, device=device),
        "v_descale": torch.full(scales, inputs.v_scale, device=device),
        "seq_threshold_3D": threshold,
        "num_par_softmax_segments": NUM_SEGMENTS,
        "softmax_segm_output": torch.empty(*segments, padded, device=device),
        "softmax_segm_max": torch.empty(segments, device=device),
        "softmax_segm_expsum": torch.empty(segments, device=device),
        "kv_quant_mode": KVQuantMode.NONE if inputs.k_scale == 1.0 else KVQuantMode.FP8_PER_TENSOR,
    }

    def call() -> torch.Tensor:
        unified_attention(**arguments)
        return out

    return call


CONTENDERS = (Contender("vLLM Triton", prepare, note="vLLM 0.22.1, Triton unified attention"),)
