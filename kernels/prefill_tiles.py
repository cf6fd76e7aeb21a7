"""How prefill.py's launches are cut, from shapes alone: a choice that looked at lengths would wait for the GPU."""

from typing import NamedTuple

import torch
import triton

from kernels import runtime


class Tile(NamedTuple):
    """BLOCK_M, TILE_SIZE and NUM_STAGES of the kernel, and what the compiler is told."""

    rows: int
    positions: int
    num_warps: int
    num_stages: int
    max_registers: int | None = None  # of a thread


def choose_tile(
    query: torch.Tensor, key_cache: torch.Tensor, block_table: torch.Tensor, batch_invariant: bool
) -> Tile:
    """Rows for an average request, within what fits.

    bench/tune.py measures others; bench/results/tuning-h100.md says what came.
    """
    num_tokens, num_heads, head_size = query.shape
    _, block_size, num_kv_heads, _ = key_cache.shape
    num_reqs, max_num_blocks = block_table.shape
    num_queries_per_kv = num_heads // num_kv_heads
    head_size_padded = pad_head_size(head_size)
    # The same bits in any batch: tiles must not depend on what else is in it.
    average_rows = 10**9 if batch_invariant else triton.cdiv(num_tokens, num_reqs) * num_queries_per_kv
    if runtime.INTERPRET:
        rows = _fit_rows(average_rows, 64, num_queries_per_kv)
        max_seq_len = 10**9 if batch_invariant else max_num_blocks * block_size
        return Tile(rows, runtime.interpreter_tile(rows, head_size_padded, max_seq_len), 4, 1)
    if query.element_size() == 4:  # true float32 runs on the ordinary multipliers: operands sit in registers
        return Tile(_fit_rows(average_rows, 16, num_queries_per_kv), 16, 8, 3)
    # The tiles below need up to 160 KB, which GPUs of data centres have, and others not.
    if runtime.shared_memory(query.device) < 160 * 1024:
        return Tile(_fit_rows(average_rows, 64, num_queries_per_kv), 32, 4, 2)
    rows = _fit_rows(average_rows, 128, num_queries_per_kv)
    num_warps = 8 if rows > 64 or head_size_padded > 128 else 4
    if head_size_padded != 128 or rows <= 64:
        return Tile(rows, 64, num_warps, 2 if head_size_padded > 128 else 3)
    # With half of the registers two programs share a multiprocessor: one multiplies while the other waits for its first tile or
    # takes exponentials. That needs programs enough, or the two longest share one to the end; and registers that neither
    # another dtype of the cache nor blocks as long as the tile take.
    num_programs = (num_tokens * num_queries_per_kv // rows + num_reqs) * num_kv_heads
    enough = batch_invariant or num_programs >= 3 * runtime.num_multiprocessors(query.device)
    if enough and rows == 128 and key_cache.element_size() == 2 and block_size != 64:
        return Tile(rows, 64, num_warps, 2, 128)
    return Tile(rows, 128, num_warps, 2)


def pad_head_size(head_size: int) -> int:
    return max(16, triton.next_power_of_2(head_size))


def _fit_rows(average_rows: int, largest: int, num_queries_per_kv: int) -> int:
    """Rows of a tile: at least 16, which tl.dot takes, and one query token's."""
    rows = max(16, min(triton.next_power_of_2(average_rows), largest))
    return max(rows, triton.next_power_of_2(num_queries_per_kv))


def choose_key_splits(num_programs: int, max_seq_len: int, device: torch.device) -> int:
    """Splits of the keys, from shapes alone: more than one where programs are too few to fill the GPU."""
    wanted = runtime.num_multiprocessors(device) // num_programs
    return max(1, min(wanted, triton.cdiv(max_seq_len, 512), 32))
