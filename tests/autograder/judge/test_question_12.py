"""Question 12 through the judge: the learner's classes stay in the worker, the suite and the engine run on the judge's side."""

from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

from autograder import registry
from autograder.class_collector import text_of_class
from autograder.judge.judge import Judge, Judgement
from autograder.judge.sandbox import Limits, why_unavailable
from autograder.lesson import read_lesson
from autograder.suite import open_suite

LESSON = read_lesson(Path(__file__).resolve().parents[3] / "source" / "04_design.py")
BACKEND, REUSE = "q12-backend", "q12-reuse"
HOMES = {
    "LatentBackend": "q12-backend-code",
    "LatentMetadataBuilder": "q12-builder-code",
    "LatentImpl": "q12-impl-code",
}
LATENT = registry.get("latent_backend")
# One of each kind: what it says of itself, what it writes, builds, computes, returns, claims, and a model's tokens.
MISTAKES = ["no-mla", "cache-of-its-own", "up-projection-twice"]


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    """Of the answers to question 12 and their hidden tests alone."""
    if (reason := why_unavailable()) is not None:
        pytest.skip(reason)
    lesson = nbformat.from_dict(LESSON)
    wanted = {"setup", "q12-setup", "q12-reuse-code", BACKEND, REUSE, *HOMES.values()}
    lesson.cells = [cell for cell in lesson.cells if cell.id in wanted]
    for cell in lesson.cells:
        if cell.id in (BACKEND, REUSE):
            cell.source = next(line for line in cell.source.splitlines() if 'suite="hidden"' in line)
    with Judge(lesson, Limits(memory=2 * 2**30, call=10), seed=7) as made:
        yield made


def hand_in(judge: Judge, **sources: str) -> Judgement:
    """The solution, but for the cells named (with _ for -)."""
    notebook = nbformat.from_dict(judge._lesson)
    for cell in notebook.cells:
        cell.source = sources.get(cell.id.replace("-", "_"), cell.source)
    return judge.judge(nbformat.writes(notebook).encode())


def with_mistake(judge: Judge, name: str) -> Judgement:
    (mistake,) = [m for m in LATENT.misconceptions if m.name == name]
    texts = {HOMES[part].replace("-", "_"): text_of_class(made) for part, made in mistake.parts.items()}
    return hand_in(judge, **{cell: text for cell, text in texts.items() if text is not None})


def with_forward(judge: Judge, body: str, before: str = "") -> Judgement:
    """The solution, with another forward_mqa; `before` stands before the class."""
    (source,) = [cell.source for cell in judge._lesson.cells if cell.id == "q12-impl-code"]
    head, found, _ = source.partition("    def forward_mqa(")
    assert found
    return hand_in(
        judge,
        q12_impl_code=f"{before}\n{head}    def forward_mqa(self, q, kv_c_and_k_pe_cache, attn_metadata, layer):\n{body}",
    )


def test_the_points_are_the_cases() -> None:
    points = {
        cell.id: cell.metadata.nbgrader["points"] for cell in LESSON.cells if cell.id in (BACKEND, REUSE)
    }
    assert points == {BACKEND: 14, REUSE: 4}
    for name, count in points.items():
        for suite in ("visible", "hidden"):
            assert len(registry.get(name).cases(open_suite(suite))) == count


def test_the_solution_gets_every_point_and_looks_suspicious_to_nobody(judge: Judge) -> None:
    judged = hand_in(judge)
    assert {name: result.points for name, result in judged.checks.items()} == {BACKEND: 14, REUSE: 4}
    assert judged.flags == ()
    assert judged.workers_started == 1


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_has_its_name_and_costs_its_cases(judge: Judge, name: str) -> None:
    result = with_mistake(judge, name).checks[BACKEND]
    assert result.misconception == name
    assert result.status == "wrong"
    assert 0 <= result.points < 14
    assert "what you get when" in result.message


def test_the_untouched_cells_are_missing(judge: Judge) -> None:
    stub = "raise NotImplementedError()"
    judged = hand_in(
        judge, **{cell.replace("-", "_"): stub for cell in HOMES.values()}, q12_reuse_code="q12_reuse = {}"
    )
    assert {name: (result.status, result.points) for name, result in judged.checks.items()} == {
        BACKEND: ("missing", 0),
        REUSE: ("missing", 0),
    }


def test_the_suite_cannot_be_changed_from_the_worker(judge: Judge) -> None:
    """It runs on the other side: what the learner's process makes of its own copy is nobody's affair."""
    patches = """
from kernels.backends import conformance
from kernels.backends.conformance import trial, truth
import kernels.reference
import autograder.judge.drive as drive
for name in list(conformance.CHECKS):
    conformance.CHECKS[name] = lambda setup: None
trial.Trial.expect_right = lambda self, step: None
truth.attend = lambda *args, **kwargs: None
kernels.reference.dense_attention = lambda query, *args, **kwargs: query
drive.Driver._objection = lambda self: ""
drive.Driver._places = lambda self: {"LatentImpl.forward_mqa": "mine"}
"""
    judged = with_forward(
        judge, "        return q.new_zeros(len(q), self.num_heads, self.kv_lora_rank)\n", patches
    )
    result = judged.checks[BACKEND]
    assert result.status == "wrong"
    # What needs no number of the output: description, shape, metadata.
    assert result.points == 3


def test_an_output_that_is_equal_to_everything_is_a_tensor_like_any_other(judge: Judge) -> None:
    forged = """
class Agreeable(torch.Tensor):
    def __eq__(self, other): return torch.ones((), dtype=torch.bool)
    def __le__(self, other): return torch.ones(self.shape, dtype=torch.bool)
    def __sub__(self, other): return torch.zeros(self.shape)
"""
    body = "        return q.new_zeros(len(q), self.num_heads, self.kv_lora_rank).as_subclass(Agreeable)\n"
    result = with_forward(judge, body, forged).checks[BACKEND]
    assert result.status == "wrong"
    assert "forward_mqa must return a tensor" in result.message
    assert result.points == 3


def test_handing_the_work_to_our_own_impl_is_told_apart(judge: Judge) -> None:
    body = """        from kernels.backends.triton_mla import TritonMLAImpl
        return TritonMLAImpl.forward_mqa(self, q, kv_c_and_k_pe_cache, attn_metadata, layer)
"""
    result = with_forward(judge, body).checks[BACKEND]
    assert "forward_mqa hands its work to TritonMLAImpl.forward_mqa" in result.message
    assert result.points == 3


def test_a_process_that_ends_costs_its_cases_and_not_the_others(judge: Judge) -> None:
    body = """        if len(q) > 60:  # long_sequences
            import os
            os._exit(3)
"""
    solution = "".join(
        cell.source.partition("layer):\n")[2] for cell in judge._lesson.cells if cell.id == "q12-impl-code"
    )
    judged = with_forward(judge, body + solution)
    result = judged.checks[BACKEND]
    assert "your code ended its process (exit status 3)" in result.message
    assert result.points == 13
    assert judged.checks[REUSE].points == 4
    assert judged.workers_started == 2


def test_what_is_no_class_is_told_so(judge: Judge) -> None:
    judged = hand_in(judge, q12_backend_code="LatentBackend = 3")
    assert judged.score == 0
    assert "LatentBackend: expected a class, got a int" in judged.checks[BACKEND].message
    judged = hand_in(judge, q12_backend_code="def LatentBackend():\n    pass")
    assert "LatentBackend must be a class derived from AttentionBackend" in judged.checks[BACKEND].message
    assert judged.checks[BACKEND].points == 0
