"""Differential testing of attention backends: the same case through two of them, the first difference, a smaller case.

    from course import differential
    case = differential.Case.of([13, 5], num_heads=4, num_kv_heads=2)
    differential.compare(backend, differential.reference, case)

A backend is a function of a `Case` that returns (output, lse) for each of its steps. The files in the order of use: case.py,
tensors.py (what a step is made of), compare.py, shrink.py, describe.py.
"""

from course.differential.case import Case, Part, everyday
from course.differential.compare import Backend, Difference, Results, budget, compare
from course.differential.describe import describe, table
from course.differential.shrink import odd_fields, size, smaller
from course.differential.tensors import Inputs, inputs

__all__ = [
    "Backend",
    "Case",
    "Difference",
    "Inputs",
    "Part",
    "budget",
    "compare",
    "describe",
    "everyday",
    "inputs",
    "odd_fields",
    "reference",
    "size",
    "smaller",
    "table",
]


def reference(case: Case) -> Results:
    """What is right: float64 throughout, rounded to the case's dtype at the end."""
    from course.closed_backends.engine import Spec, run_once  # which are made of this package's tensors

    return run_once(Spec("in_double"), case)
