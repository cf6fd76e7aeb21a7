"""The report for a terminal: how the class did, which mistakes to talk about, whom to look at, how long it took."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Iterator

from autograder.grading.report.shown import count, duration, mean, percent, points, printable, size, some
from autograder.grading.report.summary import LEVELS, Summary, spread

NUM_MISTAKES = 5
NUM_LOOKS = 30
_INDENT = "    "


def as_text(summary: Summary, width: int) -> str:
    """Lines of at most `width` characters, but for words that are longer."""
    parts = (_class(summary), _exercises(summary), _mistakes(summary), _looks(summary), _time(summary))
    return "\n\n".join(text for part in parts if (text := "\n".join(_fitted(part, width))))


def _fitted(lines: Iterator[str], width: int) -> Iterator[str]:
    for line in lines:
        line = printable(line)
        indent = line[: len(line) - len(line.lstrip())]
        yield from textwrap.wrap(line, width, subsequent_indent=indent + "  ", drop_whitespace=False) or [""]


def _class(summary: Summary) -> Iterator[str]:
    yield f"{summary.lesson}: {', '.join(attendance(summary))}"
    if summary.scores:
        got = statistics.fmean(summary.scores.values())
        yield (
            f"{_INDENT}mean {mean(got)} of {points(summary.max_score)} points ({percent(got / summary.max_score)}), median "
            f"{points(statistics.median(summary.scores.values()))}; {count(summary.num_full, 'learner')} with all of them"
        )
    if summary.hardest is not None:
        yield f"{_INDENT}hardest: {summary.hardest.exercise.name}, {percent(summary.hardest.share_of_points)} of its points"
    if summary.num_to_grade_by_hand:
        yield f"{_INDENT}{count(summary.num_to_grade_by_hand, 'answer')} to grade by hand (Formgrader)"
    if summary.not_judged:
        yield (
            f"{_INDENT}no verdict by the present lesson and checks, run autograder grade {summary.lesson}: "
            f"{some(summary.not_judged, 12)}"
        )
    for names, what in ((summary.absent, "never handed in"), (tuple(summary.late), "late")):
        if names:
            yield f"{_INDENT}{what}: {some(names, 12)}"
    if "none" in summary.sandboxes:
        yield f"{_INDENT}JUDGED WITHOUT A SANDBOX (--unsafe): these verdicts can be forged"


def attendance(summary: Summary) -> list[str]:
    """Who is there, in words."""
    refused = sum(learner.handed_in and bool(learner.refused) for learner in summary.learners)
    said = [count(len(summary.learners), "learner"), f"{summary.num_judged} judged"]
    numbers = (
        (refused, "refused"),
        (len(summary.not_judged), "not judged"),
        (len(summary.late), "late"),
        (len(summary.absent), "never handed in"),
    )
    return said + [f"{number} {what}" for number, what in numbers if number]


def _exercises(summary: Summary) -> Iterator[str]:
    names = max(8, *(len(each.exercise.name) for each in summary.exercises))
    yield f"{'exercise':{names}}   of   mean  full marks   {'  '.join(LEVELS)}  no points yet"
    for each in summary.exercises:
        spread_ = "  ".join(f"{n:{len(level)}}" for n, level in zip(each.levels, LEVELS, strict=True))
        hand = "  by hand" if each.exercise.by_hand else ""
        yield (
            f"{each.exercise.name:{names}}  {each.exercise.max_points:3g}  {mean(each.mean):>5}  {percent(each.share_of_full_marks):>10}   {spread_}  "
            f"{each.num_waiting:13}{hand}"
        )


def _mistakes(summary: Summary) -> Iterator[str]:
    if not summary.mistakes:
        return
    yield "What to talk about"
    for mistake in summary.mistakes[:NUM_MISTAKES]:
        yield (
            f"{_INDENT}{count(len(mistake.learners), 'learner')} in {mistake.exercise} ({percent(mistake.share)}): "
            f"{mistake.name}"
        )
        if mistake.message:
            yield f"{_INDENT * 2}{mistake.message}"
    if len(summary.mistakes) > NUM_MISTAKES:
        yield f"{_INDENT}{count(len(summary.mistakes) - NUM_MISTAKES, 'mistake')} more on the page"


def _looks(summary: Summary) -> Iterator[str]:
    if not summary.looks and not summary.same_text:
        return
    yield f"Whom to look at: {count(len(summary.looks), 'submission')}"
    width = min(24, max((len(look.learner.name) for look in summary.looks), default=0))
    for look in summary.looks[:NUM_LOOKS]:
        for i, reason in enumerate(look.reasons):
            where = f" in {reason.exercise}" if reason.exercise else ""
            name = look.learner.name if i == 0 else ""
            yield f"{_INDENT}{name:{width}}  {reason.kind}{where}: {reason.text}"
    if len(summary.looks) > NUM_LOOKS:
        yield f"{_INDENT}{count(len(summary.looks) - NUM_LOOKS, 'submission')} more on the page"
    for copy in summary.same_text:
        how = "word for word" if copy.exactly else "but for names"
        yield f"{_INDENT}the same text in {copy.cell}, {how}: {some(copy.learners, 6)}"


def _time(summary: Summary) -> Iterator[str]:
    if not summary.seconds:
        return
    took = spread(summary.seconds)
    yield (
        f"Time: {duration(took['sum'])} of judging, median {duration(took['median'])} a submission, at most "
        f"{duration(took['most'])}; on {', '.join(summary.devices)}; sandbox: {', '.join(summary.sandboxes)}"
    )
    if summary.peak_memory is not None:
        yield f"Memory: at most {size(summary.peak_memory)}, Python and torch included"
