"""`nbgrader autograde` itself on a class in which many learners try something: the honest ones keep every point."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

from autograder.grading.accept import accept
from autograder.grading.journal import Journal, submission_key
from autograder.judge import sandbox
from autograder.judge.rebuild import rebuild
from autograder.nbgrader_bridge import grade_one, grades, open_course, warm
from tests.autograder.conftest import LESSON, TinyCourse, tiny_lesson

pytestmark = [
    pytest.mark.xdist_group("nbgrader_class"),  # one class for all of these tests
    pytest.mark.skipif(sandbox.why_unavailable() is not None, reason=str(sandbox.why_unavailable())),
]

RIGHT = {"double": 2.0, "triple": 3.0}
WRONG = {"double_code": "def double(x):\n    return 5", "triple_code": "def triple(x):\n    return 5"}
NOTHING = {"double": 0.0, "triple": 0.0}


def nbgrader(course: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nbgrader", *arguments]
    return subprocess.run(
        command, cwd=course, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300
    )


def points(course: Path, learner: str) -> dict[str, float | None]:
    """What the gradebook has for the tests."""
    before = Path.cwd()
    os.chdir(course)
    try:
        found = grades(open_course(), LESSON, learner)
    finally:
        os.chdir(before)
    return {name: found[name][0] for name in RIGHT if name in found}


def autograded(course: Path, learner: str) -> NotebookNode:
    return nbformat.read(course / "autograded" / learner / LESSON / f"{LESSON}.ipynb", as_version=4)


def outputs(notebook: NotebookNode, name: str) -> str:
    (cell,) = (cell for cell in notebook.cells if cell.metadata.get("nbgrader", {}).get("grade_id") == name)
    return "".join(o.get("text", "") + "\n".join(o.get("traceback", [])) for o in cell.outputs)


# What learners do to their notebooks.


def skip_tags(notebook: NotebookNode) -> None:
    for cell in notebook.cells:
        cell.metadata["tags"] = ["skip-execution"]


def forged_outputs(notebook: NotebookNode) -> None:
    for cell in notebook.cells:
        if cell.cell_type == "code":
            full = nbformat.v4.new_output("execute_result", {"text/plain": "5.0 forged"}, execution_count=1)
            cell.outputs, cell.execution_count = [full], 1


def forged_metadata(notebook: NotebookNode) -> None:
    notebook.metadata["kernelspec"] = {"name": "of-my-own", "display_name": "x", "language": "bash"}
    notebook.metadata["autograder"] = "0" * 64
    notebook.metadata["autograder_repairs"] = ["all is well"]
    for cell in notebook.cells:
        cell.metadata["autograder"] = "double"
        meta = cell.metadata["nbgrader"]
        meta.update(points=99, grade=not meta["grade"], solution=not meta["solution"], locked=False)


def wrong_schema(notebook: NotebookNode) -> None:
    notebook.cells[1].metadata["nbgrader"]["schema_version"] = 99
    notebook.cells[2].metadata["nbgrader"]["schema_version"] = 1


def without_tests(notebook: NotebookNode) -> None:
    notebook.cells = [cell for cell in notebook.cells if cell.id not in ("double", "triple")]


def retyped(notebook: NotebookNode) -> None:
    for at, cell in enumerate(notebook.cells):
        if cell.id in ("double", "triple"):
            notebook.cells[at] = nbformat.v4.new_markdown_cell(
                cell.source, id=cell.id, metadata=cell.metadata
            )


def own_cells(notebook: NotebookNode) -> None:
    """Without `setup`, which is put back, and with cells of the learner's own that print."""
    own = [nbformat.v4.new_code_cell(f"print({i})", id=f"mine-{i}") for i in range(2)]
    notebook.cells[:1] = own
    notebook.cells.insert(4, nbformat.v4.new_code_cell("print('after')", id="mine-after"))


