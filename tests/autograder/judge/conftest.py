"""One warm sandbox, and one judge of lesson 1, for all tests of this folder: starting one takes seconds, a worker in it
milliseconds."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat import NotebookNode

from autograder.judge.judge import Judge, Judgement
from autograder.judge.sandbox import Limits, Sandbox, why_unavailable
from autograder.judge.session import Session
from autograder.lesson import read_lesson

# With a GPU each worker has a sandbox of its own. AUTOGRADER_TEST_NESTED=0 runs these tests so without one.
if os.environ.get("AUTOGRADER_TEST_NESTED") == "0":
    assert Sandbox.__init__.__kwdefaults__ is not None
    Sandbox.__init__.__kwdefaults__["nested"] = False

FOLDER = Path(__file__).resolve().parent
LESSON = Path(__file__).resolve().parents[3] / "source" / "01_warm_up.py"
# Of the cells that no answer needs, these show what learners' functions do.
SHOWN = {"setup", "states-by-definition", "q3-watch"}
LIMITS = Limits(memory=2**30, tmp=16 * 2**20, processes=40, cell=10, call=3, demo=2, total=120)


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist looks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One process runs all tests of this folder: each process would start these sandboxes of its own."""
    for item in items:
        if item.path.is_relative_to(FOLDER):
            item.add_marker(pytest.mark.xdist_group("judge"))


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    if (reason := why_unavailable()) is not None:
        pytest.skip(reason)
    with Sandbox(limits=LIMITS) as made:
        yield made


@pytest.fixture
def session(sandbox: Sandbox) -> Iterator[Callable[..., Session]]:
    """Makes a session in which the cell given has run."""
    with ExitStack() as stack:

        def make(source: str = "", **limits: Any) -> Session:
            made = stack.enter_context(Session(sandbox, replace(LIMITS, **limits)))
            if source:
                made.run_cell("first", source)
            return made

        yield make


class Class:
    """Learners of lesson 1, who answer as the instructor does except where a test says otherwise."""

    def __init__(self, judge: Judge, lesson: NotebookNode) -> None:
        self.judge = judge
        self.lesson = lesson

    def notebook(self, **sources: str) -> NotebookNode:
        """A right submission, with other texts in the cells named (with _ for -)."""
        notebook = nbformat.from_dict(self.lesson)
        cells = {cell.id.replace("-", "_"): cell for cell in notebook.cells}
        for name, source in sources.items():
            cells[name].source = source
        return notebook

    def hand_in(self, notebook: NotebookNode | None = None, **sources: str) -> Judgement:
        made = self.notebook(**sources) if notebook is None else notebook
        return self.judge.judge(nbformat.writes(made).encode())


@pytest.fixture(scope="session")
def whole_lesson() -> NotebookNode:
    return read_lesson(LESSON)


@pytest.fixture(scope="session")
def lesson(whole_lesson: NotebookNode) -> NotebookNode:
    """Without what it shows between the answers, most of a submission's time: test_grade.py has it judged whole."""
    return without_demonstrations(whole_lesson)


def without_demonstrations(notebook: NotebookNode) -> NotebookNode:
    """A notebook of the lesson without most of the cells that no answer needs."""
    whole = read_lesson(LESSON).cells
    left_out = {cell.id for cell in whole if "nbgrader" not in cell.metadata} - SHOWN
    kept = nbformat.from_dict(notebook)
    kept.cells = [cell for cell in kept.cells if cell.id not in left_out]
    return kept


@pytest.fixture(scope="session")
def judge(lesson: NotebookNode) -> Iterator[Judge]:
    if (reason := why_unavailable()) is not None:
        pytest.skip(reason)
    with Judge(lesson, replace(LIMITS, memory=2 * 2**30, call=5)) as made:
        yield made


@pytest.fixture
def impatient(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    """Little time: for answers that take all that there is, twice and more."""
    monkeypatch.setattr(judge.sandbox, "limits", replace(judge.sandbox.limits, frame=2**22, cell=3, call=1))


@pytest.fixture
def learners(judge: Judge, lesson: NotebookNode) -> Class:
    return Class(judge, lesson)
