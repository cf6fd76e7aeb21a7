"""The hostile submissions of `bench.grading.hostile_submissions`, graded by stock nbgrader and by the judge, side by side.

    python -m bench.grading.hostile --out bench/results/hostile.json --table docs/stock-and-judge.md

Stock nbgrader runs with its own default configuration in a temporary course, itself inside bubblewrap: what its kernel does
reaches that course and nothing else of this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nbformat

from autograder.judge import processes
from autograder.judge.judge import Judge
from autograder.judge.sandbox import Limits, require
from bench.grading.hostile_submissions import (
    LESSON,
    ROOT,
    Attack,
    attacks,
    expected,
    lesson,
    points,
    right_submission,
    submission,
)
from kernels import runtime

STOCK_SECONDS = 240.0
LIMITS = Limits(cell=20, call=10, demo=5)
ATTACKER, HONEST = "attacker", "honest"
_MEMORY = 4 * 2**20  # KiB of data for one process of stock nbgrader, which has no limit of its own
_POINTS = """
select student_id, base_cell.name, coalesce(grade.manual_score, grade.auto_score)
from grade
join base_cell on base_cell.id = grade.cell_id
join submitted_notebook on submitted_notebook.id = grade.notebook_id
join submitted_assignment on submitted_assignment.id = submitted_notebook.assignment_id
"""


class StockCourse:
    """A course of stock nbgrader with lesson 1, made once and copied for each attack."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made = folder / "made"
        source = self._made / "source" / LESSON
        source.mkdir(parents=True)
        nbformat.write(lesson(), source / f"{LESSON}.ipynb")
        done = self._run(self._made, ["generate_assignment", LESSON], seconds=STOCK_SECONDS)
        if done != "finished":
            said = (folder / "made.log").read_text(errors="replace")[-2000:]
            raise RuntimeError(f"nbgrader generate_assignment: {done}\n{said}")

    def grade(self, attack: Attack) -> dict[str, Any]:
        """What stock nbgrader makes of an attack, and of an honest submission that comes after it in the same run."""
        course = self._folder / attack.name
        shutil.copytree(self._made, course)
        # A right answer to the gradebook's questions is all that the second one needs: it shows whether its turn comes.
        for learner, notebook in ((ATTACKER, submission(attack)), (HONEST, right_submission())):
            place = course / "submitted" / learner / LESSON
            place.mkdir(parents=True)
            nbformat.write(notebook, place / f"{LESSON}.ipynb")
        started = time.monotonic()
        ended = self._run(course, ["autograde", LESSON, "--create"], seconds=STOCK_SECONDS)
        seconds = time.monotonic() - started
        found = _points(course / "gradebook.db")
        size = sum(path.stat().st_size for path in (course / "autograded").rglob("*") if path.is_file())
        shutil.rmtree(course, ignore_errors=True)
        mine, others = found.get(ATTACKER, {}), found.get(HONEST, {})
        return {
            "ended": ended,
            "seconds": round(seconds, 1),
            "points": mine or None,
            "next_learner": sum(others.values()) if others else None,
            "autograded_bytes": size,
        }

    def _run(self, course: Path, arguments: list[str], seconds: float) -> str:
        """Runs nbgrader in `course`; "finished", or how it ended otherwise."""
        inside = "/tmp/course"
        line = ["bwrap", "--unshare-all", "--new-session", "--die-with-parent", "--ro-bind", "/", "/"]
        line += [
            "--dev",
            "/dev",
            "--proc",
            "/proc",
            "--size",
            str(2**28),
            "--tmpfs",
            "/tmp",
            "--tmpfs",
            "/dev/shm",
        ]
        line += ["--bind", str(course), inside, "--chdir", inside, "--setenv", "HOME", "/tmp"]
        path = os.pathsep.join(
            [str(Path(sys.executable).parent), os.environ["PATH"]]
        )  # nbgrader starts alembic
        line += [
            "--setenv",
            "PATH",
            path,
            "--setenv",
            "PYTHONPATH",
            str(ROOT),
            "--setenv",
            "OPENBLAS_NUM_THREADS",
            "1",
        ]
        command = f'"{sys.executable}" -m nbgrader {" ".join(arguments)}; status=$?; sleep 2; exit $status'
        line += ["/bin/sh", "-c", f"ulimit -d {_MEMORY}; {command}"]
        group = processes.make_pids_group(300)
        if group is not None:
            line = ["/bin/sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(group), *line]
        with (course.parent / f"{course.name}.log").open("wb") as log:
            process = subprocess.Popen(
                line, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        try:
            status = process.wait(seconds)
            return "finished" if status == 0 else f"exit status {status}"
        except subprocess.TimeoutExpired:
            return f"did not finish within {seconds:g} s"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            if group is not None:
                processes.remove_group(group)


def _points(gradebook: Path) -> dict[str, dict[str, float]]:
    """Learner -> grade id -> points, for tests that have any."""
    found: dict[str, dict[str, float]] = {}
    try:
        with sqlite3.connect(gradebook) as connection:
            rows = connection.execute(_POINTS).fetchall()
    except sqlite3.Error:
        return {}
    for learner, name, value in rows:
        if name in points() and value is not None:
            found.setdefault(learner, {})[name] = value
    return found


def run(chosen: list[Attack], jobs: int) -> dict[str, Any]:
    """The whole comparison, as it is written to --out."""
    require()
    rows = []
    with Judge(lesson(), LIMITS) as judge:
        for attack in chosen:
            judged = judge.judge(nbformat.writes(submission(attack)).encode())
            lost = [judged.checks[name] for name in points() if name in attack.lost]
            rows.append(
                {
                    "name": attack.name,
                    "what": attack.what,
                    "catalogue": list(attack.catalogue),
                    "expected": expected(attack),
                    "judge": {
                        "points": {name: result.points for name, result in judged.checks.items()},
                        "status": "; ".join(dict.fromkeys(result.status for result in lost)) or "passed",
                        "flags": list(judged.flags),
                        "seconds": round(judged.seconds, 1),
                    },
                }
            )
            print(f"judge  {attack.name}: {rows[-1]['judge']['points']}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix="stock-") as folder, ThreadPoolExecutor(jobs) as pool:
        course = StockCourse(Path(folder))
        for attack, row, stock in zip(chosen, rows, pool.map(course.grade, chosen), strict=True):
            row["stock"] = stock
            print(f"stock  {attack.name}: {stock}", file=sys.stderr, flush=True)
    return {
        "lesson": LESSON,
        "max_score": sum(points().values()),
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": runtime.describe(),
        "sandbox": "bubblewrap",
        "nbgrader": version("nbgrader"),
        "rows": rows,
    }


def render(result: dict[str, Any]) -> str:
    """The Markdown page."""
    full = result["max_score"]
    wrong = [row for row in result["rows"] if _stock_points(row) != sum(row["expected"].values())]
    right = [row for row in result["rows"] if row["judge"]["points"] == row["expected"]]
    lines = [
        "# Stock nbgrader and the judge, on the same submissions",
        "",
        f"Made by `python -m bench.grading.hostile` on {result['made'][:10]}: lesson `{result['lesson']}`, {full:g} points of tests, "
        f"nbgrader {result['nbgrader']} with its own defaults, {result['device']}.",
        "Each submission is right except for what is said of it. The catalogue's numbers are those of",
        "`tests/autograder/judge/catalogue.md`. *Earned* is what an honest grader gives. After each one, in the same run, "
        "stock nbgrader gets an honest submission; *lost too* says that this one got no points either. Stock nbgrader has no "
        "limits of its own: for this machine's sake it ran inside bubblewrap, with at most 300 processes, 4 GiB for each.",
        "",
        f"The judge gives what was earned in {len(right)} of {len(result['rows'])} cases, "
        f"stock nbgrader in {len(result['rows']) - len(wrong)}.",
        "",
        "| submission | catalogue | earned | stock nbgrader | judge | the judge says |",
        "| --- | --- | ---: | --- | ---: | --- |",
    ]
    for row in result["rows"]:
        earned = sum(row["expected"].values())
        values = row["judge"]["points"].values()
        judged = "–" if None in values else f"{sum(values):g}"
        said = row["judge"]["status"] + "".join(f", *{flag}*" for flag in row["judge"]["flags"])
        numbers = ", ".join(map(str, row["catalogue"]))
        lines.append(f"| {row['what']} | {numbers} | {earned:g} | {_stock_words(row)} | {judged} | {said} |")
    return "\n".join(lines) + "\n"


def _stock_points(row: dict[str, Any]) -> float | None:
    found = row["stock"]["points"]
    return None if found is None else sum(found.values())


def _stock_words(row: dict[str, Any]) -> str:
    stock, got = row["stock"], _stock_points(row)
    earned = sum(row["expected"].values())
    words = "**whole submission lost**" if got is None else f"{got:g}" if got == earned else f"**{got:g}**"
    if "did not finish" in stock["ended"]:
        words += f", {stock['ended']}"
    if stock["next_learner"] is None:
        words += ", **the next learner's lost too**"
    if stock["autograded_bytes"] > 20e6:
        words += f", {stock['autograded_bytes'] / 1e6:.0f} MB written"
    return words


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.grading.hostile", description=__doc__)
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    parser.add_argument("--table", type=Path, help="where the Markdown table goes; printed too")
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="NAME",
        help="just these of tests/submissions/hostile; the others stay as they are in --out",
    )
    parser.add_argument("--jobs", type=int, default=2, help="courses of stock nbgrader at a time")
    parser.add_argument(
        "--render", type=Path, metavar="JSON", help="only make the table of an earlier --out again"
    )
    arguments = parser.parse_args(argv)
    if arguments.render is not None:
        result = json.loads(arguments.render.read_text(encoding="utf-8"))
    else:
        chosen = [a for a in attacks() if arguments.only is None or a.name in arguments.only]
        if not chosen:
            parser.error(f"--only: expected names of {[a.name for a in attacks()]}, got {arguments.only}")
        result = run(chosen, arguments.jobs)
        if arguments.only is not None and arguments.out is not None and arguments.out.exists():
            earlier = json.loads(arguments.out.read_text(encoding="utf-8"))
            new = {row["name"]: row for row in result["rows"]}
            result = {**earlier, "rows": [new.get(row["name"], row) for row in earlier["rows"]]}
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    page = render(result)
    if arguments.table is not None:
        arguments.table.write_text(page, encoding="utf-8")
    print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
