"""Notices an answer that changes what it was given."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from autograder.failure import AnswerProblem, Problem


@contextmanager
def unchanged(**arguments: Any) -> Iterator[None]:
    """Raises AnswerProblem after the block if one of `arguments` (tensors, lists, tuples of them) was changed in place."""
    before = {name: _copy(value) for name, value in arguments.items()}
    yield
    for name, value in arguments.items():
        if not _equal(value, before[name]):
            raise AnswerProblem(
                Problem(
                    f"your function changes its input `{name}` in place",
                    "The caller still needs it: make new tensors or lists instead of writing into it.",
                )
            )


def _copy(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, tuple | list):
        return type(value)(_copy(item) for item in value)
    return copy.deepcopy(value)


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        same_kind = isinstance(b, torch.Tensor) and a.shape == b.shape and a.dtype == b.dtype
        return bool(same_kind and ((a == b) | ((a != a) & (b != b))).all())
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(_equal(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)
