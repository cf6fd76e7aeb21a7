"""The form over vLLM's selector in JupyterLab: clicked and typed at, held against the kernel."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.browser.jupyterlab import Notebook

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]


@pytest.fixture(scope="module")
def cell(sheet: Notebook) -> Iterator[str]:
    cell = sheet.insert_below(
        "setup", "from course import widgets\nchooser = widgets.BackendChooser()\nchooser"
    )
    assert sheet.run(cell).errors == []
    sheet.output(cell).get_by_role("heading", name="Who computes attention").wait_for()
    yield cell
    sheet.delete(cell)


def test_mouse_and_keys_change_the_kernels_deployment(sheet: Notebook, cell: str) -> None:
    before = sheet.ids()
    view = sheet.output(cell)
    view.get_by_label("head size", exact=True).select_option(label="80")
    view.get_by_role("status").filter(has_text="head_size is 80").wait_for()
    view.get_by_label("GPU (compute capability)").focus()
    sheet.page.keyboard.press("b")  # in Lab, a letter that inserts a cell
    view.get_by_label("attention sinks").focus()
    sheet.page.keyboard.press("Space")
    view.get_by_role("status").filter(has_text="has_sink is True").wait_for()
    assert view.get_by_label("attention sinks").is_checked()
    assert view.get_by_label("attention sinks").evaluate("node => node === document.activeElement")
    assert sheet.ids() == before
    chosen = view.locator(".abc-chosen strong").inner_text()
    asked = sheet.insert_below(
        cell, "d = chooser.model.deployment\nprint(d.head_size, d.has_sink, chooser.chosen)"
    )
    assert sheet.run(asked).text.split() == ["80", "True", chosen]
    sheet.delete(asked)


def test_a_guess_comes_first_where_it_is_asked_for(sheet: Notebook, cell: str) -> None:
    view = sheet.output(cell)
    view.get_by_role("button", name="Reset").click()
    view.get_by_role("status").filter(has_text="Back at the beginning").wait_for()
    view.get_by_label("Guess first").check()
    view.get_by_role("status").filter(has_text="guess first").wait_for()
    view.get_by_label("--block-size", exact=True).select_option(label="8")
    view.get_by_role("status").filter(has_text="Who will be chosen?").wait_for()
    assert view.get_by_role("table").count() == 0
    view.get_by_label("Who will be chosen?").select_option("none")
    view.get_by_role("button", name="Show", exact=True).press("Enter")
    view.get_by_role("status").filter(has_text="Right: vLLM chooses none.").wait_for()
    assert view.get_by_role("table").count() == 1
    assert view.get_by_label("Begin from").evaluate("node => node === document.activeElement")
