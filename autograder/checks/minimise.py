"""Question 13, second part: the smallest failing case, for backends with a fault and cases that hold everything at once."""

from __future__ import annotations

import random

from autograder import watched
from autograder.closed_backends import MAX_CALLS, HiddenBackend, faulty_ones, variant_of
from autograder.failure import AnswerProblem, Problem
from autograder.misconceptions import minimise as mistakes
from autograder.registry import Answer, Check, Output
from autograder.suite import Case, Suite
from course import differential
from course.closed_backends.engine import Spec

_KINDS = ("split-cap", "stale-block-table", "gqa-map", "zero-length", "window", "offset-32-bit")


def cases(suite: Suite) -> list[Case]:
    """Six backends, each with a fault of another kind, and a case on which it fails."""
    faulty = faulty_ones(suite)
    made = []
    for number, kind in enumerate(_KINDS, start=1):
        spec = faulty[kind][0]
        seed = int(suite.seed % 10**6) * 1000 + number * 100
        made.append(
            Case(f"failing case {number} of {len(_KINDS)}", {"backend": spec, "case": failing(spec, seed)})
        )
    return made


def failing(spec: Spec, seed: int) -> differential.Case:
    """A case with much in it on which the backend fails; the first that does, from `seed` on."""
    for attempt in range(seed, seed + 100):
        case = crowded(attempt)
        if fails(spec, case):
            return case
    raise AssertionError(f"no crowded case shows {spec}")


def crowded(seed: int) -> differential.Case:
    """Several requests through three steps, with nearly everything that a case can have."""
    rng = random.Random(seed)
    lens = [rng.randint(9, 40), 0, rng.randint(200, 300), rng.choice([12, 15, 16])]
    query_lens = [rng.randint(2, 9), 1, 1, 0]
    order = rng.sample(range(4), 4)
    kv_heads = rng.choice([2, 3])
    case = differential.Case.of(
        [lens[i] for i in order],
        [query_lens[i] for i in order],
        num_heads=kv_heads * 3,
        num_kv_heads=kv_heads,
        window=rng.choice([None, 7]),
        layout=rng.choice(["NHD", "HND"]),
        kv_dtype=rng.choice(["auto", "fp8"]),
        k_scale=0.5,
        v_scale=2.0,
        lowest_block=rng.choice([0, 2**28 + 3]),
        seed=seed % 2**31,
    )
    short = order.index(0)
    case = case.then({order.index(3): lens[3] + 1, order.index(2): lens[2] + 1})
    return case.then({short: lens[0] + 1, order.index(3): lens[3] + 2}, moved=[short])


def fails(spec: Spec, case: differential.Case) -> bool:
    return differential.compare(HiddenBackend(spec), differential.reference, case) is not None


def run(answer: Answer, case: Case) -> Output:
    given = case.inputs["case"]
    before = given.to_plain()
    made = watched.call_with_backend(answer["minimise"], HiddenBackend(case.inputs["backend"]), given)
    if given.to_plain() != before:
        raise AnswerProblem(Problem("your function changes the case that it is given"))
    if type(made) is not differential.Case:
        raise AnswerProblem(Problem(f"minimise must return a Case, got a {type(made).__name__}"))
    return {"case": made.to_plain()}


def inspect(output: Output, case: Case) -> Problem | None:
    spec, given = case.inputs["backend"], case.inputs["case"]
    made = differential.Case.from_plain(output["case"])
    if not fails(spec, made):
        return Problem(
            "the case that you return does not fail any more",
            f"The backend {variant_of(spec).does}. Its size is {differential.size(made)}, and the backend is right on it.",
        )
    for less in differential.smaller(made):
        if fails(spec, less):
            return Problem(
                "the case that you return is not minimal",
                f"You were given size {differential.size(given)} and return size {differential.size(made)}; one of "
                f"differential.smaller(yours) has size {differential.size(less)} and fails too.",
            )
    return None


CHECK = Check(
    name="minimise",
    grade_id="q13-minimise",
    parts=("minimise",),
    cases=cases,
    run=run,
    inspect=inspect,
    solution={"minimise": mistakes.minimise},
    misconceptions=mistakes.shrink.misconceptions,
    right_variants=mistakes.shrink.right_variants,
    hints=(
        "Which question decides whether a cut is kept? Only one: does the backend still differ from the reference on the "
        "smaller case?",
        "differential.smaller(case) yields every case that is one cut smaller. Take the first that still fails, and start again "
        "from it. When are you done?",
        "while True: for less in differential.smaller(case): if it fails, case = less and break; else (of the for): return case. "
        f"Deep cuts come first, so that a few hundred of the {MAX_CALLS} calls are enough.",
    ),
    partial=True,
)
