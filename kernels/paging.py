"""From positions in a sequence to memory: the part of a kernel that knows about blocks."""

# mypy: allow-untyped-defs

import triton
import triton.language as tl


@triton.jit
def find_slots(block_table_row_ptr, position, mask, BLOCK_SIZE: tl.constexpr):
    """(block, offset) of each position, as 64-bit integers. The table is read only where `mask` is set."""
    block = tl.load(block_table_row_ptr + position // BLOCK_SIZE, mask=mask, other=0)
    offset = position % BLOCK_SIZE
    # A cache can hold more than 2**31 elements: widen before any multiplication with a stride.
    return block.to(tl.int64), offset.to(tl.int64)


@triton.jit
def load_tile(
    head_ptr,
    block,
    offset,
    stride_block,
    stride_slot,
    mask,
    HEAD_SIZE: tl.constexpr,
    HEAD_SIZE_PADDED: tl.constexpr,
):
    """Keys or values of one head at the given slots, [TILE_SIZE, HEAD_SIZE_PADDED]; zeros outside `mask`.

    Slots that no request owns may hold NaN, and 0 * NaN is NaN: they are never loaded, neither for keys nor
    for values.
    """
    dim = tl.arange(0, HEAD_SIZE_PADDED)
    row = block * stride_block + offset * stride_slot
    tile_mask = mask[:, None]
    if HEAD_SIZE != HEAD_SIZE_PADDED:
        tile_mask = tile_mask & (dim < HEAD_SIZE)[None, :]
    return tl.load(head_ptr + row[:, None] + dim[None, :], mask=tile_mask, other=0.0)
