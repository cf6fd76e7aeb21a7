"""Mask and tiles in JupyterLab: predicted, hovered, walked over with keys, and held against the kernel's own numbers."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.browser.jupyterlab import Notebook

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]


@pytest.fixture(scope="module")
def cell(sheet: Notebook) -> Iterator[str]:
    cell = sheet.insert_below(
        "setup", "from course import widgets\ntiles = widgets.MaskTiles(10, 6, predict=True)\ntiles"
    )
    assert sheet.run(cell).errors == []
    sheet.output(cell).get_by_role("heading", name="Mask and tiles").wait_for()
    yield cell
    sheet.delete(cell)


def test_a_prediction_comes_before_the_tiles(sheet: Notebook, cell: str) -> None:
    view = sheet.output(cell)
    assert view.locator(".abc-tile-full").count() == 0
    assert view.get_by_role("table").count() == 0
    for kind, guess in (("skipped", "0"), ("full", "5"), ("masked", "2")):
        view.get_by_label(kind, exact=True).fill(guess)
    view.get_by_role("button", name="Commit").click()
    view.get_by_text("full: 5 is right; masked: you said 2, it is 3").first.wait_for()
    # The button is gone, and focus is still in the view.
    assert view.locator(".abc-cell:focus").count() == 1
    assert view.get_by_role("table").inner_text().count("masked") == 3
    assert view.locator(".abc-cell.abc-tile-full").count() == 5 * 16


def test_each_cell_says_who_sees_whom_by_mouse_and_by_keys(sheet: Notebook, cell: str) -> None:
    before = sheet.ids()
    view, keyboard = sheet.output(cell), sheet.page.keyboard
    view.get_by_label("predict first").uncheck()
    view.get_by_label("sliding window").press_sequentially("4")
    view.get_by_label("sliding window").press("Enter")
    view.get_by_role("status").filter(has_text="sliding_window is 4").wait_for()
    view.get_by_role("gridcell", name="Query 0 at position 10, key at position 11").hover()
    view.get_by_text("not seen: it comes 1 after the query").wait_for()
    view.locator(".abc-cell[tabindex='0']").focus()
    for key in ("Home", "ArrowDown", "ArrowRight", "x", "ArrowRight"):
        keyboard.press(key)
    words = view.locator(".abc-cell-words").inner_text()
    assert words.startswith("Query 1 at position 11, key at position 2: not seen: 9 before the query")
    assert "Its tile is skipped" in words
    asked = sheet.insert_below(
        cell, "m = tiles.model\nprint([[m.why(q, k) == 'seen' for k in range(16)] for q in range(6)])"
    )
    mask = ast.literal_eval(sheet.run(asked).text)
    sheet.delete(asked)
    drawn = sheet.output(cell).evaluate(
        "area => [...area.querySelectorAll('.abc-cell')].map(cell => cell.textContent === '●')"
    )
    assert [drawn[row * 16 : row * 16 + 16] for row in range(6)] == mask
    view.get_by_label("TILE_SIZE").select_text()
    sheet.page.keyboard.type("0")
    view.get_by_label("TILE_SIZE").press("Enter")
    view.get_by_role("alert").filter(
        has_text="tile_size: expected a whole number from 1 to 64, got 0"
    ).wait_for()
    assert view.get_by_label("TILE_SIZE").input_value() == "4"
    assert sheet.ids() == before
