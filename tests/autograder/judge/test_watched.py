"""Calls that are watched in the worker: what a kernel did there reaches a check here."""

from collections.abc import Iterator

import nbformat
import pytest
from nbformat import NotebookNode

import kernels
from autograder.judge.judge import Judge
from autograder.judge.sandbox import why_unavailable
from autograder.misconceptions import (
    attend_functions,
    find_contract_breach,
    paged_decode,
    paged_decode_triton,
)
from tests.autograder.judge.conftest import LIMITS
from tests.autograder.judge.kernel_lesson import _cell

SETUP = "import math\nimport torch\nimport autograder\nimport kernels\nimport triton\nimport triton.language as tl"
TORCH, TRITON = "paged_online_attention", "paged_online_attention_triton"


def _source(module: object, *left_out: str) -> str:
    """The first part of a module of mistakes: its solution, as a learner's cell."""
    from pathlib import Path

    text = Path(str(getattr(module, "__file__", ""))).read_text(encoding="utf-8")
    start = text.index("# The solution")
    end = min(
        text.index(word) for word in ("\n\n\ndecode", "\n\n\nbreach", "\n\n\ndecode_triton") if word in text
    )
    return text[start:end]


def _lesson(code: str, name: str) -> NotebookNode:
    check = registry_grade_id(name)
    test = f'autograder.check("{name}", {_part(name)})'
    cells = [
        _cell("setup", SETUP, locked=True),
        _cell(f"{check}-code", code, solution=True),
        _cell(check, test, grade=True, locked=True, points=4),
    ]
    return nbformat.v4.new_notebook(cells=cells)


def registry_grade_id(name: str) -> str:
    from autograder import registry

    return registry.get(name).grade_id


def _part(name: str) -> str:
    from autograder import registry

    return registry.get(name).parts[0]


DECODE_TRITON = _source(paged_decode_triton)


@pytest.fixture(scope="module")
def judges() -> Iterator[dict[str, Judge]]:
    if (reason := why_unavailable()) is not None:
        pytest.skip(reason)
    from dataclasses import replace

    limits = replace(LIMITS, memory=2 * 2**30, call=20)
    made: dict[str, Judge] = {}
    for name in (TRITON, "kv_bytes", "find_contract_breach"):
        made[name] = Judge(_lesson(DECODE_TRITON, name), limits)
    yield made
    for judge in made.values():
        judge.close()


def _judged(judge: Judge, code: str, name: str) -> tuple[float | None, str]:
    judged = judge.judge(nbformat.writes(_lesson(code, name)).encode())
    (result,) = judged.checks.values()
    return result.points, result.message


def test_a_kernel_is_seen_and_counted_in_the_worker(judges: dict[str, Judge]) -> None:
    assert _judged(judges[TRITON], DECODE_TRITON, TRITON)[0] == 4
    assert _judged(judges["kv_bytes"], DECODE_TRITON, "kv_bytes")[0] == 4


def test_torch_instead_of_a_kernel_is_told(judges: dict[str, Judge]) -> None:
    code = f"{_source(paged_decode)}\n{TRITON} = paged_online_attention"
    points, message = _judged(judges[TRITON], code, TRITON)
    assert points == 0
    assert "no Triton kernel ran" in message
    assert "The exercise is a kernel" in " ".join(message.split())


@pytest.mark.parametrize("returned", ["paged_online_attention", "kernels.paged_decode"])
def test_a_kernel_that_runs_for_show_is_told(judges: dict[str, Judge], returned: str) -> None:
    """It reads everything and its output is right: the function returns another."""
    code = (
        f"{_source(paged_decode)}\n{DECODE_TRITON}\n_kernel = {TRITON}\n\n\n"
        f"def {TRITON}(*arguments):\n    _kernel(*arguments)\n    return {returned}(*arguments)\n"
    )
    points, message = _judged(judges[TRITON], code, TRITON)
    assert points == 0
    assert "your Triton kernel ran, but it did not compute the output" in message
    assert "something else computes the output" in " ".join(message.split())


def test_memory_that_is_kept_between_calls_accuses_nobody(judges: dict[str, Judge]) -> None:
    """The output of a call whose kernels did nothing is there from the call before."""
    assert DECODE_TRITON.count("torch.empty_like(query)") == 1
    kept = "_KEPT.setdefault((query.shape, query.dtype), torch.empty_like(query))"
    code = "_KEPT = {}\n" + DECODE_TRITON.replace("torch.empty_like(query)", kept)
    points, message = _judged(judges[TRITON], code, TRITON)
    assert points == 4, message


@pytest.mark.skipif(not kernels.INTERPRET, reason="a GPU does not say where a kernel goes astray")
def test_a_kernel_out_of_bounds_costs_no_worker(judges: dict[str, Judge]) -> None:
    code = DECODE_TRITON.replace(
        "key_cache_ptr + key_at[:, None]", "key_cache_ptr + 10**12 + key_at[:, None]"
    )
    points, message = _judged(judges[TRITON], code, TRITON)
    assert points == 0
    assert "goes out of bounds" in message
    assert "program (0, 0, 0)" in message


def test_a_tester_gets_its_functions_in_the_worker(judges: dict[str, Judge]) -> None:
    code = "from kernels import reference\n" + _source(find_contract_breach)
    assert _judged(judges["find_contract_breach"], code, "find_contract_breach")[0] == 4
    points, message = _judged(
        judges["find_contract_breach"],
        "def find_contract_breach(attend): return None",
        "find_contract_breach",
    )
    assert points == 0
    assert "a break of the contract is not found" in message
    assert attend_functions.READS_THE_TAIL.does in message


def test_what_a_worker_says_of_itself_is_no_more_than_plain_data(judges: dict[str, Judge]) -> None:
    forged = DECODE_TRITON + (
        "\nfrom autograder.judge import observe\n"
        "observe.observed = lambda function, arguments, spread, count: (function(*arguments.values()), {'launches': 1})\n"
    )
    points, message = _judged(judges[TRITON], forged, TRITON)
    assert points == 0
    assert "no answer to the judge" in message
