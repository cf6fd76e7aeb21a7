"""The form over vLLM's selector, without a browser: its answers are the rules' own, and the page can ask for no more than it may."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from course import widgets
from course.deployments import DEPLOYMENTS
from course.vllm import rules as vllm_rules
from course.widgets.backend_chooser.model import Chooser


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_the_answers_are_the_rules_own(name: str) -> None:
    chooser = Chooser()
    assert vllm_rules.select(DEPLOYMENTS[name]) in chooser.load(name)
    answers = chooser.answers()
    assert {row["backend"]: row["reasons"] for row in answers} == vllm_rules.explain(DEPLOYMENTS[name])
    chosen = [row["backend"] for row in answers if row["verdict"] == "chosen"]
    assert chosen == [backend for backend in (vllm_rules.select(DEPLOYMENTS[name]),) if backend != "none"]
    for row in answers:
        assert len(row["places"]) == len(row["reasons"])
        assert all(":" in place for place in row["places"])


def test_a_reason_stands_where_the_backend_says_so() -> None:
    chooser = Chooser()
    chooser.change("head_size", 80)
    refused = next(row for row in chooser.answers() if row["backend"] == "FLASHINFER")
    assert refused["reasons"] == ["head_size not supported"]
    assert refused["places"] == [vllm_rules.place("FLASHINFER", "supports_head_size")]


def test_where_nobody_is_valid_it_says_so() -> None:
    chooser = Chooser(vllm_rules.Deployment((7, 0), "float32", 1023, kv_cache_dtype="nvfp4"))
    assert chooser.to_dict()["chosen"] == "none"
    assert "nobody is left" in chooser.describe()
    assert "<strong>none</strong>" in chooser.to_html()


def test_the_state_is_json_and_every_value_offered_is_accepted() -> None:
    state = Chooser().to_dict()
    assert json.loads(json.dumps(state)) == state
    for field, values in state["offered"].items():
        for value in values:
            chooser = Chooser()
            chooser.change(field, value[0] if field == "capability" else value)
            assert field in chooser.describe()


def test_the_page_asks_for_operations_and_nothing_else() -> None:
    view = widgets.BackendChooser()
    view._handle_custom_msg({"operation": "change", "arguments": ["head_size", 96]}, [])
    assert view.state["deployment"]["head_size"] == 96
    assert "head_size is 96" in view.summary
    before = view.state
    for content, part in (
        ({"operation": "to_html", "arguments": []}, "operation: expected one of"),
        ({"operation": "change", "arguments": ["head_size", 0]}, "head_size: expected"),
        ({"operation": "change", "arguments": ["head"]}, "TypeError"),
        ({}, "KeyError"),
    ):
        view._handle_custom_msg(content, [])
        assert part in view.fault
        assert view.state == before
    view._handle_custom_msg({"operation": "reset"}, [])
    assert view.fault == ""
    assert view.state["deployment"]["head_size"] == 128


def test_it_shows_itself_as_text_and_table_too() -> None:
    view = widgets.BackendChooser(DEPLOYMENTS["b200-phi3-bf16"])
    data, _ = view._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    for kind in ("text/plain", "text/html"):
        assert view.chosen in data[kind]
        assert "head_size not supported" in data[kind]


def test_with_guess_first_the_answer_waits_for_a_guess() -> None:
    view = widgets.BackendChooser(DEPLOYMENTS["b200-llama-bf16"], guess_first=True)
    assert view.state["chosen"] == "FLASHINFER"  # where it begins there is nothing to guess
    assert view.do("change", "head_size", 96) == "head_size is 96. Who will be chosen?"
    assert (view.state["chosen"], view.state["answers"]) == (None, [])
    assert "FLASH_ATTN" not in view.describe()
    assert view.chosen == "FLASH_ATTN"
    assert view.do("guess", "FLASHINFER") == "You said FLASHINFER: vLLM chooses FLASH_ATTN."
    assert view.state["chosen"] == "FLASH_ATTN"
    assert view.do("load", "t4-llama1b-fp16").endswith("Who will be chosen?")
    assert view.do("guess", "FLASHINFER") == "Right: vLLM chooses FLASHINFER."
    view.do("change", "dtype", "float32")
    view._handle_custom_msg({"operation": "guess", "arguments": ["nobody"]}, [])
    assert "backend: expected one of" in view.fault
    assert view.state["chosen"] is None
    assert view.do("set_guess_first", False).startswith("vLLM chooses ")
    assert view.state["chosen"] == view.chosen
    view.do("set_guess_first", True)
    view.do("change", "dtype", "float16")
    assert view.do("reset").endswith("vLLM chooses FLASHINFER.")
    assert view.state["chosen"] == "FLASHINFER"


def test_what_lesson_1_says_of_changes_to_its_b200() -> None:
    """Which one change makes FLASHINFER refuse there; attention sinks do not, but they do on an A100."""
    begin = DEPLOYMENTS["b200-llama-bf16"]
    refusing = {
        "dtype": "float32",
        "head_size": 96,
        "kv_cache_dtype": "int8_per_token_head",
        "block_size": 8,
        "use_sparse": True,
        "use_mm_prefix": True,
        "use_non_causal": True,
        "use_batch_invariant": True,
    }
    for field, value in refusing.items():
        assert vllm_rules.explain(replace(begin, **{field: value}))["FLASHINFER"], field
    assert not vllm_rules.explain(replace(begin, has_sink=True))["FLASHINFER"]
    assert not vllm_rules.explain(replace(begin, capability=(8, 0)))["FLASHINFER"]
    assert vllm_rules.explain(replace(begin, capability=(8, 0), has_sink=True))["FLASHINFER"]
    assert [
        vllm_rules.select(replace(begin, **{field: refusing[field]}))
        for field in ("block_size", "use_sparse")
    ] == ["none"] * 2
