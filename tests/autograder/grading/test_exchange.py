"""Lesson handed out, handed in, collected, graded, handed back: nbgrader's exchange, from both sides."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from traitlets.config import Config

from autograder.grading import grade
from autograder.judge import sandbox
from autograder.nbgrader_bridge import make_gradebook, open_course
from autograder.nbgrader_bridge.collect import SET_ASIDE, SetAside, copy_regular

ROOT = Path(__file__).resolve().parents[3]
LESSON = "01_tiny"


def _nbgrader(*arguments: str, cwd: Path) -> None:
    environment = {**os.environ, "JUPYTER_DATA_DIR": str(cwd / "data")}
    command = [sys.executable, "-m", "nbgrader", *arguments]
    ran = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.slow
@pytest.mark.skipif(sandbox.why_unavailable() is not None, reason=str(sandbox.why_unavailable()))
def test_a_lesson_goes_out_and_comes_back_graded(
    tiny_course: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NBGRADER_EXCHANGE", str(tmp_path / "exchange"))
    learner = tmp_path / "learner"
    learner.mkdir()
    (learner / "nbgrader_config.py").write_bytes((ROOT / "nbgrader_config.py").read_bytes())

    _nbgrader("generate_assignment", LESSON, cwd=tmp_path)
    _nbgrader("release_assignment", LESSON, cwd=tmp_path)
    _nbgrader("fetch_assignment", LESSON, cwd=learner)
    notebook = learner / LESSON / f"{LESSON}.ipynb"
    text = notebook.read_text(encoding="utf-8")
    stub = 'raise NotImplementedError(\\"Your code here. Then delete this line.\\")'
    assert text.count(stub) == 2
    notebook.write_text(text.replace(stub, "return x + x", 1), encoding="utf-8")
    _nbgrader("submit", LESSON, cwd=learner)

    _nbgrader("collect", LESSON, cwd=tmp_path)
    (handed_in,) = (tmp_path / "submitted").iterdir()
    rows = {row.exercise: row for row in grade.grade_lesson(LESSON, grade.Options(jobs=1))}
    assert {row.learner for row in rows.values()} == {handed_in.name}
    assert not any(row.reason and row.points is None for row in rows.values()), rows
    assert (rows["double"].points, rows["triple"].points) == (2, 0)

    _nbgrader("release_feedback", LESSON, cwd=tmp_path)
    _nbgrader("fetch_feedback", LESSON, cwd=learner)
    (page,) = learner.rglob("feedback/**/*.html")
    assert "NotImplementedError" in page.read_text(encoding="utf-8")


class Inbound:
    """The exchange's folder that every learner can write to, and the instructor's `nbgrader collect` beside it."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        monkeypatch.setenv("NBGRADER_EXCHANGE", str(root / "exchange"))
        monkeypatch.setenv("JUPYTER_DATA_DIR", str(root / "data"))
        monkeypatch.chdir(root)
        (root / "nbgrader_config.py").write_bytes((ROOT / "nbgrader_config.py").read_bytes())
        self.folder = root / "exchange" / "attention-backends" / "inbound"
        self.folder.mkdir(parents=True)
        make_gradebook(open_course())  # as a course has one; nbgrader's own way to make it takes a second

    def submit(self, learner: str, moment: str | None = None, text: str = "{}", word: str = "w") -> Path:
        """As `nbgrader submit` leaves it; `moment` is what the learner claims, now by default."""
        claimed = moment or self.now()
        folder = self.folder / f"{learner}+{LESSON}+{claimed}+{word}"
        folder.mkdir()
        (folder / f"{LESSON}.ipynb").write_text(text)
        (folder / "timestamp.txt").write_text(claimed)
        return folder

    @staticmethod
    def now() -> str:
        return f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S.%f} UTC"

    def collect(self, **settings: Any) -> dict[str, str]:
        """Collects; returns each learner's notebook as it lies in `submitted` then."""
        api = open_course()
        api.update_config(Config(CollectSafely=settings))
        result = api.collect(LESSON)
        assert result["success"], result
        self.log = result["log"]
        found = (self.root / "submitted").glob(f"*/{LESSON}/{LESSON}.ipynb")
        return {path.parents[1].name: path.read_text() for path in found}

    def time_of(self, learner: str) -> datetime:
        text = (self.root / "submitted" / learner / LESSON / "timestamp.txt").read_text()
        return datetime.fromisoformat(text.removesuffix(" UTC"))

    def set_aside(self) -> dict[str, str]:
        path = self.root / SET_ASIDE / f"{LESSON}.txt"
        lines = path.read_text().splitlines() if path.exists() else []
        return dict(line.rsplit(": ", 1) for line in lines)


