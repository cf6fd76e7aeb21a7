"""Small kernels whose accesses are known. The tests name their lines by the comments `# load`, `# store`, ..."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def copy_tile(
    x_ptr,
    out_ptr,
    first_row,
    num_rows,
    num_columns,
    stride_row,
    stride_column,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    row = first_row + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, COLUMNS)[None, :]
    mask = (row < num_rows) & (column < num_columns)
    x = tl.load(x_ptr + row * stride_row + column * stride_column, mask=mask, other=0)  # load
    at = tl.arange(0, ROWS)[:, None] * COLUMNS + column
    tl.store(out_ptr + at, x)  # store


@triton.jit
def load_at(ptr, offset):
    return tl.load(ptr + offset)  # load in the helper


@triton.jit
def helped(x_ptr, out_ptr, offset):
    program = tl.program_id(0) + 10 * tl.program_id(1)
    x = load_at(x_ptr, offset)  # call of the helper
    tl.store(out_ptr + program, x)


@triton.jit
def write_at(x_ptr, offset, N: tl.constexpr):
    tl.store(x_ptr + offset + tl.arange(0, N), 1.0)  # store


@triton.jit
def add_up(x_ptr, sum_ptr, ticket_ptr, N: tl.constexpr):
    lane = tl.arange(0, N)
    x = tl.load(x_ptr + lane)
    tl.atomic_add(sum_ptr + lane % 2, x, mask=lane < 3)  # add
    tl.atomic_cas(ticket_ptr, 0, 7)  # cas


@triton.jit
def by_block_pointer(x_ptr, out_ptr, num_rows, num_columns, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    tile = tl.make_block_ptr(
        x_ptr, (num_rows, num_columns), (num_columns, 1), (ROWS // 2, 0), (ROWS, COLUMNS), (1, 0)
    )
    x = tl.load(tile, boundary_check=(0, 1), padding_option="zero")
    out = tl.make_block_ptr(out_ptr, (ROWS, COLUMNS), (COLUMNS, 1), (0, 0), (ROWS, COLUMNS), (1, 0))
    tl.store(out, x, boundary_check=(0,))


@triton.jit
def by_descriptor(descriptor, out_ptr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    x = descriptor.load([2, 0])
    at = tl.arange(0, ROWS)[:, None] * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    tl.store(out_ptr + at, x)


@triton.jit
def two_at_once(a_ptr, b_ptr, out_ptr, N: tl.constexpr):
    lane = tl.arange(0, N)
    ptr = tl.where(lane % 2 == 0, a_ptr + lane, b_ptr + lane)
    tl.store(out_ptr + lane, tl.load(ptr))


@triton.jit
def through_a_table(table_ptr, out_ptr, N: tl.constexpr):
    ptr = tl.load(table_ptr).to(tl.pointer_type(tl.float32))
    lane = tl.arange(0, N)
    tl.store(out_ptr + lane, tl.load(ptr + lane))


@triton.jit
def through_two(table_ptr, x_ptr, out_ptr, N: tl.constexpr):
    """As `through_a_table`, in a launch that has the table's tensor as an argument too."""
    ptr = tl.load(table_ptr).to(tl.pointer_type(tl.float32))
    lane = tl.arange(0, N)
    tl.store(out_ptr + lane, tl.load(ptr + lane))


@triton.jit
def keep_address(x_ptr, kept_ptr):
    tl.store(kept_ptr, x_ptr.to(tl.int64))


@triton.jit
def all_masked(x_ptr, far):
    lane = tl.arange(0, 4)
    tl.load(x_ptr + far + lane, mask=lane < 0)


@triton.jit
def first_of_pair(pair, out_ptr):
    tl.store(out_ptr, tl.load(pair[0]) + tl.load(pair[1]))


@triton.jit
def fails(x_ptr):
    tl.load(x_ptr)
    tl.static_assert(False, "this kernel fails")


def interrupt():
    raise KeyboardInterrupt


@triton.jit
def interrupted(x_ptr):
    tl.load(x_ptr)
    interrupt()


@triton.jit
def load_forever(x_ptr):
    while tl.load(x_ptr) == 0:
        pass


def line_of(kernel, comment: str) -> int:
    """The number of the line with this comment in a kernel's source."""
    import inspect

    lines, first = inspect.getsourcelines(kernel.fn)
    return first + next(i for i, line in enumerate(lines) if line.rstrip().endswith(f"# {comment}"))


# Mistakes of `read_caches`.
READS_THE_TAIL, READS_A_NEIGHBOUR, READS_THE_TABLE_S_END = 1, 2, 3


@triton.jit
def read_caches(
    query_ptr,  # [num_reqs, num_heads, head_size]
    key_cache_ptr,  # [num_blocks, block_size, num_kv_heads, head_size]
    value_cache_ptr,
    block_table_ptr,
    seq_lens_ptr,
    out_ptr,
    stride_block,
    stride_slot,
    stride_head,
    stride_table,
    NUM_HEADS: tl.constexpr,
    NUM_QUERIES_PER_KV: tl.constexpr,
    HEAD_SIZE: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    MAX_NUM_BLOCKS: tl.constexpr,
    MISTAKE: tl.constexpr,
):
    """No attention: one program a request and head reads what attention would, and stores a sum."""
    request, head = tl.program_id(0), tl.program_id(1)
    dim, offset = tl.arange(0, HEAD_SIZE), tl.arange(0, BLOCK_SIZE)
    total = tl.load(query_ptr + (request * NUM_HEADS + head) * HEAD_SIZE + dim)
    row = request
    if MISTAKE == 2:
        row = (request + 1) % tl.num_programs(0)
    seq_len = tl.load(seq_lens_ptr + row)
    num_blocks = tl.cdiv(seq_len, BLOCK_SIZE)
    if MISTAKE == 3:
        tl.load(block_table_ptr + row * stride_table + MAX_NUM_BLOCKS - 1)
    for logical in range(num_blocks):
        block = tl.load(block_table_ptr + row * stride_table + logical).to(tl.int64)
        mask = logical * BLOCK_SIZE + offset < seq_len
        if MISTAKE == 1:
            mask = offset < BLOCK_SIZE
        at = block * stride_block + offset * stride_slot + head // NUM_QUERIES_PER_KV * stride_head
        key = tl.load(key_cache_ptr + at[:, None] + dim[None, :], mask=mask[:, None], other=0.0)  # key
        value = tl.load(value_cache_ptr + at[:, None] + dim[None, :], mask=mask[:, None], other=0.0)
        total += tl.sum(key + value, axis=0)
    tl.store(out_ptr + (request * NUM_HEADS + head) * HEAD_SIZE + dim, total)


def launch_read_caches(query, key_cache, value_cache, block_table, seq_lens, mistake=0):
    import torch

    _, block_size, num_kv_heads, head_size = key_cache.shape
    out = torch.empty_like(query)
    num_heads = query.shape[1]
    read_caches[(len(query), num_heads)](
        query,
        key_cache,
        value_cache,
        block_table,
        seq_lens,
        out,
        *key_cache.stride()[:3],
        block_table.stride(0),
        NUM_HEADS=num_heads,
        NUM_QUERIES_PER_KV=num_heads // num_kv_heads,
        HEAD_SIZE=head_size,
        BLOCK_SIZE=block_size,
        MAX_NUM_BLOCKS=block_table.shape[1],
        MISTAKE=mistake,
    )
    return out
