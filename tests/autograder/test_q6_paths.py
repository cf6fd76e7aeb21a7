"""Question 6's check: call paths held against vLLM's syntax tree, and our own layer's as recorded."""

import ast
from typing import Any

import pytest

from autograder import CheckFailed, check, registry
from autograder.checks import recorded_run
from autograder.checks.q6_paths import IMPL, START, THROUGH
from autograder.examine import examine
from autograder.suite import open_suite
from course.vllm import index as vllm_index
from course.vllm import source as vllm_source

CHECK = registry.get("q6_paths")
TRUTH: dict[str, Any] = dict(CHECK.solution)
WRITE, READ = TRUTH["q6_write"], TRUTH["q6_read"]


def said(**changes: Any) -> str:
    """The first failure's headline."""
    verdict = examine(CHECK, {**TRUTH, **changes}, open_suite("visible"))
    return verdict.failures[0].problem.headline if verdict.failures else ""


def test_the_paths_are_the_shortest_of_vllms_syntax_tree() -> None:
    for path, (method, end) in zip((WRITE, READ), THROUGH.values(), strict=True):
        assert [*(vllm_index.route(START, method) or []), end] == path
        assert vllm_index.broken_step(path) is None
    for part, parameter in (("q6_write", "slot_mapping"), ("q6_read", "block_table")):
        method, end = THROUGH[part]
        assert end in vllm_index.callees(method)
        assert parameter in vllm_index.where(end).parameters


def test_our_recorded_run_has_the_same_roles() -> None:
    """Four functions each, and but for the names of impl and kernel the same ones."""
    for path, backend in [(p, b) for p in (WRITE, READ) for b in recorded_run.ENDS]:
        end = recorded_run.ENDS[backend][path is READ]
        ours = recorded_run.path(end, backend)
        assert len(ours) == len(path) == 4
        for own, vllms in zip(ours[:3], path[:3], strict=True):
            assert own.partition(":")[2].rpartition(".")[2] == vllms.partition(":")[2].rpartition(".")[2]
        assert ours[2].split(".")[-2].endswith("Impl")


@pytest.mark.usefixtures("released_source")
def test_forward_has_no_slot_mapping_and_takes_the_block_table_out_of_its_metadata() -> None:
    def text(method: str) -> str:
        path = "vllm/v1/attention/backends/flash_attn.py"
        first, last = vllm_source.locate(path, method)
        body = "\n".join(vllm_source.read(path).splitlines()[first - 1 : last])
        return ast.unparse(ast.parse(body.replace("\n    ", "\n").strip()))

    assert "slot_mapping" not in text("FlashAttentionImpl.forward")
    assert "attn_metadata.block_table" in text("FlashAttentionImpl.forward")
    assert "attn_metadata" not in text("FlashAttentionImpl.do_kv_cache_update")
    assert vllm_index.describe("backends/flash_attn.py:592") == "line 592 is the class FlashAttentionImpl"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (WRITE[1:], "begins with unified_kv_cache_update; begin with Attention.forward"),
        (WRITE[::-1], "begins before the layer, with reshape_and_cache_flash"),
        (WRITE[:2], "ends at unified_kv_cache_update, which is not the function that touches the cache"),
        (WRITE[:1], "ends at Attention.forward"),
        ([WRITE[0], WRITE[3]], "Attention.forward (attention.py:437) does not call reshape_and_cache_flash itself; 2 steps between them are missing"),
        ([*WRITE, READ[3]], "does not call flash_attn_varlen_func"),
        (READ, "this path ends where the cache is read"),
        ([*WRITE[:2], "attn_layer.impl.do_kv_cache_update", WRITE[3]], "there is no 'attn_layer.impl.do_kv_cache_update'"),
        ([*WRITE[:2], "do_kv_cache_update", WRITE[3]], "write the class, or the module, before it as well"),
        ([*WRITE[:2], "FlexAttentionImpl.do_kv_cache_update"], "belongs to another backend"),
        (["attention.py:498", *WRITE[1:]], "line 498 is inside the method Attention.forward"),
        ([*WRITE[:2], "flash_attn.py:592", WRITE[3]], "line 592 is the class FlashAttentionImpl; do_kv_cache_update starts at 850 and forward starts at 667"),
        (["FlashAttentionImpl.forward", *WRITE[1:]], "begins with FlashAttentionImpl.forward; begin with Attention.forward"),
        (["kernels/backends/layer.py:Attention.forward"], "names the course's own code"),
        (" -> ".join(WRITE), "expected a list of names in vLLM's source"),
        (set(WRITE), "got a set"),
        ([], "q6_write is empty"),
        ([*WRITE[:3], None], "q6_write[3] is empty"),
        ([*WRITE[:3], 2591], "q6_write[3]: expected a name in vLLM's source"),
    ],
)  # fmt: skip
def test_a_path_that_is_none_is_told_where_it_breaks(path: Any, words: str) -> None:
    assert words in said(q6_write=path)


def test_a_path_must_pass_the_impl_that_is_asked_for() -> None:
    around = [*READ[:2], f"{IMPL}._forward_with_dcp", READ[3]]
    assert (
        "unified_attention_with_output (attention.py:734) does not call FlashAttentionImpl._forward_with_dcp"
        in said(q6_read=around)
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"slot_mapping": "kv_cache", "block_table": "attn_metadata"}, "kv_cache is the blocks themselves"),
        ({"slot_mapping": "key", "block_table": "attn_metadata"}, "key is a parameter of FlashAttentionImpl.do_kv_cache_update, but does not hold the slot mapping"),
        ({"slot_mapping": "forward:slot_mapping", "block_table": "attn_metadata"}, "the one to look at is FlashAttentionImpl.do_kv_cache_update"),
        ({"slot_mapping": "attn_metadata.slot_mapping", "block_table": "attn_metadata"}, "has no parameter attn_metadata"),
        ({"slot_mapping": "slot_mapping", "block_table": "block_table"}, "FlashAttentionImpl.forward has no parameter block_table"),
        ({"slot_mapping": "slot_mapping", "block_table": "attn_metadata.seq_lens"}, "does not hold the block table"),
        ({"slot_mapping": "slot_mapping", "block_table": ""}, "is empty"),
        ({"slot_mapping": "slot_mapping", "block_table": "forward"}, "names no parameter"),
        ({"slot_mapping": "slot_mapping"}, "has no entry for block_table"),
        (["slot_mapping", "attn_metadata"], "expected a dict with the keys"),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_told_what_the_method_takes(arguments: Any, words: str) -> None:
    assert words in said(q6_arguments=arguments)


@pytest.mark.parametrize("empty", [([], [], {"slot_mapping": "", "block_table": ""}), (None, None, None)])
def test_the_empty_answer_earns_nothing(empty: Any) -> None:
    with pytest.raises(CheckFailed, match="this is not answered yet"):
        check("q6_paths", empty)
