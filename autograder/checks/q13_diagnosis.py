"""Question 13, third part: the fault of each of the notebook's closed backends, by name.

Which name stands for what is fixed and packed (`course.closed_backends.sealed`): the learner tests these very backends, so that
they cannot be drawn for each grading. What keeps copying low is that is_faulty and minimise have more of the points.
"""

from __future__ import annotations

import functools

from autograder.checks.plain_answers import entries, refuse, unanswered
from autograder.failure import Problem
from autograder.misconceptions import q13_diagnosis as mistakes
from autograder.registry import Answer, Check, Output
from autograder.suite import Case, Suite
from course import differential
from course.closed_backends import NAMES, closed
from course.closed_backends.faults import FAULTS, RIGHT, VARIANTS

_of = differential.Case.of
# Inputs on which each fault shows, in one of its variants at least, and as little else as can be.
_SHOWS = {
    "stale-tail": [_of([5]), _of([4])],
    "window": [_of([12], window=8), _of([12], [3], window=8)],
    "offset-32-bit": [_of([4], lowest_block=2**27 + 5)],
    "gqa-map": [_of([4], num_heads=6, num_kv_heads=2)],
    "layout": [_of([4], num_heads=2, num_kv_heads=2, layout="HND")],
    "lse-base": [_of([4]), _of([300])],
    "split-cap": [_of([300]), _of([4, 300])],
    "stale-block-table": [_of([4, 4]).then({1: 4}).then({0: 4, 1: 4}, moved=[0])],
    "zero-length": [_of([0]), _of([4, 4], [0, 1])],
    "fp8-scale": [_of([4], kv_dtype="fp8", k_scale=0.5, v_scale=2.0)],
}


def cases(suite: Suite) -> list[Case]:
    """The right backends, without whom the others count nothing, and the others two by two or alone: six points."""
    right = [name for name in NAMES if mistakes.TRUTH[name] == RIGHT]
    faulty = [name for name in NAMES if mistakes.TRUTH[name] != RIGHT]
    groups = [faulty[0:2], faulty[2:4], faulty[4:6], faulty[6:8], faulty[8:9], faulty[9:10]]
    made = [Case("backends that are right", {"names": right}, required=True)]
    return made + [
        Case(f"faulty backends, {i} of {len(groups)}", {"names": g}) for i, g in enumerate(groups, 1)
    ]


def validate(answer: Answer) -> str | None:
    return unanswered(dict(answer))


def run(answer: Answer, case: Case) -> Output:
    given = entries("q13_diagnosis", answer["q13_diagnosis"], "a dict from backend to fault")
    said = {}
    for name in case.inputs["names"]:
        if not given.get(name):
            raise refuse(f"q13_diagnosis says nothing about {name}")
        word = (
            given[name].strip().lower().replace(" ", "-").replace("_", "-")
            if type(given[name]) is str
            else ""
        )
        if word not in (*FAULTS, RIGHT):
            words = ", ".join((*FAULTS, RIGHT))
            raise refuse(
                f"q13_diagnosis[{name!r}] is none of the words",
                f"got {given[name]!r:.60}; the words are {words}",
            )
        said[name] = word
    return {"said": said}


def inspect(output: Output, case: Case) -> Problem | None:
    for name, word in output["said"].items():
        truth = mistakes.TRUTH[name]
        if word == truth:
            continue
        if truth == RIGHT:
            return Problem(f"{name} is accused and is right", f"{_evidence(name, word)} Expected {RIGHT!r}.")
        if word == RIGHT:
            return Problem(
                f"{name} is called right and has a fault", "Some case of your is_faulty should show it."
            )
        return Problem(f"{name} has another fault than {word!r}", _evidence(name, word))
    return None


@functools.cache
def _evidence(name: str, said: str) -> str:
    """What an experiment says about a wrong diagnosis."""
    for case in _SHOWS[said]:
        difference = differential.compare(closed(name), differential.reference, case)
        if difference is not None:
            return (
                f"It does differ on inputs on which {said!r} shows, in the {difference.what}. Make its case minimal, and look "
                "what is left that is not plain, and whether output, lse or both are wrong."
            )
    shows = " or on ".join(v.shows for v in VARIANTS.values() if v.fault == said)
    return f"{said!r} shows on {shows}: on such inputs {name} agrees with the reference."


CHECK = Check(
    name="q13_diagnosis",
    grade_id="q13-name",
    parts=("q13_diagnosis",),
    cases=cases,
    run=run,
    inspect=inspect,
    solution={"q13_diagnosis": mistakes.TRUTH},
    misconceptions=mistakes.MISCONCEPTIONS,
    right_variants=mistakes.RIGHT_VARIANTS,
    hints=(
        "Find a failing case for each backend that your is_faulty calls faulty, and make it minimal. The fields that are still "
        "not plain, and the lengths that are left, are what the fault needs.",
        "Two minimal cases look alike: one long request. Which numbers differ there, output, lse or both? A part that is left "
        "out changes both; parts that are weighted wrongly leave the sum of the weights as it was.",
        "What needs only one kv head and NHD is neither gqa-map nor layout. What needs a second step is stale-block-table. What "
        "needs a query-less or an empty request is zero-length. What needs fp8, a window or a high block number says so. What is "
        "left with a tail alone is stale-tail.",
    ),
    validate=validate,
    partial=True,
)
