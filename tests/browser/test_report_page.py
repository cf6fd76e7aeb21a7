"""The instructor's report in a browser: it runs nothing, fetches nothing, and axe finds nothing serious in it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
import pytest

from autograder.grading.journal import Entry
from autograder.grading.report.page import as_html
from autograder.grading.report.results import ClassResults, Exercise, Learner
from autograder.grading.report.summary import summarise
from autograder.judge.judgement import CheckResult, Judgement

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

HOSTILE = "<script>alert(1)</script><img src='https://stranger.example/x.png' onerror=alert(2)><style>body{display:none}</style>"
MISTAKE = "logical-block-as-physical"


def _page() -> str:
    """The report on a class in which every part of it has something to show."""
    learners = [Learner("absent", handed_in=False), Learner(HOSTILE, refused=HOSTILE)]
    for i in range(12):
        crashed = CheckResult(0.0, 5.0, "crashed", HOSTILE, None, 1.0)
        wrong = CheckResult(2.0, 5.0, "wrong", HOSTILE, MISTAKE, 1.0, attention_calls=1)
        judgement = Judgement(
            None, {"q2-metadata": (crashed, wrong)[i % 2]}, seconds=2.0 + i, peak_memory=2**28
        )
        entry = Entry(f"k{i}", "01_x", 7, "CPU", "none", "", judgement)
        text = "def f(a):\n" + "".join(f"    x{j} = a * {j} + len(a)\n" for j in range(9))
        learners.append(Learner(f"{i}" + HOSTILE, entry=entry, seconds_late=60.0, texts={"f-code": text}))
    cell = nbformat.v4.new_code_cell(id="f-code", metadata={"nbgrader": {"solution": True}})
    exercises = (Exercise("q2-metadata", 5, False), Exercise("why", 4, True))
    lesson = nbformat.v4.new_notebook(cells=[cell])
    return as_html(summarise(ClassResults("01_x", lesson, exercises, tuple(learners))))


def test_the_report_is_dead_and_accessible(chromium: Browser, tmp_path: Path) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="needs axe-playwright-python"
    ).Axe()
    path = tmp_path / "report.html"
    path.write_text(_page(), encoding="utf-8")
    page = chromium.new_page(viewport={"width": 1000, "height": 800})
    try:
        asked: list[str] = []
        dialogs: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
        page.goto(path.as_uri())
        assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
        assert dialogs == []
        assert page.get_by_text("<script>alert(1)</script>").count() > 12
        assert page.locator("h1").is_visible()
        # Each picture was drawn, and nothing but tables may be wider than a telephone.
        assert page.evaluate("[...document.images].map(i => i.complete && i.naturalWidth > 0)") == [True] * 3
        page.set_viewport_size({"width": 400, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
        serious = [v for v in axe.run(page).response["violations"] if v["impact"] in ("serious", "critical")]
        assert serious == []
    finally:
        page.close()
