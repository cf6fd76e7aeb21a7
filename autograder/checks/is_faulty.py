"""Question 13, first part: a tester of closed backends, tested on right ones and on every kind of fault."""

from __future__ import annotations

import torch

from autograder import watched
from autograder.closed_backends import HiddenBackend, faulty_ones, right_ones, variant_of
from autograder.failure import AnswerProblem, Problem
from autograder.misconceptions import is_faulty as mistakes
from autograder.registry import Answer, Check, Output
from autograder.suite import Case, Suite
from course.closed_backends.engine import Spec
from course.closed_backends.right import RIGHT


def cases(suite: Suite) -> list[Case]:
    """One case for the right backends, without which the others count nothing, and one for each kind of fault.

    Both sorts are among the backends of every case, in an order that the suite draws: counting calls tells nothing.
    """
    right, faulty = right_ones(suite), faulty_ones(suite)
    generator = suite.generator("mix")

    def mixed(specs: list[Spec], others: list[Spec], count: int) -> list[Spec]:
        picked = [others[i] for i in torch.randperm(len(others), generator=generator).tolist()[:count]]
        everything = [*specs, *picked]
        return [everything[i] for i in torch.randperm(len(everything), generator=generator).tolist()]

    quick = [spec for spec in right if spec.base != "triton"]
    some_faulty = [specs[0] for specs in faulty.values()]
    made = [Case("right backends", {"backends": mixed(right, some_faulty, 3), "kind": ""}, required=True)]
    for kind, specs in faulty.items():
        count = int(torch.randint(1, 3, (), generator=generator))
        made.append(Case(f"the fault {kind}", {"backends": mixed(specs, quick, count), "kind": kind}))
    return made


def run(answer: Answer, case: Case) -> Output:
    found = []
    for spec in case.inputs["backends"]:
        said = watched.call_with_backend(answer["is_faulty"], HiddenBackend(spec))
        if type(said) is not bool:
            got = f"a {type(said).__name__}"
            raise AnswerProblem(Problem(f"is_faulty must return True or False, got {got}"))
        found.append(said)
    return {"found": found}


def inspect(output: Output, case: Case) -> Problem | None:
    for spec, found in zip(case.inputs["backends"], output["found"], strict=True):
        if not spec.variant and found:
            does = (RIGHT[spec.base].__doc__ or "").splitlines()[0]
            return Problem("a right backend is accused", f"It is this one: {does}")
    for spec, found in zip(case.inputs["backends"], output["found"], strict=True):
        if case.inputs["kind"] and spec.variant and not found:
            variant = variant_of(spec)
            return Problem(
                f"a fault is not found: the backend {variant.does}", f"It shows only on {variant.shows}."
            )
    return None


CHECK = Check(
    name="is_faulty",
    grade_id="q13-detect",
    parts=("is_faulty",),
    cases=cases,
    run=run,
    inspect=inspect,
    solution={"is_faulty": mistakes.is_faulty},
    misconceptions=mistakes.detect.misconceptions,
    right_variants=mistakes.detect.right_variants,
    hints=(
        "Write down, for each fault of the table, the smallest input on which it would show. Each line is a Case. Then: "
        "is_faulty is a loop over these cases.",
        "A fault may need two things at once: HND and several kv heads; a window and a chunk; a group of three query heads; "
        "a short request before a long one; a request that is away for a step and comes back elsewhere.",
        "Return differential.compare(backend, differential.reference, case) is not None for any of about twelve cases: "
        "full blocks; tails and chunks, NaN in what nobody owns; a window with decode and chunks; 6 heads on 2; HND; 300 tokens "
        "after 5; blocks from 2**27 on; lengths 0 and no queries; fp8 with scales 0.25 and 2; three steps with a preemption; "
        "float16.",
    ),
    partial=True,
)
