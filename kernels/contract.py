"""The tensor contract, checked: what references and launchers accept.

Each check raises a ValueError that names the argument, what was expected and what came. On CUDA tensors only
shapes, dtypes, devices and strides are looked at, so that a check never waits for the GPU. On CPU tensors the
values that become addresses are checked too: Triton's interpreter reads raw memory, and a wrong block id
would end the notebook's process. With KERNELS_DEBUG=1 in the environment they are checked on a GPU as well: each
call then waits for it, so that no CUDA graph can be captured.
"""

import math
import os
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from kernels.options import PLAIN, Scale, ScoreOptions

KERNEL_DTYPES = (torch.float16, torch.bfloat16, torch.float32)
REFERENCE_DTYPES = (*KERNEL_DTYPES, torch.float64)
# What a cache may hold instead of the query's dtype, one byte an element.
FP8_DTYPES = (torch.float8_e4m3fn, torch.float8_e5m2)

# The output or, with return_lse, the pair (output, lse). Any stands for the pair: a union of the two would make every
# caller prove to the type checker which one it asked for.
AttentionResult = torch.Tensor | Any


def debugging() -> bool:
    """True when the environment asks for checks of values, which wait for the GPU: KERNELS_DEBUG=1."""
    return os.environ.get("KERNELS_DEBUG", "") not in ("", "0")


def check_dense(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, options: ScoreOptions
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
    _check_options(options, query, num_kv_heads)
    if options.causal and 0 < n_kv < query.shape[0]:
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
    options: ScoreOptions = PLAIN,
    dtypes: Iterable[torch.dtype] = KERNEL_DTYPES,
    *,
    fp8: bool = False,
) -> None:
    """The arguments of `paged_attention`; with query_start_loc None those of `paged_decode`.

    fp8: whether the caches may hold float8 numbers.
    """
    _check_tensor("query", query, {"num_tokens": None, "num_heads": None, "head_size": None}, dtypes)
    num_tokens, num_heads, head_size = query.shape
    device = query.device
    _check_cache(key_cache, value_cache, head_size, query.dtype, device, fp8=fp8)
    num_kv_heads = key_cache.shape[2]
    _check_heads(num_heads, num_kv_heads, head_size)

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
    _check_options(options, query, num_kv_heads)
    if out is not None:
        out_shape = {"num_tokens": num_tokens, "num_heads": num_heads, "head_size": head_size}
        _check_tensor("out", out, out_shape, [query.dtype], device)
        _check_writable("out", out)

    if device.type == "cpu" or debugging():
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
    *,
    k_scale: Scale = None,
    v_scale: Scale = None,
) -> None:
    """The arguments of `reshape_and_cache`."""
    _check_tensor("key", key, {"num_tokens": None, "num_kv_heads": None, "head_size": None}, dtypes)
    num_tokens, num_kv_heads, head_size = key.shape
    value_shape = {"num_tokens": num_tokens, "num_kv_heads": num_kv_heads, "head_size": head_size}
    _check_tensor("value", value, value_shape, [key.dtype], key.device)
    _check_cache(key_cache, value_cache, head_size, key.dtype, key.device, num_kv_heads, fp8=True)
    _check_heads(num_kv_heads, num_kv_heads, head_size)
    _check_cache_scale("k_scale", k_scale, num_kv_heads, key.device)
    _check_cache_scale("v_scale", v_scale, num_kv_heads, key.device)
    _check_writable("key_cache", key_cache)
    _check_writable("value_cache", value_cache)
    _check_tensor("slot_mapping", slot_mapping, {"num_tokens": num_tokens}, [torch.int64], key.device)
    if key.device.type == "cpu" or debugging():
        num_slots = key_cache.shape[0] * key_cache.shape[1]
        _refuse(
            "slot_mapping",
            slot_mapping,
            (slot_mapping < -1) | (slot_mapping >= num_slots),
            f"slots from 0 to {num_slots - 1} (num_blocks * block_size = {num_slots}), "
            "or -1 for a token that is not written",
        )


def check_latent(
    query: torch.Tensor,
    latent_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    scale: float,
    kv_lora_rank: int,
    kv_scale: Scale,
    out: torch.Tensor | None,
    dtypes: Iterable[torch.dtype] = KERNEL_DTYPES,
) -> None:
    """The arguments of `latent_decode`."""
    _check_tensor("query", query, {"num_reqs": None, "num_heads": None, "head_size": None}, dtypes)
    num_reqs, num_heads, head_size = query.shape
    shape: dict[str, int | None] = {"num_blocks": None, "block_size": None, "head_size": head_size}
    wanted = [query.dtype]
    if isinstance(latent_cache, torch.Tensor) and latent_cache.dtype in FP8_DTYPES:
        wanted = [latent_cache.dtype]
    _check_tensor("latent_cache", latent_cache, shape, wanted, query.device)
    num_blocks, block_size, _ = latent_cache.shape
    if block_size == 0:
        raise ValueError(
            f"latent_cache: expected block_size of at least 1, got shape {list(latent_cache.shape)}"
        )
    _check_heads(num_heads, 1, head_size)
    if (
        isinstance(kv_lora_rank, bool)
        or not isinstance(kv_lora_rank, int)
        or not 1 <= kv_lora_rank <= head_size
    ):
        raise ValueError(
            f"kv_lora_rank: expected a number from 1 to head_size={head_size}, got {kv_lora_rank!r}"
        )
    table_shape: dict[str, int | None] = {"num_reqs": num_reqs, "max_num_blocks": None}
    _check_tensor("block_table", block_table, table_shape, [torch.int32], query.device)
    _check_tensor("seq_lens", seq_lens, {"num_reqs": num_reqs}, [torch.int32], query.device)
    _check_scale(scale)
    _check_cache_scale("kv_scale", kv_scale, 1, query.device)
    if out is not None:
        out_shape = {"num_reqs": num_reqs, "num_heads": num_heads, "kv_lora_rank": kv_lora_rank}
        _check_tensor("out", out, out_shape, [query.dtype], query.device)
        _check_writable("out", out)
    if query.device.type == "cpu" or debugging():
        _check_block_values(block_table, seq_lens, num_blocks, block_size)


