"""Question 8, second part: a tester of attention functions, tested on functions that break the contract and on right ones."""

from __future__ import annotations

import torch

from autograder import watched
from autograder.failure import AnswerProblem, Problem
from autograder.misconceptions import attend_functions as functions
from autograder.misconceptions import find_contract_breach as mistakes
from autograder.registry import Answer, Check, Output
from autograder.suite import Case, Suite

CLAUSES = ("tail", "scatter", "order", "content", "ownership", "inputs")


def cases(suite: Suite) -> list[Case]:
    """One function a case. The label does not tell which: the message does, in the visible suite.

    The hidden suite shuffles them, so that a tester gains nothing from counting how often it was asked.
    """
    chosen = list(functions.VISIBLE)
    if suite.hidden:
        everything = [*functions.VISIBLE, *functions.HIDDEN]
        order = torch.randperm(len(everything), generator=suite.generator("order"))
        chosen = [everything[index] for index in order.tolist()]
    kinds = ["a right function" if not function.breaks else "a function with a fault" for function in chosen]
    return [
        Case(f"{kind} ({number} of {len(chosen)})", {"source": f.source, "breaks": f.breaks, "does": f.does})
        for number, (kind, f) in enumerate(zip(kinds, chosen, strict=True), start=1)
    ]


def run(answer: Answer, case: Case) -> Output:
    found = watched.call_with_function(answer["find_contract_breach"], case.inputs["source"], "attend")
    if found is not None and (type(found) is not str or found not in CLAUSES):
        said = repr(found) if type(found) is str else f"a {type(found).__name__}"
        names = ", ".join(f'"{clause}"' for clause in CLAUSES)
        raise AnswerProblem(
            Problem(f"find_contract_breach must return one of {names} or None, got {said[:80]}")
        )
    return {"found": found}


def inspect(output: Output, case: Case) -> Problem | None:
    found, breaks, does = output["found"], case.inputs["breaks"], case.inputs["does"]
    said = "None" if found is None else f'"{found}"'
    if not breaks:
        if found is None:
            return None
        return Problem(
            "a right function is said to break the contract", f"It {does}. Expected None, got {said}"
        )
    if found is None:
        return Problem("a break of the contract is not found", f'The function {does}: "{breaks[0]}"')
    if found not in breaks:
        return Problem("the wrong clause is named", f'The function {does}: "{breaks[0]}". Got {said}')
    return None


CHECK = Check(
    name="find_contract_breach",
    grade_id="q8-contract",
    parts=("find_contract_breach",),
    cases=cases,
    run=run,
    inspect=inspect,
    solution={"find_contract_breach": mistakes.find_contract_breach},
    misconceptions=mistakes.breach.misconceptions,
    right_variants=mistakes.breach.right_variants,
    hints=(
        "Compare attend with kernels.reference.paged_decode on the same arguments. Which inputs make a function that keeps the "
        "contract differ from one that does not? Take the clauses one by one.",
        "Change one thing at a time, from harmless to harsh: full blocks 0, 1 in order; the same blocks with other contents; a "
        "last block that is not full, NaN in its tail; blocks that lie apart; a table that descends, with a tail; two "
        "requests of unlike length. The first trial that fails names the clause.",
        "Write trial(table, seq_lens, seed) that fills caches of NaN with random tokens where the table says, calls attend on "
        "clones, and returns whether the output is close (torch.allclose) and whether the arguments are as before. Two trials "
        "with the same table and unlike seeds find a function that remembers.",
    ),
)
