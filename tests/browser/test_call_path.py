"""The drawing of a call path in JupyterLab: dragged, clicked, typed and chosen from lists, and handed in as text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from autograder.misconceptions.self_path import TRUTH
from tests.browser.conftest import Screenshot
from tests.browser.jupyterlab import Notebook

if TYPE_CHECKING:
    from playwright.sync_api import Locator

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

EDGES: list[tuple[str, str]] = TRUTH["q_path"]


@pytest.fixture
def cell(sheet: Notebook) -> Iterator[str]:
    cell = sheet.insert_below(
        "setup", "from course import candidates, widgets\npath = widgets.CallPath(candidates.STATIONS)\npath"
    )
    assert sheet.run(cell).errors == []
    sheet.output(cell).get_by_role("heading", name="Draw the call path").wait_for()
    yield cell
    sheet.delete(cell)


def chip(view: Locator, node: str) -> Locator:
    return view.locator(f'.abc-offer [data-node="{node}"]')


def said(view: Locator, text: str) -> None:
    view.get_by_role("status").filter(has_text=text).wait_for()


def handed_in(sheet: Notebook, cell: str, text: str) -> str:
    """What the check says to a cell with this text, and whether it is what the kernel's drawing holds."""
    asked = sheet.insert_below(
        cell, f'{text}\nprint(q_path == list(path.edges))\nautograder.check("self_path", q_path)'
    )
    shown = sheet.run(asked).text
    sheet.delete(asked)
    return shown


def test_a_drawing_by_mouse_gets_every_point_as_text(
    sheet: Notebook, cell: str, screenshot: Screenshot
) -> None:
    view = sheet.output(cell)
    mouse = sheet.page.mouse
    for number, (caller, callee) in enumerate(EDGES, 1):
        if number == 2:  # two clicks do the same
            chip(view, caller).click()
            said(view, f"From {caller}")
            chip(view, callee).click()
        else:
            chip(view, caller).hover()
            mouse.down()
            box = chip(view, callee).bounding_box()
            assert box is not None
            mouse.move(box["x"] + 60, box["y"] + 20, steps=4)
            if number == 3:
                screenshot(sheet.page, "call-path-dragging")
            mouse.up()
        said(view, f"Arrow {number}: {caller} calls {callee}.")
    assert view.locator(".abc-box").count() == 7
    # From a box of the drawing too, and away again.
    view.locator(f'.abc-box[data-node="{EDGES[0][1]}"]').scroll_into_view_if_needed()
    view.locator(f'.abc-box[data-node="{EDGES[0][1]}"]').drag_to(
        view.locator(f'.abc-box[data-node="{EDGES[3][1]}"]')
    )
    said(view, "Arrow 7: ")
    view.get_by_role("button", name="Remove arrow 7").click()
    said(view, "6 arrows left")
    view.get_by_role("button", name="Copy", exact=True).click()
    said(view, "Copied.")
    text = view.get_by_label("As text, for the cell that is handed in", exact=True).input_value()
    shown = handed_in(sheet, cell, text)
    assert shown.startswith("True\n✓ self_path: all 7 visible cases pass"), shown


def test_a_drawing_by_keys_gets_every_point_as_text(sheet: Notebook, cell: str) -> None:
    before = sheet.ids()
    view, keys = sheet.output(cell), sheet.page.keyboard
    nodes = view.locator(".abc-offer button").evaluate_all("chips => chips.map(chip => chip.dataset.node)")
    chip(view, nodes[0]).focus()
    keys.press("b")  # in Lab, a letter that inserts a cell
    at = 0
    for number, edge in enumerate(EDGES[:5], 1):
        for node in edge:
            keys.press("Home")
            for _ in range(nodes.index(node)):
                keys.press("ArrowRight")
            keys.press("Enter" if number % 2 else "Space")
            said(view, f"From {node}" if node == edge[0] else f"Arrow {number}: ")
    keys.press("Enter")
    said(view, f"From {EDGES[4][1]}")
    keys.press("Escape")
    said(view, "No caller is chosen.")
    keys.press("End")
    keys.press("ArrowUp")  # a row up, by the columns that there are
    at = view.locator(".abc-offer button:focus").evaluate(
        "chip => [...chip.parentNode.children].indexOf(chip)"
    )
    assert 0 < at < len(nodes) - 2
    view.get_by_label("From", exact=True).select_option(EDGES[5][0])
    view.get_by_label("To", exact=True).select_option(EDGES[5][1])
    view.get_by_role("button", name="Add arrow").press("Enter")
    said(view, "Arrow 6: ")
    view.get_by_role("button", name="Add arrow").press("Enter")
    view.get_by_role("alert").filter(has_text="is there already").wait_for()
    view.get_by_role("button", name="Remove arrow 6").press("Enter")
    said(view, "5 arrows left")
    assert view.get_by_role("button", name="Remove arrow 5").evaluate(
        "node => node === document.activeElement"
    )
    view.get_by_role("button", name="Add arrow").press("Enter")
    said(view, "Arrow 6: ")
    assert sheet.ids() == before
    text = view.get_by_label("As text, for the cell that is handed in", exact=True).input_value()
    shown = handed_in(sheet, cell, text)
    assert shown.startswith("True\n✓ self_path: all 7 visible cases pass"), shown
