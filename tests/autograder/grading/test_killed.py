"""A grading that is killed and gone on with, and helper processes that die: nothing is lost, nothing is judged twice."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from autograder.grading import judge_here, judge_process
from autograder.grading.grade import Options, grade_lesson
from autograder.grading.gradings import Gradings
from autograder.grading.jobs import Job, Setting
from autograder.grading.journal import Journal
from autograder.judge.sandbox import why_unavailable
from autograder.nbgrader_bridge import grades, open_course, scores

LESSON = "01_tiny"
KILLS = 3

needs_sandbox = pytest.mark.skipif(why_unavailable() is not None, reason=f"no sandbox: {why_unavailable()}")


def _hand_in(course: Any) -> None:
    course.submit("ada", why="I say so.")
    course.submit("bob", double_code="def double(x):\n    return 4")
    course.submit("cyn", double_code="raise ValueError('no')")
    course.submit("dan", triple_code="import os\n\nos._exit(0)")
    course.submit("eve", double_code="import time\n\n\ndef double(x):\n    time.sleep(0.2)\n    return x + x")
    course.submit("fay", double_code="import time\n\n\ndef double(x):\n    time.sleep(0.3)\n    return x * 2")
    course.submit("gus", double_code="def double(x):\n    return 4", why="Copied.")
    (course.submit("ivy") / f"{LESSON}.ipynb").write_text("{")


def _start(course: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "autograder.cli", "grade", LESSON, "--jobs", "2", "--out", "out.json"]
    with (course / "said.txt").open("a") as said:
        return subprocess.Popen(
            command, cwd=course, stdout=said, stderr=said, text=True, start_new_session=True
        )


def _kill(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _progress(course: Path) -> int:
    """Verdicts in the journal, and learners taken into the gradebook."""
    folders = (course / ".autograder" / "journal" / LESSON, course / ".autograder" / "graded" / LESSON)
    return sum(len(list(folder.glob("[!.]*.json"))) for folder in folders)


def _journal(course: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Journal(course, LESSON).folder.glob("[!.]*.json")}


def _results(course: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((course / "out.json").read_text())
    for learner in found["submissions"].values():
        for check in learner["checks"].values():
            del check["seconds"]
    return found


def _gradebook(course: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(course)
    held = scores(open_course(), LESSON)
    return {learner: (held[learner], grades(open_course(), LESSON, learner)) for learner in sorted(held)}


def _family(course: Path) -> list[psutil.Process]:
    """Processes that work on this course."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        words = " ".join(process.info["cmdline"] or [])
        if str(course) in words and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


