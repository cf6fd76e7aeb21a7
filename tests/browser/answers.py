"""What a learner may write into a lesson: the instructor's solutions, the stubs, and a mistake."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import nbformat

from autograder import registry
from autograder.build import write_instructor_notebook
from tests.browser.jupyterlab import REPOSITORY, Notebook, Outputs


@dataclass(frozen=True)
class Answers:
    """Texts of the cells that a learner writes in, by cell id, and the ids of the cells that check them."""

    solutions: dict[str, str]
    stubs: dict[str, str]
    checks: list[str]

    def logical_block_as_physical(self) -> str:
        """`build_metadata` with the mistake of this name."""
        right = self.solutions["q2-metadata-code"]
        wrong = right.replace("physical = table[position // block_size]", "physical = position // block_size")
        assert wrong != right, "the solution no longer has the line in which the mistake is made"
        return wrong

    @staticmethod
    def message(check: str, misconception: str) -> str:
        """What a check says about a mistake."""
        return next(
            known.message for known in registry.get(check).misconceptions if known.name == misconception
        )


def run_with_every_answer(notebook: Notebook, answers: Answers) -> dict[str, Outputs]:
    """Runs a lesson from a restarted kernel with its solutions: no cell fails, every check passes. Returns what cells show."""
    notebook.fill_in(answers.solutions)
    notebook.restart_and_run_all()
    shown = {name: notebook.outputs(name) for name in notebook.ids()}
    assert {name: output.errors for name, output in shown.items() if output.errors} == {}
    assert [name for name in answers.checks if not shown[name].text.startswith("✓")] == []
    return shown


def read_answers(course: Path, lesson: str) -> Answers:
    """Solutions from the instructor's notebook in `course`, stubs from the released one."""
    source, release = _cells(course / "source", lesson), _cells(course / "release", lesson)
    return Answers(
        solutions={cell.id: _without_markers(cell.source) for cell in source if _is(cell, "solution")},
        stubs={cell.id: cell.source for cell in release if _is(cell, "solution")},
        checks=[cell.id for cell in release if _is(cell, "grade") and not _is(cell, "solution")],
    )


def _cells(folder: Path, lesson: str) -> list[nbformat.NotebookNode]:
    return list(nbformat.read(folder / lesson / f"{lesson}.ipynb", as_version=4).cells)


def _is(cell: nbformat.NotebookNode, kind: str) -> bool:
    return bool(cell.metadata.get("nbgrader", {}).get(kind))


def _without_markers(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.strip().startswith("### "))


def answers_of(lesson: str, folder: Path) -> Answers:
    """The answers of a lesson of this repository; its instructor's notebook is made in `folder`."""
    (folder / "source").mkdir()
    shutil.copy(REPOSITORY / "source" / f"{lesson}.py", folder / "source")
    shutil.copytree(REPOSITORY / "release" / lesson, folder / "release" / lesson)
    write_instructor_notebook(folder, lesson)
    return read_answers(folder, lesson)
