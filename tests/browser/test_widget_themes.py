"""Every view in each of JupyterLab's kinds of theme: axe finds nothing serious. One test a theme, for switching takes long."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.browser.accessibility import THEMES, in_theme, serious_faults
from tests.browser.conftest import Screenshot
from tests.browser.jupyterlab import Notebook
from tests.browser.recorded_kernel import RECORDED_KERNEL

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

# The drawing of FLASH_ATTN's two ways, one wrong arrow that passes a row, and a caller chosen.
CALL_PATH = """from course import candidates
from autograder.misconceptions.self_path import TRUTH
wrong = ("attention.py:Attention.forward", "_custom_ops.py:reshape_and_cache_flash")
path = widgets.CallPath(candidates.STATIONS, [*TRUTH["q_path"], wrong])
path.do("choose", "llama.py:LlamaAttention.forward")
path"""

# A cell for each view, showing as much of it as one state can.
VIEWS = {
    "backend-chooser": "widgets.BackendChooser()",
    "call-path": CALL_PATH,
    "split-timeline": 'timeline = widgets.SplitTimeline()\ntimeline.do("guess", "fixed")\ntimeline',
    "memory-view": f"{RECORDED_KERNEL}\nview = widgets.MemoryView(recording, block_table, seq_lens)\nview.access = 10\nview",
    "softmax-stepper": "view = widgets.SoftmaxStepper([2.0, 1.0, 5.0, 3.0, -1e400, -1e400, 12.0, 0.0])\nview.step = 8\nview",
    "block-table": "view = widgets.BlockTableExplorer()\nview.do('fork', 'B')\nview.do('predict', 'D', 2, '3, 12')\nview.selected = 0\nview.do('free', 'A')\nview",
    "block-table-tensors": "import course\ncourse.show(torch.tensor([[5, 2], [5, 7]]), torch.tensor([8, 30]), torch.tensor([7, 6]), block_size=4)",
    "mask-tiles": "widgets.MaskTiles(9, 6, sliding_window=9)",
}


@pytest.fixture(scope="module")
def cells(sheet: Notebook) -> Iterator[dict[str, str]]:
    """The views, one cell each, all run, and gone again afterwards."""
    found = {}
    for name, text in VIEWS.items():
        found[name] = sheet.insert_below("setup", f"from course import widgets\n{text}")
        assert sheet.run(found[name]).errors == []
        sheet.output(found[name]).locator(".abc-view").first.wait_for()
    yield found
    for cell in found.values():
        sheet.delete(cell)


@pytest.mark.parametrize("theme", THEMES)
def test_axe_finds_nothing_serious(
    sheet: Notebook, cells: dict[str, str], theme: str, screenshot: Screenshot
) -> None:
    with in_theme(sheet, theme) as theme_name:
        assert serious_faults(sheet, list(cells.values())) == []
        for name, cell in cells.items():
            sheet.output(cell)
            screenshot(sheet.page, f"widget-{name}-{theme_name}")
