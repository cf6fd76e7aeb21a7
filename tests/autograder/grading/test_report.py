"""The instructor's report: its numbers, and that nothing that a learner wrote comes alive in it."""

import argparse
import csv
import io
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbformat
import pytest

from autograder.grading.accept import accept_all
from autograder.grading.journal import Entry, Journal, submission_key
from autograder.grading.report import command
from autograder.grading.report.lines import as_csv
from autograder.grading.report.page import as_html
from autograder.grading.report.results import ClassResults, Exercise, Learner, instructor_notebook
from autograder.grading.report.shown import duration
from autograder.grading.report.summary import Summary, summarise
from autograder.grading.report.terminal import as_text
from autograder.judge.judgement import CheckResult, Judgement
from autograder.judge.rebuild import rebuild
from autograder.nbgrader_bridge import open_course, parse_timestamp

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>"
SLOT = "logical-block-as-physical"


def _result(points: float | None, status: str = "passed", message: str = "", **more: Any) -> CheckResult:
    return CheckResult(points, 5.0, status, message, more.get("misconception"), more.get("seconds", 1.5))


def _learner(
    name: str, *results: CheckResult, sandbox: str = "bubblewrap", notes: Any = (), **more: Any
) -> Learner:
    checks = dict(zip(("q2-metadata", "q2-attend"), results, strict=False))
    entry = Entry(
        "k" + name, "01_x", 7, "CPU", sandbox, "2026-01-01", Judgement(None, checks, notes=notes, seconds=4.0)
    )
    return Learner(name, entry=entry, scores={"why": (None, 2.0)}, **more)


def _class(*learners: Learner) -> Summary:
    exercises = (Exercise("q2-metadata", 5, False), Exercise("q2-attend", 5, False), Exercise("why", 4, True))
    return summarise(ClassResults("01_x", nbformat.v4.new_notebook(), exercises, learners))


@pytest.fixture(scope="module")
def summary() -> Summary:
    wrong = _result(
        0.0, "wrong", "✗ build_metadata: slot_mapping is wrong.\n  Case: long.", misconception=SLOT
    )
    return _class(
        _learner("ada", _result(5.0), _result(5.0)),
        _learner("bob", wrong, _result(2.0, "wrong"), seconds_late=7200.0),
        _learner(
            "cy",
            wrong,
            _result(0.0, "crashed", "your code's process was killed"),
            notes=("cell x is missing",),
        ),
        _learner("dee", _result(4.0, "wrong"), _result(None, "infrastructure", "the GPU is gone")),
        Learner("eve", refused="01_x.ipynb is not JSON"),
        Learner("fay", handed_in=False),
        Learner("gus"),
    )


def test_the_numbers_of_a_class(summary: Summary) -> None:
    metadata, attend, why = summary.exercises
    assert (metadata.mean, metadata.levels, metadata.num_waiting) == (2.25, (2, 0, 1, 1), 0)
    assert (metadata.share_of_full_marks, metadata.statuses) == (0.25, {"passed": 1, "wrong": 3})
    assert (metadata.unnamed, attend.unnamed) == (1, 2)
    assert (attend.points, attend.num_waiting, attend.levels) == ((5.0, 2.0, 0.0), 1, (1, 1, 0, 1))
    assert (why.mean, why.num_waiting) == (2.0, 0)
    # dee's total is not known, and is no low total.
    assert (summary.scores, summary.max_score, summary.num_full) == ({"ada": 10, "bob": 2, "cy": 0}, 10, 1)
    assert summary.num_judged == 4
    assert summary.not_judged == ("gus",)
    assert (summary.absent, summary.late) == (("fay",), {"bob": 7200.0})
    assert summary.seconds == (4.0,) * 4


def test_mistakes_come_with_their_words_and_the_most_frequent_first(summary: Summary) -> None:
    (mistake,) = summary.mistakes
    assert (mistake.exercise, mistake.name, mistake.learners) == ("q2-metadata", SLOT, ("bob", "cy"))
    assert mistake.share == 0.5
    assert "logical block number" in mistake.message


def test_whom_to_look_at_and_why(summary: Summary) -> None:
    found = {look.learner.name: [(r.kind, r.exercise) for r in look.reasons] for look in summary.looks}
    assert found == {
        "eve": [("refused", "")],
        "dee": [("infrastructure", "q2-attend")],
        "cy": [("crashed", "q2-attend"), ("cells", "")],
    }
    assert list(found) == ["eve", "dee", "cy"]


