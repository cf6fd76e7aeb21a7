"""Who may import whom (DESIGN: one direction of dependence), by loading each package in a fresh process.

The process shows what an import really drags in; the syntax trees show imports inside functions as well.
"""

from __future__ import annotations

import ast
import functools
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Package: what it must not import, directly or through anything of ours.
FORBIDDEN = {
    "kernels": {"course", "autograder", "bench", "IPython", "ipykernel", "nbgrader"},
    "course": {"autograder", "bench", "nbgrader"},
    "autograder": {"bench", "nbgrader"},
    "bench": {"course", "autograder", "IPython", "nbgrader"},
}
# The one package that may know nbgrader.
BRIDGE = "autograder/nbgrader_bridge"
# Kernels are measured without the autograder and the course; these measure the autograder itself, or the course's harness.
ABOVE = ("bench/grading/", "bench/serving_agreement.py")
# Of the learner's package, the autograder takes models and facts of vLLM, the course's folder, one step of our own layer
# with what records it, and the recorder and the stop-watch of kernels; nothing that draws.
FROM_COURSE = {"folder", "backend_table", "deployments", "candidates", "one_step", "trace", "recording"}
FROM_COURSE |= {"gpu_timing", "differential", "closed_backends", "reuse_parts", "serving"}
# Of what reads vLLM, neither what shows it nor what makes the committed facts.
FROM_COURSE |= {"vllm", "vllm.index", "vllm.refs", "vllm.rules", "vllm.source", "vllm.symbols"}


def files(package: str) -> list[Path]:
    found = sorted(path for path in (ROOT / package).rglob("*.py"))
    return [path for path in found if not path.relative_to(ROOT).as_posix().startswith(ABOVE)]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def imported_names(path: Path) -> frozenset[str]:
    """Full names that a file imports anywhere, in functions and under TYPE_CHECKING too: `course.plots`."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return frozenset(names)


def loads_the_bridge(module: str) -> bool:
    """True for the bridge and for what imports it, however far away."""
    bridge = BRIDGE.replace("/", ".")
    pending, seen = [module], set()
    while pending:
        name = pending.pop()
        path = ROOT / name.replace(".", "/")
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if name in seen or not path.is_file():
            continue
        seen.add(name)
        pending += [other for other in imported_names(path) if other.startswith("autograder.")]
    return any(name == bridge or name.startswith(f"{bridge}.") for name in seen)


def in_the_bridge(path: Path) -> bool:
    return path.relative_to(ROOT).is_relative_to(BRIDGE)


def loaded_by(modules: list[str]) -> set[str]:
    """Top-level packages and full names in sys.modules after a fresh process imported these modules."""
    code = (
        "import importlib, json, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "print(json.dumps(sorted(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("package", sorted(FORBIDDEN))
def test_a_package_loads_nothing_that_is_above_it(package: str) -> None:
    modules = [module_name(path) for path in files(package) if path.name != "__main__.py"]
    if package == "autograder":
        # What a notebook loads. The instructor's side (grading) goes through the bridge to nbgrader.
        modules = [name for name in modules if not loads_the_bridge(name)]
        assert {"autograder", "autograder.learner", "autograder.checks.build_metadata"} <= set(modules)
    # Peers' adapters name libraries that only a GPU machine has; their files are read below.
    modules = [name for name in modules if not name.startswith("bench.peers.")]
    assert modules, package
    tops = {name.split(".")[0] for name in loaded_by(modules)}
    assert not tops & FORBIDDEN[package]


@pytest.mark.parametrize("package", sorted(FORBIDDEN))
def test_no_file_imports_what_is_above_it_even_in_a_function(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files(package)
        for name in imported_names(path)
        if name.split(".")[0] in FORBIDDEN[package]
        and not (name.split(".")[0] == "nbgrader" and in_the_bridge(path))
    ]
    assert wrong == []


def test_one_package_imports_nbgrader() -> None:
    importing = [
        path
        for package in FORBIDDEN
        for path in files(package)
        if any(name.split(".")[0] == "nbgrader" for name in imported_names(path))
    ]
    assert importing
    assert [path for path in importing if not in_the_bridge(path)] == []


def test_nbgraders_commands_do_without_torch() -> None:
    """`nbgrader list` or `submit` should not wait for it; autograding loads it for the first verdict."""
    assert "torch" not in loaded_by(["autograder.nbgrader_bridge", "autograder.nbgrader_bridge.mends"])


def test_the_autograder_takes_models_from_the_course_and_nothing_that_draws() -> None:
    def part(name: str) -> str:
        """ "course.trace.tree.Call" -> "trace", "course.vllm.index.where" -> "vllm.index"."""
        parts = name.split(".")[1:]
        return ".".join(parts[:2] if parts[0] == "vllm" else parts[:1])

    taken = {
        (path.relative_to(ROOT).as_posix(), part(name))
        for path in files("autograder")
        for name in imported_names(path)
        if name.startswith("course.")
    }
    assert {pair for pair in taken if pair[1] not in FROM_COURSE} == set()


def test_importing_the_course_is_cheap() -> None:
    loaded = loaded_by(["course", "course.cli", "course.folder"])
    assert not loaded & {"torch", "triton", "matplotlib", "jupyter_server", "ipywidgets"}
