"""A view outside a trusted notebook in JupyterLab: in Notebook 7 it works, and untrusted it is its table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
import pytest

from course import widgets
from tests.browser.conftest import Screenshot
from tests.browser.jupyterlab import Notebook, Server

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

KERNEL_IS_THERE = """async () => {
    const panel = window.jupyterapp.shell.currentWidget;
    await panel.context.ready;
    await panel.sessionContext.ready;
    await panel.sessionContext.session.kernel.info;
}"""
CODE = "from course import widgets\nwidgets.BlockTableExplorer()"


def write(path: Path, outputs: list[nbformat.NotebookNode]) -> None:
    """A notebook of one cell, as somebody else's machine saved it."""
    cell = nbformat.v4.new_code_cell(CODE, id="view", outputs=outputs)
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata={"kernelspec": kernel}), path)


def test_notebook_7_draws_it_and_it_takes_keys(
    server: Server, context: BrowserContext, course_folder: Path, screenshot: Screenshot
) -> None:
    write(course_folder / "work" / "notebook-7.ipynb", [])
    page = context.new_page()
    page.goto(server.address("notebooks/work/notebook-7.ipynb"))
    page.wait_for_function("() => window.jupyterapp?.shell.currentWidget?.sessionContext")
    page.evaluate(KERNEL_IS_THERE)
    page.locator(".jp-Cell .cm-content").first.click()
    page.keyboard.press("Shift+Enter")
    view = page.locator(".abc-view")
    view.get_by_role("listbox", name="Physical blocks").wait_for()
    cells = page.locator(".jp-Cell").count()
    view.locator(".abc-block[tabindex='0']").focus()
    for key in ("b", "ArrowRight", "ArrowRight"):
        page.keyboard.press(key)
    view.get_by_text("A's logical block 1, B's logical block 1").wait_for()
    view.get_by_label("Request", exact=True).select_option("C")
    view.get_by_role("button", name="Append").press("Enter")
    view.get_by_role("status").filter(has_text="C got 1 token, written to slot 29").wait_for()
    assert page.locator(".jp-Cell").count() == cells
    screenshot(page, "widget-notebook-7")
    page.close()


def test_untrusted_it_is_its_table(
    server: Server, lab: Page, course_folder: Path, screenshot: Screenshot
) -> None:
    data, _ = widgets.BlockTableExplorer()._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    write(
        course_folder / "work" / "untrusted.ipynb",
        [nbformat.v4.new_output("execute_result", data, execution_count=1)],
    )
    notebook = Notebook(lab, server, "work/untrusted.ipynb")
    output = notebook.output("view")
    output.get_by_role("table").wait_for()
    assert "0 → 9, 1 → 2, 2 → 5" in output.inner_text()
    assert output.locator(".abc-view").count() == 0
    assert "Error displaying widget" not in output.inner_text()
    screenshot(notebook.page, "widget-untrusted")
    notebook.close()
