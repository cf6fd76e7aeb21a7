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

LIMITS = Limits(memory=2**30, tmp=16 * 2**20, processes=40, cell=10, call=3, demo=2, total=120)


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
def lesson() -> NotebookNode:
    return read_lesson(Path(__file__).resolve().parents[3] / "source" / "01_warm_up.py")


@pytest.fixture(scope="session")
def judge(lesson: NotebookNode) -> Iterator[Judge]:
    if (reason := why_unavailable()) is not None:
        pytest.skip(reason)
    with Judge(lesson, replace(LIMITS, memory=2 * 2**30, call=5)) as made:
        yield made


@pytest.fixture
def learners(judge: Judge, lesson: NotebookNode) -> Class:
    return Class(judge, lesson)