@pytest.fixture
def inbound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Inbound:
    return Inbound(tmp_path, monkeypatch)


def _no_notebook(folder: Path) -> None:
    (folder / f"{LESSON}.ipynb").rename(folder / "final.ipynb")


def _linked_notebook(folder: Path) -> None:
    (folder / f"{LESSON}.ipynb").unlink()
    (folder / f"{LESSON}.ipynb").symlink_to("/etc/passwd")


HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "gradebook": (
        lambda folder: (folder / "data.db").symlink_to(folder.parents[3] / "gradebook.db"),
        "data.db is a symbolic link",
    ),
    "linked-folder": (lambda folder: (folder / "data").symlink_to("/etc"), "data is a symbolic link"),
    "linked-notebook": (_linked_notebook, f"{LESSON}.ipynb is a symbolic link"),
    "no-notebook": (_no_notebook, f"{LESSON}.ipynb is missing"),
    "pipe": (lambda folder: os.mkfifo(folder / "pipe"), "pipe is not a regular file"),
    "big": (
        lambda folder: os.truncate(folder / f"{LESSON}.ipynb", 200_000_000),
        "it has 200 MB, more than nbgrader takes (CourseDirectory.max_dir_size)",
    ),
}
NAMES = {
    f"bad-date+{LESSON}+yesterday+w": "the date in its name is none",
    f"huge-date+{LESSON}+{'9' * 60}+w": "the date in its name is none",
    f"no-date+{LESSON}+": "the date in its name is none",
    f"+{LESSON}+2026-11-20 10:00:00 UTC+w": "the learner's name in it is none",
    f"[ab]+{LESSON}+2026-11-20 10:00:00 UTC+w": "the learner's name in it is none",
    f"<img src=x>+{LESSON}+2026-11-20 10:00:00 UTC+w": "the learner's name in it is none",
}
# nbgrader's own pattern leaves them out.
CLIMBING = [f"{learner}+{LESSON}+2026-11-20 10:00:00 UTC+w" for learner in (".", "..")]


def test_what_is_no_submission_is_set_aside_and_the_rest_is_collected(inbound: Inbound) -> None:
    for learner, (spoil, _) in HOSTILE.items():
        inbound.submit(learner, text="good", word="first")
        time.sleep(0.01)
        spoil(inbound.submit(learner, text="bad", word="second"))
    for name in [*NAMES, *CLIMBING]:
        (inbound.folder / name).mkdir()
        (inbound.folder / name / f"{LESSON}.ipynb").write_text("bad")
    (inbound.folder / f"a-file+{LESSON}+2026-11-20 10:00:00 UTC+w").write_text("")
    (inbound.folder / f"a-link+{LESSON}+2026-11-20 10:00:00 UTC+w").symlink_to(inbound.root)
    inbound.submit("ada", text="ada's")
    inbound.submit("b+c", text="b+c's")
    before = sorted(path.name for path in inbound.root.iterdir())

    collected = inbound.collect()
    # The submission before the bad one counts.
    assert collected == {**dict.fromkeys(HOSTILE, "good"), "ada": "ada's", "b+c": "b+c's"}
    reasons = inbound.set_aside()
    for learner, (_, reason) in HOSTILE.items():
        (name,) = (name for name in reasons if name.startswith(f"{learner}+"))
        assert name.endswith("second")
        assert reasons[name] == reason
        assert f"set aside: {name}: {reason}" in inbound.log
    for name, reason in NAMES.items():
        assert reasons[name] == reason
    assert len(reasons) == len(HOSTILE) + len(NAMES) + 2
    assert f"{len(reasons)} inbound folders were set aside" in inbound.log
    # Nothing was written elsewhere in the course, and nothing in the exchange was touched.
    after = sorted(path.name for path in inbound.root.iterdir())
    assert set(after) - set(before) <= {"submitted", ".autograder", "gradebook.db", "data"}
    assert len(list(inbound.folder.iterdir())) == 2 * len(HOSTILE) + len(NAMES) + 6


