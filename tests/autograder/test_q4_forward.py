"""Question 4's check: the truth is read off vLLM's source, and every way to be wrong has its words."""

import ast
import re
from typing import Any

import pytest

from autograder import CheckFailed, check, registry
from autograder.checks.q4_forward import known, passed, unknown
from autograder.examine import examine
from autograder.suite import open_suite
from course.candidates import MODEL
from course.vllm import source as vllm_source

CHECK = registry.get("q4_forward")
TRUTH = dict(CHECK.solution)
RIGHT = "vllm.forward_context:get_forward_context"


def said(**changes: Any) -> str:
    """The first failure's headline."""
    verdict = examine(CHECK, {**TRUTH, **changes}, open_suite("visible"))
    return verdict.failures[0].problem.headline if verdict.failures else ""


def test_the_truth_is_the_sources() -> None:
    assert passed() == {"query", "key", "value"}
    assert unknown() == TRUTH["q4_unknown"]
    assert passed() < known()
    assert known() | unknown() == set(MODEL)
    assert not known() & unknown()


@pytest.mark.usefixtures("released_source")
def test_llamas_attention_mentions_nothing_that_is_unknown_and_all_that_is_known() -> None:
    """The index has parameters only; here the whole class is read, calls and attributes too."""
    tree = ast.parse(vllm_source.read("vllm/model_executor/models/llama.py"))
    (attention,) = (n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "LlamaAttention")
    names: set[str] = set()
    for node in ast.walk(attention):
        if isinstance(node, ast.Name | ast.Attribute):
            names.add(node.id if isinstance(node, ast.Name) else node.attr)
        elif isinstance(node, ast.arg | ast.keyword):
            names.add(str(node.arg))
    others = {
        "kernel": ("kernel", "attn_backend", "get_attn_backend", "impl"),
        "cache_layout": ("get_kv_cache_shape",),
    }
    for word in unknown():
        assert not names & {word, *others.get(word, ())}, word
    spelt = {"head_size": "head_dim", "scale": "scaling", "query": "q", "key": "k", "value": "v"}
    assert {spelt.get(word, word) for word in known()} <= names


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("vllm.v1.attention.selector:get_attn_backend", "is not where a layer finds this step's metadata"),
        ("Attention.forward", "gets no metadata. Its docstring says where"),
        ("FlashAttentionMetadataBuilder.build", "makes the metadata before the model runs"),
        ("vllm.forward_context:BatchDescriptor", "is in the right file, but holds no metadata"),
        ("forward_context.py:200", "is_forward_context_available is in the right file"),
        ("forward_context.py:195", "line 195 is inside the function get_forward_context"),
        ("forward_context.py:5", "is in no class and no function"),
        ("nowhere.py:5", "there is no file nowhere.py"),
        ("get_forward_contxt", "there is no 'get_forward_contxt' in vLLM's attention code; did you mean get_forward_context?"),
        ("do_kv_cache_update", "fits vllm.v1.attention.backend:MLAAttentionImpl.do_kv_cache_update and"),
        ("kernels.backends.forward_context:get_forward_context", "is the course's own code"),
        ("", "is empty; expected a name in vLLM's source"),
        (RIGHT.split(":"), "expected a name in vLLM's source, \"module:qualname\", got a list"),
    ],
)  # fmt: skip
def test_a_wrong_source_is_told_what_it_is(name: Any, words: str) -> None:
    assert words in said(q4_metadata_source=name)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("query, key, value", "q4_passed: expected a set of words from the list of candidates, got a str"),
        ({"query": 1}, "got a dict"),
        ({"query", 3}, "in it is an int"),
        ({"querry"}, "'querry' is not among the candidates; did you mean query?"),
        (set(), "q4_passed is empty"),
        (None, "got a NoneType"),
        (set(MODEL), "are no argument of Attention.forward"),
    ],
)
def test_an_answer_of_another_kind_is_told_what_is_expected(answer: Any, words: str) -> None:
    assert words in said(q4_passed=answer)


@pytest.mark.parametrize("empty", [(set(), set(), ""), ([], (), "  "), (None, None, None), (..., {}, "")])
def test_the_empty_answer_earns_nothing(empty: tuple[Any, ...]) -> None:
    with pytest.raises(CheckFailed, match="this is not answered yet: fill in q4_passed, q4_unknown and"):
        check("q4_forward", empty)


def test_each_part_earns_its_point(capsys: pytest.CaptureFixture[str]) -> None:
    assert check("q4-forward", tuple(TRUTH.values())) == 3
    assert check("q4_forward", ({"query"}, TRUTH["q4_unknown"], RIGHT), suite="hidden") == 2
    assert re.search(r"1 of 3 hidden cases fail", capsys.readouterr().out)
    with pytest.raises(CheckFailed, match="takes the 3 answers"):
        check("q4_forward", {"query", "key", "value"})


def test_all_candidates_at_once_are_wrong_in_both_sets() -> None:
    verdict = examine(
        CHECK, {**TRUTH, "q4_passed": set(MODEL), "q4_unknown": set(MODEL)}, open_suite("visible")
    )
    assert verdict.num_passed == 1
