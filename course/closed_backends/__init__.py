"""Attention backends that a learner calls and does not look into: some right, some with one fault.

`closed(name)` is a backend of the notebook. right.py has the right ways to attend, faults.py what can be wrong with them;
which name stands for what is in sealed.py.
"""

from __future__ import annotations

from course.differential.case import Case
from course.differential.compare import Backend, Results

__all__ = ["NAMES", "WORKED", "Closed", "closed"]

NAMES = (
    "agate",
    "beryl",
    "cobalt",
    "dune",
    "ember",
    "fjord",
    "gneiss",
    "hazel",
    "indigo",
    "jasper",
    "kelp",
    "larch",
    "marl",
    "opal",
)
# The two of the worked example: before an upgrade and after it.
WORKED = ("slate", "basalt")


class Closed:
    """A backend by name: a function of a `Case`, and nothing else to be seen."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, case: Case) -> Results:
        from course.closed_backends.engine import run_once
        from course.closed_backends.sealed import unseal

        if type(case) is not Case:
            raise TypeError(f"a backend takes a Case, got a {type(case).__name__}")
        return run_once(unseal()[self.name], case)

    def __repr__(self) -> str:
        return f"<closed backend {self.name}>"


def closed(name: str) -> Backend:
    """The notebook's backend of this name, one of NAMES or WORKED. Raises ValueError for another."""
    if name not in (*NAMES, *WORKED):
        raise ValueError(f"there is no closed backend {name!r}; there are {', '.join((*NAMES, *WORKED))}")
    return Closed(name)