def test_what_the_judge_noticed_is_said_in_words() -> None:
    launches = {"helper.kernel": 3}
    no_kernel = CheckResult(5.0, 5.0, "passed", "", None, 1.0, launches=launches, needs_kernel=True)
    borrowed = CheckResult(5.0, 5.0, "passed", "", None, 1.0, attention_calls=4)
    place = "q2-code, line 3: def __eq__(self, other):"
    judgement = Judgement(
        None,
        {"q2-metadata": no_kernel, "q2-attend": borrowed},
        notes=("cell q2-attend was changed; the instructor's text counts",),
        remarks={
            "suspicious-object": (place,),
            "tampered-notebook": ("cell q2-attend was changed; the instructor's text counts",),
        },
        seconds=3.0,
        peak_memory=3 * 2**30,
        cpu_seconds=2.5,
        workers_started=1,
    )
    repairs = ("cell q2-attend was edited", "cell setup had tags ['skip-execution']")
    sly = Learner("sly", entry=Entry("k", "01_x", 7, "CPU", "bubblewrap", "", judgement), repairs=repairs)
    summary = _class(_learner("ada", _result(5.0), _result(5.0)), sly)
    (look,) = summary.looks
    assert [(reason.kind, reason.exercise, reason.text) for reason in look.reasons] == [
        ("tampered", "", "cell q2-attend was changed; the instructor's text counts"),
        ("tampered", "", "cell setup had tags ['skip-execution']"),
        ("suspicious", "", f"an object that may pretend to be what it is not: {place}"),
        ("suspicious", "q2-metadata", "no Triton kernel of the learner's own was launched"),
        ("suspicious", "q2-attend", "torch's own attention was called (4 times)"),
    ]
    assert "at most 3.0 GiB" in as_text(summary, 100)
    assert "3.0 GiB" in _Page(as_html(summary)).text
    line = next(x for x in csv.DictReader(io.StringIO(as_csv(summary))) if x["learner"] == "sly")
    assert (line["launches"], line["submission_peak_memory"]) == ("helper.kernel 3", "3221225472")
    assert (line["evidence"], line["points"]) == ("no Triton kernel of the learner's own was launched", "5")


def test_the_terminal_answers_the_three_questions(summary: Summary) -> None:
    text = as_text(summary, 100)
    assert max(map(len, text.splitlines())) <= 100
    first, *_ = text.splitlines()
    assert first == "01_x: 7 learners, 4 judged, 1 refused, 1 not judged, 1 late, 1 never handed in"
    assert "mean 4.0 of 10 points (40 %), median 2; 1 learner with all of them" in text
    assert "hardest: q2-metadata, 45 % of its points" in text
    assert f"2 learners in q2-metadata (50 %): {SLOT}" in text
    assert "crashed in q2-attend: your code's process was killed" in text
    assert text.index("mean 4.0") < text.index("What to talk about") < text.index("Whom to look at")


