"""A passage of vLLM's source and a tree of calls, in JupyterLab: legible in each theme, and usable without a mouse."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.accessibility import in_theme, serious_faults
from tests.browser.conftest import Screenshot
from tests.browser.jupyterlab import Notebook

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

PASSAGE = """\
import os
os.environ["COURSE_VLLM_SOURCE"] = {folder!r}
from course.vllm.show import show
show("flash_attn.py", "FlashAttentionImpl.do_kv_cache_update", mark=["slot_mapping"])"""
TREE = """\
import torch
import kernels
from course.trace import trace
cache = torch.zeros(4, 16, 2, 32)
trace(
    kernels.reference.paged_attention, torch.zeros(2, 4, 32), cache, cache, torch.tensor([[0, 1]], dtype=torch.int32),
    torch.tensor([20], dtype=torch.int32), torch.tensor([0, 2], dtype=torch.int32), 0.125,
)"""


@pytest.fixture(scope="module")
def cells(sheet: Notebook, released_source: Path) -> Iterator[dict[str, str]]:
    """Two cells below the first, run, and gone again afterwards."""
    found = {}
    for name, text in (("tree", TREE), ("passage", PASSAGE.format(folder=str(released_source)))):
        found[name] = sheet.insert_below("setup", text)
        outputs = sheet.run(found[name])
        assert outputs.errors == []
        assert "text/html" in outputs.kinds
    yield found
    for cell in found.values():
        sheet.delete(cell)


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_axe_finds_nothing_serious(
    sheet: Notebook, cells: dict[str, str], theme: str, screenshot: Screenshot
) -> None:
    with in_theme(sheet, theme) as theme_name:
        assert serious_faults(sheet, list(cells.values())) == []
        for name, cell in cells.items():
            sheet.output(cell).scroll_into_view_if_needed()
            screenshot(sheet.page, f"theme-{theme_name}-{name}")


def test_the_tree_folds_from_the_keyboard_and_lab_takes_no_letter_for_a_command(
    sheet: Notebook, cells: dict[str, str]
) -> None:
    before = sheet.ids()
    first = sheet.output(cells["tree"]).locator("details").first
    assert first.evaluate("details => details.open")
    first.locator("summary").first.focus()
    sheet.page.keyboard.press("Space")
    assert not first.evaluate("details => details.open")
    sheet.page.keyboard.press("b")
    sheet.page.keyboard.press("Space")
    assert first.evaluate("details => details.open")
    passage = sheet.output(cells["passage"]).locator("pre")
    passage.focus()
    sheet.page.keyboard.press("b")
    assert sheet.ids() == before


def test_copied_text_has_no_line_numbers(sheet: Notebook, cells: dict[str, str]) -> None:
    passage = sheet.output(cells["passage"]).locator("pre")
    copied = passage.evaluate(
        """pre => {
            const selection = window.getSelection();
            selection.selectAllChildren(pre);
            const text = selection.toString();
            selection.removeAllRanges();
            return text;
        }"""
    )
    assert copied.splitlines()[0].strip() == "def do_kv_cache_update("
    assert "850" not in copied
