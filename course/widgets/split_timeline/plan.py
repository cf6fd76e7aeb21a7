"""What the kernels' own schedule gives each program: `kernels.schedule.find_split`, run on this machine."""

# mypy: allow-untyped-defs

from __future__ import annotations

from collections.abc import Sequence

import torch

import kernels  # before triton: without a GPU, this turns its interpreter on

# isort: split
import triton
import triton.language as tl

from kernels.schedule import find_split

__all__ = ["balanced_splits"]

_LANES = 128


@triton.jit(do_not_specialize=["num_reqs", "wanted"])
def _plan_kernel(
    seq_lens_ptr,  # [num_reqs]
    plan_ptr,  # [programs, 3]: request, number among the request's programs, splits of the request
    num_reqs,
    wanted,
    NUM_KV_HEADS: tl.constexpr,
    MIN_SPLIT_SIZE: tl.constexpr,
    LANES: tl.constexpr,
):
    program = tl.program_id(0)
    request, number, num_splits, _ = find_split(
        program, seq_lens_ptr, num_reqs, wanted, 2**31 - 1, NUM_KV_HEADS, MIN_SPLIT_SIZE, 0, LANES, 1
    )
    tl.store(plan_ptr + program * 3, request)
    tl.store(plan_ptr + program * 3 + 1, number)
    tl.store(plan_ptr + program * 3 + 2, num_splits)


def balanced_splits(
    seq_lens: Sequence[int], num_kv_heads: int, wanted: int, min_split_size: int
) -> list[tuple[int, int, int]]:
    """(request, number, num_splits) of each program that has a split, in launch order; at most 128 requests."""
    if not seq_lens:
        return []
    num_programs = wanted + len(seq_lens) * num_kv_heads
    lens = torch.tensor(seq_lens, dtype=torch.int32, device=kernels.device())
    plan = lens.new_empty(num_programs, 3)
    _plan_kernel[(num_programs,)](
        lens,
        plan,
        len(seq_lens),
        wanted,
        NUM_KV_HEADS=num_kv_heads,
        MIN_SPLIT_SIZE=min_split_size,
        LANES=_LANES,
    )
    return [(request, number, splits) for request, number, splits in plan.tolist() if request < len(seq_lens)]
