"""The tensor contract, checked: what references and launchers accept.

Each check raises a ValueError that names the argument, what was expected and what came. On CUDA tensors only
shapes, dtypes, devices and strides are looked at, so that a check never waits for the GPU. On CPU tensors the
values that become addresses are checked too: Triton's interpreter reads raw memory, and a wrong block id
would end the notebook's process.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch

KERNEL_DTYPES = (torch.float16, torch.bfloat16, torch.float32)
REFERENCE_DTYPES = (*KERNEL_DTYPES, torch.float64)

# The output or, with return_lse, the pair (output, lse). Any stands for the pair: a union of the two would make every
# caller prove to the type checker which one it asked for.
AttentionResult = torch.Tensor | Any


def check_dense(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, causal: bool
) -> None:
    """The arguments of `dense_attention`: one request, its keys and values in order."""
    _check_tensor("query", query, {"n_q": None, "num_heads": None, "head_size": None}, REFERENCE_DTYPES)
    head_size = query.shape[2]
    kv_shape: dict[str, int | None] = {"n_kv": None, "num_kv_heads": None, "head_size": head_size}
    _check_tensor("key", key, kv_shape, [query.dtype], query.device)
    n_kv, num_kv_heads, _ = key.shape
    kv_shape = {"n_kv": n_kv, "num_kv_heads": num_kv_heads, "head_size": head_size}
    _check_tensor("value", value, kv_shape, [query.dtype], query.device)
    _check_heads(query.shape[1], num_kv_heads, head_size)
    _check_scale(scale)
    if causal and 0 < n_kv < query.shape[0]:
        raise ValueError(
            f"query: expected at most n_kv={n_kv} queries, because they are the last tokens of the sequence, "
            f"got {query.shape[0]}"
        )


def check_paged(
    query: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    query_start_loc: torch.Tensor | None,
    scale: float,
    out: torch.Tensor | None,
    dtypes: Iterable[torch.dtype] = KERNEL_DTYPES,
) -> None:
    """The arguments of `paged_attention`; with query_start_loc None those of `paged_decode`."""
    _check_tensor("query", query, {"num_tokens": None, "num_heads": None, "head_size": None}, dtypes)
    num_tokens, num_heads, head_size = query.shape
    device = query.device
    _check_cache(key_cache, value_cache, head_size, query.dtype, device)
    _check_heads(num_heads, key_cache.shape[2], head_size)

    num_reqs = None
    if query_start_loc is None:
        num_reqs = num_tokens
    table_shape = {"num_reqs": num_reqs, "max_num_blocks": None}
    _check_tensor("block_table", block_table, table_shape, [torch.int32], device)
    num_reqs = block_table.shape[0]
    _check_tensor("seq_lens", seq_lens, {"num_reqs": num_reqs}, [torch.int32], device)
    if query_start_loc is not None:
        shape: dict[str, int | None] = {"num_reqs + 1": num_reqs + 1}
        _check_tensor("query_start_loc", query_start_loc, shape, [torch.int32], device)
        if num_reqs == 0 and num_tokens > 0:
            raise ValueError(
                f"query: expected no tokens, because block_table has no requests, got {num_tokens}"
            )
    _check_scale(scale)
    if out is not None:
        out_shape = {"num_tokens": num_tokens, "num_heads": num_heads, "head_size": head_size}
        _check_tensor("out", out, out_shape, [query.dtype], device)
        _check_writable("out", out)

    if device.type == "cpu":
        num_blocks, block_size = key_cache.shape[:2]
        _check_block_values(block_table, seq_lens, num_blocks, block_size)
        if query_start_loc is not None:
            _check_query_values(query_start_loc, seq_lens, num_tokens)


def check_cache_write(
    key: torch.Tensor,
    value: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    slot_mapping: torch.Tensor,
    dtypes: Iterable[torch.dtype] = KERNEL_DTYPES,
) -> None:
    """The arguments of `reshape_and_cache`."""
    _check_tensor("key", key, {"num_tokens": None, "num_kv_heads": None, "head_size": None}, dtypes)
    num_tokens, num_kv_heads, head_size = key.shape
    value_shape = {"num_tokens": num_tokens, "num_kv_heads": num_kv_heads, "head_size": head_size}
    _check_tensor("value", value, value_shape, [key.dtype], key.device)
    _check_cache(key_cache, value_cache, head_size, key.dtype, key.device, num_kv_heads)
    _check_heads(num_kv_heads, num_kv_heads, head_size)
    _check_writable("key_cache", key_cache)
    _check_writable("value_cache", value_cache)
    _check_tensor("slot_mapping", slot_mapping, {"num_tokens": num_tokens}, [torch.int64], key.device)
    if key.device.type == "cpu":
        num_slots = key_cache.shape[0] * key_cache.shape[1]
        _refuse(
            "slot_mapping",
            slot_mapping,
            (slot_mapping < -1) | (slot_mapping >= num_slots),
            f"slots from 0 to {num_slots - 1} (num_blocks * block_size = {num_slots}), "
            "or -1 for a token that is not written",
        )


def check_states(
    outputs: torch.Tensor, lses: torch.Tensor, dtypes: Iterable[torch.dtype] = KERNEL_DTYPES
) -> None:
    """The arguments of `merge_attn_states`."""
    shape = {"num_splits": None, "num_tokens": None, "num_heads": None, "head_size": None}
    _check_tensor("outputs", outputs, shape, dtypes)
    num_splits, num_tokens, num_heads, head_size = outputs.shape
    if num_splits == 0:
        raise ValueError("outputs: expected at least one split, got none")
    _check_heads(num_heads, num_heads, head_size)
    lse_shape = {"num_splits": num_splits, "num_tokens": num_tokens, "num_heads": num_heads}
    lse_dtype = torch.float64 if outputs.dtype == torch.float64 else torch.float32
    _check_tensor("lses", lses, lse_shape, [lse_dtype], outputs.device)


def _check_cache(
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    head_size: int,
    dtype: torch.dtype,
    device: torch.device,
    num_kv_heads: int | None = None,
) -> None:
    shape = {"num_blocks": None, "block_size": None, "num_kv_heads": num_kv_heads, "head_size": head_size}
    _check_tensor("key_cache", key_cache, shape, [dtype], device)
    num_blocks, block_size, num_kv_heads, _ = key_cache.shape
    if block_size == 0:
        raise ValueError(f"key_cache: expected block_size of at least 1, got shape {list(key_cache.shape)}")
    shape |= {"num_blocks": num_blocks, "block_size": block_size, "num_kv_heads": num_kv_heads}
    _check_tensor("value_cache", value_cache, shape, [dtype], device)


def _check_heads(num_heads: int, num_kv_heads: int, head_size: int) -> None:
    if min(num_heads, num_kv_heads, head_size) == 0:
        raise ValueError(
            "num_heads, num_kv_heads and head_size: expected at least 1 each, "
            f"got {num_heads}, {num_kv_heads} and {head_size}"
        )
    if num_heads % num_kv_heads:
        raise ValueError(
            f"num_heads: expected a multiple of num_kv_heads={num_kv_heads}, got {num_heads}; "
            "every kv head serves the same number of query heads"
        )


def _check_scale(scale: float) -> None:
    if isinstance(scale, bool) or not isinstance(scale, int | float):
        raise ValueError(f"scale: expected a float, got {type(scale).__name__}")
    if not math.isfinite(scale):
        raise ValueError(f"scale: expected a finite number, got {scale}")


def _check_tensor(
    name: str,
    tensor: torch.Tensor,
    shape: Mapping[str, int | None],
    dtypes: Iterable[torch.dtype],
    device: torch.device | None = None,
) -> None:
    """`shape` maps each dimension's name to its size, None where any size will do."""
    if not isinstance(tensor, torch.Tensor):
        raise ValueError(f"{name}: expected a torch tensor, got {type(tensor).__name__}")
    sizes = list(shape.values())
    if tensor.dim() != len(sizes) or any(
        want not in (None, got) for want, got in zip(sizes, tensor.shape, strict=True)
    ):
        wanted = ", ".join(dim if size is None else f"{dim}={size}" for dim, size in shape.items())
        raise ValueError(f"{name}: expected shape [{wanted}], got {list(tensor.shape)}")
    dtypes = list(dtypes)
    if tensor.dtype not in dtypes:
        raise ValueError(f"{name}: expected {_names(dtypes)}, got {_names([tensor.dtype])}")
    if device is not None and tensor.device != device:
        raise ValueError(
            f"{name}: expected a tensor on {device}, like the other arguments, got {tensor.device}"
        )
    if tensor.shape[-1] > 1 and tensor.stride(-1) != 1:
        raise ValueError(
            f"{name}: expected the last dimension to be contiguous (stride 1), "
            f"got stride {tensor.stride(-1)}; call .contiguous()"
        )


