"""Every view in each of JupyterLab's kinds of theme: axe finds nothing serious. One test a theme, for switching takes long."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.browser.accessibility import THEMES, in_theme, serious_faults
from tests.browser.conftest import Screenshot
from tests.browser.jupyterlab import Notebook

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

# A cell for each view, showing as much of it as one state can.
VIEWS = {
    "backend-chooser": "widgets.BackendChooser()",
    "block-table": "view = widgets.BlockTableExplorer()\nview.do('fork', 'B')\nview.do('predict', 'D', 2, '3, 12')\nview.selected = 0\nview.do('free', 'A')\nview",
    "block-table-tensors": "import course\ncourse.show(torch.tensor([[5, 2], [5, 7]]), torch.tensor([8, 30]), torch.tensor([7, 6]), block_size=4)",
    "mask-tiles": "widgets.MaskTiles(9, 6, sliding_window=9)",
}


@pytest.fixture(scope="module")
def cells(lesson: Notebook) -> Iterator[dict[str, str]]:
    """The views, one cell each, all run, and gone again afterwards."""
    found = {}
    for name, text in VIEWS.items():
        found[name] = lesson.insert_below("setup", f"from course import widgets\n{text}")
        assert lesson.run(found[name]).errors == []
        lesson.output(found[name]).locator(".abc-view").first.wait_for()
    yield found
    for cell in found.values():
        lesson.delete(cell)


@pytest.mark.parametrize("theme", THEMES)
def test_axe_finds_nothing_serious(
    lesson: Notebook, cells: dict[str, str], theme: str, screenshot: Screenshot
) -> None:
    found = {}
    with in_theme(lesson, theme) as theme_name:
        for name, cell in cells.items():
            if serious := serious_faults(lesson, cell):
                found[name] = serious
            screenshot(lesson.page, f"widget-{name}-{theme_name}")
    assert found == {}
