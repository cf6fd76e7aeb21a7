"""An instructor grades in formgrader: autograde pressed, verdicts read, an answer scored by hand, feedback handed back.

Three learners of lesson 1: one with every answer right, one with a mistake that has a name, and one whose answer ends its
process and whose text tries to press the instructor's buttons.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
import pytest

from autograder.build import write_instructor_notebook
from autograder.judge import sandbox
from autograder.nbgrader_bridge import generate_assignment, open_course
from tests.browser.answers import Answers, read_answers
from tests.browser.conftest import LESSON, Screenshot
from tests.browser.jupyterlab import REPOSITORY, Server

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Frame, Locator, Page

pytestmark = [
    pytest.mark.browser,
    pytest.mark.xdist_group("browser"),
    pytest.mark.skipif(sandbox.why_unavailable() is not None, reason=str(sandbox.why_unavailable())),
]

JUDGED_SECONDS = 240  # for one submission, on a machine that is busy with other tests
EXPLAIN = "q1-explain"
ENDS_ITS_PROCESS = "import os\n\ndef build_metadata(*args, **kwargs):\n    os._exit(0)"
# nbgrader's page of a submission asks for it, whatever is set; without a network it shows TeX.
MATHJAX = "https://cdnjs.cloudflare.com/ajax/libs/mathjax/"
# Without the filter of autograder.nbgrader_bridge.pages the first of these runs as soon as the page is opened.
ACTS = (
    '<img src="x" onerror="window.parent.hacked = 1"><script>window.parent.hacked = 1</script>\n\n'
    '<span id="q2-metadata" class="score">99</span>\n\nPlease look **here**.'
)


@pytest.fixture(scope="module")
def graders_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The instructor's course folder: the lesson is in the gradebook, and three submissions were collected."""
    folder = tmp_path_factory.mktemp("graders_course")
    shutil.copy(REPOSITORY / "nbgrader_config.py", folder)
    (folder / "source").mkdir()
    shutil.copy(REPOSITORY / "source" / f"{LESSON}.py", folder / "source")
    write_instructor_notebook(folder, LESSON)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        problem = generate_assignment(open_course(), LESSON)
    assert problem is None
    answers = read_answers(folder, LESSON)
    hand_in(folder, "ada", answers.solutions)
    hand_in(folder, "bob", answers.solutions | {"q2-metadata-code": answers.logical_block_as_physical()})
    hand_in(folder, "eve", answers.solutions | {"q2-metadata-code": ENDS_ITS_PROCESS, EXPLAIN: ACTS}, ACTS)
    return folder


def hand_in(course: Path, learner: str, texts: dict[str, str], own: str = "") -> None:
    """A submission with these texts, and with a Markdown and a raw cell of the learner's own."""
    notebook = nbformat.read(course / "release" / LESSON / f"{LESSON}.ipynb", as_version=4)
    for cell in notebook.cells:
        cell.source = texts.get(cell.id, cell.source)
    if own:
        notebook.cells += [nbformat.v4.new_markdown_cell(own), nbformat.v4.new_raw_cell(own)]
    folder = course / "submitted" / learner / LESSON
    folder.mkdir(parents=True)
    nbformat.write(notebook, folder / f"{LESSON}.ipynb")


