"""The numbers of the report: exercises, mistakes, time, and whom to look at. Pure functions of the results."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from autograder import registry
from autograder.failure import UnknownCheck
from autograder.grading.report.results import ClassResults, Exercise, Learner
from autograder.grading.report.same_text import SameText, groups
from autograder.grading.report.shown import some
from autograder.judge import judgement
from autograder.judge.judgement import CRASHED, INFRASTRUCTURE, MEMORY, TIMEOUT, CheckResult, Judgement

# Shares of an exercise's points, from nothing to everything.
LEVELS = ("none", "less than half", "half and more", "all")

# Why somebody has to look at a submission; the gravest first.
REFUSED, TAMPERED, SUSPICIOUS = "refused", "tampered", "suspicious"
SAME_TEXT, NEWER, UNSAFE, CELLS = "same text", "handed in again", "no sandbox", "cells"
KINDS = (
    REFUSED,
    INFRASTRUCTURE,
    TAMPERED,
    SUSPICIOUS,
    CRASHED,
    TIMEOUT,
    MEMORY,
    NEWER,
    UNSAFE,
    CELLS,
)
_WORDS = {
    judgement.TORCH_ATTENTION: "torch's own attention in the text",
    judgement.SUSPICIOUS_OBJECT: "an object that may pretend to be what it is not",
    judgement.SUSPICIOUS_TEXT: "what has no place in an answer",
}


@dataclass(frozen=True)
class ExerciseSummary:
    """One exercise over the class.

    points: of those who have any verdict. num_waiting: submissions without points: the machine failed, or a person has not
    looked yet. levels: how many learners by share of the points, in the order of LEVELS. statuses: the judge's word -> how
    many. unnamed: how many did not pass and made no mistake that has a name. seconds: of judging it, for each submission.
    """

    exercise: Exercise
    points: tuple[float, ...]
    num_waiting: int
    statuses: dict[str, int]
    unnamed: int
    seconds: tuple[float, ...]

    @property
    def mean(self) -> float | None:
        return statistics.fmean(self.points) if self.points else None

    @property
    def share_of_points(self) -> float | None:
        """Of all the points that there were to get."""
        return None if self.mean is None else self.mean / self.exercise.max_points

    @property
    def levels(self) -> tuple[int, ...]:
        counts = Counter(_level(points / self.exercise.max_points) for points in self.points)
        return tuple(counts[level] for level in LEVELS)

    @property
    def share_of_full_marks(self) -> float | None:
        return self.levels[-1] / len(self.points) if self.points else None


@dataclass(frozen=True)
class Mistake:
    """A misconception, and who made it in which exercise. share: of the submissions with a verdict there."""

    exercise: str
    name: str
    message: str
    learners: tuple[str, ...]
    share: float


@dataclass(frozen=True)
class Reason:
    """Why to look: `kind` is one of KINDS. exercise: "" where it is about the whole submission."""

    kind: str
    text: str
    exercise: str = ""


@dataclass(frozen=True)
class Look:
    """A submission that a person has to look at; the gravest reason first."""

    learner: Learner
    reasons: tuple[Reason, ...]


@dataclass(frozen=True)
class Summary:
    """The whole report in numbers.

    scores: learner -> points of the judged exercises together, for those who have all their verdicts. max_score: the most
    there is. mistakes: the most frequent first. looks: the gravest first. absent: never handed in. not_judged: the journal
    has no verdict on their text by the present checks. late: learner -> seconds.
    """

    lesson: str
    learners: tuple[Learner, ...]
    exercises: tuple[ExerciseSummary, ...]
    scores: dict[str, float]
    max_score: float
    mistakes: tuple[Mistake, ...]
    looks: tuple[Look, ...]
    same_text: tuple[SameText, ...]
    absent: tuple[str, ...]
    not_judged: tuple[str, ...]
    late: dict[str, float]
    devices: tuple[str, ...]
    sandboxes: tuple[str, ...]
    gradings: tuple[int, ...]

    @property
    def num_judged(self) -> int:
        return sum(learner.entry is not None for learner in self.learners)

    @property
    def num_full(self) -> int:
        return sum(score >= self.max_score for score in self.scores.values())

    @property
    def num_to_grade_by_hand(self) -> int:
        return sum(each.num_waiting for each in self.exercises if each.exercise.by_hand)

    @property
    def hardest(self) -> ExerciseSummary | None:
        """The judged exercise that brought the smallest share of its points; None if nobody lost any."""
        found = [
            each for each in self.exercises if not each.exercise.by_hand and each.share_of_points is not None
        ]
        worst = min(found, key=lambda each: each.share_of_points or 0.0, default=None)
        return worst if worst is not None and worst.share_of_points != 1 else None

    @property
    def judged(self) -> tuple[tuple[str, Judgement], ...]:
        """Learner and judgement of each submission that has one, the slowest first."""
        found = ((each.name, each.entry.judgement) for each in self.learners if each.entry is not None)
        return tuple(sorted(found, key=lambda pair: -pair[1].seconds))

    @property
    def seconds(self) -> tuple[float, ...]:
        """Of judging, for each submission with a verdict."""
        return tuple(found.seconds for _, found in self.judged)

    @property
    def peak_memory(self) -> int | None:
        """The most bytes that a submission held, Python and torch included; None where nothing measured it."""
        return max(
            (found.peak_memory for _, found in self.judged if found.peak_memory is not None), default=None
        )

    def reasons(self, learner: str) -> tuple[Reason, ...]:
        """Why to look at this learner's submission, the same text as others' included; often nothing."""
        found = next((look.reasons for look in self.looks if look.learner.name == learner), ())
        copies = tuple(
            Reason(
                SAME_TEXT, f"{copy.cell}, as {some([name for name in copy.learners if name != learner], 3)}"
            )
            for copy in self.same_text
            if learner in copy.learners
        )
        return found + copies


def summarise(results: ClassResults) -> Summary:
    learners = results.learners
    entries = [learner.entry for learner in learners if learner.entry is not None]
    judged = [exercise for exercise in results.exercises if not exercise.by_hand]
    totals = {learner.name: [learner.points(each) for each in judged] for learner in learners}
    looks = [Look(learner, reasons) for learner in learners if (reasons := _reasons(learner))]
    looks.sort(key=lambda look: (KINDS.index(look.reasons[0].kind), look.learner.name))
    return Summary(
        lesson=results.lesson,
        learners=learners,
        exercises=tuple(_exercise(exercise, learners) for exercise in results.exercises),
        scores={
            name: sum(p for p in points if p is not None)
            for name, points in totals.items()
            if None not in points
        },
        max_score=sum(exercise.max_points for exercise in judged),
        mistakes=_mistakes(results),
        looks=tuple(looks),
        same_text=tuple(groups(results.notebook, {each.name: each.texts for each in learners})),
        absent=tuple(learner.name for learner in learners if not learner.handed_in),
        not_judged=tuple(x.name for x in learners if x.handed_in and not x.refused and x.entry is None),
        late={x.name: x.seconds_late for x in learners if x.handed_in and x.seconds_late > 0},
        devices=tuple(sorted({entry.device for entry in entries})),
        sandboxes=tuple(sorted({entry.sandbox for entry in entries})),
        gradings=tuple(sorted({entry.grading for entry in entries})),
    )


def headline(message: str) -> str:
    """A check's message in one line, without the check's name, which stands beside it."""
    first = next((line.strip() for line in message.splitlines() if line.strip()), "")
    mark, _, rest = first.partition(" ")
    return rest.partition(": ")[2] or rest if mark in ("✗", "✓") else first


def evidence(result: CheckResult) -> tuple[str, ...]:
    """What the judge noticed about an answer, right or wrong, in words."""
    found = []
    if judgement.NO_KERNEL in result.flags:
        found.append("no Triton kernel of the learner's own was launched")
    if result.attention_calls:
        found.append(f"torch's own attention was called ({result.attention_calls} times)")
    return tuple(found)


def _level(share: float) -> str:
    if share <= 0:
        return LEVELS[0]
    if share >= 1:
        return LEVELS[3]
    return LEVELS[1] if share < 0.5 else LEVELS[2]


def _exercise(exercise: Exercise, learners: Sequence[Learner]) -> ExerciseSummary:
    given = [learner.points(exercise) for learner in learners if learner.entry is not None]
    points = tuple(each for each in given if each is not None)
    found = [learner.checks[exercise.name] for learner in learners if exercise.name in learner.checks]
    return ExerciseSummary(
        exercise,
        points,
        len(given) - len(points),
        dict(Counter(result.status for result in found).most_common()),
        sum(_is_short(result) and result.misconception is None for result in found),
        tuple(result.seconds for result in found),
    )


def _is_short(result: CheckResult) -> bool:
    return result.points is not None and result.points < result.max_points


def _mistakes(results: ClassResults) -> tuple[Mistake, ...]:
    by_name: dict[tuple[str, str], list[str]] = defaultdict(list)
    judged: Counter[str] = Counter()
    for learner in results.learners:
        for name, result in learner.checks.items():
            judged[name] += result.points is not None
            if result.misconception is not None:
                by_name[name, result.misconception].append(learner.name)
    found = [
        Mistake(exercise, name, _message(exercise, name), tuple(names), len(names) / max(1, judged[exercise]))
        for (exercise, name), names in by_name.items()
    ]
    order = [exercise.name for exercise in results.exercises]
    return tuple(sorted(found, key=lambda m: (-len(m.learners), order.index(m.exercise), m.name)))


def _message(exercise: str, misconception: str) -> str:
    """The misconception's own words; "" where the checks do not know it any more."""
    try:
        known = registry.get(exercise).misconceptions
    except UnknownCheck:
        return ""
    return next((each.message for each in known if each.name == misconception), "")


