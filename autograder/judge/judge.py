"""A submission's verdicts: the learner's cells run in the worker, the instructor's test cells here.

A test cell sees `autograder.check`, what the instructor's own cells import, and the learner's names: plain data as copies,
functions and other objects as proxies whose calls run in the worker.
"""

from __future__ import annotations

import ast
import builtins
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from types import CodeType, SimpleNamespace, TracebackType
from typing import Any, Self

from nbformat import NotebookNode

from autograder import registry
from autograder.examine import examine
from autograder.failure import CheckFailed, UnknownCheck
from autograder.judge import gpu
from autograder.judge.faults import Fault
from autograder.judge.judgement import (
    ERROR,
    INFRASTRUCTURE,
    MISSING,
    PASSED,
    TAMPERED,
    WRONG,
    CheckResult,
    Judgement,
)
from autograder.judge.proxy import RemoteError, clean
from autograder.judge.rebuild import Cell, Unreadable, kernel_tests, rebuild, trusted_imports
from autograder.judge.sandbox import PRELOAD, Limits, Sandbox, SandboxLost
from autograder.judge.scan import remarks
from autograder.judge.session import Session
from autograder.judge.trusted_check import Inspections
from autograder.known_mistakes import KnownMistakes
from autograder.learner import Points, parts_of
from autograder.suite import HIDDEN, VISIBLE, Suite, open_suite
from autograder.verdict import Verdict

_UNANSWERED = re.compile(r"is not answered yet|has no verdict yet")
_RAISED = "your code raised "
_MAX_IMAGE_BYTES = 300_000  # of one submission: the journal's files stay small