def duplicated(notebook: NotebookNode) -> None:
    """Every cell twice, with the same ids: the first answers are wrong, the last ones count."""
    first = [nbformat.from_dict(dict(cell)) for cell in notebook.cells]
    for cell in first:
        if cell.metadata["nbgrader"]["solution"] and cell.cell_type == "code":
            cell.source = "def double(x):\n    return 0\ndef triple(x):\n    return 0"
    own = nbformat.v4.new_code_cell("x = 1", id="setup")  # the lesson's id on a cell of one's own
    notebook.cells = [*first, own, *notebook.cells]


def of_nbformat_4_2(notebook: NotebookNode) -> None:
    notebook.nbformat_minor = 2
    for cell in notebook.cells:
        del cell["id"]


def null_bytes(notebook: NotebookNode) -> None:
    notebook.cells[3].source += "\nx = '\0'"
    notebook.cells[5].source += "\0"


def prints(notebook: NotebookNode) -> None:
    notebook.cells[1].source = "print('ran here')\ndef double(x):\n    return x + x"


CHANGES: dict[str, tuple[Callable[[NotebookNode], None] | None, dict[str, str], dict[str, float]]] = {
    "ada": (None, {}, RIGHT),
    "crashes": (None, {"triple_code": "import os\nos._exit(0)"}, {"double": 2, "triple": 0}),
    "deletes-tests": (without_tests, {}, RIGHT),
    "duplicates": (None, {}, RIGHT),
    "forges-metadata": (forged_metadata, WRONG, NOTHING),
    "forges-outputs": (forged_outputs, WRONG, NOTHING),
    "nulls": (null_bytes, {}, {"double": 2, "triple": 0}),
    "old-format": (of_nbformat_4_2, {}, RIGHT),
    "own-cells": (own_cells, {}, RIGHT),
    "prints": (prints, {}, RIGHT),
    "retypes": (retyped, WRONG, NOTHING),
    "skips": (skip_tags, WRONG, NOTHING),
    "wrong-schema": (wrong_schema, {}, RIGHT),
}
DATES = {
    "date-bad": b"yesterday",
    "date-huge": b"9" * 400,
    "date-binary": b"\xff\0",
    "date-good": b"2026-11-20 12:00:00 UTC",
}
REFUSED = {
    "broken": "is not JSON",
    "link-learner": "is a symbolic link",
    "link-notebook": "is a symbolic link",
    "link-outside": "is a symbolic link",
    "link-pipe": "is a symbolic link",
    "null-at-the-end": "is not JSON",
    "pipe": "is not a regular file",
}


def hand_in_everything(course: TinyCourse) -> None:
    for learner, (change, sources, _) in CHANGES.items():
        course.submit(learner, change, **sources)
    # nbformat would put repeated ids right.
    notebook = course.submit("duplicates") / f"{LESSON}.ipynb"
    twice = nbformat.read(notebook, as_version=4)
    duplicated(twice)
    notebook.write_text(json.dumps(twice))
    for learner, date in DATES.items():
        (course.submit(learner) / "timestamp.txt").write_bytes(date)
    os.mkfifo(course.submit("date-pipe") / "timestamp.txt")
    beside = course.submit("link-beside")
    (beside / "data.db").symlink_to(course.root / "gradebook.db")
    (beside / "zero").symlink_to("/dev/zero")
    os.mkfifo(beside / "pipe")
    submitted = course.root / "submitted"
    (submitted / "link-learner").symlink_to(submitted / "ada")
    os.mkfifo(course.root / "pipe")
    outside = course.root / "outside.ipynb"
    shutil.copy(submitted / "ada" / LESSON / f"{LESSON}.ipynb", outside)
    links = {"link-outside": outside, "link-pipe": course.root / "pipe"}
    for learner in ("link-notebook", *links, "pipe", "broken", "null-at-the-end", "renamed"):
        folder = course.submit(learner)
        notebook = folder / f"{LESSON}.ipynb"
        text = notebook.read_bytes()
        notebook.unlink()
        if learner == "link-notebook":
            notebook.symlink_to(submitted / "ada" / LESSON / f"{LESSON}.ipynb")
        elif learner in links:
            notebook.symlink_to(links[learner])
        elif learner == "pipe":
            os.mkfifo(notebook)
        elif learner == "renamed":
            (folder / "final.ipynb").write_bytes(text)
        else:
            notebook.write_bytes(text[:-40] if learner == "broken" else text + b"\0")


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> TinyCourse:
    """The class, after one `nbgrader autograde` over all of it."""
    made = TinyCourse(tmp_path_factory.mktemp("course"))
    ran = nbgrader(made.root, "generate_assignment", LESSON)
    assert ran.returncode == 0, ran.stderr
    hand_in_everything(made)
    ran = nbgrader(made.root, "autograde", LESSON)
    (made.root / "said.txt").write_text(ran.stderr)
    return made


