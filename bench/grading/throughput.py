"""The same 24 submissions graded by stock `nbgrader autograde` and by `autograder grade`, on the same two cores.

    python -m bench.grading.throughput --out bench/results/grading.json

Stock nbgrader has a configuration without our plug-ins, in a course of its own: a kernel for each notebook, no isolation. `autograder
grade` starts with an empty journal, judges in bubblewrap, takes the verdicts into the gradebook, and is measured with and
without the feedback pages, which stock autograde does not write. The points of both are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from autograder.grading import sample_class
from autograder.grading.journal import write_whole
from bench.machine import environment

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "bench" / "results" / "grading.json"
LESSON = "01_warm_up"
CORES = 2
TARGET = 4.0  # times stock nbgrader's throughput
# Submissions that stock nbgrader can take: a wrong date or schema version stops its whole batch, and a notebook that ends its
# kernel is lost.
LEARNERS = (
    *("all-right", "empty", "mutates", "nan", "typo", "warns", "wrong-types"),
    *(f"right-{number:02}" for number in range(1, 5)),
    *(f"mistake-{number:02}" for number in range(1, 14)),
)
STOCK_CONFIG = """c = get_config()
c.CourseDirectory.course_id = "stock"
c.Execute.timeout = 300
# What the class was given out with: nbgrader knows an unanswered cell by its text.
c.ClearSolutions.code_stub = {"python": 'raise NotImplementedError("Your code here. Then delete this line.")'}
c.ClearSolutions.text_stub = "*Your answer here. Then delete this line.*"
"""
OURS = {
    "autograder_grade": ("--no-feedback",),
    "autograder_grade_with_feedback": (),
}


def measure(folder: Path) -> dict[str, Any]:
    """Grades the class each way, in courses below `folder`."""
    course = sample_class.make(folder / "class", ROOT)
    for path in (course / "submitted").iterdir():
        if path.name not in LEARNERS:
            shutil.rmtree(path)
    assert len(list((course / "submitted").iterdir())) == len(LEARNERS) == 24

    stock = Path(shutil.copytree(course, folder / "stock"))
    (stock / "nbgrader_config.py").write_text(STOCK_CONFIG, encoding="utf-8")
    _run(stock, "nbgrader", "generate_assignment", LESSON, "--force", "--create")
    print("stock nbgrader autograde ...", file=sys.stderr, flush=True)
    runs = {"nbgrader_autograde": _timed(stock, "nbgrader", "autograde", LESSON, "--create")}
    points = {"nbgrader_autograde": _points(stock)}
    for name, options in OURS.items():
        print(f"autograder grade {' '.join(options)} ...", file=sys.stderr, flush=True)
        own = Path(shutil.copytree(course, folder / name))
        command = ("autograder.cli", "grade", LESSON, "--jobs", str(CORES), "--out", "out.json", *options)
        runs[name] = _timed(own, *command)
        points[name] = _points(own)
        found = json.loads((own / "out.json").read_text(encoding="utf-8"))
        runs[name]["sandbox"] = found["sandbox"]
    for run in runs.values():
        run["submissions_per_minute"] = round(60 * len(LEARNERS) / run["seconds"], 2)
        run["times_stock"] = round(runs["nbgrader_autograde"]["seconds"] / run["seconds"], 2)
    return {
        "lesson": LESSON,
        "submissions": len(LEARNERS),
        "runs": runs,
        "points_that_differ": _differences(points),
    }


def _timed(course: Path, module: str, *arguments: str) -> dict[str, Any]:
    started = time.perf_counter()
    _run(course, module, *arguments)
    return {"seconds": round(time.perf_counter() - started, 2)}


def _run(course: Path, module: str, *arguments: str) -> str:
    made = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    made["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), made.get("PATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=course, env=made, capture_output=True, text=True
    )
    if done.returncode != 0:
        raise RuntimeError(f"{module} {' '.join(arguments)} failed:\n{done.stdout}\n{done.stderr}"[-5000:])
    return done.stdout


def _points(course: Path) -> dict[str, dict[str, float | None]]:
    """What the gradebook of a course holds: learner -> exercise -> points."""
    code = (
        "import json\nfrom autograder import nbgrader_bridge as bridge\n"
        f"print(json.dumps(bridge.scores(bridge.open_course(), {LESSON!r})))"
    )
    made = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=course, env=made, capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    return {
        learner: {name: auto for name, (auto, _) in exercises.items()} for learner, exercises in found.items()
    }


def _differences(points: dict[str, dict[str, dict[str, float | None]]]) -> list[str]:
    stock = points["nbgrader_autograde"]
    found = []
    for name, ours in points.items():
        for learner in sorted(stock | ours):
            for exercise in sorted(stock.get(learner, {}) | ours.get(learner, {})):
                before = stock.get(learner, {}).get(exercise)
                now = ours.get(learner, {}).get(exercise)
                if before != now:
                    found.append(f"{learner} {exercise}: stock {before}, {name} {now}")
    return found


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.grading.throughput", description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULT, metavar="FILE")
    parser.add_argument("--commit", help="the commit that is measured, where there is no repository")
    arguments = parser.parse_args(argv)
    cores = sorted(os.sched_getaffinity(0))[:CORES]
    os.sched_setaffinity(0, cores)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="bench-grading-") as folder:
        found = measure(Path(folder))
    machine = {
        **environment(arguments.commit),
        "processor": _processor(),
        "cores": len(cores),
        "load_before": round(load, 2),
        "system": platform.release(),
        "nbgrader": version("nbgrader"),
        "bubblewrap": subprocess.run(["bwrap", "--version"], capture_output=True, text=True).stdout.strip(),
    }
    write_whole(arguments.out, json.dumps({"environment": machine, **found}, indent=1) + "\n")
    for name, run in found["runs"].items():
        print(f"{name:32} {run['seconds']:8.1f} s  {run['times_stock']:5.2f} times stock")
    ratio = found["runs"]["autograder_grade"]["times_stock"]
    print(
        f"{'reached' if ratio >= TARGET else 'MISSED'}: at least {TARGET:g} times the throughput of stock nbgrader"
    )
    return 0 if ratio >= TARGET else 1


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