class Judge:
    """Judges submissions of one lesson, one after the other, in one warm sandbox."""

    def __init__(
        self,
        lesson: NotebookNode,
        limits: Limits | None = None,
        *,
        seed: int | None = None,
        threads: int = 1,
        unsafe: bool = False,
    ) -> None:
        """lesson: the instructor's notebook (`autograder.lesson.read_lesson`).

        seed: of the hidden cases, drawn afresh by default; the submissions of one grading share them. threads: how many
        torch uses in a worker. unsafe: work without a sandbox where none can be made; where one can be made it is used. Raises SandboxUnavailable, SandboxLost.
        """
        self._lesson = lesson
        self.seed = secrets.randbits(48) if seed is None else seed
        self._inspections = Inspections()
        self._mistakes = KnownMistakes(cases_are_kept=True)
        self._imports = trusted_imports(lesson)
        self._kernel_tests = kernel_tests(lesson)
        # Words that our own solution has to say ("flash_attn.py", where files are asked for) make nobody suspicious.
        self._usual = remarks((cell["id"], cell.source) for cell in lesson.cells if _is_answer(cell)).keys()
        self.sandbox = Sandbox(preload_of(self._imports), limits, threads=threads, unsafe=unsafe)

    @property
    def sandbox_name(self) -> str:
        """What the learner's code runs in: "bubblewrap", or "none"."""
        return self.sandbox.name

    def judge(
        self, submitted: bytes, *, only: frozenset[str] | None = None, to_the_end: bool = True
    ) -> Judgement:
        """The results of a submission, the bytes of its notebook file. Never raises for anything that is in it.

        only: run just the tests with these grade ids; all by default. to_the_end: run the cells behind the last test that
        is wanted as well, for what they print; no result hangs on them.
        """
        started = time.monotonic()
        try:
            rebuilt = rebuild(self._lesson, submitted)
        except Unreadable as error:
            return Judgement(self.seed, {}, refused=clean(str(error)))
        results: dict[str, CheckResult] = {}
        printed: dict[str, tuple[str, str]] = {}
        images: dict[str, tuple[bytes, ...]] = {}
        wanted = [
            i for i, cell in enumerate(rebuilt.cells) if cell.is_test and (only is None or cell.name in only)
        ]
        cells = rebuilt.cells if to_the_end else rebuilt.cells[: max(wanted, default=-1) + 1]
        with Session(self.sandbox) as session:
            for cell in cells:
                if cell.is_test:
                    if only is not None and cell.name not in only:
                        continue
                    results[cell.name] = self._test(cell, session)
                    continue
                try:
                    ran = session.run_cell(cell.name, cell.source, demo=cell.untouched)
                except SandboxLost:
                    continue  # session.lost says so, and every test from here on
                error_text = ran.fault.problem.headline if ran.fault else ran.error
                if ran.output or error_text:
                    printed[cell.name] = (ran.output, error_text)
                if kept := _that_fit(ran.images, images):
                    images[cell.name] = kept
        own = ((cell.name, cell.source) for cell in rebuilt.cells if not (cell.is_test or cell.untouched))
        unusual = {flag: places for flag, places in remarks(own).items() if flag not in self._usual}
        tampered = {TAMPERED: rebuilt.tampered} if rebuilt.tampered else {}
        return Judgement(
            self.seed,
            results,
            notes=rebuilt.notes,
            cells=printed,
            seconds=time.monotonic() - started,
            images=images,
            remarks={**unusual, **tampered},
            workers_started=session.workers_started,
            cpu_seconds=session.cpu_seconds,
            peak_memory=session.peak_memory,
        )

    def close(self) -> None:
        self._mistakes.close()
        self.sandbox.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _test(self, cell: Cell, session: Session) -> CheckResult:
        """Runs one test cell."""
        assert cell.points is not None
        started = time.monotonic()
        for attempt in range(2):
            session.begin()
            recorder = _Recorder(self.seed, self._inspections, self._mistakes)
            raised, value = self._run(cell, session, recorder)
            if raised is None or session.lost:
                break
            trouble = gpu.trouble(raised)
            if trouble is None:
                break
            # The judge cannot use the GPU. With the worker gone it can again, or it is the machine that is at fault.
            session.close()
            still = gpu.trouble()
            if attempt or still is not None:
                session.lost = still or trouble
                break
        points: float | None = 0.0
        if session.lost:
            points, status, message = (
                None,
                INFRASTRUCTURE,
                f"not judged, for the machine's sake: {session.lost}",
            )
        elif raised is not None:
            status, message = _why(raised, recorder, session)
        else:
            points = cell.points
            if isinstance(value, Points):
                points = min(max(float(value), 0.0), cell.points)
            status = PASSED if points >= cell.points else WRONG
            message = recorder.verdicts[-1].message() if recorder.verdicts else ""
        named = [v.misconception for v in recorder.verdicts if v.misconception and not v.passed]
        return CheckResult(
            points,
            cell.points,
            status,
            clean(message),
            named[0] if named and status != INFRASTRUCTURE else None,
            time.monotonic() - started,
            {clean(name): times for name, times in session.launches.items()},
            session.attention_calls,
            cell.name in self._kernel_tests,
            tuple(recorder.verdicts),
        )

    def _run(self, cell: Cell, session: Session, recorder: _Recorder) -> tuple[BaseException | None, Any]:
        """What the test cell raised, or the value of its last line."""
        if session.lost:
            return None, None
        try:
            return None, _run(cell, self._namespace(cell, session, recorder))
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            return error, None

    def _namespace(self, cell: Cell, session: Session, recorder: _Recorder) -> dict[str, Any]:
        """What the names in a test cell stand for: the judge's things first, then the learner's."""
        namespace: dict[str, Any] = {"__name__": "test", "print": lambda *_, **__: None}
        wanted = _loaded_names(compile(cell.source, cell.name, "exec"))
        for name in wanted & self._imports.keys() - {"autograder"}:
            exec(self._imports[name], namespace)
        namespace["autograder"] = SimpleNamespace(
            check=recorder.check, hint=lambda name: None, CheckFailed=CheckFailed, UnknownCheck=UnknownCheck
        )
        learners = wanted - namespace.keys()
        for name in sorted(learners & set(session.names()) if learners else ()):
            namespace[name] = session.get(name)
        return namespace


