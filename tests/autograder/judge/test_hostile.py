"""Hostile and unlucky submissions of lesson 1. Each costs its own points, and the honest rest of it keeps its own."""

import copy
import json
from typing import Any

import pytest

FULL = {"q1-verdicts": 8, "q2-metadata": 5, "q2-attend": 3, "q3-update": 6, "q3-merge": 4}
UPDATE = ("q3_update_code", "q3-update")


def points(judgement: Any) -> dict[str, float]:
    return {name: result.points for name, result in judgement.checks.items()}


def test_the_solution_gets_every_point(learners: Any) -> None:
    judged = learners.hand_in()
    assert points(judged) == FULL
    assert {result.status for result in judged.checks.values()} == {"passed"}
    assert judged.score == judged.max_score == 26
    assert judged.notes == ()
    assert all(not error for _, error in judged.cells.values())


# An update that is wrong, and what its author does to get the points all the same. `wrong` is the honest mistake below.
WRONG = """
def wrong(state, scores, values):
    m, l, acc = state
    return m, l + 1, acc

def online_softmax_update(state, scores, values):
    return wrong(state, scores, values)

def finalize(state):
    return state[2]
"""

FORGERIES = {
    "the checks are looked for": """
import gc, sys, importlib, os
def wrong(state, scores, values):
    for name in ("autograder.checks.online_softmax_update", "autograder.misconceptions.online_softmax", "source"):
        try:
            module = importlib.import_module(name)
            return module.online_softmax_update(state, scores, values)
        except ImportError:
            pass
    for thing in gc.get_objects():
        for name in ("truth", "expected", "solution", "seed"):
            if name in getattr(thing, "__dict__", {}):
                known = getattr(thing, name)
                if callable(known):
                    return known(state, scores, values)
    frame = sys._getframe()
    while frame:
        for name in ("case", "expected", "suite"):
            assert name not in frame.f_locals
        frame = frame.f_back
    return state
""",
    "only the first calls are answered rightly": """
calls = []
def wrong(state, scores, values):
    calls.append(1)
    if len(calls) > 2:
        return state
    from kernels.reference import torch
    m, l, acc = state
    new = torch.maximum(m, scores.max(-1).values)
    shift = torch.where(new == -torch.inf, 0.0, new)
    p, alpha = torch.exp(scores - shift[..., None]), torch.exp(m - shift)
    return new, l * alpha + p.sum(-1), acc * alpha[..., None] + p @ values
""",
    "freed memory is hoped to hold the answer": """
import torch
def wrong(state, scores, values):
    return tuple(torch.empty_like(x) for x in state)
""",
    "the random numbers are guessed": """
import random, torch
def wrong(state, scores, values):
    for seed in range(3):
        torch.manual_seed(seed), random.seed(seed)
        if torch.equal(torch.randn_like(scores), scores):
            return tuple(torch.zeros_like(x) for x in state)
    return state
""",
    "the wire is patched": """
from autograder.judge import wire, worker
_encode = wire.encode
def encode(value, *a, **k):
    if isinstance(value, dict) and "value" in value:
        value = {**value, "value": True, "passed": True, "points": 99}
    return _encode(value, *a, **k)
wire.encode = encode
""",
    "a test result is printed": """
print('{"points": 6, "status": "passed"}')
def wrong(state, scores, values):
    print("✓ online_softmax_update: all 20 hidden cases pass")
    return state
""",
}

# What they patch, their own later answers need.
SPOILS_ITS_OWN_WORKER = {"the wire is patched"}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forgery_gets_nothing(learners: Any, name: str) -> None:
    judged = learners.hand_in(q3_update_code=WRONG + FORGERIES[name])
    result = judged.checks["q3-update"]
    # A mistake in the update costs its points once: the merge is judged on right states. (A `finalize` that everything
    # goes through is wrong here too, and the merge has its own.)
    expected = {**FULL, "q3-update": 0}
    if name in SPOILS_ITS_OWN_WORKER:
        expected["q3-merge"] = 0
    assert points(judged) == expected, name
    assert result.status in ("wrong", "error", "crashed", "missing"), result
    assert "hidden" not in result.message


OBJECTS = {
    "a dict that is none": (
        "class Any(dict):\n    def __getitem__(self, name): return 0\nvalue = Any()",
        "is a Any; expected a torch.Tensor",
    ),
}


@pytest.mark.parametrize("name", OBJECTS)
def test_an_object_that_pretends_is_named_and_gets_nothing(learners: Any, name: str) -> None:
    text, message = OBJECTS[name]
    names = ("block_table", "slot_mapping", "seq_lens", "query_start_loc")
    whole = f"{text}\ndef build_metadata(*a):\n    return dict.fromkeys({names}, value)"
    judged = learners.hand_in(q2_metadata_code=whole)
    assert points(judged) == {**FULL, "q2-metadata": 0, "q2-attend": 0}
    assert message in judged.checks["q2-metadata"].message