@pytest.mark.parametrize("learner", CHANGES)
def test_tricks_change_no_points(course: TinyCourse, learner: str) -> None:
    assert points(course.root, learner) == CHANGES[learner][2]


@pytest.mark.parametrize("learner", [*DATES, "date-pipe", "link-beside"])
def test_files_beside_the_notebook_cost_nothing(course: TinyCourse, learner: str) -> None:
    assert points(course.root, learner) == RIGHT


def test_links_are_not_followed(course: TinyCourse) -> None:
    found = sorted(path.name for path in (course.root / "autograded" / "link-beside" / LESSON).iterdir())
    assert found == [f"{LESSON}.ipynb"]


@pytest.mark.parametrize("learner", REFUSED)
def test_what_is_no_notebook_gets_a_reason_and_no_score(course: TinyCourse, learner: str) -> None:
    said = (course.root / "said.txt").read_text()
    reasons = [line for line in said.splitlines() if "SubmissionError: " in line and f": {learner}: " in line]
    assert len(reasons) == 1
    assert REFUSED[learner] in reasons[0]
    assert set(points(course.root, learner).values()) <= {None}
    assert not (course.root / "autograded" / learner).exists() or not list(
        (course.root / "autograded" / learner / LESSON).glob("*")
    )


def test_a_renamed_notebook_gets_no_score(course: TinyCourse) -> None:
    assert "Skipping unknown notebook" in (course.root / "said.txt").read_text()
    assert (
        "There was an error processing assignment '01_tiny' for student 'renamed'"
        in (course.root / "said.txt").read_text()
    )


def test_one_judge_served_the_class_in_one_grading(course: TinyCourse) -> None:
    gradings = {entry.grading for entry in Journal(course.root, LESSON).entries()}
    assert len(gradings) == 1


def test_the_notebook_shows_what_the_judge_saw_and_nothing_else(course: TinyCourse) -> None:
    for learner in ("forges-outputs", "forges-metadata"):
        text = nbformat.writes(autograded(course.root, learner))
        assert "forged" not in text
        assert "0 of 2 points." in text
        assert "all is well" not in text
    repairs = autograded(course.root, "skips").metadata["autograder_repairs"]
    assert "cell double had tags ['skip-execution']" in repairs
    assert outputs(autograded(course.root, "prints"), "double-code") == "ran here\n"
    assert outputs(autograded(course.root, "ada"), "triple") == "3 of 3 points.\n"
    assert "your code ended its process" in outputs(autograded(course.root, "crashes"), "triple")
    own = [c for c in autograded(course.root, "own-cells").cells if c.id.startswith("mine")]
    assert [cell.outputs[0].text for cell in own] == ["0\n", "1\n", "after\n"]


def test_the_key_is_that_of_the_clean_copy(course: TinyCourse, tmp_path: Path) -> None:
    """`autograder grade` judges the clean copy: its verdicts are found by nbgrader, whoever came first."""
    for learner in [*CHANGES, *DATES, "link-beside"]:
        clean = tmp_path / learner
        accept(course.root / "submitted" / learner, LESSON, clean, datetime.fromisoformat)
        rebuilt = rebuild(tiny_lesson(), (clean / f"{LESSON}.ipynb").read_bytes())
        assert autograded(course.root, learner).metadata["autograder"] == submission_key(rebuilt), learner


