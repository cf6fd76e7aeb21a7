"""The memory view in JupyterLab: stepped, filtered, clicked and typed at, held against the kernel's recording."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.browser.jupyterlab import Notebook
from tests.browser.recorded_kernel import RECORDED_KERNEL

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]


@pytest.fixture(scope="module")
def cell(sheet: Notebook) -> Iterator[str]:
    cell = sheet.insert_below(
        "setup",
        f"{RECORDED_KERNEL}\nfrom course import widgets\n"
        "view = widgets.MemoryView(recording, block_table, seq_lens)\nview",
    )
    assert sheet.run(cell).errors == []
    sheet.output(cell).get_by_role("heading", name="What read_blocks touched").wait_for()
    yield cell
    sheet.delete(cell)


def in_kernel(sheet: Notebook, cell: str, expression: str) -> str:
    asked = sheet.insert_below(cell, f"print({expression})")
    outputs = sheet.run(asked)
    assert outputs.errors == []
    sheet.delete(asked)
    return outputs.text.strip()


def test_each_step_says_what_the_recording_has(sheet: Notebook, cell: str) -> None:
    view = sheet.output(cell)
    expected = in_kernel(
        sheet, cell, "'\\n'.join(map(view.model.sentence, range(len(recording))))"
    ).splitlines()
    said = []
    for _ in expected:
        view.get_by_role("button", name="Next", exact=True).click()
        said.append(view.locator(".abc-mv-panel").inner_text().removeprefix("✘ ").strip())
        # The line of the access shown, and no other, is marked.
        [now] = view.locator(".abc-mv-touches.abc-mv-now code").all_inner_texts()
        assert now.strip() in said[-1]
    assert said == expected
    assert view.get_by_role("button", name="Next", exact=True).is_disabled()
    assert view.get_by_role("status").inner_text().removeprefix("✘ ") == expected[-1]
    # 16 numbers of 4 bytes for each of 4 slots of 4 reads; the least that was given.
    assert "1,024 of 1,024; least 768, 1.33 times" in view.get_by_role("group", name="Bytes").inner_text()
    counts = view.get_by_role("grid", name="key_cache, cells").get_by_role("gridcell").all_inner_texts()
    reads = in_kernel(sheet, cell, "recording.reads('key_cache')[:, :, 0, 0].flatten().tolist()")
    assert [int(text.removesuffix("✘") or 0) for text in counts] == eval(reads)
    # Request 1 has one block; the second entry of its row names a block of request 0.
    assert [index for index, text in enumerate(counts) if "✘" in text] == [16, 17, 18, 19]


def test_a_line_chooses_its_accesses_and_a_cell_finds_its_line(sheet: Notebook, cell: str) -> None:
    before = sheet.ids()
    view, keyboard = sheet.output(cell), sheet.page.keyboard
    view.get_by_role("button", name="Choose all").click()
    view.get_by_role("button", name="Reset", exact=True).click()
    # Keys alone: from the first line that touches memory two down, and choose it.
    view.get_by_role("button", name="line 7: total = tl.load").focus()
    keyboard.press("b")  # in Lab, a letter that inserts a cell
    keyboard.press("ArrowDown")
    keyboard.press("ArrowDown")
    keyboard.press("Enter")
    view.get_by_text("access 0 of 4 chosen").wait_for()
    view.get_by_role("slider").fill("1")
    view.get_by_text("access 1 of 4 chosen").wait_for()
    assert in_kernel(sheet, cell, "view.selected.line.number, view.selected.tensor") == "11 key_cache"
    view.get_by_role("gridcell", name="block 2, slot 3").click()
    view.get_by_text("access 3 of 4 chosen").wait_for()
    view.get_by_role("button", name="Choose all").click()
    # From a cell of the output to the line that stores it.
    view.get_by_role("gridcell", name="[1, 0]").last.click()
    assert "tl.store(" in view.locator(".abc-mv-touches.abc-mv-now code").inner_text()
    view.get_by_label("Program", exact=True).select_option(label="(1, 0, 0)")
    view.get_by_label("Tensor", exact=True).select_option(label="block_table")
    view.get_by_text("access 0 of 2 chosen").wait_for()
    view.get_by_role("button", name="Choose all").click()
    view.get_by_role("button", name="Next marked").click()
    view.get_by_text("UNOWNED: request 1 has 1 block (seq_len 4)").first.wait_for()
    view.get_by_role("button", name="Next marked").click()
    view.get_by_text("UNOWNED: a block of request 0; the program works for request 1").first.wait_for()
    asked = "view.chosen['program'], view.model.columns.reason[view.access] >= 0"
    assert in_kernel(sheet, cell, asked) == "-1 True"
    assert sheet.ids() == before


def test_an_access_that_went_out_of_bounds_is_the_last_step(sheet: Notebook, cell: str) -> None:
    wild = sheet.insert_below(
        cell,
        "try:\n    with course.record(query=query) as wild:\n"
        "        read_blocks[(1,)](query[:, :, 8:], key_cache, torch.full((1, 2), 6, dtype=torch.int32), query, NUM_BLOCKS=2)\n"
        "except course.recording.OutOfBounds as error:\n    pass\n"
        "widgets.MemoryView(wild)",
    )
    assert sheet.run(wild).errors == []
    view = sheet.output(wild)
    view.get_by_role("button", name="Next marked").click()
    view.get_by_text(
        "OUT OF BOUNDS. Program (0, 0, 0) of read_blocks loads from key_cache at offset 384"
    ).first.wait_for()
    assert view.locator(".abc-mv-wild").filter(has_text="offset 384: outside, 64 lanes").count() == 1
    assert "tl.load(key_cache_ptr" in view.locator(".abc-mv-touches.abc-mv-now code").inner_text()
    sheet.delete(wild)
