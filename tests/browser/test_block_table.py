"""The block table in JupyterLab: clicked and typed at, and each picture held against the kernel's pool."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser.jupyterlab import Notebook

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

# What the page shows of each block, of each request and of the chosen block's slots; the kernel's pool must say the same.
PICTURE = """area => ({
    blocks: [...area.querySelectorAll('.abc-block')].map(cell => cell.querySelector('.abc-main').textContent),
    shared: [...area.querySelectorAll('.abc-block')].map(cell => Number((cell.querySelector('.abc-note').textContent.match(/×(\\d+)/) || [0, 0])[1])),
    requests: [...area.querySelectorAll('.abc-request')].map(row => [
        row.querySelector('.abc-name').textContent, ...[...row.querySelectorAll('.abc-chip')].map(chip => chip.textContent)]),
    slots: [...area.querySelectorAll('.abc-slot .abc-main')].map(slot => slot.textContent),
})"""
ASK = """p = explorer.pool
first = {}
for name in p.requests:
    for logical, block in enumerate(p.block_table(name)):
        first.setdefault(block, f"{name}{logical}")
print({
    "blocks": [first.get(block, "") for block in range(p.num_blocks)],
    "shared": [p.ref_count(block) if p.ref_count(block) > 1 else 0 for block in range(p.num_blocks)],
    "requests": [[name, *(f"{l}→{b}" for l, b in enumerate(p.block_table(name)))] for name in p.requests],
    "slots": [" ".join(f"{label}{at}" for label, at, _ in slot.holds) or "–" for slot in explorer.model.slots(explorer.selected)],
})"""


@pytest.fixture(scope="module")
def cell(sheet: Notebook) -> Iterator[str]:
    cell = sheet.insert_below(
        "setup", "from course import widgets\nexplorer = widgets.BlockTableExplorer()\nexplorer"
    )
    assert sheet.run(cell).errors == []
    sheet.output(cell).get_by_role("heading", name="Block table").wait_for()
    yield cell
    sheet.delete(cell)


def kernel_says(sheet: Notebook, cell: str, code: str) -> Any:
    asked = sheet.insert_below(cell, code)
    text = sheet.run(asked).text
    sheet.delete(asked)
    return ast.literal_eval(text)


def test_what_is_drawn_is_what_the_kernels_pool_says(sheet: Notebook, cell: str) -> None:
    view = sheet.output(cell)
    blocks = view.get_by_role("listbox", name="Physical blocks")
    view.get_by_label("Request", exact=True).select_option("B")
    view.get_by_role("button", name="Fork", exact=True).click()
    view.get_by_role("status").filter(has_text="D is a fork of B").wait_for()
    view.get_by_label("Request", exact=True).select_option("D")
    view.get_by_label("new tokens").fill("2")
    view.get_by_label("Which slots").fill("3, 12")
    view.get_by_label("Which slots").press("Enter")
    reveal = view.get_by_role("row").filter(has_text="✘")
    reveal.wait_for()
    # Position 11 goes to the copy, block 0; position 12 begins block 11.
    assert "taken for the physical one" in reveal.inner_text()
    assert view.get_by_role("table").inner_text().count("✔") == 1
    blocks.get_by_role("option", name="Block 0:").click()
    view.get_by_text("D's logical block 2; reference count 1").wait_for()
    drawn = view.evaluate(PICTURE)
    assert drawn == kernel_says(sheet, cell, ASK)
    assert drawn["slots"] == ["D8", "D9", "D10", "D11"]
    view.get_by_role("button", name="Previous").click()
    view.get_by_role("button", name="Previous").click()
    view.get_by_role("status").filter(has_text="Step 0").wait_for()
    # There is no step before: the button is disabled, and focus is still in the view.
    assert view.get_by_label("Step", exact=True).evaluate("node => node === document.activeElement")
    assert view.evaluate(PICTURE) == kernel_says(sheet, cell, ASK)
    assert "D" not in [row[0] for row in view.evaluate(PICTURE)["requests"]]


def test_keys_alone_do_for_every_part_and_none_reaches_lab(sheet: Notebook, cell: str) -> None:
    before = sheet.ids()
    view, keyboard = sheet.output(cell), sheet.page.keyboard
    blocks = view.get_by_role("listbox", name="Physical blocks")
    view.locator(".abc-block[tabindex='0']").focus()
    for key in ("Home", "ArrowRight", "ArrowDown", "b", "ArrowUp", "ArrowRight"):
        keyboard.press(key)
    assert "Block 2:" in (blocks.get_by_role("option", selected=True).get_attribute("aria-label") or "")
    view.get_by_text("A's logical block 1, B's logical block 1").wait_for()
    chips = view.get_by_role("listbox", name="Requests")
    view.locator(".abc-chip[tabindex='0']").focus()
    for key in ("Home", "ArrowDown", "ArrowRight", "ArrowRight", "d", "d"):
        keyboard.press(key)
    assert chips.get_by_role("option", selected=True).first.inner_text() == "2→5"
    view.get_by_label("Request", exact=True).focus()
    keyboard.press("c")  # a letter chooses in the list
    view.get_by_role("button", name="Append").focus()
    keyboard.press("Space")
    view.get_by_role("status").filter(has_text="C got").wait_for()
    assert view.get_by_role("button", name="Append").evaluate("node => node === document.activeElement")
    assert kernel_says(sheet, cell, "print([explorer.selected, explorer.pool.seq_len('C') > 5])") == [
        5,
        True,
    ]
    assert sheet.ids() == before


def test_what_cannot_be_done_is_said_and_changes_nothing(sheet: Notebook, cell: str) -> None:
    view = sheet.output(cell)
    before = view.evaluate(PICTURE)
    view.get_by_label("prompt tokens").fill("200")
    view.get_by_role("button", name="Admit", exact=True).click()
    view.get_by_role("alert").filter(has_text="out of blocks").wait_for()
    assert view.evaluate(PICTURE) == before


def test_the_learners_own_tensors_show_their_breaches(sheet: Notebook, cell: str) -> None:
    code = (
        "import course\n"
        "course.show(torch.tensor([[5, 2, 6], [7, -9, -9]], dtype=torch.int32), torch.tensor([8, 30]), "
        "torch.tensor([9, 3], dtype=torch.int32), block_size=4, num_blocks=8)"
    )
    shown = sheet.insert_below(cell, code)
    assert sheet.run(shown).errors == []
    view = sheet.output(shown)
    view.get_by_text("A's position 8: expected slot 24, got 8 (its position 4)").wait_for()
    view.get_by_text("past its end, never read: -9, -9").wait_for()
    view.get_by_role("button", name="Show block 2").click()
    wrong = view.locator(".abc-slot.abc-breach")
    wrong.wait_for()
    assert "slot 8" in wrong.inner_text()
    assert "← token 0" in wrong.inner_text()
    assert view.locator(".abc-block.abc-breach").count() == 1
    sheet.delete(shown)