def test_no_execute_and_another_key_in_the_metadata_have_no_say(course: TinyCourse) -> None:
    key = autograded(course.root, "ada").metadata["autograder"]

    def forge(notebook: NotebookNode) -> None:
        forged_outputs(notebook)
        notebook.metadata["autograder"] = key
        notebook.cells[0].source += "\n# another text, so that no verdict is in the journal"

    for learner in ("ada", "forges-outputs"):
        course.submit(learner, forge, **({} if learner == "ada" else WRONG))
    ran = nbgrader(course.root, "autograde", LESSON, "--force", "--no-execute", "--student=forges-outputs")
    assert ran.returncode == 0, ran.stderr
    assert points(course.root, "forges-outputs") == NOTHING
    notebook = autograded(course.root, "forges-outputs")
    assert "forged" not in nbformat.writes(notebook)
    assert notebook.metadata["autograder"] != key
    course.submit("ada")


def test_export_and_feedback_say_what_the_journal_says(course: TinyCourse) -> None:
    journal = Journal(course.root, LESSON)
    ran = nbgrader(course.root, "export", "--to", "all.csv")
    assert ran.returncode == 0, ran.stderr
    with (course.root / "all.csv").open(newline="") as file:
        exported = {row["student_id"]: float(row["score"]) for row in csv.DictReader(file) if row["score"]}
    for learner in [*CHANGES, *DATES]:
        entry = journal.read(autograded(course.root, learner).metadata["autograder"])
        assert entry is not None
        assert exported[learner] == entry.judgement.score, learner

    ran = nbgrader(course.root, "generate_feedback", LESSON)
    assert ran.returncode == 0, ran.stderr
    for learner in [*CHANGES, *DATES]:
        page = (course.root / "feedback" / learner / LESSON / f"{LESSON}.html").read_text(encoding="utf-8")
        for secret in (
            "HIDDEN TESTS",
            "double(3)",
            "triple(7)",
            "Traceback (",
            "autograder/",
            "site-packages",
        ):
            assert secret not in page, (learner, secret)
        assert " of 3 points." in page
    assert "ran here" in (course.root / "feedback" / "prints" / LESSON / f"{LESSON}.html").read_text()


def test_without_a_sandbox_a_submission_is_refused_and_the_last_score_goes(course: TinyCourse) -> None:
    assert points(course.root, "date-good") == RIGHT
    course.submit("date-good", double_code="def double(x):\n    return 2 * x")
    without_bwrap = str(Path(sys.executable).parent)
    select = ("autograde", LESSON, "--force", "--student=date-good")
    ran = nbgrader(course.root, *select, PATH=without_bwrap)
    assert ran.returncode != 0
    assert "SubmissionError: learner's code cannot be isolated on this machine: bwrap is not installed" in (
        ran.stderr
    )
    assert points(course.root, "date-good") == {"double": None, "triple": None}

    ran = nbgrader(course.root, *select, AUTOGRADER_GRADING="twelve")
    assert "AUTOGRADER_GRADING: expected a whole number, got 'twelve'" in ran.stderr
    ran = nbgrader(course.root, *select, AUTOGRADER_GRADING="12")
    assert ran.returncode == 0, ran.stderr
    assert points(course.root, "date-good") == RIGHT
    entry = Journal(course.root, LESSON).read(autograded(course.root, "date-good").metadata["autograder"])
    assert entry is not None
    assert (entry.grading, entry.sandbox) == (12, "bubblewrap")


def test_with_unsafe_it_is_judged_without_a_sandbox_and_says_so(course: TinyCourse) -> None:
    course.submit("date-huge", double_code="def double(x):\n    return 2 * x  # another text")
    select = ("autograde", LESSON, "--force", "--student=date-huge")
    ran = nbgrader(course.root, *select, PATH=str(Path(sys.executable).parent), AUTOGRADER_UNSAFE="1")
    assert ran.returncode == 0, ran.stderr
    assert points(course.root, "date-huge") == RIGHT
    assert "Judged without a sandbox." in outputs(autograded(course.root, "date-huge"), "double")
    # Such a verdict could be forged: without the permission the submission is judged again.
    ran = nbgrader(course.root, *select)
    assert ran.returncode == 0, ran.stderr
    assert "Judged without" not in outputs(autograded(course.root, "date-huge"), "double")


