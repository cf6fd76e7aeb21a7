"""A tiny course to grade, without torch: one submission takes seconds, and anything may be done to it."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[2]
LESSON = "01_tiny"


def _cell(name: str, source: str, kind: str = "code", **flags: Any) -> NotebookNode:
    meta = {"grade_id": name, "schema_version": 3, "grade": False, "solution": False, "task": False, **flags}
    meta["locked"] = not meta["solution"]
    make = nbformat.v4.new_code_cell if kind == "code" else nbformat.v4.new_markdown_cell
    return make(source, id=name, metadata={"nbgrader": meta})


def _solution(text: str) -> str:
    return f"    ### BEGIN SOLUTION\n    {text}\n    ### END SOLUTION"


def _test(visible: str, hidden: str) -> str:
    return f"{visible}\n### BEGIN HIDDEN TESTS\n{hidden}\n### END HIDDEN TESTS"


def tiny_lesson() -> NotebookNode:
    """Two exercises of 2 and 3 points, one explanation of 1 point."""
    cells = [
        _cell("setup", "import sys"),
        _cell("double-code", f"def double(x):\n{_solution('return x + x')}", solution=True),
        _cell("double", _test("assert double(2) == 4", "assert double(3) == 6"), grade=True, points=2),
        _cell("triple-code", f"def triple(x):\n{_solution('return 3 * x')}", solution=True),
        _cell("triple", _test("assert triple(2) == 6", "assert triple(7) == 21"), grade=True, points=3),
        _cell(
            "why",
            f"Why?\n\n{_solution('Because.').strip()}",
            "markdown",
            grade=True,
            solution=True,
            points=1,
        ),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


class TinyCourse:
    """A course folder with the repository's own nbgrader configuration, and learners who hand in."""

    def __init__(self, root: Path) -> None:
        self.root = root
        shutil.copy(ROOT / "nbgrader_config.py", root)
        with (root / "nbgrader_config.py").open("a", encoding="utf-8") as file:
            file.write("\nc.Execute.timeout = 4\n")
        (root / "source" / LESSON).mkdir(parents=True)
        nbformat.write(tiny_lesson(), root / "source" / LESSON / f"{LESSON}.ipynb")

    def submit(
        self, learner: str, change: Callable[[NotebookNode], None] | None = None, **sources: str
    ) -> Path:
        """Hands in right answers, except for the cells named (with _ for -). Returns the submission's folder."""
        folder = self.root / "submitted" / learner / LESSON
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        notebook = tiny_lesson()
        for cell in notebook.cells:
            lines = cell.source.split("\n")
            cell.source = "\n".join(line for line in lines if "### " not in line and "hidden" not in line)
            if cell.id in ("double", "triple"):
                cell.source = lines[0]
            cell.source = sources.get(cell.id.replace("-", "_"), cell.source)
        if change is not None:
            change(notebook)
        nbformat.write(notebook, folder / f"{LESSON}.ipynb")
        return folder


@pytest.fixture
def tiny_course(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TinyCourse:
    """The working directory is its root, as for nbgrader's commands."""
    course = TinyCourse(tmp_path)
    monkeypatch.chdir(tmp_path)
    return course
