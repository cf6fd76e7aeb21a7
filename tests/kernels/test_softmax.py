"""The online softmax of softmax.py by itself, tile by tile: what whole kernels meet seldom, in the order that hurts most."""

import math

import pytest
import torch

import kernels  # noqa: F401  before triton: it chooses the interpreter

# isort: split
import triton
import triton.language as tl

from kernels.softmax import (
    finish_softmax,
    start_softmax,
    start_softmax_at_sinks,
    update_scaled_softmax,
    update_softmax,
)

ROWS = TILE = SIZE = 16
HIDDEN = -math.inf


@triton.jit
def _softmax_kernel(
    scores_ptr,  # [ROWS, num_tiles * TILE]
    value_ptr,  # [num_tiles * TILE, SIZE]
    sinks_ptr,  # [ROWS], with HAS_SINKS
    out_ptr,  # [ROWS, SIZE]
    lse_ptr,  # [ROWS]
    factor,
    num_tiles,
    SCALED: tl.constexpr,
    HAS_SINKS: tl.constexpr,
    N: tl.constexpr,  # rows, positions of a tile and elements of a value
):
    row = tl.arange(0, N)
    if HAS_SINKS:
        row_max, row_sum, acc = start_softmax_at_sinks(tl.load(sinks_ptr + row), N, N)
    else:
        row_max, row_sum, acc = start_softmax(N, N)
    for tile in range(num_tiles):
        position = tile * N + row
        scores = tl.load(scores_ptr + row[:, None] * (num_tiles * N) + position[None, :])
        value = tl.load(value_ptr + position[:, None] * N + row[None, :])
        if SCALED:
            row_max, row_sum, acc = update_scaled_softmax(row_max, row_sum, acc, scores, factor, value)
        else:
            row_max, row_sum, acc = update_softmax(row_max, row_sum, acc, scores * factor, value)
    output, lse = finish_softmax(row_max, row_sum, acc)
    tl.store(out_ptr + row[:, None] * N + row[None, :], output)
    tl.store(lse_ptr + row, lse)


# For each tile what its scores lie around, in log2 units; HIDDEN for a tile that no row sees.
TILES = {
    "one tile": [0.0],
    "level": [0.0, 0.0, 0.0],
    "rising": [0.0, 3.0, 40.0],
    "falling": [40.0, 3.0, 0.0],
    "a mountain": [-500.0, 2000.0, -500.0, 2000.0],
    "a valley": [2000.0, -3000.0, 2000.0],
    "hidden first": [HIDDEN, 1.0, 2.0],
    "hidden last": [1.0, 2.0, HIDDEN],
    "hidden between": [1.0, HIDDEN, HIDDEN, 2.0],
    "far below zero": [-1e30, -1e30],
    "nothing seen": [HIDDEN, HIDDEN],
    "no tiles": [],
}


def make_scores(levels: list[float], device: torch.device) -> torch.Tensor:
    """[ROWS, tiles * TILE]. Rows lie 300 apart, so that no other row's maximum will do; row 3 sees nothing."""
    generator = torch.Generator().manual_seed(0)
    tiles = [torch.randn(ROWS, TILE, generator=generator) + level for level in levels]
    scores = torch.cat([torch.empty(ROWS, 0), *tiles], dim=1)
    scores += torch.arange(ROWS)[:, None] * 300.0
    scores[3] = HIDDEN
    return scores.to(device)


def run(scores, value, factor, *, scaled=False, sinks=None):
    out = torch.full((ROWS, SIZE), math.nan, device=scores.device)
    lse = torch.full((ROWS,), math.nan, device=scores.device)
    has_sinks = sinks is not None
    num_tiles = scores.shape[1] // TILE
    _softmax_kernel[(1,)](scores, value, sinks, out, lse, factor, num_tiles, scaled, has_sinks, ROWS)
    return out, lse


def expected(scores, value, factor, sinks=None):
    """In float64. A sink is one more score with a value of zeros."""
    scores, value = scores.double() * factor * math.log(2), value.double()
    if sinks is not None:
        scores = torch.cat([scores, sinks.double()[:, None] * math.log(2)], dim=1)
        value = torch.cat([value, value.new_zeros(1, SIZE)])
    return scores.softmax(dim=1).nan_to_num(0.0) @ value, scores.logsumexp(dim=1)


@pytest.mark.parametrize("scaled", [False, True], ids=["update", "update scaled"])
@pytest.mark.parametrize("factor", [1.0, 0.25])
@pytest.mark.parametrize("name", TILES)
def test_tiles_in_any_order_give_the_softmax_of_all(name, factor, scaled, device):
    scores = make_scores(TILES[name], device)
    value = torch.randn(scores.shape[1], SIZE, generator=torch.Generator().manual_seed(1)).to(device)
    output, lse = run(scores, value, factor, scaled=scaled)
    right, right_lse = expected(scores, value, factor)
    # A score of 4000 has steps of 2**-12: that far off a weight may be.
    torch.testing.assert_close(output.double(), right, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(lse.double(), right_lse, rtol=1e-6, atol=1e-5)
    assert output[3].eq(0).all()
    assert lse[3].eq(-math.inf)


@pytest.mark.parametrize("sink", [0.0, 30.0, -30.0, 1e30, -math.inf])
@pytest.mark.parametrize("name", ["one tile", "rising", "hidden first", "nothing seen", "no tiles"])
def test_a_sink_is_one_more_score_without_a_value(name, sink, device):
    scores = make_scores(TILES[name], device) / 100
    value = torch.randn(scores.shape[1], SIZE, generator=torch.Generator().manual_seed(1)).to(device)
    sinks = torch.linspace(-2, 2, ROWS).to(device) + sink
    output, lse = run(scores, value, 1.0, sinks=sinks)
    right, right_lse = expected(scores, value, 1.0, sinks)
    torch.testing.assert_close(output.double(), right, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(lse.double(), right_lse, rtol=1e-6, atol=1e-5)