def test_an_autograding_that_was_killed_is_gone_on_with(course: TinyCourse) -> None:
    """Stock nbgrader says "Skipping existing assignment" of the submission that it was killed in."""
    finished = course.root / "autograded" / "ada" / LESSON / f"{LESSON}.ipynb"
    before = finished.stat().st_mtime_ns
    folder = course.root / "autograded" / "old-format" / LESSON
    shutil.rmtree(folder)
    folder.mkdir()  # killed before the notebook was written
    half = course.root / "autograded" / "crashes" / LESSON / f"{LESSON}.ipynb"
    half.chmod(0o644)
    notebook = nbformat.read(half, as_version=4)
    del notebook.metadata["autograder_saved"]  # killed between nbgrader's two passes
    nbformat.write(notebook, half)
    ran = nbgrader(course.root, "autograde", LESSON)
    assert ran.stderr.count("was not finished: it is graded again") == 2
    assert f"Skipping existing assignment: {finished.parent}" in ran.stderr
    assert finished.stat().st_mtime_ns == before
    assert "autograder_saved" in autograded(course.root, "crashes").metadata
    assert points(course.root, "old-format") == RIGHT


# In this process: formgrader's way, which is nbgrader's Python interface.


@pytest.fixture
def here(course: TinyCourse, monkeypatch: pytest.MonkeyPatch) -> TinyCourse:
    monkeypatch.chdir(course.root)
    return course


@pytest.fixture(scope="module", autouse=True)
def _close_the_judge() -> Iterator[None]:
    yield
    warm.close()


def regrade(learner: str) -> None:
    result = grade_one(LESSON, learner, "submitted")
    assert result["ok"], result["log"]


def by_a_person(learner: str, name: str, score: float) -> None:
    """As formgrader stores what is typed into a cell's box."""
    with open_course().gradebook as gradebook:
        grade = gradebook.find_grade(name, LESSON, LESSON, learner)
        grade.manual_score, grade.needs_manual_grade = score, False
        gradebook.db.commit()


def test_formgraders_page_of_the_class_survives_bad_dates(here: TinyCourse) -> None:
    api = open_course()
    listed = {row["student"]: row for row in api.get_submissions(LESSON)}
    assert {"date-bad", "date-pipe", "date-good", "ada"} <= listed.keys()


def test_a_persons_points_stay_and_are_flagged_for_another_submission(here: TinyCourse) -> None:
    learner = "prints"
    by_a_person(learner, "double", 1.5)
    by_a_person(learner, "why", 1.0)
    regrade(learner)  # the same submission: nothing to look at again
    found = grades(open_course(), LESSON, learner)
    assert found == {"double": (1.5, False), "triple": (3.0, False), "why": (1.0, False)}
    assert "A person gave" not in nbformat.writes(autograded(here.root, learner))

    here.submit(learner, None, double_code="def double(x):\n    return 5", why="Because of something else.")
    regrade(learner)
    found = grades(open_course(), LESSON, learner)
    assert found == {"double": (1.5, True), "triple": (3.0, False), "why": (1.0, True)}
    shown = json.dumps(autograded(here.root, learner))
    assert "A person gave 1.5 points here for an earlier submission; the judge gives 0 for this one." in shown
    page = (here.root / "feedback" / learner / LESSON / f"{LESSON}.html").read_text(encoding="utf-8")
    assert "A person gave" not in page
    assert "0 of 2 points." in page

    regrade(learner)  # nobody has looked yet: the flag stays
    assert grades(open_course(), LESSON, learner)["double"] == (1.5, True)
    by_a_person(learner, "double", 0.5)
    regrade(learner)
    assert grades(open_course(), LESSON, learner)["double"] == (0.5, False)