@needs_sandbox
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_at_random_moments_and_gone_on_with(
    tiny_course: Any, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gradebook, the table and the results are those of a grading that nobody killed."""
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")  # shown when the test fails
    moments = random.Random(seed)

    # The same grading twice: one secret, one number.
    monkeypatch.setattr("autograder.grading.gradings.fresh_grading", lambda: 123456789)
    killed = tiny_course.root
    _hand_in(tiny_course)
    (killed / ".autograder").mkdir()
    (killed / ".autograder" / "secret").write_text("5a" * 32 + "\n")
    assert Gradings(killed, LESSON).begin(Options().asked) == (123456789, False)
    whole = tmp_path_factory.mktemp("whole") / "course"
    shutil.copytree(killed, whole)
    assert _start(whole).wait() == 0, (whole / "said.txt").read_text()
    most = _progress(whole)
    assert most == 6 + 7  # two handed in the same code

    first_seen: dict[str, bytes] = {}
    # While the lesson is prepared, while submissions are judged, while verdicts are taken in.
    left = [None, moments.randrange(1, 6), moments.randrange(6, most)]
    kills = []
    while len(kills) < KILLS:
        process = _start(killed)
        target = left.pop(0) if left else None
        if target is None:  # while the lesson is prepared, or wherever a run with little to do is then
            time.sleep(moments.uniform(0.5, 2.0))
        else:
            while _progress(killed) < target and process.poll() is None:
                time.sleep(0.01)
            time.sleep(moments.uniform(0.0, 0.4))
        if process.poll() is None:
            _kill(process)
            kills.append((target, _progress(killed)))
        else:
            assert process.returncode == 0, (killed / "said.txt").read_text()
            if not left:
                # It was faster than the moments: the next ones fall into another grading of the same class.
                break
        for name, content in _journal(killed).items():
            assert first_seen.setdefault(name, content) == content, "judged twice"
    print(f"killed at (moment, progress) {kills}")
    assert len(kills) >= KILLS - 1
    deadline = time.monotonic() + 30
    while _family(killed) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _family(killed)

    assert _start(killed).wait() == 0, (killed / "said.txt").read_text()
    assert {name: content for name, content in _journal(killed).items() if name in first_seen} == first_seen
    assert _journal(killed).keys() == _journal(whole).keys()
    assert _results(killed) == _results(whole)
    assert _gradebook(killed, monkeypatch) == _gradebook(whole, monkeypatch)
    assert (killed / "grades.csv").read_text() == (whole / "grades.csv").read_text()
    pages = [sorted(path.relative_to(c) for path in c.glob("feedback/*/*/*.html")) for c in (killed, whole)]
    assert pages[0] == pages[1]
    assert len(pages[0]) == 7


@needs_sandbox
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_judging_process_that_is_killed_is_replaced(tiny_course: Any) -> None:
    slow = "import time\n\ntime.sleep(2)\n\n\ndef double(x):\n    return x + x"
    tiny_course.submit("ada", double_code=slow)
    process = _start(tiny_course.root)
    try:
        deadline = time.monotonic() + 120
        worker = None
        while worker is None and time.monotonic() < deadline:
            for helper in _family(tiny_course.root):
                if "judge_process" in " ".join(helper.cmdline()) and _has_a_worker(helper):
                    worker = helper
            time.sleep(0.05)
        assert worker is not None, "no judging process was seen at work"
        worker.kill()
        assert process.wait(120) == 0, (tiny_course.root / "said.txt").read_text()
    finally:
        if process.poll() is None:
            _kill(process)
    (learner,) = _results(tiny_course.root)["submissions"].values()
    assert learner["score"] == 5


def _has_a_worker(helper: psutil.Process) -> bool:
    """Whether a learner's code runs below a judging process: its zygote has forked."""
    try:
        return len(helper.children(recursive=True)) >= 4
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize(
    ("does", "says"),
    [
        ("sys.exit('no disk')", "the judging process ended with status 1: no disk"),
        ("time.sleep(60)", "the judging process took longer than 1 s"),
    ],
)
def test_what_no_process_survives_is_the_machines_fault(
    tiny_course: Any, monkeypatch: pytest.MonkeyPatch, does: str, says: str
) -> None:
    script = f"import sys, time\nopen('tries', 'a').write('.')\nsys.stdin.readline()\n{does}"
    monkeypatch.setattr(judge_process, "command", lambda setting: [sys.executable, "-c", script])
    monkeypatch.setattr(judge_here, "OVERHEAD", 0.0)
    job = Job("0" * 64, tiny_course.submit("ada") / f"{LESSON}.ipynb")
    (done,) = judge_here.judge_here(Setting(tiny_course.root, LESSON, 1, time_limit=1.0), [job], 2)
    assert done.entry is None
    assert says in done.failure
    assert Path("tries").read_text() == ".."  # once more, and not for ever


def test_a_broken_machine_is_given_up_on(tiny_course: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    script = "import sys\nopen('tries', 'a').write('.')\nsys.exit(3)"
    monkeypatch.setattr(judge_process, "command", lambda setting: [sys.executable, "-c", script])
    path = tiny_course.submit("ada") / f"{LESSON}.ipynb"
    jobs = [Job(f"{number:064}", path) for number in range(40)]
    found = list(judge_here.judge_here(Setting(tiny_course.root, LESSON, 1), jobs, 2))
    assert len(found) == 40
    assert all(done.entry is None and done.failure for done in found)
    assert len(Path("tries").read_text()) <= 2 * (judge_here.HOPELESS + 1)


@needs_sandbox
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_no_verdict_for_the_machines_sake_is_no_zero_and_is_made_up_for(
    tiny_course: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_course.submit("ada")
    script = "import sys\nsys.stdin.readline()"
    with monkeypatch.context() as broken:
        broken.setattr(judge_process, "command", lambda setting: [sys.executable, "-c", script])
        rows = {row.exercise: row for row in grade_lesson(LESSON, Options(out=Path("out.json").resolve()))}
    assert [rows[name].points for name in ("double", "triple")] == [None, None]
    assert rows["double"].status == "infrastructure"
    assert rows["double"].reason.startswith("not graded: the judging process ended")
    assert "run autograder grade again" in rows["double"].reason
    learner = _results(tiny_course.root)["submissions"]["ada"]
    assert learner["score"] is None
    assert {check["status"] for check in learner["checks"].values()} == {"infrastructure"}
    assert not Path("autograded/ada").joinpath(LESSON).exists()
    rows = {row.exercise: row for row in grade_lesson(LESSON)}
    assert [rows[name].points for name in ("double", "triple")] == [2, 3]


@needs_sandbox
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_verdict_that_the_gradebook_did_not_take_is_not_shown_as_graded(
    tiny_course: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_course.submit("ada")
    answer = '{"ok": false, "step": "autograde", "log": "DiskError: full"}'
    script = f"import sys\nfor line in sys.stdin: print({answer!r}, flush=True)"
    with monkeypatch.context() as broken:
        broken.setattr("autograder.grading.gradebook.command", lambda *words: [sys.executable, "-c", script])
        rows = {row.exercise: row for row in grade_lesson(LESSON)}
    assert {row.points for row in rows.values()} == {None}
    assert {row.status for row in rows.values()} == {"infrastructure"}
    assert "nbgrader's autograde failed: DiskError: full" in rows["double"].reason
    judged = _journal(tiny_course.root)
    rows = {row.exercise: row for row in grade_lesson(LESSON)}
    assert [rows[name].points for name in ("double", "triple")] == [2, 3]
    assert _journal(tiny_course.root) == judged