class _Page(HTMLParser):
    """Counts elements, and keeps their attributes and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def test_the_page_fetches_nothing_and_can_be_read_aloud(summary: Summary) -> None:
    page = _Page(as_html(summary))
    names = Counter(name for name, _ in page.elements)
    assert not {"script", "link", "iframe", "object", "form", "a"} & names.keys()
    assert len(page.all("img")) == 3
    for image in page.all("img"):
        assert (image["src"] or "").startswith("data:image/svg+xml;base64,")
        assert image["alt"]
    assert page.all("html")[0]["lang"] == "en"
    assert (names["h1"], names["main"], names["title"]) == (1, 1, 1)
    assert names["table"] == names["caption"]
    assert all(header.get("scope") for header in page.all("th"))
    policies = [m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    for words in ("What to talk about", "Whom to look at", "the GPU is gone", "2 h 0 min late", "mean"):
        assert words.lower() in page.text.lower()


def test_nothing_that_learners_write_comes_alive() -> None:
    formula = '=HYPERLINK("http://x.example","+1")'
    evil = _class(
        _learner(
            HOSTILE, _result(0.0, "crashed", HOSTILE), _result(0.0, HOSTILE, HOSTILE), repairs=(HOSTILE,)
        ),
        _learner(
            formula,
            _result(0.0, "error", "@" + formula),
            _result(None, "infrastructure", "\x1b[2J" + formula),
        ),
        Learner("\x1b]0;title\x07\u202e", refused="-1+" + HOSTILE),
    )
    page = _Page(as_html(evil))
    assert not page.all("script")
    assert all((image["src"] or "").startswith("data:") for image in page.all("img"))
    assert all(not key.startswith("on") for _, attributes in page.elements for key in attributes)
    assert HOSTILE in page.text
    lines = list(csv.reader(io.StringIO(as_csv(evil))))
    assert {line[1] for line in lines} == {"learner", HOSTILE, "'" + formula, "\x1b]0;title\x07\u202e"}
    assert not [
        value for line in lines for value in line if value.startswith(("=", "+", "-", "@", "\t", "\r"))
    ]
    text = as_text(evil, 200)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "\\x1b]0;title" in text


def test_equal_answers_are_listed_together_and_found_from_each_learner() -> None:
    answer = "def f(a):\n" + "".join(f"    x{i} = a * {i} + len(a)\n" for i in range(9)) + "    return x3"
    cell = nbformat.v4.new_code_cell(
        "def f(a):\n    ...", id="f-code", metadata={"nbgrader": {"solution": True, "grade_id": "f-code"}}
    )
    right = [_result(5.0), _result(5.0)]
    learners = [
        _learner(n, *right, texts={"f-code": text})
        for n, text in [("ada", answer), ("bob", answer), ("cy", "")]
    ]
    exercises = (Exercise("q2-metadata", 5, False), Exercise("q2-attend", 5, False))
    lesson = nbformat.v4.new_notebook(cells=[cell])
    summary = summarise(ClassResults("01_x", lesson, exercises, tuple(learners)))
    assert summary.looks == ()
    assert "the same text in f-code, word for word: ada, bob" in as_text(summary, 100)
    assert "ada, bob" in _Page(as_html(summary)).text
    looks = {line["learner"]: line["look"] for line in csv.DictReader(io.StringIO(as_csv(summary)))}
    assert looks == {"ada": "same text: f-code, as bob", "bob": "same text: f-code, as ada", "cy": ""}


def test_a_grading_without_a_sandbox_is_said_first() -> None:
    summary = _class(_learner("ada", _result(5.0), _result(5.0), sandbox="none"))
    assert "JUDGED WITHOUT A SANDBOX" in as_text(summary, 100).split("\n\n")[0]
    html = as_html(summary)
    assert html.index("Judged without a sandbox") < html.index("What to talk about")


def test_durations() -> None:
    said = [duration(s) for s in (0.04, 42, 720, 12_000, 250_000)]
    assert said == ["0.0 s", "42 s", "12 min", "3 h 20 min", "2 d 21 h"]


def _report(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args(arguments))


def test_the_command_knows_each_learner_by_the_content_of_the_clean_copy(
    tiny_course: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    lesson, course = "01_tiny", tiny_course.root
    tiny_course.submit("ada", why="Because.")
    tiny_course.submit("bob", double_code="def double(x):\n    return 4")
    (tiny_course.submit("not-json") / f"{lesson}.ipynb").write_text("{")
    accepted = course / ".autograder" / "submitted"
    accept_all(course / "submitted", lesson, accepted, parse_timestamp, set())
    notebook = instructor_notebook(course, lesson)
    journal = Journal(course, lesson)
    for learner, points in (("ada", 2.0), ("bob", 0.0)):
        data = (accepted / learner / lesson / f"{lesson}.ipynb").read_bytes()
        checks = {
            "double": CheckResult(points, 2.0, "passed" if points else "wrong", "said", None, 0.5),
            "triple": CheckResult(3.0, 3.0, "passed", "", None, 0.5),
        }
        entry = Entry(
            submission_key(rebuild(notebook, data)),
            lesson,
            7,
            "CPU",
            "bubblewrap",
            "",
            Judgement(None, checks),
        )
        journal.write(entry, data)
    # After the grading: one hands in again, one for the first time, and one of the roster never did.
    tiny_course.submit("bob", double_code="def double(x):\n    return x * 2")
    tiny_course.submit("zoe", double_code="def double(x):\n    return 2 * x")
    api = open_course()
    with api.gradebook as gradebook:
        gradebook.add_student("ghost")
        gradebook.add_student("ada")
        gradebook.add_assignment(lesson, duedate="2026-01-01 12:00")
        gradebook.add_notebook(lesson, lesson)
        gradebook.add_grade_cell("double", lesson, lesson, max_score=2, cell_type="code")
        gradebook.add_submission(lesson, "ada", timestamp="2026-01-01 14:00")
        gradebook.find_grade("double", lesson, lesson, "ada").manual_score = 1.5  # a person has the last word
        gradebook.db.commit()

    assert _report(lesson) == 0
    out = " ".join(capsys.readouterr().out.split())  # lines end where the terminal does
    assert "5 learners, 2 judged, 1 refused, 1 not judged, 1 late, 1 never handed in" in out
    assert "mean 3.8 of 5 points" in out
    assert "never handed in: ghost" in out
    with (course / "report" / f"{lesson}.csv").open(newline="") as file:
        lines = {(line["learner"], line["exercise"]): line for line in csv.DictReader(file)}
    assert len(lines) == 15
    assert (lines["ada", "double"]["points"], lines["ada", "why"]["status"]) == (
        "1.5",
        "to be graded by hand",
    )
    assert lines["ada", "double"]["seconds_late"] == "7200"
    assert (lines["bob", "double"]["points"], lines["bob", "double"]["status"]) == ("0", "wrong")
    assert "handed in again" in lines["bob", "triple"]["look"]
    assert lines["not-json", "double"]["status"] == "refused"
    assert lines["zoe", "double"]["status"] == "not judged"
    assert lines["ghost", "double"]["status"] == "never handed in"
    assert Path(lines["ada", "double"]["verdict"]).is_file()
    assert "<h1>01_tiny: how the class did</h1>" in (course / "report" / f"{lesson}.html").read_text()


def test_a_lesson_that_is_not_there(tiny_course: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert _report("09_none") == 1
    assert "there is no graded lesson 09_none" in capsys.readouterr().err
    assert _report("01_tiny") == 1
    assert "nobody has handed in 01_tiny" in capsys.readouterr().err
    assert _report("01_tiny", "--submissions", "nowhere") == 2
    assert "--submissions: nowhere is not a folder" in capsys.readouterr().err
