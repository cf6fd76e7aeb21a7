"""Paged attention of a ragged batch on Hopper GPUs: the launcher of the Gluon program in hopper_prefill_kernel.py.

Gluon is Triton's lower floor: layouts of registers, barriers in shared memory, the copy engine and the roles of warps are
written out instead of left to the compiler. It is worth it where arithmetic is the bound, in prefill. There is no
interpreter for it, so `paged_prefill` stays its twin for every other machine, and `objection` says when this one applies.

Work is cut as in hopper_prefill_kernel.py: tiles of 128 or 192 rows, taken by one program a multiprocessor from a counter. The
grid and the number of tickets come from shapes alone, so nothing waits for the GPU and a CUDA graph can be captured.
"""

import itertools
from dataclasses import dataclass

import torch

from kernels import contract, runtime
from kernels.contract import AttentionResult
from kernels.options import Scale, ScoreOptions
from kernels.scores import score_numbers

__all__ = ["objection", "paged_prefill_hopper"]

_DTYPES = (torch.float16, torch.bfloat16)
_ROWS = 64  # rows of a tile that one warpgroup has
# Tiles of three warpgroups for each program from which on they were measured to be faster than two, by padded head size.
_ROUNDS_FOR_THREE = {64: 6, 128: 24}


def objection(
    query: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    scale: float = 1.0,
    *,
    k_scale: Scale = None,
    v_scale: Scale = None,
) -> str | None:
    """Why `paged_prefill_hopper` cannot serve these arguments; None when it can. From shapes, dtypes, strides and the scale alone."""
    reason = runtime.hopper_objection(query.device, "hopper_prefill_kernel")
    if reason:
        return reason
    if query.dtype not in _DTYPES or key_cache.dtype != query.dtype or value_cache.dtype != query.dtype:
        return (
            f"it multiplies float16 or bfloat16 only, got a {query.dtype} query and a {key_cache.dtype} cache"
        )
    if k_scale is not None or v_scale is not None:
        return "it has no scales for the cache"
    head_size = query.shape[2]
    num_blocks, block_size = key_cache.shape[:2]
    if head_size % 8 or head_size > 256:
        return f"head_size must be a multiple of 8 up to 256, got {head_size}"
    if block_size & (block_size - 1) or block_size < 8:
        return f"block_size must be a power of two of at least 8, got {block_size}"
    if num_blocks == 0:
        return "the cache has no blocks"
    if scale <= 0:
        return f"scale must be positive, got {scale}"
    for name, tensor in (("query", query), ("key_cache", key_cache), ("value_cache", value_cache)):
        # The copy engine wants 16-byte addresses and strides, and neighbouring elements of a head.
        strides = tensor.stride()
        if strides[-1] != 1 or any(s % 8 for s in strides[:-1]) or tensor.data_ptr() % 16:
            return (
                f"{name} must have heads of neighbouring elements at 16-byte addresses, "
                f"got strides {list(strides)}"
            )
    return None


class _Counters:
    """Four zeros that a launch may count with, many times. A launch leaves zeros behind, so no launch has to make them.

    Two launches at the same time must not share them. Launches on one stream follow one another and share the
    stream's; a launch that a CUDA graph captures has its own, as nobody knows where the graph will run.
    """

    NUM_SETS = 4096

    def __init__(self, device: torch.device) -> None:
        # 16 bytes each: Triton compiles a kernel again for an address that is not a multiple of 16.
        self.sets = torch.zeros(self.NUM_SETS, 4, dtype=torch.int32, device=device)
        self.unused = itertools.count()
        self.of_stream: dict[int, torch.Tensor] = {}

    def fresh(self) -> torch.Tensor | None:
        index = next(self.unused)
        return self.sets[index] if index < self.NUM_SETS else None


_counters: dict[torch.device, _Counters] = {}