def check_common_prefix(
    common_prefix_len: int,
    key_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    query_start_loc: torch.Tensor,
) -> None:
    """What `cascade_attention` asks for beyond the arguments of `paged_attention`."""
    block_size, width = key_cache.shape[1], block_table.shape[1]
    largest = width * block_size if len(block_table) else 0
    if (
        isinstance(common_prefix_len, bool)
        or not isinstance(common_prefix_len, int)
        or common_prefix_len < 0
        or common_prefix_len % block_size
        or common_prefix_len > largest
    ):
        raise ValueError(
            f"common_prefix_len: expected a multiple of block_size={block_size} from 0 to {largest}, "
            f"got {common_prefix_len!r}"
        )
    if block_table.device.type == "cpu" or debugging():
        num_queries = query_start_loc.diff()
        _refuse(
            "seq_lens",
            seq_lens,
            (num_queries > 0) & (seq_lens < common_prefix_len + num_queries),
            f"at least common_prefix_len={common_prefix_len} and the request's query tokens",
        )
        num_shared = common_prefix_len // block_size
        shared = block_table[:1, :num_shared]
        last = len(key_cache) - 1
        _refuse("block_table", shared, (shared < 0) | (shared > last), f"block ids from 0 to {last}")
        shares = (num_queries > 0)[:, None] & (block_table[:, :num_shared] != shared)
        _refuse(
            "block_table",
            block_table[:, :num_shared],
            shares,
            f"the first {num_shared} blocks of request 0 in every request, because they are shared",
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
    *,
    fp8: bool = False,
) -> None:
    shape = {"num_blocks": None, "block_size": None, "num_kv_heads": num_kv_heads, "head_size": head_size}
    dtypes = [dtype]
    if fp8 and isinstance(key_cache, torch.Tensor) and key_cache.dtype in FP8_DTYPES:
        dtypes = [key_cache.dtype]
    _check_tensor("key_cache", key_cache, shape, dtypes, device)
    num_blocks, block_size, num_kv_heads, _ = key_cache.shape
    if block_size == 0:
        raise ValueError(f"key_cache: expected block_size of at least 1, got shape {list(key_cache.shape)}")
    shape |= {"num_blocks": num_blocks, "block_size": block_size, "num_kv_heads": num_kv_heads}
    _check_tensor("value_cache", value_cache, shape, dtypes, device)


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


def _check_options(options: ScoreOptions, query: torch.Tensor, num_kv_heads: int) -> None:
    """For queries [*, num_heads, *]."""
    sliding_window, softcap = options.sliding_window, options.softcap
    if sliding_window is not None and (
        isinstance(sliding_window, bool) or not isinstance(sliding_window, int) or sliding_window < 1
    ):
        raise ValueError(
            "sliding_window: expected None or the number of keys that a query sees, its own included "
            f"(at least 1), got {sliding_window!r}"
        )
    if softcap is not None and (
        isinstance(softcap, bool)
        or not isinstance(softcap, int | float)
        or not (math.isfinite(softcap) and softcap > 0)
    ):
        raise ValueError(f"softcap: expected None or a positive number, got {softcap!r}")
    for name, tensor in (("alibi_slopes", options.alibi_slopes), ("sinks", options.sinks)):
        if tensor is not None:
            dtypes = [torch.float32, torch.float64] if query.dtype == torch.float64 else [torch.float32]
            _check_tensor(name, tensor, {"num_heads": query.shape[1]}, dtypes, query.device)
    _check_cache_scale("k_scale", options.k_scale, num_kv_heads, query.device)
    _check_cache_scale("v_scale", options.v_scale, num_kv_heads, query.device)


def _check_cache_scale(name: str, scale: Scale, num_kv_heads: int, device: torch.device) -> None:
    """A number, or a tensor of float32: [], [1] or [num_kv_heads]. Positive."""
    if scale is None:
        return
    if isinstance(scale, torch.Tensor):
        if scale.shape not in ((), (1,), (num_kv_heads,)):
            raise ValueError(
                f"{name}: expected shape [], [1] or [num_kv_heads={num_kv_heads}], got {list(scale.shape)}"
            )
        size = scale.numel()
        _check_tensor(name, scale.view(size), {"num_kv_heads": size}, [torch.float32], device)
        if device.type == "cpu" or debugging():
            wrong = ~((scale > 0) & scale.isfinite())
            _refuse(name, scale, wrong, "positive finite numbers")
    elif isinstance(scale, bool) or not isinstance(scale, int | float):
        raise ValueError(f"{name}: expected a float or a tensor, got {type(scale).__name__}")
    elif not (math.isfinite(scale) and scale > 0):
        raise ValueError(f"{name}: expected a positive finite number, got {scale}")


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
    owned = torch.arange(width, device=block_table.device)[None, :] < num_owned[:, None]
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