def _check_writable(name: str, tensor: torch.Tensor) -> None:
    """Refuse expanded tensors, where writing one element changes others."""
    if any(stride == 0 and size > 1 for stride, size in zip(tensor.stride(), tensor.shape, strict=True)):
        raise ValueError(
            f"{name}: expected every element to have its own place in memory, because it is written to, "
            f"got an expanded tensor with strides {list(tensor.stride())}"
        )


def _check_block_values(
    block_table: torch.Tensor, seq_lens: torch.Tensor, num_blocks: int, block_size: int
) -> None:
    width = block_table.shape[1]
    _refuse(
        "seq_lens",
        seq_lens,
        (seq_lens < 0) | (seq_lens > width * block_size),
        f"lengths from 0 to {width * block_size} (block_table has {width} entries a request, "
        f"block_size is {block_size})",
    )
    num_owned = (seq_lens + block_size - 1) // block_size
    owned = torch.arange(width)[None, :] < num_owned[:, None]
    _refuse(
        "block_table",
        block_table,
        owned & ((block_table < 0) | (block_table >= num_blocks)),
        f"block ids from 0 to {num_blocks - 1} in the entries that seq_lens makes a request's own",
    )


def _check_query_values(query_start_loc: torch.Tensor, seq_lens: torch.Tensor, num_tokens: int) -> None:
    starts = query_start_loc.tolist()
    if starts[0] != 0 or starts[-1] != num_tokens:
        raise ValueError(
            f"query_start_loc: expected to start at 0 and to end at num_tokens={num_tokens}, "
            f"got {_shorten(starts)}"
        )
    num_queries = query_start_loc.diff()
    if bool((num_queries < 0).any()):
        raise ValueError(f"query_start_loc: expected values that never fall, got {_shorten(starts)}")
    short = (seq_lens > 0) & (seq_lens < num_queries)
    if bool(short.any()):
        request = int(short.nonzero()[0])
        raise ValueError(
            f"seq_lens[{request}]: expected at least {int(num_queries[request])}, the number of query tokens "
            f"of request {request}, because seq_lens counts this step's tokens too, "
            f"got {int(seq_lens[request])}"
        )


def _refuse(name: str, tensor: torch.Tensor, wrong: torch.Tensor, expected: str) -> None:
    """Raise for the first element of `tensor` where `wrong` is True."""
    if bool(wrong.any()):
        index = wrong.nonzero()[0].tolist()
        raise ValueError(f"{name}{index}: expected {expected}, got {tensor[tuple(index)].item()}")


def _names(dtypes: list[torch.dtype]) -> str:
    return " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)


def _shorten(values: list[int]) -> str:
    return str(values) if len(values) <= 12 else f"[{', '.join(map(str, values[:6]))}, ..., {values[-1]}]"