def test_the_truth_is_not_made_from_inputs_that_the_answer_changed(learners: Any) -> None:
    """In the merge's check the update may write into the tiles unseen: zeros in, zeros expected."""
    text = (
        WRONG
        + """
def wrong(state, scores, values):
    values.zero_()
    return state
"""
    )
    merge = "def merge_states(a, b):\n    return a"
    judged = learners.hand_in(q3_update_code=text, q3_merge_code=merge)
    assert points(judged) == {**FULL, "q3-update": 0, "q3-merge": 0}
    assert "changes its input `values` in place" in judged.checks["q3-update"].message


FAULTS = {
    "stops the clocks": (
        "import time\ntime.time = time.monotonic = time.perf_counter = time.sleep = lambda *a: 0.0\nwhile True: pass",
        "timeout",
        "did not finish within 1 s",
    ),
    "calls exit": ("import sys\nsys.exit(0)", "error", "raised SystemExit: 0"),
    "interrupts": ("raise KeyboardInterrupt", "error", "raised KeyboardInterrupt"),
    "recurses": ("wrong(state, scores, values)", "error", "raised RecursionError"),
    "writes to the judge": (
        "import os\nfor n in range(3, 9):\n    try: os.write(n, b'\\x05\\0\\0\\0TTTTT')\n    except OSError: pass\n"
        "return state",
        "crashed",
        "cannot be read",
    ),
    # Its end and the connection's are seen in either order.
    "closes everything": ("import os\nos.closerange(0, 100)\nreturn state", "crashed", "your code "),
    "returns too much": ("return 'x' * 10**7", "error", "more than"),
    "returns a list that holds itself": (
        "x = []\nx.append(x)\nreturn x",
        "error",
        "nested more than 32 deep",
    ),
}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_costs_its_own_exercise(learners: Any, name: str) -> None:
    body, status, message = FAULTS[name]
    indented = "\n".join("    " + line for line in body.split("\n"))
    judged = learners.hand_in(q3_update_code=WRONG + f"\ndef wrong(state, scores, values):\n{indented}\n")
    result = judged.checks["q3-update"]
    assert points(judged) == {**FULL, "q3-update": 0}
    if status is not None:  # a fork bomb ends at whichever limit it meets first
        assert result.status == status
    assert message in result.message


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    "body", ["import os\nos._exit(0)", "while True: pass", "import os\nos.kill(os.getpid(), 11)"]
)
def test_a_cell_that_never_ends_well_costs_its_own_exercise(learners: Any, body: str) -> None:
    judged = learners.hand_in(q3_merge_code="def merge_states(a, b):\n    return a\n" + body)
    if "kill" in body and learners.judge.sandbox.nested:
        # The first process of a namespace does not hear signals that it sends itself.
        assert judged.checks["q3-merge"].status == "wrong"
    else:
        assert judged.checks["q3-merge"].status in ("crashed", "timeout")
        assert "(in q3-merge-code)" in judged.checks["q3-merge"].message
    assert points(judged) == {**FULL, "q3-merge": 0}


