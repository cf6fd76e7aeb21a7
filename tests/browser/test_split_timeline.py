"""The timeline of split-KV schedules in JupyterLab: a guess by mouse, another batch by keys, lanes read, held against the kernel."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.browser.jupyterlab import Notebook

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]


@pytest.fixture(scope="module")
def cell(sheet: Notebook) -> Iterator[str]:
    cell = sheet.insert_below(
        "setup", "from course import widgets\ntimeline = widgets.SplitTimeline()\ntimeline"
    )
    assert sheet.run(cell).errors == []
    sheet.output(cell).get_by_role("heading", name="One batch, three schedules").wait_for()
    yield cell
    sheet.delete(cell)


def test_guess_then_look_then_another_batch(sheet: Notebook, cell: str) -> None:
    before = sheet.ids()
    view, keys = sheet.output(cell), sheet.page.keyboard
    assert view.locator(".abc-lane, table").count() == 0
    view.get_by_role("button", name="16 splits for every request").click()
    view.get_by_role("status").filter(has_text="Not this time: balanced splits").wait_for()
    lanes = view.locator(".abc-lane")
    assert lanes.count() == 16
    # Another schedule, by keys; then down its lanes, with one tab stop.
    balanced = view.get_by_role("group", name="Show a schedule in large").get_by_role(
        "button", name="balanced"
    )
    balanced.press("Enter")
    assert balanced.get_attribute("aria-pressed") == "true"
    assert balanced.evaluate("node => node === document.activeElement")
    keys.press("Tab")
    keys.press("ArrowDown")
    keys.press("b")  # in Lab, a letter that inserts a cell
    keys.press("Enter")
    view.get_by_role("status").filter(
        has_text="Multiprocessor 1: A, kv head 1, split 0: tokens 0 to 1"
    ).wait_for()
    assert view.locator(".abc-lanes [tabindex='0']").count() == 1
    bars = view.locator(".abc-bar[title]").count()
    asked = sheet.insert_below(cell, "print(len(timeline.model.timelines()['balanced'].programs))")
    assert sheet.run(asked).text.split() == [str(bars)]
    sheet.delete(asked)
    view = sheet.output(cell)
    lens = view.get_by_label("seq_lens", exact=True)
    lens.fill("4096, many")
    lens.press("Enter")
    view.get_by_role("alert").filter(has_text="expected whole numbers").wait_for()
    lens.fill("2048, 2048, 2048, 2048")
    lens.press("Enter")
    view.get_by_role("status").filter(has_text="4 requests, 8,192 tokens").wait_for()
    assert lanes.count() == 0
    view.get_by_label("multiprocessors", exact=True).select_option("8")
    view.get_by_role("status").filter(has_text="num_sms is 8").wait_for()
    view.get_by_role("button", name="one program for each").press("Space")
    view.get_by_role("status").filter(
        has_text="Right: one program for each request and kv head and balanced"
    ).wait_for()
    assert "1 of 2 guesses right" in view.locator(".abc-ask").inner_text()
    assert lanes.count() == 8
    assert sheet.ids() == before