def test_a_resubmission_that_is_no_notebook_takes_the_score_away(here: TinyCourse) -> None:
    learner = "own-cells"
    assert points(here.root, learner) == RIGHT
    notebook = here.root / "submitted" / learner / LESSON / f"{LESSON}.ipynb"
    notebook.write_text("{")
    result = grade_one(LESSON, learner, "submitted")
    assert not result["ok"]
    assert "is not JSON" in result["log"]
    nothing = dict.fromkeys(("double", "triple", "why"), (None, True))
    assert grades(open_course(), LESSON, learner) == nothing

    here.submit(learner)
    regrade(learner)
    assert points(here.root, learner) == RIGHT
    notebook.rename(notebook.with_name("final.ipynb"))
    result = grade_one(LESSON, learner, "submitted")
    assert not result["ok"]
    assert grades(open_course(), LESSON, learner) == nothing


def test_what_the_machine_prevented_is_no_zero(here: TinyCourse, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from autograder.grading.judging import Judging

    real = Judging.verdict

    def broken(self: Judging, submitted: bytes) -> object:
        entry = real(self, submitted)
        lost = replace(entry.judgement.checks["double"], points=None, status="infrastructure", message="GPU")
        checks = {**entry.judgement.checks, "double": lost}
        entry = replace(entry, judgement=replace(entry.judgement, checks=checks))
        self.journal.write(entry, submitted)
        return entry

    with monkeypatch.context() as patch:
        patch.setattr(Judging, "verdict", broken)
        regrade("skips")
    assert grades(open_course(), LESSON, "skips")["double"] == (None, True)
    assert "a person has to look" in outputs(autograded(here.root, "skips"), "double")
    warm.close()
    regrade("skips")  # another grading tries again, because the journal has no points
    assert grades(open_course(), LESSON, "skips")["double"] == (0.0, False)


def test_a_lesson_that_was_changed_after_generate_assignment_is_refused(here: TinyCourse) -> None:
    path = here.root / "source" / LESSON / f"{LESSON}.ipynb"
    kept = path.read_text()
    changed = tiny_lesson()
    changed.cells[2].metadata["nbgrader"]["points"] = 7
    nbformat.write(changed, path)
    result = grade_one(LESSON, "ada", "submitted")
    path.write_text(kept)
    assert not result["ok"]
    assert "the lesson's tests differ from the gradebook's (double)" in result["log"]
    regrade("ada")
    assert points(here.root, "ada") == RIGHT


def test_a_lesson_that_the_gradebook_does_not_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = TinyCourse(tmp_path)
    made.submit("ada")
    monkeypatch.chdir(tmp_path)
    result = grade_one(LESSON, "ada", "submitted")
    assert not result["ok"]
    assert f"No assignment with ID '{LESSON}' exists in the database" in result["log"]


def test_a_lesson_whose_source_is_gone(here: TinyCourse) -> None:
    folder = here.root / "source" / LESSON
    folder.rename(here.root / "away")
    result = grade_one(LESSON, "ada", "submitted")
    shutil.move(here.root / "away", folder)
    assert not result["ok"]
    assert f"{LESSON}.ipynb is missing: without the lesson nothing can be judged" in result["log"]


def grading_of(course: TinyCourse, learner: str) -> int:
    entry = Journal(course.root, LESSON).read(autograded(course.root, learner).metadata["autograder"])
    assert entry is not None
    return entry.grading


def test_a_pause_ends_the_grading_and_its_judge(here: TinyCourse, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(text: str) -> int:
        here.submit("nulls", double_code=f"def double(x):\n    return 2 * x  # {text}")
        regrade("nulls")
        return grading_of(here, "nulls")

    first = answer("first")
    assert answer("second") == first
    monkeypatch.setattr(warm, "PAUSE", 0.2)
    assert answer("third") == first
    deadline = time.monotonic() + 30
    while warm._kept is not None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert warm._kept is None
    monkeypatch.setattr(warm, "PAUSE", 60.0)
    assert answer("fourth") != first


def test_the_judge_may_be_asked_by_one_thread_after_another(here: TinyCourse) -> None:
    """A sandbox ends with the thread that made it."""
    for number in range(2):
        here.submit("nulls", double_code=f"def double(x):\n    return 2 * x  # by thread {number}")
        with ThreadPoolExecutor(1) as pool:
            result = pool.submit(grade_one, LESSON, "nulls", "submitted").result()
        assert result["ok"], result["log"]
        assert points(here.root, "nulls") == RIGHT