def _take_counter(device: torch.device) -> torch.Tensor:
    """Four int32 zeros on `device`, for a launch on the current stream."""
    counters = _counters.get(device)
    if torch.cuda.is_current_stream_capturing():
        counter = counters.fresh() if counters else None
        # Without one left the graph clears one of its own each time: right, only a microsecond slower.
        return torch.zeros(4, dtype=torch.int32, device=device) if counter is None else counter
    if counters is None:
        counters = _counters[device] = _Counters(device)
        torch.cuda.current_stream(device).synchronize()  # once: other streams must find zeros
    stream = torch.cuda.current_stream(device).cuda_stream
    if stream not in counters.of_stream:
        counter = counters.fresh()
        if counter is None:
            return torch.zeros(4, dtype=torch.int32, device=device)
        counters.of_stream[stream] = counter
    return counters.of_stream[stream]


def paged_prefill_hopper(
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
    out: torch.Tensor | None = None,
    return_lse: bool = False,
) -> AttentionResult:
    """Attention of a ragged batch over a paged cache on a Hopper GPU, with the contract of `paged_attention`.

    query: [num_tokens, num_heads, head_size], float16 or bfloat16; the requests' tokens one after another, the last
        of their sequences.
    key_cache, value_cache: [num_blocks, block_size, num_kv_heads, head_size], query's dtype.
    block_table: [num_reqs, max_num_blocks] int32; seq_lens: [num_reqs] int32; query_start_loc: [num_reqs + 1] int32.
    scale: what scores are multiplied with, positive.
    causal: False lets every query see the whole sequence.
    sliding_window, softcap, alibi_slopes [num_heads] float32, sinks [num_heads] float32: as in `paged_attention`.
    out: where to write the output, like query; made when None.

    Returns the output [num_tokens, num_heads, head_size] and, with `return_lse`, the natural logarithm of the sum of
    exponentials [num_tokens, num_heads] in float32. A token that sees nothing gets zeros and -inf.
    Raises ValueError when an argument breaks the contract, or is one to which there is an `objection`.
    """
    options = ScoreOptions(causal, sliding_window, softcap, alibi_slopes, sinks)
    contract.check_paged(
        query, key_cache, value_cache, block_table, seq_lens, query_start_loc, scale, out, options, _DTYPES
    )
    reason = objection(query, key_cache, value_cache, scale)
    if reason:
        raise ValueError(f"paged_prefill_hopper: {reason}")
    return run_prefill(
        query, key_cache, value_cache, block_table, seq_lens, query_start_loc, scale, options, out, return_lse
    )


def run_prefill(
    query: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    query_start_loc: torch.Tensor,
    scale: float,
    options: ScoreOptions,
    out: torch.Tensor | None,
    return_lse: bool,
) -> AttentionResult:
    """`paged_prefill_hopper` of arguments that were checked, and to which there is no `objection`."""
    num_tokens, num_heads, _ = query.shape
    if out is None:
        out = torch.empty_like(query, memory_format=torch.contiguous_format)
    lse = query.new_empty(num_tokens, num_heads, dtype=torch.float32) if return_lse else None
    if num_tokens > 0:
        with torch.cuda.device_of(query):
            _launch(
                query,
                key_cache,
                value_cache,
                block_table,
                seq_lens,
                query_start_loc,
                scale,
                options,
                out,
                lse,
            )
    return (out, lse) if return_lse else out


@dataclass(frozen=True)
class _Cut:
    """consumers: warpgroups of 64 rows in a tile. num_small: tiles of 128 rows that the only request starts with."""

    consumers: int
    num_small: int
    num_tickets: int


