"""release/ is what source/ gives now: the same bytes, stubs for solutions, no hidden tests, nothing that ran."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

from autograder import build as builder
from autograder.lesson import SLUG

ROOT = Path(__file__).resolve().parents[2]
LESSONS = builder.lesson_names(ROOT)

# Fixed for good: tests and submissions written elsewhere use them.
GRADE_IDS = {
    "01_warm_up": {
        "q1-verdicts",
        "q1-explain",
        "q2-metadata",
        "q2-attend",
        "q2-explain",
        "q3-update",
        "q3-merge",
        "q3-explain",
    },
    "02_trace": {
        "q4-forward",
        "q4-explain",
        "q5-classes",
        "q5-explain",
        "q6-paths",
        "q6-explain",
        "q7-selector",
        "q7-explain",
        "self-path",
    },
    "03_build": {
        "q8-relocate",
        "q8-contract",
        "q8-explain",
        "q9-torch",
        "q9-triton",
        "q9-bytes",
        "q10-torch",
        "q10-triton",
        "q10b-split",
        "q10b-race",
    },
    "04_design": {
        "q11-plan",
        "q11-conclusion",
        "q11-explain",
        "q12-backend",
        "q12-reuse",
        "q12-explain",
        "q13-detect",
        "q13-minimise",
        "q13-name",
        "q13-explain",
    },
}


def released(name: str) -> Path:
    return ROOT / "release" / name / f"{name}.ipynb"


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(released(name), as_version=4)


def solution_lines(name: str) -> set[str]:
    """Lines between BEGIN and END of a solution or of hidden tests that are long enough to be nobody else's."""
    text = (ROOT / "source" / f"{name}.py").read_text(encoding="utf-8")
    regions = re.findall(
        r"BEGIN (?:SOLUTION|HIDDEN TESTS)\n(.*?)\n[^\n]*END (?:SOLUTION|HIDDEN TESTS)", text, re.DOTALL
    )
    lines = {line.strip().lstrip("#").strip() for region in regions for line in region.split("\n")}
    return {line for line in lines if len(line) > 24}


def test_there_are_lessons() -> None:
    assert LESSONS
    assert sorted(path.name for path in (ROOT / "release").iterdir() if path.is_dir()) == LESSONS


def test_a_fresh_build_on_an_unlike_machine_gives_the_committed_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another home, time zone, language and folder; the committed bytes stand for the other machine."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    monkeypatch.setenv("LC_ALL", "C")
    assert builder.stale_files(ROOT) == []


@pytest.mark.parametrize("name", LESSONS)
def test_no_solution_and_no_hidden_test(name: str) -> None:
    text = released(name).read_text(encoding="utf-8")
    for word in ("SOLUTION", "HIDDEN", 'suite=\\"hidden', "suite='hidden"):
        assert word not in text
    sources = "\n".join(cell.source for cell in read(name).cells)
    lines = solution_lines(name)
    assert len(lines) > 20  # the regions were found
    assert {line for line in lines if line in sources} == set()


@pytest.mark.parametrize("name", LESSONS)
def test_nothing_in_it_ran(name: str) -> None:
    notebook = read(name)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
    assert set(notebook.metadata) == {"kernelspec"}


@pytest.mark.parametrize("name", LESSONS)
def test_ids_are_readable_unique_and_the_grade_ids(name: str) -> None:
    cells = read(name).cells
    ids = [cell.id for cell in cells]
    assert len(ids) == len(set(ids))
    assert all(SLUG.fullmatch(cell_id) for cell_id in ids)
    for cell in cells:
        if "nbgrader" in cell.metadata:
            assert cell.metadata.nbgrader["grade_id"] == cell.id
    graded = {cell.id for cell in cells if cell.metadata.get("nbgrader", {}).get("grade")}
    assert graded == GRADE_IDS[name]


@pytest.mark.parametrize("name", LESSONS)
def test_every_answer_has_its_stub(name: str) -> None:
    """Where a learner answers, the released cell holds nbgrader's stub and no half of a solution."""
    cells = [cell for cell in read(name).cells if cell.metadata.get("nbgrader", {}).get("solution")]
    assert cells
    for cell in cells:
        stub = "raise NotImplementedError(" if cell.cell_type == "code" else "*Your answer here."
        assert stub in cell.source, cell.id