def _reasons(learner: Learner) -> tuple[Reason, ...]:
    return tuple(sorted(_all_reasons(learner), key=lambda reason: KINDS.index(reason.kind)))


def _all_reasons(learner: Learner) -> Iterator[Reason]:
    if not learner.handed_in:
        return
    if learner.refused:
        yield Reason(REFUSED, learner.refused)
    if learner.newer:
        yield Reason(NEWER, "there is a newer submission than the one graded; run autograder grade")
    if learner.entry is None:
        return
    if learner.entry.sandbox == "none":
        yield Reason(UNSAFE, "judged with --unsafe: this learner's code could reach the grader")
    found = learner.entry.judgement
    tampered = found.remarks.get(judgement.TAMPERED, ())
    for line in found.notes:
        yield Reason(TAMPERED if line in tampered else CELLS, line)
    said = {_cell(line) for line in found.notes}
    for line in learner.repairs:
        if _cell(line) not in said:
            yield Reason(TAMPERED, line)
    for flag, words in _WORDS.items():
        for place in found.remarks.get(flag, ()):
            yield Reason(SUSPICIOUS, f"{words}: {place}")
    for name, result in learner.checks.items():
        if result.points is None:
            yield Reason(INFRASTRUCTURE, headline(result.message), name)
        elif result.status in (CRASHED, TIMEOUT, MEMORY):
            yield Reason(result.status, headline(result.message), name)
        for flag in evidence(result):
            yield Reason(SUSPICIOUS, flag, name)


def _cell(line: str) -> str:
    """The cell that a remark is about: "cell NAME was changed"."""
    return line.removeprefix("cell ").partition(" ")[0]


def spread(numbers: Sequence[float]) -> dict[str, Any]:
    """Median, 90th percentile, most and sum of some numbers; empty for none."""
    if not numbers:
        return {}
    ordered = sorted(numbers)
    return {
        "median": statistics.median(ordered),
        "p90": ordered[min(len(ordered) - 1, round(0.9 * (len(ordered) - 1)))],
        "most": ordered[-1],
        "sum": sum(ordered),
    }
