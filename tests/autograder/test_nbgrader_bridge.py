"""The plug-ins on notebooks in memory: what stock nbgrader gets wrong, and what a learner is not to see."""

from types import SimpleNamespace
from typing import Any

import nbformat
import pytest
from nbformat import NotebookNode

from autograder.nbgrader_bridge import RedactForFeedback, SaveVerdicts

TEST = """check(f)
### BEGIN HIDDEN TESTS
check(f, suite="hidden")
assert f(1234) == 5
### END HIDDEN TESTS"""


def _graded(*outputs: dict[str, Any], points: float = 4) -> NotebookNode:
    cell = nbformat.v4.new_code_cell(TEST, id="q", execution_count=3)
    cell.outputs = [nbformat.v4.new_output(**output) for output in outputs]
    cell.metadata["nbgrader"] = NotebookNode(
        grade_id="q", grade=True, solution=False, locked=True, task=False, points=points, schema_version=3
    )
    return cell


def _stream(name: str, text: str) -> dict[str, Any]:
    return {"output_type": "stream", "name": name, "text": text}


def _result(text: str | None) -> dict[str, Any]:
    data = {"image/png": ""} if text is None else {"text/plain": text}
    return {"output_type": "execute_result", "data": data, "execution_count": 3}


ERROR = {"output_type": "error", "ename": "CheckFailed", "evalue": "no", "traceback": ["no"]}


@pytest.mark.parametrize(
    ("outputs", "points"),
    [
        ([], 4.0),
        ([_stream("stdout", "fine")], 4.0),
        ([_stream("stderr", "UserWarning: slow")], 4.0),
        ([_stream("stderr", "UserWarning: slow"), _result("2.5")], 2.5),
        ([_stream("stderr", "UserWarning: slow"), ERROR], 0.0),
        ([ERROR], 0.0),
        ([_result("0.0")], 0.0),
        ([_result("5.0")], 0.0),
        ([_result("")], 0.0),
        ([_result(None)], 0.0),
    ],
)
def test_points_come_from_errors_and_partial_credit_only(
    outputs: list[dict[str, Any]], points: float
) -> None:
    assert _score(_graded(*outputs)) == points


def test_a_cell_that_did_not_run_earns_nothing() -> None:
    cell = _graded()
    cell.execution_count = None
    assert _score(cell) == 0
    assert "did not run" in cell.outputs[-1].evalue


def _score(cell: NotebookNode) -> float | None:
    grade = SimpleNamespace(auto_score=None, manual_score=None, needs_manual_grade=None)
    saver = SaveVerdicts()
    saver.notebook_id = saver.assignment_id = saver.student_id = "x"
    saver.gradebook = SimpleNamespace(find_grade=lambda *_: grade, db=SimpleNamespace(commit=lambda: None))
    before = [dict(output) for output in cell.outputs]
    saver._add_score(cell, {})
    assert [dict(output) for output in cell.outputs][: len(before)] == before  # feedback still shows stderr
    score: float | None = grade.auto_score
    return score


def test_feedback_loses_hidden_tests_wherever_they_show() -> None:
    coloured = '\x1b[32m      3\x1b[39m check(f, suite=\x1b[33m"hidden"\x1b[39m)'
    failing = _graded(
        {
            "output_type": "error",
            "ename": "NameError",
            "evalue": "name 'f' is not defined",
            "traceback": [f"----> 1 check(f)\n      2 ### BEGIN HIDDEN TESTS\n{coloured}", "NameError: 'f'"],
        }
    )
    spying = nbformat.v4.new_code_cell("print(In[-1])")
    spying.outputs = [
        nbformat.v4.new_output(**_stream("stdout", f"caught:\n{TEST}\n")),
        nbformat.v4.new_output("display_data", data={"text/html": f"<pre>{TEST}</pre>", "text/plain": TEST}),
    ]
    notebook = nbformat.v4.new_notebook(cells=[failing, spying])
    RedactForFeedback().preprocess(notebook, {})
    text = nbformat.writes(notebook)
    assert failing.source == "check(f)"
    for secret in ("HIDDEN TESTS", "1234", "suite="):
        assert secret not in text
    assert "----> 1 check(f)" in text
    assert "NameError: 'f'" in text
    assert "caught:" in text


def test_feedback_shows_a_widgets_table_and_not_its_empty_frame() -> None:
    cell = nbformat.v4.new_code_cell("widget")
    view = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/html": "<table></table>"}
    cell.outputs = [nbformat.v4.new_output("display_data", data=view)]
    notebook = nbformat.v4.new_notebook(cells=[cell], metadata={"widgets": {"state": {}}})
    RedactForFeedback().preprocess(notebook, {})
    assert cell.outputs[0].data == {"text/html": "<table></table>"}
    assert "widgets" not in notebook.metadata
