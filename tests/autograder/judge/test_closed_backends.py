"""Backends that stay on the judge's side: a learner's tester in the worker asks for results, and learns nothing else."""

import inspect
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import nbformat
import pytest
from nbformat import NotebookNode

from autograder import registry, watched
from autograder.closed_backends import MAX_CALLS, HiddenBackend
from autograder.failure import AnswerProblem
from autograder.judge import session as sessions
from autograder.judge.faults import Fault
from autograder.judge.judge import Judge
from autograder.judge.judgement import CRASHED, TIMEOUT
from autograder.judge.sandbox import why_unavailable
from autograder.judge.session import Session
from autograder.misconceptions import is_faulty, minimise
from course import differential
from course.closed_backends.engine import Spec
from tests.autograder.judge.conftest import LIMITS
from tests.autograder.judge.kernel_lesson import _cell

Make = Callable[..., Session]
SETUP = "import torch\nimport autograder\nfrom course import differential"
TESTERS = {"is_faulty": is_faulty.is_faulty, "minimise": minimise.minimise}
RIGHT, FAULTY = Spec("padded"), Spec("gathered", "modulo-heads")


def ask(made: Session, name: str, spec: Spec = FAULTY, case: differential.Case | None = None) -> Any:
    return watched.call_with_backend(made.get(name), HiddenBackend(spec), case)


def test_a_tester_in_the_worker_gets_results_and_gives_a_verdict(session: Make) -> None:
    made = session(f"{SETUP}\n{inspect.getsource(is_faulty.is_faulty)}")
    assert ask(made, "is_faulty", FAULTY) is True
    assert ask(made, "is_faulty", RIGHT) is False


def test_a_case_goes_there_and_comes_back(session: Make) -> None:
    made = session(
        f"{SETUP}\n{inspect.getsource(minimise.minimise)}\ndef other(backend, case):\n    return {{'steps': []}}\n"
    )
    given = differential.Case.of([9, 12], num_heads=6, num_kv_heads=3, window=4)
    least = ask(made, "minimise", FAULTY, given)
    assert least == minimise.minimise(HiddenBackend(FAULTY), given)
    assert differential.size(least) < differential.size(given)
    with pytest.raises(AnswerProblem, match="is no case"):
        ask(made, "other", FAULTY, given)


def test_what_is_no_case_is_refused_where_it_is_asked(session: Make) -> None:
    made = session(
        f"{SETUP}\n"
        "def asks_a_number(backend):\n    return backend(3)\n"
        "def asks_behind_the_wrapper(backend):\n"
        "    from autograder.judge import observe\n"
        "    return [observe.ask(x) for x in (3, {'steps': [[[0, 1, 10**9, []]]]}, {'steps': 1, '__class__': 2})]\n"
    )
    with pytest.raises(TypeError, match="a backend takes a Case, got a int"):
        ask(made, "asks_a_number")
    assert all(type(answer) is str for answer in ask(made, "asks_behind_the_wrapper"))


def test_calls_are_limited_and_loops_end(session: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = f"{SETUP}\ncase = differential.Case.of([1])\n" + (
        "def polite(backend):\n    while True:\n        backend(case)\n"
        "def rude(backend):\n    while True:\n        try:\n            backend(case)\n        except RuntimeError:\n            pass\n"
    )
    made = session(loop)
    with pytest.raises(RuntimeError, match=f"called {MAX_CALLS} times"):
        ask(made, "polite")
    monkeypatch.setattr(sessions, "MAX_QUESTIONS", MAX_CALLS + 50)
    with pytest.raises(Fault, match="asked the judge more than") as caught:
        ask(made, "rude")
    assert caught.value.kind == CRASHED
    assert made.get("case") is not None  # a new worker goes on


def test_who_asks_unasked_ends_the_worker(session: Make) -> None:
    made = session(
        "from autograder.judge import observe\ndef asks():\n    return observe.ask({'steps': []})\ndef fine():\n    return 1\n"
    )
    with pytest.raises(Fault, match="no answer to the judge") as caught:
        made.get("asks")()
    assert caught.value.kind == CRASHED
    assert made.get("fine")() == 1


def test_what_is_asked_counts_as_the_askers_time(session: Make) -> None:
    made = session(
        f"{SETUP}\ncase = differential.Case.of([1])\ndef asks(backend):\n    return [backend(case) for _ in range(9)]\n",
        call=0.5,
    )

    def slow(case: differential.Case) -> Any:
        time.sleep(0.2)
        return differential.reference(case)

    with pytest.raises(Fault, match="did not finish within") as caught:
        watched.call_with_backend(made.get("asks"), slow)
    assert caught.value.kind == TIMEOUT


def _lesson(**answers: str) -> NotebookNode:
    cells = [_cell("setup", SETUP, locked=True)]
    for name, text in answers.items():
        grade_id = registry.get(name).grade_id
        cells.append(_cell(f"{grade_id}-code", text, solution=True))
        test = f'autograder.check("{name}", {name}, suite="hidden")'
        points = 10 if name == "is_faulty" else 6
        cells.append(_cell(grade_id, test, grade=True, locked=True, points=points))
    return nbformat.v4.new_notebook(cells=cells)


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    if (reason := why_unavailable()) is not None:
        pytest.skip(reason)
    answers = {name: inspect.getsource(function) for name, function in TESTERS.items()}
    with Judge(_lesson(**answers), replace(LIMITS, memory=2 * 2**30, call=20), seed=11) as made:
        yield made


def _judged(judge: Judge, **answers: str) -> dict[str, tuple[float | None, str]]:
    judged = judge.judge(nbformat.writes(_lesson(**answers)).encode())
    return {name: (result.points, result.message) for name, result in judged.checks.items()}


def test_right_answers_get_every_point_and_lazy_ones_none(judge: Judge) -> None:
    right = {name: inspect.getsource(function) for name, function in TESTERS.items()}
    assert {points for points, _ in _judged(judge, **right).values()} == {10, 6}
    lazy = {
        "is_faulty": "calls = []\ndef is_faulty(backend):\n    calls.append(backend)\n    return len(calls) > 10",
        "minimise": "def minimise(backend, case):\n    return case",
    }
    judged = _judged(judge, **lazy)
    assert judged["q13-detect"][0] == judged["q13-minimise"][0] == 0
    assert "a right backend is accused" in judged["q13-detect"][1]
    assert "not minimal" in judged["q13-minimise"][1]


def test_a_fault_that_is_missed_costs_its_point(judge: Judge) -> None:
    source = inspect.getsource(is_faulty.is_faulty)
    line = '        of([13, 6], num_heads=4, num_kv_heads=2, layout="HND"),\n'
    assert line in source
    points, message = _judged(judge, is_faulty=source.replace(line, ""), minimise="")["q13-detect"]
    assert points == 9
    assert message.startswith("✗ is_faulty: a fault is not found: the backend reads an HND cache as NHD.")
