"""The online-softmax stepper in JupyterLab: predicted, stepped and typed at, held against the kernel's frames."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.browser.jupyterlab import Notebook

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]


@pytest.fixture(scope="module")
def cell(sheet: Notebook) -> Iterator[str]:
    cell = sheet.insert_below(
        "setup",
        "from course import widgets\nstepper = widgets.SoftmaxStepper([2.0, 1.0, 5.0, 3.0, 12.0])\nstepper",
    )
    assert sheet.run(cell).errors == []
    sheet.output(cell).get_by_role("heading", name="Online softmax").wait_for()
    yield cell
    sheet.delete(cell)


def in_kernel(sheet: Notebook, cell: str, expression: str) -> str:
    asked = sheet.insert_below(cell, f"print({expression})")
    outputs = sheet.run(asked)
    assert outputs.errors == []
    sheet.delete(asked)
    return outputs.text.strip()


def test_a_prediction_is_committed_before_the_state_is_shown(sheet: Notebook, cell: str) -> None:
    before = sheet.ids()
    view, keyboard = sheet.output(cell), sheet.page.keyboard
    for _ in range(3):
        view.get_by_role("button", name="Next", exact=True).click()
    view.get_by_text("Predict. Tile 1 comes in with scores 5, 3").wait_for()
    assert "0.049787" not in view.inner_text()
    view.get_by_label("The new m").fill("5")
    view.get_by_label("The factor").fill("exp(5 - 2)")
    keyboard.press("Enter")
    view.get_by_text("You predicted: m 5 ✔ right; factor exp(5 - 2) ✘ it is 0.049787.").wait_for()
    assert view.get_by_role("button", name="Next", exact=True).evaluate(
        "node => node === document.activeElement"
    )
    keyboard.press("b")  # in Lab, a letter that inserts a cell
    slider = view.get_by_role("slider", name="Step through the row")
    slider.focus()
    keyboard.press("b")
    keyboard.press("End")
    view.get_by_text("Dense softmax over the whole row: acc / l is equal to it").wait_for()
    assert view.get_by_text("nan ✘").count() == 1  # float16 without the maximum
    assert sheet.ids() == before
    said = view.get_by_role("status").inner_text()
    asked = "stepper.step, stepper.predictions, [f['sentence'] for f in stepper.state['frames']][-1]"
    assert in_kernel(sheet, cell, asked) == f"6 {{'1': ['5', 'exp(5 - 2)']}} {said}"


def test_other_scores_go_to_the_kernel_and_come_back_as_frames(sheet: Notebook, cell: str) -> None:
    view, keyboard = sheet.output(cell), sheet.page.keyboard
    scores = view.get_by_label("Your scores (-inf: masked)")
    scores.click()
    scores.fill("1, x")
    keyboard.press("Enter")
    view.get_by_role("alert").filter(has_text="got 'x'").wait_for()
    scores.fill("-inf, 100")
    keyboard.press("Enter")
    view.get_by_role("status").filter(has_text="2 scores in 1 tiles").wait_for()
    assert view.get_by_role("alert").count() == 0
    view.get_by_label("Scores in a tile").select_option("1")
    view.get_by_role("status").filter(has_text="tiles of 1").wait_for()
    view.get_by_role("button", name="Next", exact=True).click()
    view.get_by_role("button", name="Next", exact=True).click()
    view.get_by_role("status").filter(has_text="every score so far is masked").wait_for()
    view.get_by_role("slider").fill("4")
    assert view.get_by_text("nan ✘").count() == 2  # float32 without the maximum, too
    assert (
        in_kernel(sheet, cell, "stepper.state['scores'], stepper.state['tile'], stepper.step")
        == "-inf, 100 1 4"
    )
