"""What `bench.grading.submissions` judges: a learner's notebook, and what is to come of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from autograder import registry
from autograder.grading.sample_answers import Sample
from autograder.grading.sample_class import answer
from autograder.lesson import read_lesson
from autograder.registry import Check

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Submission:
    """test: the grade id that is judged. misconception: what the learner is to be told, or "" where no name fits; None for
    a right one."""

    name: str
    test: str
    notebook: NotebookNode
    misconception: str | None


@cache
def lesson(name: str) -> NotebookNode:
    """The instructor's notebook, solutions in it."""
    return read_lesson(ROOT / "source" / f"{name}.py")


def copy_of(name: str) -> NotebookNode:
    """The same, to be changed."""
    return nbformat.from_dict(lesson(name))


def from_check(
    lesson_name: str, check: Check, mistakes: Sequence[str] | None = None
) -> tuple[list[Submission], list[Submission]]:
    """(wrong, right): a check's own mistakes and right variants, written into the lesson's cells. mistakes: those to take."""

    def written(name: str, parts: registry.Answer, misconception: str | None) -> Submission:
        sample = Sample(name, dict(check.complete(parts)))
        return Submission(name, check.grade_id, answer(sample, copy_of(lesson_name)), misconception)

    wrong = [
        written(each.name, each.parts, each.name)
        for each in check.misconceptions
        if mistakes is None or each.name in mistakes
    ]
    return wrong, [written(each.name, each.parts, None) for each in check.right_variants]
