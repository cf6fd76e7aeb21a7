"""The visible and the hidden suite: the same families of cases, drawn from different seeds."""

from __future__ import annotations

import hashlib
import os
import secrets
from dataclasses import dataclass, field
from typing import Any

import torch

VISIBLE, HIDDEN = "visible", "hidden"
SEED_VARIABLE = "AUTOGRADER_SEED"


@dataclass(frozen=True)
class Case:
    """One set of inputs for an answer. `label` names the family in words a learner understands.

    required: worth no point with partial credit, and no other case is worth one without it.
    """

    label: str
    inputs: dict[str, Any] = field(repr=False)
    required: bool = False


@dataclass(frozen=True)
class Suite:
    """Names the suite and holds its seed. Two suites with the same seed draw the same cases."""

    name: str
    seed: int

    @property
    def hidden(self) -> bool:
        return self.name == HIDDEN

    def generator(self, label: str) -> torch.Generator:
        """A CPU generator of its own for each label, so that adding a case does not change the others."""
        digest = hashlib.sha256(f"{self.seed}/{label}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))


def open_suite(name: str) -> Suite:
    """The suite called `name`, "visible" or "hidden".

    The visible suite never changes. The hidden one is drawn afresh for each grading; the environment variable
    AUTOGRADER_SEED (a whole number) replays an earlier one. Raises ValueError for any other name.
    """
    if name == VISIBLE:
        return Suite(VISIBLE, seed=0)
    if name != HIDDEN:
        raise ValueError(f'suite: expected "visible" or "hidden", got {name!r}')
    text = os.environ.get(SEED_VARIABLE)
    if text is None:
        return Suite(HIDDEN, seed=secrets.randbits(48))
    if not text.isdigit():
        raise ValueError(f"{SEED_VARIABLE}: expected a whole number, got {text!r}")
    return Suite(HIDDEN, seed=int(text))
