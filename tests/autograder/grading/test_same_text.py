"""Copied answers are found, and answers that anybody would write are not called copied."""

import nbformat
import pytest
from nbformat import NotebookNode

from autograder.grading.report.same_text import MAX_CHARACTERS, SameText, groups

SOLUTION = """def total(values):
    \"\"\"The sum.\"\"\"
    ### BEGIN SOLUTION
    return sum(values)
    ### END SOLUTION
"""
ANSWER = """def total(values):
    \"\"\"The sum.\"\"\"
    result, seen = 0.0, []
    for index, value in enumerate(values):
        if value is None:
            continue
        seen.append(index)
        result = result + float(value) * (1 if index in seen else -1)
    return result / 1 if seen else result
"""
# The same with other names, comments, hints and layout.
RENAMED = """def total( numbers : list ) -> float:
    # I did this all by myself.
    s, used = 0.0, []
    for i, x in enumerate(numbers):
        if x is None: continue
        used.append(i)

        s = (s + float(x) * (1 if i in used else -1))
    return s / 1 if used else s
"""
OTHER = ANSWER.replace("result + float(value)", "float(value) + result")
PROSE = " ".join(f"word{i}" for i in range(40))


def _cell(name: str, source: str, kind: str = "code", **meta: bool) -> NotebookNode:
    make = nbformat.v4.new_code_cell if kind == "code" else nbformat.v4.new_markdown_cell
    return make(source, id=name, metadata={"nbgrader": {"grade_id": name, **meta}})


@pytest.fixture
def lesson() -> NotebookNode:
    cells = [
        _cell("total-code", SOLUTION, solution=True),
        _cell("total", "assert total([1]) == 1", grade=True),
        _cell(
            "why", f"Why?\n\n### BEGIN SOLUTION\n{PROSE} indeed\n### END SOLUTION", "markdown", solution=True
        ),
    ]
    return nbformat.v4.new_notebook(cells=cells)


def _found(lesson: NotebookNode, cell: str = "total-code", **texts: str) -> list[SameText]:
    return groups(lesson, {learner: {cell: text} for learner, text in texts.items()})


def test_an_answer_with_other_names_and_comments_is_the_same_text(lesson: NotebookNode) -> None:
    assert _found(lesson, ada=ANSWER, bob=RENAMED, cy=OTHER) == [
        SameText("total-code", ("ada", "bob"), False)
    ]
    commented = ANSWER.replace("seen = 0.0", "seen  =  0.0").replace("continue", "continue  # skip")
    assert _found(lesson, bob=commented, ada=ANSWER) == [SameText("total-code", ("ada", "bob"), True)]


def test_large_groups_come_first_and_each_cell_has_its_own(lesson: NotebookNode) -> None:
    texts = {name: {"total-code": OTHER} for name in ("x", "y")} | {
        name: {"total-code": ANSWER, "why": PROSE.upper() + "!"} for name in ("a", "b", "c")
    }
    assert groups(lesson, texts) == [
        SameText("total-code", ("a", "b", "c"), True),
        SameText("total-code", ("x", "y"), True),
        SameText("why", ("a", "b", "c"), True),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        SOLUTION,
        SOLUTION.replace("    ### BEGIN SOLUTION\n", "").replace("    ### END SOLUTION\n", ""),
        "def total(values):\n    '''The sum.'''\n",
        # What an attentive class writes: one line.
        "def total(values):\n    return float(sum(values))",
        # A table of constants: the right one is the same for everybody.
        "verdicts = {\n" + "".join(f"    'case-{i}': 'FLASH',\n" for i in range(60)) + "}",
    ],
    ids=["nothing", "the instructor's", "its only line", "the stub", "short", "constants"],
)
def test_what_anybody_would_write_is_no_copy(lesson: NotebookNode, text: str) -> None:
    assert _found(lesson, ada=text, bob=text) == []


@pytest.mark.parametrize(
    "text",
    [
        "def total(values:\n" + "    word again " * 40,
        "(" * 5000,
        "-" * 50_000 + "1",
        "x = 1\0",
        "a" * MAX_CHARACTERS * 2,
    ],
    ids=["no Python", "parentheses", "deep", "null", "long"],
)
def test_text_that_breaks_the_reader_costs_nobody_else(lesson: NotebookNode, text: str) -> None:
    found = _found(lesson, ada=ANSWER, bob=ANSWER, cy=text, dan=text)
    assert SameText("total-code", ("ada", "bob"), True) in found
    assert all(set(group.learners) in ({"ada", "bob"}, {"cy", "dan"}) for group in found)


def test_short_explanations_are_not_compared(lesson: NotebookNode) -> None:
    short = "The slot is the physical block times the block size plus the offset."
    assert _found(lesson, "why", ada=short, bob=short) == []
    assert _found(lesson, "why", ada=PROSE, bob=f"  {PROSE}.") == [SameText("why", ("ada", "bob"), True)]
