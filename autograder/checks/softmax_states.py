"""What the two checks of question 3 share: tiles of scores and values, states, and the truth in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from autograder.compare import error_budget, tensor_problem, value_problem
from autograder.failure import AnswerProblem, Problem
from autograder.misconceptions import online_softmax
from autograder.suite import Case, Suite

Tile = tuple[torch.Tensor, torch.Tensor]
HEAD_SIZE = 8


class Draw:
    """Draws lists of tiles for one suite: (scores [..., n], values [n, HEAD_SIZE]), fp32."""

    def __init__(self, suite: Suite) -> None:
        self._suite = suite
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def tiles(
        self,
        label: str,
        batch: tuple[int, ...],
        lengths: Sequence[int],
        *,
        offsets: Sequence[float] = (),
        spread: float = 1.0,
        row_step: float = 0.0,
        masked: float = 0.0,
        masked_tiles: Sequence[int] = (),
    ) -> Case:
        """A case of len(lengths) tiles.

        offsets: added to the scores of each tile. spread: their standard deviation. row_step: added once more for each
        further row. masked: the share of scores that is -inf. masked_tiles: tiles whose scores are all -inf.
        """
        generator = self._suite.generator(label)
        rows = torch.arange(math.prod(batch), dtype=torch.float32).reshape(*batch, 1) * row_step
        tiles: list[Tile] = []
        for i, length in enumerate(lengths):
            scores = torch.randn(*batch, length, generator=generator) * spread + rows
            scores += offsets[i] if offsets else 0.0
            if masked:
                scores[torch.rand(*batch, length, generator=generator) < masked] = -math.inf
            if i in masked_tiles:
                scores.fill_(-math.inf)
            values = torch.randn(length, HEAD_SIZE, generator=generator)
            tiles.append((scores.to(self._device), values.to(self._device)))
        return Case(label, {"tiles": tiles, "batch": batch})

    def random_tiles(self, label: str) -> Case:
        """A case whose lengths, batch, offsets and mask are drawn too."""
        generator = self._suite.generator(f"{label}: sizes")

        def integer(low: int, high: int) -> int:
            return int(torch.randint(low, high + 1, (), generator=generator))

        lengths = [integer(1, 9) for _ in range(integer(1, 6))]
        batch = [(), (integer(1, 5),), (integer(1, 3), integer(1, 4))][integer(0, 2)]
        offsets = [float(integer(-150, 150)) for _ in lengths]
        return self.tiles(label, batch, lengths, offsets=offsets, masked=0.2 * integer(0, 2))


def empty(case: Case) -> Any:
    """The state before the first tile: m = -inf, l = 0, acc = 0."""
    batch, device = case.inputs["batch"], case.inputs["tiles"][0][0].device
    return (
        torch.full(batch, -math.inf, device=device),
        torch.zeros(batch, device=device),
        torch.zeros(*batch, HEAD_SIZE, device=device),
    )


def copied_tiles(case: Case) -> list[Tile]:
    """The tiles to hand to an answer. The truth is taken from the case's own, which no answer ever holds."""
    return [(scores.clone(), values.clone()) for scores, values in case.inputs["tiles"]]


def require_state(got: object, like: Any, function: str) -> Any:
    """`got` as a state with the shapes of `like`; raises AnswerProblem with what is wrong otherwise."""
    if not isinstance(got, tuple | list) or len(got) != 3:
        kind = f"{len(got)} values" if isinstance(got, tuple | list) else f"a {type(got).__name__}"
        raise AnswerProblem(Problem(f"{function} must return the state (m, l, acc), got {kind}"))
    for name, value, old in zip(("m", "l", "acc"), got, like, strict=True):
        problem = tensor_problem(
            f"{name} of the returned state",
            value,
            tuple(old.shape),
            (torch.float32, torch.float64),
            old.device,
        )
        if problem:
            raise AnswerProblem(problem)
    return tuple(got)


def truth(case: Case) -> torch.Tensor:
    """softmax over all tiles, times the values, in float64 on the CPU; zeros where every score is -inf."""
    scores = torch.cat([scores for scores, _ in case.inputs["tiles"]], dim=-1).cpu().double()
    values = torch.cat([values for _, values in case.inputs["tiles"]]).cpu().double()
    return torch.nan_to_num(torch.softmax(scores, dim=-1)) @ values


def output_problem(output: object, case: Case) -> Problem | None:
    """What is wrong with a finalized output, or None."""
    expected = truth(case)
    device = case.inputs["tiles"][0][0].device
    name = "the output of finalize"
    problem = tensor_problem(name, output, tuple(expected.shape), (torch.float32, torch.float64), device)
    if problem:
        return problem
    assert isinstance(output, torch.Tensor)
    budget = error_budget(expected, _right_outputs(case), torch.float32)
    return value_problem(name, output, expected, budget, _place)


def _right_outputs(case: Case) -> list[torch.Tensor]:
    outputs = []
    solution = {
        "online_softmax_update": online_softmax.online_softmax_update,
        "finalize": online_softmax.finalize,
    }
    for parts in [solution, *({**solution, **variant.parts} for variant in online_softmax.RIGHT_VARIANTS)]:
        state = empty(case)
        for scores, values in case.inputs["tiles"]:
            state = parts["online_softmax_update"](state, scores, values)
        outputs.append(parts["finalize"](state))
    return outputs


def _place(index: tuple[int, ...]) -> str:
    row = f"row {list(index[:-1])}, " if len(index) > 1 else ""
    return f"{row}element {index[-1]}"
