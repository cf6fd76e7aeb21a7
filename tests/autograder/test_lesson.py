"""The authoring format: what read_lesson makes of a lesson, and what it refuses with file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from autograder.lesson import LessonError, read_lesson

GOOD = '''\
# %% why-this [markdown]
# # A lesson
#
# Words.

# %% show
import math
%matplotlib inline
math.pi

# %% q1-code nbgrader={"solution": true} tags=["mine"]
def answer(x):
    """Twice x."""
    ### BEGIN SOLUTION
    return 2 * x
    ### END SOLUTION

# %% q1-test nbgrader={"grade": true, "points": 4}
autograder.check("answer", answer)
### BEGIN HIDDEN TESTS
autograder.check("answer", answer, suite="hidden")
### END HIDDEN TESTS

# %% q1-explain [markdown] nbgrader={"grade": true, "solution": true, "points": 2.5}
# Why twice?
#
# ### BEGIN SOLUTION
# Because. 1 point for the cause.
# ### END SOLUTION

# %% given nbgrader={"locked": true}
block_size = 16
'''


def read(tmp_path: Path, text: str):
    path = tmp_path / "01_sample.py"
    path.write_text(text)
    return read_lesson(path, shown=Path("source/01_sample.py"))


def test_cells_keep_text_order_and_titles(tmp_path: Path) -> None:
    notebook = read(tmp_path, GOOD)
    assert [cell.id for cell in notebook.cells] == [
        "why-this",
        "show",
        "q1-code",
        "q1-test",
        "q1-explain",
        "given",
    ]
    assert [cell.cell_type for cell in notebook.cells] == [
        "markdown",
        "code",
        "code",
        "code",
        "markdown",
        "code",
    ]
    assert notebook.cells[0].source == "# A lesson\n\nWords."
    assert notebook.cells[1].source == "import math\n%matplotlib inline\nmath.pi"
    assert notebook.cells[4].source.splitlines()[2] == "### BEGIN SOLUTION"


def test_nbgrader_metadata_is_filled_in(tmp_path: Path) -> None:
    cells = {cell.id: cell for cell in read(tmp_path, GOOD).cells}
    assert "nbgrader" not in cells["show"].metadata
    assert cells["q1-code"].metadata == {
        "tags": ["mine"],
        "nbgrader": {
            "grade": False,
            "grade_id": "q1-code",
            "locked": False,
            "schema_version": 3,
            "solution": True,
            "task": False,
        },
    }
    assert cells["q1-test"].metadata.nbgrader == {
        "grade": True,
        "grade_id": "q1-test",
        "locked": True,
        "points": 4,
        "schema_version": 3,
        "solution": False,
        "task": False,
    }
    assert cells["q1-explain"].metadata.nbgrader["points"] == 2.5
    assert cells["given"].metadata.nbgrader["locked"] is True


def test_notebook_metadata_names_the_kernel_and_nothing_else(tmp_path: Path) -> None:
    notebook = read(tmp_path, GOOD)
    assert set(notebook.metadata) == {"kernelspec"}
    assert notebook.metadata.kernelspec["name"] == "python3"
    assert all(
        cell.outputs == [] and cell.execution_count is None
        for cell in notebook.cells
        if cell.cell_type == "code"
    )


TEST_CELL = '# %% t nbgrader={"grade": true, "points": 1}\nautograder.check("a", a)\n'

REFUSED = [
    pytest.param("# %%\n1\n", 1, "cell without a title", id="no title"),
    pytest.param("import x\n\n# %% a\n1\n", 1, "text before the first cell", id="text before"),
    pytest.param("# %% a\n1\n\n# %% [markdown]\n# b\n", 4, "cell without a title", id="no title, words"),
    pytest.param("# %% a\n1\n# %% b\n2\n# %% a\n3\n", 5, "a is taken already, in line 1", id="duplicate"),
    pytest.param("# %% A title\n1\n", 1, "'A title' is no id", id="not a slug"),
    pytest.param(f"# %% {'a' * 65}\n1\n", 1, "is no id", id="too long"),
    pytest.param("# %% a [raw]\n# x\n", 1, "is of type raw", id="raw"),
    pytest.param('# %% a nbgrader={"solution": true\n1\n', 1, "is no metadata", id="metadata not closed"),
    pytest.param('# %% a nbgrader={"solution": true} [markdown]\n# 1\n', 1, "the type first", id="type last"),
    pytest.param('# %% a slideshow={"x": 1}\n1\n', 1, "unknown metadata 'slideshow'", id="unknown metadata"),
    pytest.param('# %% a nbgrader={"points": 3}\n1\n', 1, "has points and is not graded", id="points"),
    pytest.param(TEST_CELL.replace(', "points": 1', ""), 1, 'write "points": 4', id="no points"),
    pytest.param(TEST_CELL.replace("1}", "0}"), 1, "graded without points", id="zero points"),
    pytest.param(TEST_CELL.replace("1}", '"4"}'), 1, "not '4'", id="points in quotes"),
    pytest.param(
        TEST_CELL.replace('"grade": true', '"grade": "yes"'), 1, "grade is true or false", id="not boolean"
    ),
    pytest.param(
        '# %% a nbgrader={"solutions": true}\n1\n', 1, "unknown nbgrader key 'solutions'", id="unknown key"
    ),
    pytest.param('# %% a nbgrader={"grade_id": "b"}\n1\n', 1, "differs from the title", id="other grade id"),
    pytest.param('# %% a nbgrader=["b"]\n1\n', 1, "takes an object", id="no object"),
    pytest.param('# %% a [markdown] nbgrader={"grade": true, "points": 1}\n# b\n', 1, "together", id="words"),
    pytest.param(
        "# %% a\n### BEGIN SOLUTION\n1\n### END SOLUTION\n", 2, "a solution in a cell without", id="place"
    ),
    pytest.param(
        '# %% a nbgrader={"solution": true}\n1\n', 1, "would empty it", id="solution without region"
    ),
    pytest.param(
        '# %% a nbgrader={"solution": true}\n\n### BEGIN SOLUTION\n1\n', 3, "without its END", id="no end"
    ),
    pytest.param(
        '# %% a nbgrader={"solution": true}\n1\n### END SOLUTION\n', 3, "without its BEGIN", id="no begin"
    ),
    pytest.param(
        '# %% a nbgrader={"solution": true}\n### BEGIN SOLUTION\n### BEGIN SOLUTION\n### END SOLUTION\n',
        3,
        "BEGIN SOLUTION inside SOLUTION of line 2",
        id="nested",
    ),
    pytest.param(
        TEST_CELL + "### BEGIN HIDDEN TESTS\n1\n### END SOLUTION\n", 5, "END SOLUTION without", id="crossed"
    ),
    pytest.param(
        "# %% a\n### BEGIN HIDDEN TESTS\n1\n### END HIDDEN TESTS\n",
        2,
        "that is no test",
        id="hidden, no test",
    ),
    pytest.param(
        TEST_CELL + "### BEGIN HIDDEN TESTS\n", 3, "BEGIN HIDDEN TESTS without its END", id="hidden, no end"
    ),
    pytest.param(
        TEST_CELL + 'autograder.check("a", a, suite = "hidden")\n', 3, "would be released", id="hidden leaks"
    ),
    pytest.param(TEST_CELL.replace("autograder.check", "print"), 1, "without a visible", id="no check"),
    pytest.param(
        '# %% t nbgrader={"grade": true, "points": 1}\n'
        '### BEGIN HIDDEN TESTS\nautograder.check("a", a, suite="hidden")\n### END HIDDEN TESTS\n',
        1,
        "without a visible",
        id="only hidden",
    ),
]


@pytest.mark.parametrize(("text", "line", "message"), REFUSED)
def test_refused_with_file_and_line(tmp_path: Path, text: str, line: int, message: str) -> None:
    with pytest.raises(LessonError) as caught:
        read(tmp_path, text)
    assert str(caught.value).startswith(f"source/01_sample.py:{line}: ")
    assert message in str(caught.value)


def test_a_marker_in_a_string_is_said(tmp_path: Path) -> None:
    with pytest.raises(LessonError, match="is one in a string"):
        read(tmp_path, '# %% a\ntext = """\n# %% b\n"""\n')


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"02_absent\.py"):
        read_lesson(tmp_path / "02_absent.py")