def _cut(
    num_tokens: int,
    num_reqs: int,
    head_groups: int,
    pack: int,
    num_programs: int,
    rounds_for_three: int | None,
) -> _Cut:
    """How to cut the batch into tiles, from shapes alone.

    Three warpgroups a tile fetch a third less than two, and the tensor cores are never without work. But a tile is then
    half as long again, its warpgroups have fewer registers, and when a program has few tiles the last ones decide: 2.6
    tiles a program take as long as 3. So it takes rounds_for_three tiles for each program; None: three do not fit.
    One request's length is known here (it is num_tokens), so it gets as many whole rounds of large tiles as there are,
    and small tiles, which take three quarters of the time, for what is left.
    """
    small, large = 2 * _ROWS // pack, 3 * _ROWS // pack  # tokens of a tile
    two = _Cut(2, 0, (num_tokens // small + num_reqs) * head_groups)
    rounds = num_tokens // large * head_groups // num_programs
    if rounds_for_three is None or rounds < rounds_for_three:
        return two
    if num_reqs > 1:
        return _Cut(3, 0, (num_tokens // large + num_reqs) * head_groups)
    num_large = rounds * num_programs // head_groups
    num_small = -(-(num_tokens - num_large * large) // small)
    return _Cut(3, num_small, (num_small + num_large) * head_groups)


def _launch(
    query: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    query_start_loc: torch.Tensor,
    scale: float,
    options: ScoreOptions,
    out: torch.Tensor,
    lse: torch.Tensor | None,
) -> None:
    from kernels.hopper_prefill_kernel import Constants, describe_tensor, paged_prefill_kernel

    num_tokens, num_heads, head_size = query.shape
    num_blocks, block_size, num_kv_heads, _ = key_cache.shape
    num_reqs = block_table.shape[0]
    num_queries_per_kv = num_heads // num_kv_heads
    # Query heads of one kv head share a tile where their number divides its rows; else each has tiles of its own.
    pack = num_queries_per_kv if _ROWS % num_queries_per_kv == 0 else 1
    head_size_padded = 64 if head_size <= 64 else 128 if head_size <= 128 else 256
    tile_size = 128 if head_size_padded <= 128 else 64
    plain = options.sliding_window is None and options.softcap is None and options.alibi_slopes is None
    num_programs = runtime.num_multiprocessors(query.device)
    rounds_for_three = _ROUNDS_FOR_THREE.get(head_size_padded) if plain else None
    cut = _cut(num_tokens, num_reqs, num_heads // pack, pack, num_programs, rounds_for_three)
    constants = Constants(
        NUM_HEADS=num_heads,
        NUM_QUERIES_PER_KV=num_queries_per_kv,
        HEAD_SIZE=head_size,
        HEAD_SIZE_PADDED=head_size_padded,
        BLOCK_SIZE=block_size,
        PACK=pack,
        TILE_SIZE=tile_size,
        BOX=min(block_size, tile_size),
        CAUSAL=options.causal,
        WINDOW=options.sliding_window or 0,
        SOFTCAP=options.softcap is not None,
        ALIBI=options.alibi_slopes is not None,
        SINKS=options.sinks is not None,
        RETURN_LSE=lse is not None,
        HALF_TILES=options.causal and tile_size == 128,
        CONSUMERS=cut.consumers,
    )
    numbers = score_numbers(scale, options)
    if options.softcap is None:
        scale_in, scale_out = 0.0, numbers.factor
    else:
        scale_in, scale_out = numbers.factor, numbers.cap_log2
    query_box = [_ROWS // pack, pack, head_size_padded]
    cache_box = [1, 1, constants.BOX, head_size_padded]
    paged_prefill_kernel[(min(cut.num_tickets, num_programs),)](
        describe_tensor(query, query_box),
        describe_tensor(key_cache.permute(2, 0, 1, 3), cache_box),
        describe_tensor(value_cache.permute(2, 0, 1, 3), cache_box),
        out,
        out if lse is None else lse,
        block_table,
        seq_lens,
        query_start_loc,
        seq_lens if options.alibi_slopes is None else options.alibi_slopes,
        seq_lens if options.sinks is None else options.sinks,
        _take_counter(query.device),
        scale_in,
        scale_out,
        block_table.stride(0),
        *out.stride()[:2],
        num_reqs,
        cut.num_tickets,
        cut.num_small,
        num_blocks,
        C=constants,
        num_warps=4,
    )
