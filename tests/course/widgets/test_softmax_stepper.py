"""Online softmax as a view, without a browser: the frames are the definition's numbers, whatever the row and the tiles."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import course
from course import widgets
from course.widgets.softmax_stepper.frames import frames
from course.widgets.softmax_stepper.model import SoftmaxRow
from course.widgets.softmax_stepper.scores import read_scores
from tests.kernels.batches import Spec, make_batch

LESSON = [2.0, 1.0, 5.0, 3.0, -math.inf, -math.inf, 12.0, 0.0]

Scores = st.lists(st.one_of(st.floats(-300, 300, width=16), st.just(-math.inf)), min_size=1, max_size=12)


def sides(frame: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(side["name"], side["dtype"]): side for side in frame["sides"]}


@settings(max_examples=40, deadline=None)
@given(scores=Scores, tile=st.integers(1, 5))
def test_each_frame_is_the_definition_and_the_dense_softmax(scores: list[float], tile: int) -> None:
    row = SoftmaxRow(scores, tile=tile)
    shown = frames(row)
    assert [frame["first"] for frame in shown] == list(range(0, len(scores), tile))
    assert [text for frame in shown for text in frame["texts"]] == [f"{score:.5g}" for score in scores]
    for index, frame in enumerate(shown):
        seen = scores[: frame["first"] + len(frame["texts"])]
        assert float(frame["m"]) == pytest.approx(max(seen), rel=1e-4)
        assert frame["wrong"] == []
        assert "acc / l is equal to it" in frame["dense"]["sentence"]
        before = shown[index - 1] if index else None
        assert frame["m_before"] == (before["m"] if before else "-inf")
        for bars in (frame["l"], frame["acc"][0]):
            numbers = bars["numbers"]
            assert numbers["rescaled"] == pytest.approx(numbers["before"] * frame["factor_value"])
            assert numbers["rescaled"] + numbers["brought"] == pytest.approx(
                numbers["after"], rel=1e-4, abs=1e-6
            )
    json.dumps(row.to_dict(), allow_nan=False)
    assert "over the whole row" in shown[-1]["dense"]["sentence"]


def test_the_factor_is_what_repairs_the_past() -> None:
    shown = frames(SoftmaxRow(LESSON))
    assert [frame["factor"] for frame in shown] == ["0", "0.049787", "1", "0.00091188"]
    assert "m grows from 2 to 5, so l and acc are multiplied by exp(2 - 5) = 0.049787" in shown[1]["sentence"]
    assert "m stays 5" in shown[2]["sentence"]
    assert shown[2]["l"]["numbers"]["brought"] == 0
    assert shown[2]["acc"][0]["texts"]["after"] == shown[1]["acc"][0]["texts"]["after"]
    # What is asked before the reveal does not hold the answer.
    assert "m is 2. What will m be" in shown[1]["question"]
    assert "0.049787" not in shown[1]["question"]


@pytest.mark.parametrize(
    ("scores", "broken"),
    [([2.0, 1.0], []), ([12.0, 1.0], ["float16"]), ([100.0, 1.0], ["float32", "float16"])],
)
def test_without_the_maximum_large_scores_end_in_inf_and_nan(scores: list[float], broken: list[str]) -> None:
    frame = frames(SoftmaxRow(scores))[-1]
    for (name, dtype), side in sides(frame).items():
        if name == "without" and dtype in broken:
            assert (side["l"], side["output"]) == ("inf", ["nan"])
            assert f"the most that {dtype} holds. l is inf" in side["fate"]
        else:
            assert math.isfinite(float(side["output"][0]))
            assert side["fate"] == ""
    assert len(frame["fates"]) == len(broken)


def test_without_the_maximum_small_scores_underflow_to_zero_over_zero() -> None:
    naive = sides(frames(SoftmaxRow([-200.0, -201.0]))[-1])["without", "float32"]
    assert (naive["l"], naive["output"]) == ("0", ["nan"])
    assert "0 / 0 is nan" in naive["fate"]


def test_a_row_of_which_everything_is_masked_is_empty_and_not_nan() -> None:
    row = SoftmaxRow([-math.inf] * 3)
    assert [frame["output"] for frame in frames(row)] == [["0"], ["0"]]
    assert "nan" not in row.describe()


def test_your_own_update_is_shown_and_its_first_wrong_number_named() -> None:
    def forgets_acc(state: Any, scores: torch.Tensor, values: torch.Tensor) -> Any:
        m, l, acc = state  # noqa: E741
        m_new = torch.maximum(m, scores.max())
        weights = torch.exp(scores - m_new)
        return m_new, l * torch.exp(m - m_new) + weights.sum(), acc + weights @ values

    shown = frames(SoftmaxRow([2.0, 1.0, 5.0, 3.0], update=forgets_acc))
    assert shown[0]["wrong"] == []
    [fault] = shown[1]["wrong"]
    assert fault == f"acc[0] after tile 1: expected 36.278, got {shown[1]['acc'][0]['texts']['after']}."
    assert "NOT equal" in shown[1]["dense"]["sentence"]


def test_a_requests_blocks_are_its_tiles() -> None:
    batch = make_batch(
        Spec(((1, 9),), num_heads=2, num_kv_heads=1, head_size=16, block_size=4),
        torch.float32,
        torch.device("cpu"),
        seed=3,
    )
    steps = course.softmax_steps(*batch.decode_arguments, head=1)
    row = SoftmaxRow(steps)
    assert row.steps == list(steps)
    assert [frame["name"] for frame in frames(row)] == [
        f"block {step.block} (physical {step.physical})" for step in steps
    ]
    assert "acc / l is equal" in frames(row)[-1]["dense"]["sentence"]
    assert len(frames(row)[0]["acc"]) == 8  # of 16
    for change in (lambda: row.change_scores("1, 2"), lambda: row.change_tile(1)):
        with pytest.raises(ValueError, match="cannot be changed"):
            change()


def test_what_is_no_row_of_scores_is_refused_and_changes_nothing() -> None:
    assert read_scores("2, −1;".replace(";", "") + " -∞").tolist() == [2.0, -1.0, -math.inf]
    row = SoftmaxRow(LESSON, values=range(8))
    before = row.to_dict()
    for text, part in (
        ("1, two", "got 'two'"),
        ("", "1 to 512 numbers"),
        ("inf, 1", "got nan or inf"),
        ("1, 2", "expected 8 numbers"),
    ):
        with pytest.raises(ValueError, match=part):
            row.change_scores(text)
    for tile in (0, "2", None):
        with pytest.raises(ValueError, match="tile: expected"):
            row.change_tile(tile)  # type: ignore[arg-type]
    assert row.to_dict() == before
    with pytest.raises(ValueError, match=r"values: expected \[8\]"):
        SoftmaxRow(LESSON, values=[1.0])


def test_the_page_changes_the_row_and_starts_again() -> None:
    view = widgets.SoftmaxStepper(LESSON)
    view.step, view.predictions = 4, {"1": ["5", "0.05"]}
    view._handle_custom_msg({"operation": "change_scores", "arguments": ["7, 8, -inf"]}, [])
    assert (view.step, view.predictions, view.fault) == (0, {}, "")
    assert view.state["scores"] == "7, 8, -inf"
    assert view.summary == "3 scores in 2 tiles; nothing is seen yet."
    view._handle_custom_msg({"operation": "change_tile", "arguments": [3]}, [])
    assert len(view.state["frames"]) == 1
    before = view.state
    view._handle_custom_msg({"operation": "change_scores", "arguments": ["x"]}, [])
    assert "got 'x'" in view.fault
    assert view.state == before
    view._handle_custom_msg({"operation": "describe", "arguments": []}, [])
    assert "expected one of" in view.fault
    view._handle_custom_msg({"operation": "reset"}, [])
    assert view.state["scores"] == "2, 1, 5, 3, -inf, -inf, 12, 0"


def test_a_failure_in_your_update_is_said_on_the_page() -> None:
    def fails_on_masks(state: Any, scores: torch.Tensor, values: torch.Tensor) -> Any:
        if not torch.isfinite(scores).all():
            raise ZeroDivisionError("masked")
        return state

    view = widgets.SoftmaxStepper([1.0, 2.0], update=fails_on_masks)
    view._handle_custom_msg({"operation": "change_scores", "arguments": ["-inf"]}, [])
    assert view.fault == "your update raised ZeroDivisionError: masked"


def test_it_shows_itself_as_text_and_table_too() -> None:
    data, _ = widgets.SoftmaxStepper(LESSON)._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    for kind in ("text/plain", "text/html"):
        assert "0.049787" in data[kind]
        assert "Without the maximum in float16" in data[kind]
        assert "acc / l is equal to it" in data[kind]
