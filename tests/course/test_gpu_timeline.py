"""Pieces of a decode: put together they are paged attention, and on a GPU each has a multiprocessor and its times."""

from __future__ import annotations

import pytest
import torch

import kernels
from course.gpu_timeline import Piece, attend_pieces, record
from kernels import reference


def batch(lengths: list[int]) -> tuple:
    """A batch in shuffled blocks of 16, with NaN in what nobody owns."""
    device = kernels.device()
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(32, generator=generator).tolist()
    table = torch.full((len(lengths), 16), -1, dtype=torch.int32)
    caches = torch.full((2, 32, 16, 2, 24), float("nan"))
    for request, length in enumerate(lengths):
        for logical in range(-(-length // 16)):
            table[request, logical] = order.pop()
            held = min(16, length - 16 * logical)
            caches[:, table[request, logical], :held] = torch.randn(2, held, 2, 24, generator=generator)
    query = torch.randn(len(lengths), 6, 24, generator=generator)
    seq_lens = torch.tensor(lengths, dtype=torch.int32)
    return tuple(t.to(device).contiguous() for t in (query, caches[0], caches[1], table, seq_lens))


def cut(lengths: list[int], size: int) -> list[Piece]:
    return [
        Piece(request, kv_head, start, min(start + size, length))
        for request, length in enumerate(lengths)
        for kv_head in range(2)
        for start in range(0, length, size)
    ]


def test_the_pieces_put_together_are_paged_attention() -> None:
    lengths = [100, 33]
    arguments = batch(lengths)
    pieces = cut(lengths, 40)
    output, lse, _ = attend_pieces(pieces, *arguments, 0.2)
    merged = torch.zeros(2, 6, 24, device=output.device)
    for request in range(2):
        for kv_head in range(2):
            mine = [i for i, p in enumerate(pieces) if (p.request, p.kv_head) == (request, kv_head)]
            weights = torch.softmax(lse[mine], dim=0)
            merged[request, 3 * kv_head : 3 * kv_head + 3] = (weights[..., None] * output[mine]).sum(0)
    expected = reference.paged_decode(*arguments, 0.2)
    torch.testing.assert_close(merged, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "wrong", [Piece(2, 0, 0, 1), Piece(0, 2, 0, 1), Piece(1, 0, 0, 34), Piece(0, 0, 5, 5)]
)
def test_a_piece_of_nothing_is_refused(wrong: Piece) -> None:
    with pytest.raises(ValueError, match=r"pieces\[1\]: expected one of 2 requests"):
        attend_pieces([Piece(0, 0, 0, 1), wrong], *batch([100, 33]), 0.2)


@pytest.mark.skipif(not kernels.INTERPRET, reason="there is a GPU")
def test_without_a_gpu_nothing_is_recorded() -> None:
    with pytest.raises(RuntimeError, match="needs a CUDA GPU"):
        record([], *batch([1]), 0.2)


@pytest.mark.gpu
@pytest.mark.skipif(kernels.INTERPRET, reason="needs a CUDA GPU")
def test_each_piece_has_its_multiprocessor_and_its_times() -> None:
    lengths = [100, 33, 256]
    pieces = cut(lengths, 32)
    recorded = record(pieces, *batch(lengths), 0.2)
    assert [each.piece for each in recorded] == pieces
    assert min(each.start_ns for each in recorded) == 0
    assert all(0 <= each.start_ns <= each.end_ns < 10**9 for each in recorded)
    count = torch.cuda.get_device_properties(0).multi_processor_count
    assert all(0 <= each.multiprocessor < count for each in recorded)
    # A tile of 32 tokens takes time: the clock really ran between the two looks at it, for most.
    assert sum(each.end_ns > each.start_ns for each in recorded) > len(recorded) // 2