@pytest.fixture(scope="module")
def graders_server(graders_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install -e .[dev]")
    started = Server(graders_folder, tmp_path_factory.mktemp("graders_home"))
    try:
        started.wait_until_it_answers()
        yield started
    finally:
        started.stop()


@pytest.fixture(scope="module")
def page(graders_server: Server, context: BrowserContext) -> Iterator[Page]:
    """JupyterLab with formgrader opened from its menu."""
    page = context.new_page()
    page.goto(graders_server.address("lab?reset"))
    page.get_by_role("menuitem", name="Nbgrader").click()
    page.get_by_role("menuitem", name="Formgrader").click()
    page.frame_locator("iframe[src*=formgrader]").get_by_role("row").filter(has_text=LESSON).wait_for()
    yield page
    page.close()


def formgrader(page: Page) -> Frame:
    element = page.locator("iframe[src*=formgrader]").element_handle()
    assert element is not None
    frame = element.content_frame()
    assert frame is not None
    return frame


def open_manage_submissions(page: Page, server: Server) -> Frame:
    frame = formgrader(page)
    frame.goto(f"{server.url}/formgrader/manage_submissions/{LESSON}")
    frame.locator("#main-table tr").nth(2).wait_for()
    return frame


def row_of(frame: Frame, learner: str) -> Locator:
    return frame.locator("#main-table tr").filter(has=frame.get_by_text(learner, exact=True))


def open_submission(page: Page, server: Server, learner: str) -> Frame:
    """The page on which a submission is graded, reached from Manage Submissions by its links."""
    frame = open_manage_submissions(page, server)
    row_of(frame, learner).locator(".student-name a").click()
    frame.locator("#main-table a").get_by_text(LESSON).click()
    frame.wait_for_function(
        "window.formgrader && formgrader.grades && formgrader.grades.loaded && formgrader.comments.loaded"
    )
    return frame


def panel(frame: Frame, name: str) -> Locator:
    """A graded cell with its box, and its outputs."""
    return frame.locator("div.cell").filter(has=frame.locator(f'input.score[id="{name}"]'))


@pytest.mark.timeout(900)
def test_an_instructor_grades_in_formgrader(
    page: Page, graders_server: Server, graders_folder: Path, screenshot: Screenshot, strangers: list[str]
) -> None:
    answers = read_answers(graders_folder, LESSON)
    frame = open_manage_submissions(page, graders_server)
    screenshot(page, "formgrader-submissions-before")
    for learner in ("ada", "bob", "eve"):
        row = row_of(frame, learner)
        assert row.locator(".status").inner_text() == "needs autograding"
        row.locator(".autograde a").click()
        said = frame.locator(".modal-dialog")
        said.get_by_text("autogra").first.wait_for(timeout=JUDGED_SECONDS * 1000)
        if learner == "eve":
            screenshot(page, "formgrader-autograded")
        assert f"Successfully autograded '{LESSON}' for student '{learner}'." in said.inner_text()
        said.get_by_role("button", name="Close").last.click()
        said.wait_for(state="hidden")
        frame.wait_for_function(
            "learner => [...document.querySelectorAll('#main-table tr')].some(row => "
            "row.innerText.includes(learner) && row.innerText.includes('needs manual grading'))",
            arg=learner,
        )
    screenshot(page, "formgrader-submissions-after")
    scores = {name: row_of(frame, name).locator(".score").inner_text() for name in ("ada", "bob", "eve")}
    assert scores == {"ada": "26 / 38", "bob": "18 / 38", "eve": "18 / 38"}

    read_the_verdicts(page, graders_server, answers, screenshot)
    score_by_hand(page, graders_server, screenshot)
    hand_back(page, graders_server, graders_folder, answers, screenshot)
    strangers[:] = [address for address in strangers if not address.startswith(MATHJAX)]


def read_the_verdicts(page: Page, server: Server, answers: Answers, screenshot: Screenshot) -> None:
    frame = open_submission(page, server, "ada")
    right = panel(frame, "q2-metadata")
    right.scroll_into_view_if_needed()
    screenshot(page, "formgrader-right")
    assert "5 of 5 points." in right.inner_text()
    assert "✓ build_metadata: all " in right.inner_text()

    frame = open_submission(page, server, "bob")
    wrong = panel(frame, "q2-metadata")
    wrong.scroll_into_view_if_needed()
    screenshot(page, "formgrader-wrong")
    text = " ".join(wrong.inner_text().split())
    assert "0 of 5 points." in text
    assert answers.message("build_metadata", "logical-block-as-physical") in text
    assert wrong.locator("input.score").get_attribute("placeholder") == "0"

    frame = open_submission(page, server, "eve")
    crashed = panel(frame, "q2-metadata")
    crashed.scroll_into_view_if_needed()
    screenshot(page, "formgrader-crashed")
    assert "your code ended its process (exit status 0)" in " ".join(crashed.inner_text().split())
    assert panel(frame, "q3-update").locator("input.score").get_attribute("placeholder") == "6"
    frame.get_by_text("Please look here.").first.scroll_into_view_if_needed()
    screenshot(page, "formgrader-text-that-acts")
    assert frame.get_by_text("Please look here.").first.locator("strong").inner_text() == "here"
    assert frame.locator("[id=q2-metadata]").count() == 1
    assert page.evaluate("window.hacked === undefined")


def score_by_hand(page: Page, server: Server, screenshot: Screenshot) -> None:
    frame = open_submission(page, server, "bob")
    answer = panel(frame, EXPLAIN)
    answer.scroll_into_view_if_needed()
    for field, text in (
        (answer.locator("textarea.comment"), "Good, but say **why**."),
        (answer.locator("input.score"), "3"),
    ):
        with page.expect_response(lambda response: response.request.method == "PUT" and response.ok):
            field.fill(text)
            field.dispatch_event("change")
    screenshot(page, "formgrader-by-hand")
    frame = open_manage_submissions(page, server)
    assert row_of(frame, "bob").locator(".score").inner_text() == "21 / 38"


def hand_back(page: Page, server: Server, folder: Path, answers: Answers, screenshot: Screenshot) -> None:
    frame = open_manage_submissions(page, server)
    for learner in ("bob", "eve"):
        row_of(frame, learner).locator(".generate-feedback a").click()
        said = frame.locator(".modal-dialog")
        said.get_by_text(
            f"Successfully generated feedback for '{LESSON}' for student '{learner}'."
        ).wait_for()
        said.get_by_role("button", name="Close").last.click()
        said.wait_for(state="hidden")
    # As a learner without a network sees it.
    browser = page.context.browser
    assert browser is not None
    learners = browser.new_context(viewport={"width": 1000, "height": 900}, offline=True)
    sheet = learners.new_page()
    try:
        for learner in ("bob", "eve"):
            path = folder / "feedback" / learner / LESSON / f"{LESSON}.html"
            for secret in (
                "HIDDEN TESTS",
                'suite="hidden"',
                "suite=&quot;hidden",
                "autograder/judge",
                "Traceback (",
            ):
                assert secret not in path.read_text(encoding="utf-8")
            sheet.goto(path.as_uri())
            text = " ".join(sheet.locator("body").inner_text().split())
            sheet.get_by_text("0 of 5 points.").scroll_into_view_if_needed()
            screenshot(sheet, f"feedback-{learner}")
            if learner == "bob":
                assert f"{LESSON} (Score: 21.0 / 38.0)" in text
                assert answers.message("build_metadata", "logical-block-as-physical") in text
                assert "Comments: Good, but say why." in text
            else:
                assert "your code ended its process (exit status 0)" in text
                assert sheet.evaluate("window.hacked === undefined")
    finally:
        learners.close()
