"""`python -m tests.kernels.kill_table`: which tests kill which wrong kernel. A wrong kernel that survives is an error.

A mutant (mutants.py) is the kernels with one line replaced. Each is tested in a copy of kernels/ and tests/, in a process
that has torch and Triton loaded and none of ours. Without a GPU the kernels run in Triton's interpreter.
"""

import argparse
import multiprocessing
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from tests.kernels.mutants import MUTANTS, Mutant

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 1800  # for all tests of one mutant; one test has TEST_SECONDS
TEST_SECONDS = 300
PROCESS_LOST = "the process died or hung"
NOT_LOADED = "it does not load"


@dataclass(frozen=True)
class Outcome:
    """killers: the tests that failed, in their order."""

    mutant: Mutant
    killers: list[str]

    @property
    def survived(self) -> bool:
        """No test failed, or the mutant does not even load: then it shows nothing about the tests."""
        return not self.killers or NOT_LOADED in self.killers


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0, 1 when a mutant survives, 2 when nothing can be said."""
    parser = argparse.ArgumentParser(prog="python -m tests.kernels.kill_table", description=__doc__)
    parser.add_argument("words", nargs="*", help="only mutants with one of these in their name or file")
    parser.add_argument(
        "--killers", type=int, default=1, help="stop after so many failed tests (default 1; 0: all)"
    )
    parser.add_argument("--jobs", type=int, default=2, help="mutants tested at a time (default 2)")
    options = parser.parse_args(arguments)
    chosen = choose(options.words)
    if not chosen:
        parser.error(f"words: no mutant is named or lies in a file named like {' or '.join(options.words)}")
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        laboratory = Laboratory(Path(folder), options.killers)
        print(f"{'mutant':<44}{'file':<28}killed by", flush=True)
        outcomes = []
        with ThreadPoolExecutor(options.jobs) as pool:
            for outcome in pool.map(laboratory.examine, chosen):
                print(format_row(outcome), flush=True)
                outcomes.append(outcome)
        # A test that fails on the right kernels too has killed nothing.
        killers = {name for outcome in outcomes for name in outcome.killers if "::" in name}
        broken = laboratory.run(None, sorted(killers), max_failures=0) if killers else []
    if broken:
        print(f"These tests fail on the kernels as they are: {', '.join(broken)}", file=sys.stderr)
        return 2
    killed = sum(not outcome.survived for outcome in outcomes)
    print(f"\n{killed} of {len(outcomes)} mutants killed.")
    return 0 if killed == len(outcomes) else 1


def choose(words: Sequence[str]) -> list[Mutant]:
    """All mutants without words. Those that need a GPU are left out where Triton's interpreter will run."""
    with_gpu = not _interpreter()
    named = [
        one for one in MUTANTS if not words or any(word in one.name or word in one.file for word in words)
    ]
    return [one for one in named if with_gpu or not one.needs_gpu]


def format_row(outcome: Outcome) -> str:
    """Each killer once, without the folder that all have in common, with how many of its cases failed."""
    counts: dict[str, int] = {}
    for killer in outcome.killers:
        name = killer.removeprefix("tests/kernels/").partition("[")[0]
        counts[name] = counts.get(name, 0) + 1
    killed_by = ", ".join(name if count == 1 else f"{name} ({count})" for name, count in counts.items())
    return f"{outcome.mutant.name:<44}{outcome.mutant.file:<28}{killed_by or 'NOTHING: it survives'}"


class Laboratory:
    """Runs tests on copies of the kernels, each in a process of its own. Whoever edits the kernels meanwhile changes
    nothing: all copies are made from the first, in `folder`."""

    def __init__(self, folder: Path, max_killers: int) -> None:
        self._folder, self._max_killers = folder, max_killers
        lay_out(ROOT, folder / "first")
        for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
            os.environ.setdefault(variable, "1")
        if _interpreter():
            os.environ["TRITON_INTERPRET"] = (
                "1"  # Triton is loaded before kernels here, which would have said so
            )
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(
            ["torch", "triton", "triton.runtime.interpreter", "hypothesis", "pytest"]
        )

    def examine(self, mutant: Mutant) -> Outcome:
        return Outcome(mutant, self.run(mutant, mutant.tests, self._max_killers))

    def run(self, mutant: Mutant | None, tests: Sequence[str], max_failures: int) -> list[str]:
        """Names of the tests that fail on the mutant, or on the kernels as they are."""
        copy = Path(tempfile.mkdtemp(dir=self._folder)) / "copy"
        lay_out(self._folder / "first", copy, mutant)
        ours, theirs = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_test, args=(str(copy), list(tests), max_failures, theirs))
        process.start()
        theirs.close()
        failed = _receive(ours)
        process.kill()
        process.join()
        shutil.rmtree(copy)
        return failed


def lay_out(source: Path, target: Path, mutant: Mutant | None = None) -> None:
    """A copy of what the tests need, with the mutant's line in it."""
    for folder in ("kernels", "tests/kernels"):
        shutil.copytree(source / folder, target / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "tests/conftest.py"):
        shutil.copy(source / file, target / file)
    if mutant:
        path = target / "kernels" / mutant.file
        path.write_text(mutant.apply(path.read_text()))


def _interpreter() -> bool:
    import torch

    return os.environ.get("TRITON_INTERPRET", "") == "1" or not torch.cuda.is_available()


def _receive(connection: Connection) -> list[str]:
    """Names of failed tests until "done"; a process that ends or hangs without it was lost to the mutant."""
    killers: list[str] = []
    try:
        while connection.poll(SECONDS):
            name = connection.recv()
            if name == "done":
                return killers
            killers.append(name)
    except EOFError:
        pass
    return [*killers, PROCESS_LOST]


def _test(folder: str, tests: Sequence[str], max_failures: int, connection: Connection) -> None:
    """In a process of its own: run the tests on the copy in `folder`, and send the names of those that fail."""
    import pytest
    import torch

    torch.set_num_threads(1)
    os.chdir(folder)
    sys.path.insert(0, folder)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)

    class Failures:
        @staticmethod
        def pytest_runtest_logreport(report: pytest.TestReport) -> None:
            if report.failed:
                connection.send(report.nodeid)

        @staticmethod
        def pytest_collectreport(report: pytest.CollectReport) -> None:
            if report.failed:
                connection.send(NOT_LOADED)

    options = [
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        f"--timeout={TEST_SECONDS}",
        f"--maxfail={max_failures}",
    ]
    status = pytest.main([*options, "-m", "not slow", *tests], plugins=[Failures()])
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        connection.send(NOT_LOADED)
    connection.send("done")


if __name__ == "__main__":
    sys.exit(main())
