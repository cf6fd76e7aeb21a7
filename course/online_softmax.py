"""What paged attention remembers after each block of one request: `course.softmax_steps`.

    course.softmax_steps(query, key_cache, value_cache, block_table, seq_lens, scale, request=1)

shows, block by block, the scores, the state (m, l, acc) and what the state would answer if the sequence ended there.
`row_steps` does the same for any row of scores, tile by tile.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from kernels import contract

if TYPE_CHECKING:
    from course.plots import Picture

__all__ = ["SoftmaxStep", "SoftmaxSteps", "row_steps", "softmax_steps"]

State = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
Update = Callable[[State, torch.Tensor, torch.Tensor], State]

# Numbers of acc in the table; a head has 64 or more.
_SHOWN = 3
_HEADINGS = ("block", "physical", "positions", "largest score", "m", "factor", "l", "acc", "acc / l")


@dataclass(frozen=True)
class SoftmaxStep:
    """The state after one more block, or after one more tile of a row that is in no cache.

    block: its place in the request's sequence, from 0. physical: its place in the cache, or None. first, end: it holds
    the positions `first` to `end - 1` of the request. scores: float32 [end - first], scaled; values: float32
    [end - first, head_size]. m, l: the running maximum and sum. acc: float32 [head_size], the weighted sum.
    factor: exp(m before - m now), what the old l and acc are multiplied with.
    """

    block: int
    physical: int | None
    first: int
    end: int
    scores: torch.Tensor
    values: torch.Tensor
    m: float
    l: float  # noqa: E741  m, l and acc are the field's names
    acc: torch.Tensor
    factor: float

    @property
    def output(self) -> torch.Tensor:
        """acc / l: the answer if the sequence ended here."""
        return self.acc / self.l if self.l else torch.zeros_like(self.acc)


class SoftmaxSteps(list[SoftmaxStep]):
    """The steps of one request and head, in order; shows itself as a table.

    request, head, kv_head, seq_len: whose they are.
    """

    def __init__(
        self, steps: list[SoftmaxStep], *, request: int, head: int, kv_head: int, seq_len: int
    ) -> None:
        super().__init__(steps)
        self.request = request
        self.head = head
        self.kv_head = kv_head
        self.seq_len = seq_len

    def picture(self, dimension: int = 0) -> Picture:
        """The scores and the state as a picture; of acc the one number `dimension`."""
        from course import plots

        return plots.softmax_states(
            [step.scores.tolist() for step in self],
            [step.m for step in self],
            [step.l for step in self],
            [float(step.acc[dimension]) for step in self],
        )

    @property
    def title(self) -> str:
        return (
            f"Request {self.request}, head {self.head} (kv head {self.kv_head}): "
            f"{self.seq_len} tokens in {len(self)} blocks"
        )

    def __repr__(self) -> str:
        grid = [_HEADINGS, *(_cells(step) for step in self)]
        widths = [max(len(row[column]) for row in grid) for column in range(len(_HEADINGS))]
        lines = [
            "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in grid
        ]
        return "\n".join([self.title, *lines])

    def _repr_html_(self) -> str:
        heads = "".join(f'<th scope="col">{heading}</th>' for heading in _HEADINGS)
        rows = "".join(
            f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in _cells(step))}</tr>" for step in self
        )
        return (
            f"<table><caption>{html.escape(self.title)}</caption><thead><tr>{heads}</tr></thead>"
            f"<tbody>{rows}</tbody></table>"
        )


def softmax_steps(
    query: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    scale: float,
    *,
    request: int = 0,
    head: int = 0,
    update: Update | None = None,
) -> SoftmaxSteps:
    """The state of the online softmax after each block of one request, for one query head.

    Args:
        query: [num_reqs, num_heads, head_size], one token a request, the last of its sequence.
        key_cache, value_cache: [num_blocks, block_size, num_kv_heads, head_size].
        block_table: [num_reqs, max_num_blocks] int32. seq_lens: [num_reqs] int32.
        scale: what scores are multiplied with.
        request, head: which request and which query head.
        update: your own step, to see what it does: (state, scores [n], values [n, head_size]) -> state, with
            state = (m [], l [], acc [head_size]) in float32, at first (-inf, 0, zeros).

    Raises:
        ValueError: naming the argument that does not fit.
    """
    contract.check_paged(
        query,
        key_cache,
        value_cache,
        block_table,
        seq_lens,
        None,
        scale,
        None,
        dtypes=contract.REFERENCE_DTYPES,
    )
    num_reqs, num_heads, head_size = query.shape
    block_size, num_kv_heads = key_cache.shape[1:3]
    _check_index("request", request, num_reqs)
    _check_index("head", head, num_heads)
    kv_head = head // (num_heads // num_kv_heads)
    seq_len = int(seq_lens[request])
    tiles = []
    for first in range(0, seq_len, block_size):
        end = min(first + block_size, seq_len)
        physical = int(block_table[request, first // block_size])
        keys = key_cache[physical, : end - first, kv_head].float()
        values = value_cache[physical, : end - first, kv_head].float()
        tiles.append((physical, keys @ query[request, head].float() * scale, values))
    steps = _walk(tiles, head_size, query.device, update or _update)
    return SoftmaxSteps(steps, request=request, head=head, kv_head=kv_head, seq_len=seq_len)


def row_steps(
    scores: torch.Tensor, values: torch.Tensor, tile: int, *, update: Update | None = None
) -> list[SoftmaxStep]:
    """The state after each tile of one row: scores [n], -inf where masked, values [n, head_size], `tile` scores at a time.

    The state is of the scores' dtype. update: as for `softmax_steps`.
    """
    tiles = [
        (None, scores[first : first + tile], values[first : first + tile])
        for first in range(0, len(scores), tile)
    ]
    return _walk(tiles, values.shape[1], scores.device, update or _update)


def _walk(
    tiles: Sequence[tuple[int | None, torch.Tensor, torch.Tensor]],
    head_size: int,
    device: torch.device,
    update: Update,
) -> list[SoftmaxStep]:
    """The states after each (physical, scores, values)."""
    dtype = tiles[0][1].dtype if tiles else torch.float32
    state: State = (
        torch.tensor(-torch.inf, device=device, dtype=dtype),
        torch.tensor(0.0, device=device, dtype=dtype),
        torch.zeros(head_size, device=device, dtype=dtype),
    )
    steps: list[SoftmaxStep] = []
    first = 0
    for block, (physical, scores, values) in enumerate(tiles):
        m_before = float(state[0])
        state = _checked(update(state, scores, values), head_size)
        m, l, acc = float(state[0]), float(state[1]), state[2].clone()  # noqa: E741
        # Nothing seen before: what was kept drops out.
        factor = 0.0 if m_before == -torch.inf else float(torch.tensor(m_before - m).exp())
        steps.append(
            SoftmaxStep(block, physical, first, first + len(scores), scores, values, m, l, acc, factor)
        )
        first += len(scores)
    return steps


def _update(state: State, scores: torch.Tensor, values: torch.Tensor) -> State:
    m, l, acc = state  # noqa: E741
    m_new = torch.maximum(m, scores.max())
    # While everything is masked the maximum is still -inf, and -inf - (-inf) would be NaN.
    above = m_new if m_new > -torch.inf else torch.zeros_like(m_new)
    factor = torch.exp(m - above)
    weights = torch.exp(scores - above)
    return m_new, l * factor + weights.sum(), acc * factor + weights @ values


def _checked(state: Any, head_size: int) -> State:
    """The state that `update` returned, if it is one."""
    shapes = (
        [tuple(part.shape) for part in state if isinstance(part, torch.Tensor)]
        if isinstance(state, tuple | list)
        else None
    )
    if shapes != [(), (), (head_size,)]:
        came = type(state).__name__ if shapes is None else f"shapes {shapes}"
        raise ValueError(
            f"update: expected it to return (m [], l [], acc [{head_size}]) as tensors, got {came}"
        )
    m, l, acc = state  # noqa: E741
    return m, l, acc


def _check_index(name: str, index: int, size: int) -> None:
    if not 0 <= index < size:
        raise ValueError(
            f"{name}: expected 0 to {size - 1}, got {index}" if size else f"{name}: there is none"
        )


def _cells(step: SoftmaxStep) -> tuple[str, ...]:
    """A step's texts, in the order of _HEADINGS."""
    return (
        str(step.block),
        str(step.physical),
        f"{step.first} to {step.end - 1}",
        f"{float(step.scores.max()):.3f}",
        f"{step.m:.3f}",
        f"{step.factor:.4f}",
        f"{step.l:.4f}",
        _numbers(step.acc),
        _numbers(step.output),
    )


def _numbers(vector: torch.Tensor) -> str:
    shown = ", ".join(f"{number:.3f}" for number in vector[:_SHOWN].tolist())
    return f"[{shown}, …]" if len(vector) > _SHOWN else f"[{shown}]"
