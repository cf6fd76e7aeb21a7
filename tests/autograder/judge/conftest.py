"""One warm sandbox for all tests of this folder: starting one takes seconds, a worker in it milliseconds."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest

from autograder.judge.sandbox import Limits, Sandbox, why_unavailable
from autograder.judge.session import Session

LIMITS = Limits(memory=2**30, tmp=16 * 2**20, processes=40, cell=10, call=3, total=120)


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
