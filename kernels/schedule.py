"""Decode's schedule: a ragged batch cut into splits of about equal length, worked out on the GPU.

A split is a part of one request's sequence for one kv head, and the work of one program. All requests together
are to give about `wanted` splits, however their lengths differ: so the batch's tokens are added up, a split gets
at most an equal part of them, and a request as many splits as it then needs, all of one length. A request of
length 0 has one too: whoever takes it writes the zeros.

Latent decode cuts every sequence into equally many splits instead, a number from shapes alone: `choose_num_splits`.

Nobody plans on the host: each program reads all of seq_lens (4 bytes a request, from the L2 after the first) and
finds its own split. How many programs to launch follows from shapes alone, so that a CUDA graph serves any
lengths: a request has at most one split more than its share of `wanted`, which makes no more than
wanted + num_reqs * num_kv_heads in all. Programs without a split end at once.
"""

# mypy: allow-untyped-defs

import triton
import triton.language as tl


@triton.jit
def count_splits(seq_len, split_size):
    """Splits of one kv head of a request, at least one."""
    return tl.maximum((seq_len + split_size - 1) // split_size, 1)


@triton.jit
def find_split(
    program,
    seq_lens_ptr,
    num_reqs,
    wanted,
    window,  # a request's query sees so many positions at most: only these are cut
    NUM_KV_HEADS: tl.constexpr,
    MIN_SPLIT_SIZE: tl.constexpr,
    FIXED_SPLIT_SIZE: tl.constexpr,  # 0, or the length of every split whatever the batch
    LANES: tl.constexpr,  # requests looked at together
    NUM_GROUPS: tl.constexpr,  # LANES * NUM_GROUPS >= num_reqs
):
    """(request, number among the request's programs, splits of the request's kv heads, seq_len).

    The programs of a request follow each other. request == num_reqs for a program without a split.
    """
    if FIXED_SPLIT_SIZE > 0:
        split_size = tl.full([], FIXED_SPLIT_SIZE, dtype=tl.int32)
    else:
        num_tokens = tl.full([], 0, dtype=tl.int64)
        for group in tl.static_range(NUM_GROUPS):
            lane = group * LANES + tl.arange(0, LANES)
            seq_len = tl.load(seq_lens_ptr + lane, mask=lane < num_reqs, other=0)
            num_tokens += tl.sum(tl.minimum(seq_len, window).to(tl.int64))
        split_size = ((num_tokens * NUM_KV_HEADS + wanted - 1) // wanted).to(tl.int32)
        split_size = tl.maximum(split_size, MIN_SPLIT_SIZE)

    request = 0
    first_program = 0  # of the request
    num_programs = 0
    for group in tl.static_range(NUM_GROUPS):
        lane = group * LANES + tl.arange(0, LANES)
        exists = lane < num_reqs
        seq_len = tl.load(seq_lens_ptr + lane, mask=exists, other=0)
        programs = tl.where(exists, count_splits(tl.minimum(seq_len, window), split_size) * NUM_KV_HEADS, 0)
        end = num_programs + tl.cumsum(programs, 0)
        before = exists & (end <= program)
        request += tl.sum(before.to(tl.int32))
        first_program = tl.maximum(first_program, tl.max(tl.where(before, end, 0)))
        if NUM_GROUPS > 1:
            num_programs = tl.max(end)

    seq_len = tl.load(seq_lens_ptr + request, mask=request < num_reqs, other=0)
    num_splits = count_splits(tl.minimum(seq_len, window), split_size)
    return request, program - first_program, num_splits, seq_len


def choose_num_splits(num_programs: int, room: int, max_seq_len: int) -> int:
    """Splits of every sequence, the same for all. num_programs: without splits. room: programs that run side by side.

    Programs run in rounds. A round takes as long as its share of a sequence, and about 256 positions to begin and end.
    """
    most = max(1, min(triton.cdiv(max_seq_len, 256), 64))
    return min(
        range(1, most + 1),
        key=lambda splits: triton.cdiv(num_programs * splits, room) * (max_seq_len / splits + 256),
    )
