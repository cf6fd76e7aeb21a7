"""Self-grading: drawings of vLLM's code by its syntax tree, of ours by what was recorded."""

from typing import Any

import pytest

from autograder import CheckFailed, check, registry
from autograder.checks.drawings import STEPS, of_ours, of_vllm
from autograder.examine import examine
from autograder.suite import open_suite
from course.candidates import STATIONS
from course.widgets.call_path.model import CallDrawing, DrawnEdges

CHECK = registry.get("self_path")
TRUTH: list[Any] = CHECK.solution["q_path"]


def failures(drawing: Any) -> list[str]:
    verdict = examine(CHECK, {"q_path": drawing}, open_suite("visible"))
    return [failure.problem.headline for failure in verdict.failures]


def test_every_backends_drawing_has_six_edges_with_the_same_roles() -> None:
    for drawing in (*of_vllm(), of_ours("PAGED_TORCH"), of_ours("TRITON_ATTN")):
        assert len(set(drawing.edges)) == len(STEPS) == 6
        for (caller, callee), step in zip(drawing.edges, STEPS, strict=True):
            assert (".do_kv_cache_update" in caller + callee) == ("write" in step and "impl" in step)
            assert caller.endswith(":Attention.forward") == ("from the layer" in step)
        assert not failures(list(drawing.edges)), drawing.name


@pytest.mark.parametrize("missing", range(6))
def test_an_edge_that_is_missing_or_reversed_costs_its_point(missing: int) -> None:
    assert failures(TRUTH[:missing] + TRUTH[missing + 1 :]) == [f"there is no edge for {STEPS[missing]}"]
    turned = [edge if i != missing else edge[::-1] for i, edge in enumerate(TRUTH)]
    said = failures(turned)
    assert said[0] == f"{STEPS[missing]}: this edge is drawn the other way round; the caller comes first"
    assert len(said) == 2  # and that edge is not there


@pytest.mark.parametrize(
    ("edge", "words"),
    [
        (("attention.py:Attention.forward", "flash_attn.py:FlashAttentionImpl.forward"), "attention.py:Attention.forward does not call flash_attn.py:FlashAttentionImpl.forward"),
        (("selector.py:get_attn_backend", "attention.py:Attention.forward"), "does not call"),
        (("kernels/backends/layer.py:Attention.forward", "attention.py:unified_kv_cache_update"), "are of two code bases"),
        (("kernels/backends/layer.py:unified_kv_cache_update", "kernels/reference.py:paged_attention"), "in the recorded run layer.py:unified_kv_cache_update does not call"),
        (("Attention.forward", "attention.py:unified_kv_cache_update"), "'Attention.forward' says no file"),
        (("layer.py:Nothing", "attention.py:unified_kv_cache_update"), "there is no 'layer.py:Nothing'"),
        (("attention.py:Attention.forward",), "q_path[6]: expected an edge (caller, callee), got a tuple"),
        ("attention.py:Attention.forward -> attention.py:unified_kv_cache_update", "q_path[6]: expected an edge (caller, callee), got a str"),
        ((None, 3), "q_path[6] is empty"),
    ],
)  # fmt: skip
def test_an_edge_that_is_not_there_costs_one_point_and_is_named(edge: Any, words: str) -> None:
    (said,) = failures([*TRUTH, edge])
    assert words in said


def test_every_edge_that_one_can_think_of_is_no_answer() -> None:
    ends = sorted({end for edge in TRUTH for end in edge})
    assert len(failures([(a, b) for a in ends for b in ends])) == 1
    assert len(failures([(ends[0], ends[0])])) == 7


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ([], "this is not answered yet: fill in q_path"),
        ([("", "")], "this is not answered yet"),
        (None, "this is not answered yet"),
        ({"a": "b"}, "expected a list of edges (caller, callee)"),
        ("attention.py", "got a str"),
        (lambda: TRUTH, "got a function"),
        (DrawnEdges(TRUTH), "q_path is the drawing itself, which lives in this kernel alone"),
        (DrawnEdges(), "copy the text below the drawing over the cell of the answer"),
    ],
)
def test_what_is_no_drawing_earns_nothing(answer: Any, words: str) -> None:
    with pytest.raises(CheckFailed) as caught:
        check("self_path", answer)
    assert words in str(caught.value)


def test_a_drawing_handed_in_as_text_gets_every_point() -> None:
    """FLASH_ATTN's and TRITON_ATTN's can both be drawn with what is on offer, and the text says the same as the drawing."""
    variants = {variant.name: variant.parts["q_path"] for variant in CHECK.right_variants}
    for edges in (TRUTH, variants["tritons"]):
        drawing = CallDrawing(STATIONS)
        for caller, callee in edges:
            drawing.add(caller, callee)
        cell: dict[str, Any] = {}
        exec(drawing.code(), cell)
        assert cell["q_path"] == edges
        assert failures(cell["q_path"]) == []


def test_mistakes_can_be_drawn_and_are_told() -> None:
    """What is on offer does not make the answer for the learner: the wrong ways can be drawn with it."""
    for mistake in CHECK.misconceptions:
        if mistake.name == "without-files":
            continue
        drawing = CallDrawing(STATIONS)
        for caller, callee in mistake.parts["q_path"]:
            drawing.add(caller, callee)
        assert failures(list(drawing.edges)), mistake.name
