"""Every lesson with its solutions, from a restarted kernel to its last cell, as Restart and Run All does it."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from autograder import build as builder
from autograder.lesson import read_lesson

ROOT = Path(__file__).resolve().parents[2]
LESSONS = builder.lesson_names(ROOT)

ENVIRONMENT = {"PYTHONDONTWRITEBYTECODE": "1"}


def run(notebook: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode:
    """Runs a notebook in `folder` with a kernel of its own; an exception in a cell is an exception here."""
    client = NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    return client.execute(env={**os.environ, **ENVIRONMENT})


# Tests of one lesson stay in one process, which runs it once.
@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in LESSONS]
)
def executed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> nbformat.NotebookNode:
    notebook = read_lesson(ROOT / "source" / f"{request.param}.py")
    return run(notebook, tmp_path_factory.mktemp(request.param))


def printed(cell: nbformat.NotebookNode) -> str:
    return "".join(output.get("text", "") for output in cell.outputs if output.output_type == "stream")


@pytest.mark.slow
def test_the_solution_runs_and_every_check_passes(executed: nbformat.NotebookNode) -> None:
    tests = [
        cell
        for cell in executed.cells
        if cell.cell_type == "code" and cell.metadata.get("nbgrader", {}).get("grade")
    ]
    assert tests
    for cell in tests:
        # One line for the visible suite and one for the hidden one.
        assert printed(cell).count("✓") == cell.source.count("autograder.check("), (cell.id, printed(cell))


@pytest.mark.slow
def test_partial_credit_comes_out_full(executed: nbformat.NotebookNode) -> None:
    """Where a test cell's last value is its points, nbgrader reads them as the score."""
    for cell in executed.cells:
        values = [output for output in cell.get("outputs", []) if output.output_type == "execute_result"]
        if cell.metadata.get("nbgrader", {}).get("grade") and values:
            assert ast.literal_eval(values[-1].data["text/plain"]) == cell.metadata.nbgrader["points"], (
                cell.id
            )


@pytest.mark.slow
def test_nothing_is_written_to_standard_error(executed: nbformat.NotebookNode) -> None:
    """A warning in a lesson is a fault: a learner cannot tell it from their own."""
    said = {
        cell.id: output.text
        for cell in executed.cells
        for output in cell.get("outputs", [])
        if output.output_type == "stream"
        and output.name == "stderr"
        # Said once on a machine, by whoever is the first to ask for vLLM's source.
        and not output.text.startswith("Fetching vLLM 0.22.1's source")
    }
    assert said == {}
