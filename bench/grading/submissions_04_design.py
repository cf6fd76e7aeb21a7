"""Submissions of lesson 4, wrong and right: each check's mistakes and right variants, written into a learner's notebook."""

from __future__ import annotations

from autograder import registry
from bench.grading.submission import Submission, from_check

LESSON = "04_design"
CHECKS = (
    "q11_plan",
    "q11_conclusion",
    "latent_backend",
    "q12_reuse",
    "is_faulty",
    "minimise",
    "q13_diagnosis",
)


def submissions() -> list[Submission]:
    """All of them, wrong ones first."""
    wrong, right = [], []
    for name in CHECKS:
        mistaken, others = from_check(LESSON, registry.get(name))
        wrong += mistaken
        right += others
    return wrong + right