HARMLESS = {
    "replaces stdout": "import sys\nsys.stdout = sys.stderr = None",
    "starts a daemon": "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(1000)\n    os._exit(0)",
    "fills the scratch folder": "try:\n    open('/tmp/x', 'wb').write(bytes(10**9))\nexcept OSError:\n    pass",
    "starts a thread": "import threading, time\nthreading.Thread(target=time.sleep, args=(1000,)).start()",
    "deletes what it can": "import shutil\nfor p in ('/tmp', '/course', '/usr', '/dev', '/proc'):\n"
    "    shutil.rmtree(p, ignore_errors=True)",
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_harms_nobody_costs_nothing(learners: Any, name: str) -> None:
    right = learners.notebook().cells
    source = next(cell.source for cell in right if cell.id == "q3-update-code")
    judged = learners.hand_in(q3_update_code=source + "\n" + HARMLESS[name])
    assert points(judged) == FULL


def test_a_notebook_tampered_with_is_the_instructors_notebook_again(learners: Any) -> None:
    notebook = learners.notebook()
    cells = {cell.id: cell for cell in notebook.cells}
    cells["q3-update-code"].source = "def online_softmax_update(*a): pass\ndef finalize(s): return s"
    # The test is deleted, emptied, skipped, shown as passed, worth more, no test any more.
    notebook.cells.remove(cells["q3-update"])
    cells["q3-merge-code"].source = "def merge_states(a, b):\n    return a"
    cells["q3-merge"].source = "5.0"
    cells["q3-merge"].metadata.tags = ["skip-execution"]
    cells["q3-merge"].metadata.nbgrader.points = 99
    cells["q3-merge"].metadata.nbgrader.schema_version = 99
    cells["q3-merge"].outputs = [
        {"output_type": "execute_result", "data": {"text/plain": "99"}, "metadata": {}, "execution_count": 1}
    ]
    cells["q2-metadata-code"].cell_type = "raw"
    del cells["q2-metadata-code"]["outputs"], cells["q2-metadata-code"]["execution_count"]
    cells["q2-metadata-code"].metadata = {
        "nbgrader": {"grade_id": "mine", "solution": "yes", "schema_version": 1}
    }
    cells["q1-verdicts"].metadata = {"nbgrader": {"grade": False, "grade_id": ["x"]}}
    cells["q1-verdicts-code"].id = "my-id"  # known by its grade id
    cells["setup"].source = "import sys\nsys.modules['torch'] = None"
    judged = learners.judge.judge(json.dumps(notebook).encode())
    assert points(judged) == {**FULL, "q3-update": 0, "q3-merge": 0}
    assert judged.max_score == 26


def test_missing_and_doubled_cells(learners: Any) -> None:
    notebook = learners.notebook()
    cells = {cell.id: cell for cell in notebook.cells}
    notebook.cells.remove(cells["q3-merge-code"])
    again = copy.deepcopy(cells["q2-metadata-code"])
    again.source, cells["q2-metadata-code"].source = cells["q2-metadata-code"].source, "1 / 0"
    notebook.cells.append(again)
    judged = learners.judge.judge(json.dumps(notebook).encode())
    assert points(judged) == {**FULL, "q3-merge": 0}
    assert judged.checks["q3-merge"].status == "missing"
    assert "merge_states" in judged.checks["q3-merge"].message
    assert judged.notes == (
        "cell q2-metadata-code is there more than once; the last one counts",
        "cell q3-merge-code is missing",
    )


def test_a_learners_own_cells_count_and_errors_in_them_cost_nothing(learners: Any) -> None:
    notebook = learners.notebook()
    at = next(i for i, cell in enumerate(notebook.cells) if cell.id == "q3-merge-code")
    code = notebook.cells[at]
    helper = {"cell_type": "code", "id": "mine", "metadata": {}, "outputs": [], "execution_count": 9}
    helper["source"] = ["def helper(a, b):\n", *(f"    {line}\n" for line in code.source.split("\n")[2:])]
    code.source = "def merge_states(a, b):\n    return helper(a, b)"
    notebook.cells.insert(at, helper)
    notebook.cells.insert(0, {**helper, "id": "x", "source": "this is no Python"})
    judged = learners.judge.judge(json.dumps(notebook).encode())
    assert points(judged) == FULL
    assert judged.cells["own-1"][1].startswith("SyntaxError")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not JSON"),
        (b"{" * 100_000, "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"\xff\xfe\0", "not JSON"),
        (b"[1]", "no list of cells"),
        (b'{"cells": {"a": 1}}', "no list of cells"),
        (json.dumps({"cells": [{"source": "x"}] * 3000}).encode(), "3000 cells"),
    ],
)
def test_what_is_no_notebook_is_refused_with_a_reason(learners: Any, data: bytes, reason: str) -> None:
    judged = learners.judge.judge(data)
    assert reason in judged.refused
    assert judged.checks == {}
    assert reason in judged.as_dict()["refused"]


def test_an_empty_notebook_and_odd_cells_get_nothing_and_harm_nothing(learners: Any) -> None:
    odd = [
        None,
        5,
        {"source": 5},
        {"source": [1]},
        {"cell_type": "code", "source": "x = '\0'", "id": 7, "metadata": 3},
    ]
    judged = learners.judge.judge(json.dumps({"cells": odd}).encode())
    assert judged.score == 0
    assert {result.status for result in judged.checks.values()} == {"missing"}


def test_the_stub_is_not_answered(learners: Any) -> None:
    stub = "def {}(*args):\n    raise NotImplementedError('Your code here.')\n"
    judged = learners.hand_in(
        q3_update_code=stub.format("online_softmax_update") + stub.format("finalize"),
        q2_metadata_code=stub.format("build_metadata"),
    )
    assert points(judged) == {**FULL, "q2-metadata": 0, "q2-attend": 0, "q3-update": 0}
    assert judged.checks["q3-update"].status == judged.checks["q2-metadata"].status == "missing"


def test_partial_credit_and_the_learners_own_line(learners: Any) -> None:
    source = next(cell.source for cell in learners.lesson.cells if cell.id == "q1-verdicts-code")
    text = source + "\nq1_verdicts['t4-llama1b-fp16'] = 'FLASH_ATTN'"
    bad = "def build_metadata(*args):\n    table = []\n    return table[3]"
    judged = learners.hand_in(q1_verdicts_code=text, q2_metadata_code=bad)
    assert points(judged) == {**FULL, "q1-verdicts": 7, "q2-metadata": 0, "q2-attend": 0}
    assert judged.checks["q1-verdicts"].status == "wrong"
    assert "in build_metadata, line 3: return table[3]" in judged.checks["q2-metadata"].message


def test_what_is_printed_in_a_test_is_not_shown(learners: Any) -> None:
    """It may tell of hidden cases. What the function prints when a cell of the notebook calls it, is."""
    text = (
        WRONG
        + """
import sys
def wrong(state, scores, values):
    frame, cells = sys._getframe(), 0
    while frame:
        cells += frame.f_code.co_name == "<module>" and frame.f_code.co_filename.startswith("<cell ")
        frame = frame.f_back
    print("called by a cell" if cells else "called by the judge")
    return state
"""
    )
    judged = learners.hand_in(q3_update_code=text)
    assert "called by a cell" in judged.cells["q3-watch"][0]
    assert "called by the judge" not in str(judged.cells)
