"""The plan names what is weak, the weakest first, and refuses notes that are none."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autograder.lesson import read_lesson
from course import self_grading
from course.self_grading import QUESTIONS, plan

ROOT = Path(__file__).resolve().parents[2]
BEST = dict.fromkeys(QUESTIONS, 2)


@given(st.fixed_dictionaries({name: st.integers(0, 2) for name in QUESTIONS}))
@settings(max_examples=30, deadline=None)
def test_every_weak_question_once_the_weakest_first(notes):
    rows = plan(notes).rows
    assert {row[0] for row in rows} == {name for name in QUESTIONS if notes[name] < 2}
    assert len(rows) == len({row[0] for row in rows})
    places = [(notes[row[0]], list(QUESTIONS).index(row[0])) for row in rows]
    assert places == sorted(places)
    assert plan(notes).caption.startswith(f"{sum(notes.values())} of 26: ")


def test_who_could_explain_everything_has_nothing_to_read():
    assert plan(BEST).rows == []
    assert "nothing to read again" in plan(BEST).caption


@pytest.mark.parametrize(
    ("notes", "message"),
    [
        ({"q1": 2}, "missing: q2, q3"),
        ({**BEST, "q14": 1}, "expected q1 to q13, got q14"),
        ({**BEST, "q7": 3}, "expected 0, 1 or 2 for q7, got 3"),
        ({**BEST, "q7": True}, "expected 0, 1 or 2 for q7, got True"),
        ({**BEST, "q7": "2"}, "expected 0, 1 or 2 for q7, got '2'"),
    ],
)
def test_other_notes_are_refused(notes, message):
    with pytest.raises(ValueError, match=message):
        plan(notes)


def test_what_is_to_be_read_is_there():
    assert list(QUESTIONS) == [f"q{number}" for number in range(1, 14)]
    for question in QUESTIONS.values():
        for file in question.file.split(", "):
            assert (ROOT / "kernels" / file).exists(), file
    assert len(self_grading.questions().rows) == 13


def test_the_parts_are_the_lessons_own():
    """ "lesson 2, part 3" has that heading, and speaks of that question (lesson 3 says rungs)."""
    for name, question in QUESTIONS.items():
        lesson, part = question.lesson.replace("parts", "part").split(", part ")
        (path,) = (ROOT / "source").glob(f"0{lesson.removeprefix('lesson ')}_*.py")
        heading = next(
            cell.source
            for cell in read_lesson(path).cells
            if cell.source.startswith(f"## Part {part.split(' ')[0]}:")
        )
        if lesson in ("lesson 1", "lesson 2"):
            assert f"Question {name.removeprefix('q')}." in heading.splitlines()[0]
