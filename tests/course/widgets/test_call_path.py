"""The drawing of a call path, without a browser: its edges are what was drawn, and every arrow has a way on the picture."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from course import widgets
from course.candidates import STATIONS
from course.widgets.call_path.model import CallDrawing, layout

A, B, C = "a.py:A.forward", "b.py:update", "c.py:kernel"
EDGES = st.lists(
    st.tuples(*2 * [st.sampled_from("PQRSTUV")]).filter(lambda edge: edge[0] != edge[1]),
    unique=True,
    max_size=12,
)


def test_two_choices_make_an_arrow_and_the_same_twice_takes_it_back() -> None:
    drawing = CallDrawing([A, B, C])
    assert drawing.choose(A) == f"From {A}. Now choose the function that it calls."
    assert drawing.choose(A) == "No caller is chosen."
    drawing.choose(A)
    assert drawing.choose(B) == f"Arrow 1: {A} calls {B}."
    drawing.add(B, C)
    assert drawing.edges == [(A, B), (B, C)]
    assert drawing.source is None
    assert "1 arrow left" in drawing.remove(1)
    assert drawing.edges == [(B, C)]
    drawing.clear()
    assert drawing.code() == "q_path = []"


@pytest.mark.parametrize(
    ("operation", "arguments", "part"),
    [
        ("add", (A, "d.py:x"), "callee: expected one of the functions on offer, got 'd.py:x'"),
        ("add", (A, A), "would call itself"),
        ("add", (A, B), "is there already"),
        ("choose", (7,), "node: expected one of the functions"),
        ("remove", (2,), "number: expected 1 to 1, got 2"),
        ("remove", ("1",), "number: expected 1 to 1"),
    ],
)
def test_what_cannot_be_done_changes_nothing(operation: str, arguments: tuple, part: str) -> None:
    drawing = CallDrawing([A, B, C], [(A, B)])
    with pytest.raises(ValueError) as caught:
        getattr(drawing, operation)(*arguments)
    assert part in str(caught.value)
    assert drawing.edges == [(A, B)]


def test_typed_edges_are_shown_in_whatever_container_they_come() -> None:
    for typed in ([(A, B), (B, C)], ([A, B], [B, C]), {(A, B), (B, C)}):
        drawing = CallDrawing(STATIONS, typed)
        assert sorted(drawing.edges) == [(A, B), (B, C)]
        assert set(drawing.nodes) == {*STATIONS, A, B, C}
    for typed, part in (
        ("text", "got a str"),
        ({A: B}, "got a dict"),
        ([(A,)], "edges[0]"),
        ([(A, B), (A, 3)], "edges[1]"),
    ):
        with pytest.raises(ValueError) as caught:
            CallDrawing(STATIONS, typed)
        assert part in str(caught.value)


@given(EDGES)
def test_every_function_has_one_place_and_every_arrow_goes_from_row_to_row(
    edges: list[tuple[str, str]],
) -> None:
    rows, routes = layout(edges)
    row_of = {node: index for index, row in enumerate(rows) for node in row}
    assert len(row_of) == sum(map(len, rows))
    assert {node for node in row_of if not node.startswith("via ")} == {end for edge in edges for end in edge}
    assert [(route[0], route[-1]) for route in routes] == edges
    for route in routes:
        steps = {row_of[after] - row_of[before] for before, after in pairwise(route)}
        assert steps in ({1}, {-1}, {0})
    if _without_circle(edges):
        assert all(row_of[caller] < row_of[callee] for caller, callee in edges)


def _without_circle(edges: list[tuple[str, str]]) -> bool:
    left = set(edges)
    while ends := {edge for edge in left if not any(caller == edge[1] for caller, _ in left)}:
        left -= ends
    return not left


def test_the_way_to_write_and_to_read_stand_side_by_side() -> None:
    layer, update, attend, kernel = "layer", "update", "attend", "kernel"
    rows, routes = layout([(layer, update), (layer, attend), (update, kernel), (layer, kernel)])
    assert rows == [[layer], [update, attend, "via 4.1"], [kernel]]
    assert routes[3] == [layer, "via 4.1", kernel]


def test_the_page_draws_and_the_kernel_knows() -> None:
    view = widgets.CallPath(STATIONS)
    first, second = list(STATIONS)[:2]
    view._handle_custom_msg({"operation": "choose", "arguments": [second]}, [])
    assert view.state["source"] == second
    view._handle_custom_msg({"operation": "choose", "arguments": [first]}, [])
    assert view.edges == [(second, first)]
    assert view.state["code"] == view.code()
    assert first in view.code()
    assert json.loads(json.dumps(view.state)) == view.state
    for content, part in (
        ({"operation": "code", "arguments": []}, "operation: expected one of"),
        ({"operation": "add", "arguments": [first]}, "TypeError"),
        ({"operation": "add", "arguments": [[], first]}, "TypeError"),
        ({"operation": "remove", "arguments": [9]}, "number: expected 1 to 1"),
    ):
        view._handle_custom_msg(content, [])
        assert part in view.fault
        assert view.edges == [(second, first)]


def test_it_shows_itself_as_text_and_table_too() -> None:
    for view, part in (
        (widgets.CallPath(STATIONS), "opaque to torch.compile"),
        (widgets.CallPath([], [(A, B)]), B),
    ):
        data, _ = view._repr_mimebundle_()
        assert "application/vnd.jupyter.widget-view+json" in data
        assert part in data["text/plain"]
        assert part in data["text/html"]