def test_the_time_is_the_file_systems(inbound: Inbound) -> None:
    """A date in the past is worth nothing: neither in the folder's name and timestamp.txt, nor as the files' own time."""
    early = "2020-01-01 00:00:00 UTC"
    begun = datetime.now(UTC).replace(tzinfo=None) - timedelta(seconds=5)
    forged = inbound.submit("forges", early)
    for path in [*forged.iterdir(), forged]:
        os.utime(path, (0, 0))
    honest = inbound.now()
    inbound.submit("honest", honest)
    inbound.collect()
    assert inbound.time_of("forges") > begun
    assert inbound.time_of("honest") == datetime.fromisoformat(honest.removesuffix(" UTC"))
    assert f"forges+{LESSON}+{early}+w says {early} and was changed at" in inbound.log

    # An exchange that was copied has new times everywhere; then the dates are believed, if the instructor says so.
    assert inbound.collect(delay=None)
    (inbound.root / "submitted" / "forges" / LESSON / "timestamp.txt").unlink()
    inbound.collect(delay=None)
    assert inbound.time_of("forges") == datetime(2020, 1, 1)


def test_a_file_that_is_changed_after_the_deadline_counts_from_then(inbound: Inbound) -> None:
    """The folder belongs to the learner, who can write into it at any time. Here an hour passes in the name instead."""
    hour_ago = datetime.now(UTC) - timedelta(hours=1)
    inbound.submit("ada", f"{hour_ago:%Y-%m-%d %H:%M:%S.%f} UTC")
    inbound.collect()
    assert inbound.time_of("ada") > hour_ago.replace(tzinfo=None) + timedelta(minutes=59)


def test_a_date_in_the_future_holds_no_later_submission_up(inbound: Inbound) -> None:
    inbound.submit("ada", "2099-01-01 00:00:00 UTC", text="first", word="a")
    inbound.collect()
    assert inbound.time_of("ada") < datetime.now(UTC).replace(tzinfo=None)
    time.sleep(0.01)
    inbound.submit("ada", text="second", word="b")
    assert inbound.collect() == {"ada": "second"}


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to have files of two accounts")
def test_nobody_hands_in_for_another_account(inbound: Inbound) -> None:
    inbound.submit("daemon", text="by whoever collects", word="a")
    time.sleep(0.01)
    os.chown(inbound.submit("daemon", text="by another", word="b"), 65534, -1)
    assert inbound.collect() == {"daemon": "by whoever collects"}
    (reason,) = inbound.set_aside().values()
    assert reason == "it belongs to user number 65534, not to daemon"
    time.sleep(0.01)
    os.chown(inbound.submit("daemon", text="their own", word="c"), pwd.getpwnam("daemon").pw_uid, -1)
    assert inbound.collect() == {"daemon": "their own"}


def test_a_newer_submission_replaces_the_older_and_nothing_else_does(inbound: Inbound) -> None:
    inbound.submit("ada", text="first", word="a")
    assert inbound.collect() == {"ada": "first"}
    assert inbound.collect() == {"ada": "first"}
    assert "No newer submission" in inbound.log
    time.sleep(0.01)
    bad = inbound.submit("ada", text="bad", word="b")
    (bad / "link").symlink_to("/etc/passwd")
    assert inbound.collect() == {"ada": "first"}
    time.sleep(0.01)
    inbound.submit("ada", text="second", word="c")
    assert inbound.collect() == {"ada": "second"}
    (bad / "link").unlink()
    bad.rename(inbound.folder / "elsewhere")
    assert inbound.set_aside()
    inbound.collect()
    assert inbound.set_aside() == {}  # the list is the last run's


def test_a_copy_follows_nothing_that_took_a_files_place(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "a.txt").write_text("a")
    copy_regular(source, tmp_path / "copy", 100)
    assert (tmp_path / "copy" / "deep" / "a.txt").read_text() == "a"
    with pytest.raises(SetAside, match="it grew"):
        copy_regular(source, tmp_path / "small", 0)
    (source / "link").symlink_to("/etc/passwd")
    with pytest.raises((SetAside, OSError)):
        copy_regular(source, tmp_path / "linked", 10**6)
    assert not (tmp_path / "linked" / "link").exists()


def test_stock_collect_stops_at_the_first_bad_date(inbound: Inbound) -> None:
    """The reason for all this."""
    inbound.submit("ada")
    inbound.submit("bad", "yesterday")
    with (inbound.root / "nbgrader_config.py").open("a") as file:
        file.write('\nc.ExchangeFactory.collect = "nbgrader.exchange.default.ExchangeCollect"\n')
    result = open_course().collect(LESSON)
    assert not result["success"]
    assert not (inbound.root / "submitted").exists()
    assert json.dumps(result).count("Unknown string format: yesterday")
