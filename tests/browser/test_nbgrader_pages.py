"""nbgrader's own pages in JupyterLab: Validate for the learner, formgrader for the instructor."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.answers import Answers
from tests.browser.conftest import LESSON, Screenshot
from tests.browser.jupyterlab import REPOSITORY, Notebook, Server

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Locator, Page

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]


def test_validate_names_the_cells_that_fail_and_why(
    lesson: Notebook, answers: Answers, screenshot: Screenshot
) -> None:
    """A mistake, and beside it cells that were not touched."""
    left = {name: text for name, text in answers.stubs.items() if name.startswith("q3-")}
    wrong = {"q2-metadata-code": answers.logical_block_as_physical()}
    lesson.fill_in(answers.solutions | wrong | left)
    text = lesson.validate()
    screenshot(lesson.page, "validate-wrong")
    lesson.close_dialog()
    written = [name for name in left if name.endswith("-explain")]
    untouched = [name for name in answers.checks if name.startswith("q3-")]
    assert len(written) == 1
    assert len(untouched) == 2
    assert text.count("The following cell failed:") == 2 + len(untouched) + len(written)
    assert text.count("You did not provide a response.") == len(written)
    assert 'autograder.check("build_metadata", build_metadata)' in text
    assert 'autograder.check("attend", build_metadata)' in text
    said = " ".join(text.split())
    assert answers.message("build_metadata", "logical-block-as-physical") in said
    assert said.count("is not answered yet") == len(untouched)
    assert "Traceback" not in text


def test_validate_says_that_right_answers_pass(
    lesson: Notebook, answers: Answers, screenshot: Screenshot
) -> None:
    lesson.fill_in(answers.solutions)
    text = lesson.validate()
    screenshot(lesson.page, "validate-right")
    lesson.close_dialog()
    assert "Success! Your notebook passes all the tests." in text


@pytest.fixture(scope="module")
def formgrader(server: Server, context: BrowserContext) -> Iterator[Page]:
    """JupyterLab without a notebook, and formgrader opened from its menu."""
    page = context.new_page()
    page.goto(server.address("lab?reset"))
    page.get_by_role("menuitem", name="Nbgrader").click()
    for entry in ("Assignment List", "Course List", "Formgrader"):
        page.get_by_role("menuitem", name=entry).wait_for()
    page.get_by_role("menuitem", name="Formgrader").click()
    yield page
    page.close()


def row_of_the_lesson(formgrader: Page) -> Locator:
    """Its line in formgrader's table, which exists once the table is filled."""
    return formgrader.frame_locator("iframe[src*=formgrader]").get_by_role("row").filter(has_text=LESSON)


def test_formgrader_lists_the_lesson(formgrader: Page, screenshot: Screenshot) -> None:
    row = row_of_the_lesson(formgrader)
    row.wait_for()
    screenshot(formgrader, "formgrader")
    assert row.locator(".num-submissions").inner_text() == "0"


def test_formgraders_generate_gives_the_release_that_is_committed(
    formgrader: Page, course_folder: Path, screenshot: Screenshot
) -> None:
    released = course_folder / "release" / LESSON / f"{LESSON}.ipynb"
    committed = (REPOSITORY / released.relative_to(course_folder)).read_bytes()
    released.unlink()
    row_of_the_lesson(formgrader).locator(".assign a").click()
    answer = formgrader.frame_locator("iframe[src*=formgrader]").locator(".modal-dialog")
    answer.get_by_text(f"Successfully created the student version of '{LESSON}'").wait_for()
    screenshot(formgrader, "formgrader-generate")
    assert released.read_bytes() == committed