class _Recorder:
    """`autograder.check` for test cells: as beside the learner, with the verdicts kept and the judge's seed."""

    def __init__(self, seed: int, inspections: Inspections, mistakes: KnownMistakes) -> None:
        self._seed, self._inspections, self._mistakes = seed, inspections, mistakes
        self.verdicts: list[Verdict] = []

    def check(self, name: str, answer: Any, suite: str = VISIBLE) -> Points | None:
        found = registry.get(name)
        chosen = Suite(HIDDEN, self._seed) if suite == HIDDEN else open_suite(suite)
        verdict = examine(self._inspections.trusted(found), parts_of(found, answer), chosen, self._mistakes)
        self.verdicts.append(verdict)
        if verdict.passed or (found.partial and verdict.points):
            return Points(verdict.points, verdict.out_of) if found.partial else None
        raise CheckFailed(verdict.message())


def _is_answer(cell: NotebookNode) -> bool:
    return cell.cell_type == "code" and bool(cell.metadata.get("nbgrader", {}).get("solution"))


def _that_fit(new: Sequence[bytes], kept: Mapping[str, Sequence[bytes]]) -> tuple[bytes, ...]:
    """Those of the new pictures, from the first, for which there is room beside the ones kept."""
    room = _MAX_IMAGE_BYTES - sum(len(image) for images in kept.values() for image in images)
    fit = []
    for image in new:
        room -= len(image)
        if room < 0:
            break
        fit.append(image)
    return tuple(fit)


def preload_of(imports: dict[str, str]) -> list[str]:
    """The modules that a lesson's cells import, for the zygote to have them ready."""
    modules = list(PRELOAD)
    for statement in imports.values():
        node = ast.parse(statement).body[0]
        if isinstance(node, ast.Import):
            modules.append(node.names[0].name)
        elif isinstance(node, ast.ImportFrom):
            modules.append(f"{node.module}:{node.names[0].name}")
    roots = ("autograder",)
    return [m for m in dict.fromkeys(modules) if m.partition(":")[0].partition(".")[0] not in roots]


def _run(cell: Cell, namespace: dict[str, Any]) -> Any:
    """Runs a test cell; returns the value of its last line where that is an expression, as a notebook shows it."""
    tree = ast.parse(cell.source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, f"<test {cell.name}>", "exec"), namespace)
    if last is None:
        return None
    assert isinstance(last, ast.Expr)
    return eval(compile(ast.Expression(last.value), f"<test {cell.name}>", "eval"), namespace)


def _loaded_names(code: CodeType) -> set[str]:
    """Every global name that the code, and functions in it, may look up."""
    names = {name for name in code.co_names if not hasattr(builtins, name)}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _loaded_names(constant)
    return names


def _why(raised: BaseException, recorder: _Recorder, session: Session) -> tuple[str, str]:
    """Status and message of a test cell that did not go through."""
    faults = [*session.faults, *session.cell_faults.values()]
    failing = [verdict for verdict in recorder.verdicts if not verdict.passed]
    if isinstance(raised, CheckFailed):
        message = str(raised)
        if session.faults:
            return session.faults[0].kind, message
        if _UNANSWERED.search(message):
            return MISSING, message
        if failing and failing[-1].failures[0].problem.headline.startswith(_RAISED):
            return ERROR, message
        return WRONG, message
    if isinstance(raised, Fault):
        return raised.kind, raised.problem.headline
    if isinstance(raised, NameError) and not isinstance(raised, RemoteError):
        if faults:
            # The cell that would have defined it ended its worker.
            cells = ", ".join(session.cell_faults)
            return faults[0].kind, f"{raised}: {faults[0].problem.headline} (in {cells})"
        return MISSING, str(raised)
    if isinstance(raised, NotImplementedError):
        return MISSING, "not answered yet"
    if isinstance(raised, RemoteError):
        return ERROR, f"{_RAISED}{type(raised).__name__}: {raised}"
    if isinstance(raised, AssertionError):
        return WRONG, str(raised) or "the answer is not the one expected"
    return ERROR, f"{type(raised).__name__}: {raised}"
