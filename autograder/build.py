"""From the text that an author edits to the notebook that a learner opens.

    source/NN_name.py  ->  source/NN_name/NN_name.ipynb  ->  release/NN_name/NN_name.ipynb
    (committed)            (instructor's, not committed)     (learner's, committed)

`lesson.py` reads the text, gives every cell its permanent id and refuses what would go wrong
later; nbgrader removes solutions and hidden tests. What comes out depends on the text and on
``nbgrader_config.py`` alone: no gradebook, no clock, no machine. So a rebuild has the same bytes,
and ``--check`` can tell whether release/ is stale.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import nbformat

from autograder.lesson import LessonError, read_lesson
from course.folder import CourseNotFound, find_root


class BuildError(RuntimeError):
    """nbgrader refused a lesson that passed our own checks; the message ends with what it said."""


def lesson_names(root: Path) -> list[str]:
    """Names of the lessons in ``root/source``, in order: ``01_warm_up`` for ``source/01_warm_up.py``."""
    return sorted(path.stem for path in (root / "source").glob("[0-9][0-9]_*.py"))


def write_instructor_notebook(root: Path, name: str) -> Path:
    """Writes ``source/NN_name/NN_name.ipynb`` from ``source/NN_name.py`` and returns its path.

    Raises:
        LessonError: the text breaks a rule of the authoring format, with file and line.
    """
    folder = root / "source" / name
    strays = sorted(
        path.name for path in folder.glob("*") if path.suffix == ".py" or path.name == "timestamp.txt"
    )
    if strays:
        # nbgrader copies whatever lies beside a notebook into release/, a text with solutions too.
        raise LessonError(
            folder / strays[0], 1, f"nbgrader would release this file; move it out of source/{name}/"
        )
    notebook = read_lesson(root / "source" / f"{name}.py", shown=Path("source") / f"{name}.py")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.ipynb"
    path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
    return path


def generate_release(root: Path, name: str, destination: Path) -> Path:
    """Runs ``nbgrader generate_assignment`` on the instructor's notebook, into ``destination/NN_name``.

    It runs in a folder of its own and without a gradebook: neither the instructor's grades nor the configuration of the
    person who runs it have a say.

    Raises:
        BuildError: nbgrader failed.
    """
    with tempfile.TemporaryDirectory(prefix="release-") as scratch:
        folder = Path(scratch)
        shutil.copy(root / "nbgrader_config.py", folder)
        shutil.copytree(root / "source" / name, folder / "source" / name, ignore=shutil.ignore_patterns(".*"))
        command = [sys.executable, "-m", "nbgrader", "generate_assignment", name, "--no-db"]
        environment = dict(os.environ)
        environment["JUPYTER_CONFIG_DIR"] = str(folder / "nobody")
        ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        made = folder / "release" / name
        if ran.returncode != 0 or not (made / f"{name}.ipynb").is_file():
            raise BuildError(
                f"nbgrader generate_assignment {name} failed:\n{ran.stdout}{ran.stderr}".rstrip()
            )
        target = destination / name
        if target.exists():
            shutil.rmtree(target)
        shutil.copytree(made, target)
    return target / f"{name}.ipynb"


def build(root: Path, names: Sequence[str] | None = None, destination: Path | None = None) -> list[Path]:
    """Builds lessons, all of them by default, and returns the released notebooks.

    Args:
        root: the course folder.
        names: lessons as ``01_warm_up``.
        destination: where the released lessons go; ``root/release`` by default.

    Raises:
        LessonError: a text breaks the authoring format. Nothing is written then, for any lesson.
        BuildError: nbgrader failed.
        ValueError: an unknown lesson.
    """
    known = lesson_names(root)
    names = list(names) if names else known
    for name in names:
        if name not in known:
            raise ValueError(f"unknown lesson {name!r}: source/ has {', '.join(known) or 'no lesson yet'}")
    for name in names:
        read_lesson(root / "source" / f"{name}.py", shown=Path("source") / f"{name}.py")
    released = []
    for name in names:
        write_instructor_notebook(root, name)
        released.append(generate_release(root, name, destination or root / "release"))
    return released


def stale_files(root: Path) -> list[str]:
    """What in ``release/`` differs from a fresh build, one line each; empty when it is up to date."""
    differences = []
    with tempfile.TemporaryDirectory(prefix="check-") as scratch:
        fresh_root = Path(scratch)
        shutil.copy(root / "nbgrader_config.py", fresh_root)
        (fresh_root / "source").mkdir()
        for name in lesson_names(root):
            shutil.copy(root / "source" / f"{name}.py", fresh_root / "source")
        build(fresh_root)
        fresh, committed = _files(fresh_root / "release"), _files(root / "release")
        for path in sorted(fresh.keys() | committed.keys()):
            if path not in committed:
                differences.append(f"release/{path} is missing")
            elif path not in fresh:
                differences.append(f"release/{path} comes from no lesson in source/")
            elif fresh[path] != committed[path]:
                differences.append(f"release/{path} differs from what source/ gives now")
    return differences


def _files(folder: Path) -> dict[str, bytes]:
    """Contents by relative path, without what JupyterLab leaves when somebody opens a lesson there."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".ipynb_checkpoints" not in path.parts
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``autograder build``, which are those of ``python -m autograder.build``."""
    parser.add_argument(
        "lessons", nargs="*", metavar="LESSON", help="such as 01_warm_up; all of them by default"
    )
    parser.add_argument("--check", action="store_true", help="write nothing; fail when release/ is stale")
    parser.add_argument("--root", type=Path, help="the course folder, where it is not the current one")


def run(arguments: argparse.Namespace) -> int:
    """Does what ``arguments`` say and returns the exit status: 0, or 1 with a message on standard error."""
    try:
        root = find_root(arguments.root)
        if arguments.check:
            differences = stale_files(root)
            for line in differences:
                print(line, file=sys.stderr)
            if differences:
                print("release/ is stale: run `make release` and commit what changes", file=sys.stderr)
                return 1
            print("release/ is up to date")
            return 0
        for path in build(root, arguments.lessons):
            print(f"released {path.relative_to(root)}")
        return 0
    except (LessonError, BuildError, CourseNotFound, ValueError) as error:
        print(error, file=sys.stderr)
        return 1


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m autograder.build", description=__doc__.splitlines()[0])
    add_arguments(parser)
    return run(parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
