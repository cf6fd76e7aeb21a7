"""What a kernel can do to a GPU costs its own exercise: not the others', and not the next learner's."""

import subprocess
import sys
import time
from collections.abc import Iterator

import nbformat
import pytest
import torch

from autograder.judge import gpu
from autograder.judge.judge import Judge
from autograder.judge.judgement import Judgement
from autograder.judge.sandbox import Limits, why_unavailable
from bench.grading import submissions_03_build
from bench.grading.submission import lesson
from tests.autograder.judge.kernel_lesson import FULL, kernel_lesson, submission

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300)]

CALL_SECONDS = 12


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    if (reason := why_unavailable()) is not None:
        pytest.skip(reason)
    with Judge(kernel_lesson(), Limits(call=CALL_SECONDS, total=300)) as made:
        yield made


def points(judgement: Judgement) -> dict[str, float | None]:
    return {name: result.points for name, result in judgement.checks.items()}


def test_compiled_kernels_are_judged_and_counted(judge: Judge) -> None:
    judged = judge.judge(submission())
    assert points(judged) == FULL, judged.checks
    for name, result in judged.checks.items():
        assert result.launches == {f"_{name}_kernel": 1}
    assert judged.flags == ()
    assert judged.workers_started == 1
    without = judge.judge(submission(double="def double(x):\n    return x + x"))
    assert points(without) == FULL
    assert without.flags == ("no-kernel-launched",)


OUT_OF_BOUNDS = """
@triton.jit
def _far(x_ptr):
    tl.store(x_ptr + (tl.program_id(0).to(tl.int64) + 1) * 17179869184, 1.0)


def double(x):
    _far[(64,)](x)
    return x + x
"""

ENDLESS = """
@triton.jit
def _endless(x_ptr):
    value = tl.load(x_ptr, volatile=True)
    while value < 1e30:
        value = tl.load(x_ptr, volatile=True)


def double(x):
    _endless[(1,)](x)
    return x + x
"""

HUNGRY = """
def double(x):
    kept = []
    while True:
        kept.append(torch.empty(2**30, dtype=torch.uint8, device="cuda"))
"""

# Held from the moment that its cell runs, while the others are judged.
GREEDY = """
kept = []
while True:
    kept.append(torch.empty(2**30, dtype=torch.uint8, device="cuda"))


def double(x):
    return x + x
"""


@pytest.mark.parametrize(
    ("source", "status", "message"),
    [
        (OUT_OF_BOUNDS, "crashed", "broke the GPU's state"),
        (ENDLESS, "timeout", f"did not finish within {CALL_SECONDS} s"),
        (HUNGRY, "memory", "more of the GPU's memory than there is"),
        (GREEDY, "memory", "more of the GPU's memory than there is"),
    ],
    ids=["out of bounds", "endless", "hungry", "greedy"],
)
def test_a_fault_on_the_gpu_costs_its_own_exercise(
    judge: Judge, source: str, status: str, message: str
) -> None:
    started = time.monotonic()
    judged = judge.judge(submission(double=source))
    seconds = time.monotonic() - started
    result = judged.checks["double"]
    assert (result.status, result.points) == (status, 0), result
    assert message in result.message
    assert points(judged) == {**FULL, "double": 0}
    assert judged.workers_started == 2
    assert status in judged.flags
    assert seconds < CALL_SECONDS + 60
    # The GPU is whole again for the next learner, whose kernels run in a process of their own, and for the judge.
    assert points(judge.judge(submission())) == FULL
    assert torch.ones(1000, device="cuda").sum().item() == 1000


def test_the_memory_of_a_killed_worker_is_free_again(judge: Judge) -> None:
    free_before, total = torch.cuda.mem_get_info()
    judge.judge(submission(double=HUNGRY))
    free_after, _ = torch.cuda.mem_get_info()
    assert free_before - free_after < total // 50


def test_freed_memory_of_the_gpu_holds_nobodys_answer(judge: Judge) -> None:
    assert points(judge.judge(submission())) == FULL
    judged = judge.judge(submission(double="def double(x):\n    return torch.empty_like(x)"))
    assert points(judged) == {**FULL, "double": 0}


def test_no_learner_finds_anothers_compiled_kernels(judge: Judge) -> None:
    looks = "import os\nfound = os.path.exists('/tmp/triton')\ndef double(x):\n    assert not found\n    return x + x"
    # Compiled by the worker's own first test, whose cache lies in a folder that is made for this worker.
    assert judge.judge(submission()).score == sum(FULL.values())
    judged = judge.judge(submission(add=looks + "\ndef add(x):\n    return double(x) - x + 1"))
    assert judged.checks["add"].points == FULL["add"], judged.checks["add"]


def test_finding_out_what_a_learners_mistake_is_costs_the_judge_nothing() -> None:
    """Our own kernel with the mistake breaks the GPU's state of its process too: that one is not the judge's."""
    if (reason := why_unavailable()) is not None:
        pytest.skip(reason)
    if torch.cuda.mem_get_info()[0] < 40 * 2**30:
        pytest.skip("caches whose blocks lie 2**30 elements apart want 40 GiB of free GPU memory")
    known = {each.name: each for each in submissions_03_build.submissions() if each.test == "q9-triton"}
    names = [
        "tiles of 16",
        "32-bit offsets",
        "block_size 16",
        "32-bit offsets",
        "scale forgotten",
        "tiles of 128",
    ]
    with Judge(lesson(submissions_03_build.LESSON), seed=3) as judge:
        results = []
        for name in names:
            notebook = nbformat.writes(known[name].notebook).encode()
            results.append(judge.judge(notebook, only=frozenset({"q9-triton"})).checks["q9-triton"])
            assert gpu.trouble() is None, name
    right, wrong, neighbour, again, other, last = results
    assert (right.points, last.points) == (right.max_points, right.max_points), (right, last)
    assert (wrong.points, wrong.misconception) == (0, "offsets-of-32-bits"), wrong
    # What lies behind a table differs from run to run: this mistake may end in any way, but not in the judge's.
    assert (neighbour.points, neighbour.status != "infrastructure") == (0, True), neighbour
    assert (again.points, again.misconception) == (0, "offsets-of-32-bits"), again
    assert (other.points, other.misconception) == (0, "scale-left-out"), other


BESIDE_THE_LEARNER = """
import autograder
from autograder import registry

found = registry.get("q9-triton")
(wrong,) = (each for each in found.misconceptions if each.name == "offsets-of-32-bits")
for _ in range(2):
    try:
        autograder.check(found.name, wrong.parts[found.name])
    except autograder.CheckFailed as failed:
        print(failed)
"""


def test_a_learner_whose_kernel_breaks_the_gpu_is_told_so_and_why() -> None:
    if torch.cuda.mem_get_info()[0] < 40 * 2**30:
        pytest.skip("caches whose blocks lie 2**30 elements apart want 40 GiB of free GPU memory")
    ran = subprocess.run(
        [sys.executable, "-c", BESIDE_THE_LEARNER], capture_output=True, text=True, timeout=250
    )
    said = " ".join(ran.stdout.split())
    assert "your kernel read or wrote outside its tensors" in said, (ran.stdout, ran.stderr)
    assert "when block number times stride is computed in 32 bits" in said
    assert said.count("restart the notebook's kernel") == 2
    assert "Traceback" not in ran.stderr
