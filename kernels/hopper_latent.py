"""Decode over a cache of latents on Hopper GPUs: the launcher of the Gluon program in hopper_latent_kernel.py.

With the many heads of DeepSeek's models (128 over one cache) latent decode is bound by the tensor cores and by the memory
at once, and a plain Triton program (latent.py) does one thing after the other. Here a warp of its own fetches, and two
warpgroups take turns. There is no interpreter for Gluon: latent.py stays the twin for every other machine, and `objection`
says when this one applies. Grid and splits come from shapes alone, so nothing waits for the GPU and a CUDA graph can be
captured.

64 requests of 4096 tokens and 128 heads take 137.5 us on an H100 (bf16, blocks of 64), 531 TFLOP/s (bench/results/
tuning-h100.md; 105 to 120 us were predicted). The tensor cores alone take 80 us at 1.75 GHz, reading every row once from
memory 90 us.
"""

import torch
import triton

from kernels import contract, runtime
from kernels.contract import AttentionResult
from kernels.merge import launch_merge
from kernels.options import Scale
from kernels.schedule import choose_num_splits
from kernels.softmax import LOG2_E

__all__ = ["latent_decode_hopper", "objection"]

_RANK, _HEAD_SIZE = 512, 576  # of DeepSeek's models: the program's tiles are made for them
_HEADS, _TILE_SIZE, _HALF, _REST = 64, 64, 256, 64  # as in hopper_latent_kernel.py


def objection(
    query: torch.Tensor,
    latent_cache: torch.Tensor,
    scale: float,
    *,
    kv_lora_rank: int,
    kv_scale: Scale = None,
) -> str | None:
    """Why the Hopper program cannot serve these arguments; None when it can. From shapes, dtypes and strides alone."""
    reason = runtime.hopper_objection(query.device, "hopper_latent_kernel")
    if reason is not None:
        return reason
    if query.dtype not in (torch.float16, torch.bfloat16) or latent_cache.dtype != query.dtype:
        return f"it takes a query and a cache of one 16-bit type, got {query.dtype} and {latent_cache.dtype}"
    if (kv_lora_rank, query.shape[2]) != (_RANK, _HEAD_SIZE):
        return (
            f"it takes latents of {_RANK} and rows of {_HEAD_SIZE} numbers, "
            f"got kv_lora_rank {kv_lora_rank} and head_size {query.shape[2]}"
        )
    if kv_scale is not None:
        return "it has no scale for the cache"
    if scale <= 0:
        return f"it takes a positive scale, got {scale}"
    num_blocks, block_size, _ = latent_cache.shape
    if block_size < 16 or block_size & (block_size - 1):
        return f"it takes blocks of a power of two from 16 on, got {block_size}"
    if num_blocks == 0:
        return "the cache has no blocks"
    for name, tensor in (("query", query), ("latent_cache", latent_cache)):
        outer, inner, _ = tensor.stride()
        if tensor.data_ptr() % 16 or inner % 8:
            return f"{name}: the copy engine wants 16-byte addresses"
        if inner < _HEAD_SIZE or (len(tensor) > 1 and outer % inner):
            return f"{name}: its strides {tensor.stride()} are no rows of equal distance"
    return None


def latent_decode_hopper(
    query: torch.Tensor,
    latent_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    scale: float,
    *,
    kv_lora_rank: int,
    kv_scale: Scale = None,
    out: torch.Tensor | None = None,
    return_lse: bool = False,
) -> AttentionResult:
    """Decode of one query token a request over a cache of latents on a Hopper GPU, as `latent_decode` has it.

    query: [num_reqs, num_heads, 576], float16 or bfloat16.
    latent_cache: [num_blocks, block_size, 576], query's dtype; block_size a power of two from 16 on.
    block_table: [num_reqs, max_num_blocks] int32; seq_lens: [num_reqs] int32, 0 is legal.
    scale: what scores are multiplied with, positive.
    kv_lora_rank: 512. kv_scale: None.
    out: where to write the output, [num_reqs, num_heads, 512] in query's dtype; made when None.

    Returns the output and, with `return_lse`, the natural logarithm of the sum of exponentials [num_reqs, num_heads]
    in float32. A request of length 0 gets zeros and -inf. Raises ValueError when an argument breaks the contract, or
    is one to which there is an `objection`.
    """
    contract.check_latent(query, latent_cache, block_table, seq_lens, scale, kv_lora_rank, kv_scale, out)
    reason = objection(query, latent_cache, scale, kv_lora_rank=kv_lora_rank, kv_scale=kv_scale)
    if reason is not None:
        raise ValueError(f"latent_decode_hopper: {reason}")
    num_reqs, num_heads, _ = query.shape
    if out is None:
        out = query.new_empty(num_reqs, num_heads, _RANK)
    lse = query.new_empty(num_reqs, num_heads, dtype=torch.float32)
    if num_reqs > 0:
        launch_latent_decode(query, latent_cache, block_table, seq_lens, scale, out, lse)
    return (out, lse) if return_lse else out


def launch_latent_decode(
    query: torch.Tensor,
    latent_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    scale: float,
    out: torch.Tensor,
    lse: torch.Tensor,
) -> None:
    """`latent_decode` of checked arguments to which there is no `objection`, into `out` and `lse`."""
    from kernels.hopper_latent_kernel import latent_decode_hopper_kernel

    num_reqs, num_heads, _ = query.shape
    block_size = latent_cache.shape[1]
    num_programs = num_reqs * triton.cdiv(num_heads, _HEADS)
    max_seq_len = block_table.shape[1] * block_size
    num_splits = choose_num_splits(num_programs, runtime.num_multiprocessors(query.device), max_seq_len)
    outputs, lses = out[None], lse[None]
    if num_splits > 1:
        outputs = query.new_empty(num_splits, *out.shape, dtype=torch.float32)
        lses = query.new_empty(num_splits, *lse.shape, dtype=torch.float32)
    box = min(block_size, _TILE_SIZE)
    query_descs, rows_of_req, _ = _describe_rows(query, _HEADS)
    cache_descs, rows_of_block, num_cache_rows = _describe_rows(latent_cache, box)
    with torch.cuda.device_of(query):
        latent_decode_hopper_kernel[(num_programs * num_splits,)](
            *query_descs,
            *cache_descs,
            block_table,
            seq_lens,
            outputs,
            lses,
            scale * LOG2_E,
            num_reqs,
            num_splits,
            rows_of_req,
            rows_of_block,
            num_cache_rows,
            block_table.stride(0),
            *outputs.stride()[:3],
            NUM_HEADS=num_heads,
            BLOCK_SIZE=block_size,
            BOX=box,
            num_warps=4,
        )
    if num_splits > 1:
        launch_merge(outputs, lses, out, lse)


def _describe_rows(tensor: torch.Tensor, box: int) -> tuple[list[object], int, int]:
    """A tensor [groups, rows, 576] as a matrix for the copy engine, whose rows are as far apart as rows of a group are.

    Returns (descriptors for boxes of 256 and of 64 columns, rows from a group to the next, rows).
    """
    from kernels.hopper_latent_kernel import describe_matrix

    groups, rows, columns = tensor.shape
    outer, inner, _ = tensor.stride()
    rows_of_group = outer // inner if groups > 1 else rows
    num_rows = (groups - 1) * rows_of_group + rows
    matrix = tensor.as_strided((num_rows, columns), (inner, 1))
    return [describe_matrix(matrix, [box, width]) for width in (_HALF, _REST)], rows_of_group, num_rows
