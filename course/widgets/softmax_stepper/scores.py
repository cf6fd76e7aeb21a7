"""A row of scores as a person gives it."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["MAX_SCORES", "checked_scores", "checked_tile", "read_scores", "values_for"]

MAX_SCORES = 512


def read_scores(text: str) -> torch.Tensor:
    """A row of scores as a person writes it: "2, 1, 5, -inf". Raises ValueError, naming the part that is no number."""
    scores = []
    for part in text.replace("\u2212", "-").replace("∞", "inf").replace(",", " ").split():
        try:
            scores.append(float(part))
        except ValueError:
            raise ValueError(f"scores: expected numbers, or -inf for a masked score, got {part!r}") from None
    return torch.tensor(scores)


def checked_scores(scores: torch.Tensor) -> torch.Tensor:
    if scores.ndim != 1 or not 1 <= len(scores) <= MAX_SCORES:
        raise ValueError(
            f"scores: expected 1 to {MAX_SCORES} numbers in one row, got shape {list(scores.shape)}"
        )
    if torch.isnan(scores).any() or (scores == torch.inf).any():
        raise ValueError("scores: expected numbers, or -inf for a masked score, got nan or inf")
    return scores


def checked_tile(tile: int) -> int:
    if not isinstance(tile, int) or tile < 1:
        raise ValueError(f"tile: expected at least 1, got {tile!r}")
    return tile


def values_for(values: Any, count: int) -> torch.Tensor:
    """[count, head_size] float32."""
    if values is None:
        return 10.0 * torch.arange(1.0, count + 1)[:, None]
    given = torch.as_tensor(values, dtype=torch.float32).cpu()
    given = given[:, None] if given.ndim == 1 else given
    if given.ndim != 2 or len(given) != count or not given.shape[1]:
        raise ValueError(f"values: expected [{count}] or [{count}, head_size], got shape {list(given.shape)}")
    return given
