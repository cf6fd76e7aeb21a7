"""A check as the judge uses it: the truth out of reach of the answer, and nothing inspected twice.

Beside the learner an answer is handed the very tensors of the case, and one that writes into them might change what it is
held against. Here it gets copies. And as a class shares its cases within one grading, an output that was inspected before,
bit by bit the same on the same case, is not inspected again: a right answer's attention is computed for the first learner.
"""

from __future__ import annotations

import copy
import hashlib
from collections import OrderedDict
from dataclasses import replace

from autograder.failure import Problem
from autograder.judge import wire
from autograder.registry import Answer, Check, Output
from autograder.suite import Case

MAX_REMEMBERED = 20_000
_Known = OrderedDict[bytes, Problem | None]


class Inspections:
    """Remembers what `inspect` said, over the submissions of one grading."""

    def __init__(self) -> None:
        self._known: _Known = OrderedDict()
        self.repeated = 0

    def trusted(self, check: Check) -> Check:
        """`check` with an answer kept from its cases, and with this memory."""

        def run(answer: Answer, case: Case) -> Output:
            return check.run(answer, Case(case.label, copy.deepcopy(case.inputs)))

        def inspect(output: Output, case: Case) -> Problem | None:
            key = _key(check, output, case)
            if key is None:
                return check.inspect(output, case)
            if key in self._known:
                self._known.move_to_end(key)
                self.repeated += 1
                return self._known[key]
            problem = self._known[key] = check.inspect(output, case)
            if len(self._known) > MAX_REMEMBERED:
                self._known.popitem(last=False)
            return problem

        return replace(check, run=run, inspect=inspect)


def _key(check: Check, output: Output, case: Case) -> bytes | None:
    """The same for the same bits of output and case; None where they are not plain data."""
    try:
        digest = hashlib.sha256(check.name.encode() + b"\0")
        for value in (case.label, case.inputs, output):
            digest.update(hashlib.sha256(wire.encode(value)).digest())
    except wire.WireError:
        return None
    return digest.digest()
