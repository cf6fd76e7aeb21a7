"""Runs a backend that is given by what it is: a right way to attend, and perhaps one fault."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from course.closed_backends.faults import VARIANTS, Variant
from course.closed_backends.right import RIGHT, Result
from course.differential.case import Case
from course.differential.tensors import inputs


@dataclass(frozen=True)
class Spec:
    """base: one of `right.RIGHT`. variant: one of the variants' names, "" for a right backend. amount: as its bend says."""

    base: str
    variant: str = ""
    amount: int = 1


def run(spec: Spec, case: Case, variants: Mapping[str, Variant] = VARIANTS) -> list[Result]:
    """(output, lse) of every step of the case, from the first."""
    attend = RIGHT[spec.base]
    if not spec.variant:
        return [attend(inputs(case, step)) for step in range(len(case.steps))]
    memory: dict[object, object] = {}
    bend = variants[spec.variant].bend
    return [bend(attend, case, step, memory, spec.amount) for step in range(len(case.steps))]


@functools.lru_cache(maxsize=3000)
def _remembered(spec: Spec, case: Case) -> tuple[tuple[torch.Tensor, ...], ...]:
    return tuple(tuple(result) for result in run(spec, case))


def run_once(spec: Spec, case: Case) -> list[Result]:
    """As `run`, and computed once for the same case: the caller gets copies."""
    return [(output.clone(), lse.clone()) for output, lse in _remembered(spec, case)]
