"""The committed index of vLLM's attention code: it is what the source gives, and what it answers."""

import subprocess
import sys
from pathlib import Path

import pytest

from course.vllm import facts, index, index_build, source, symbols

ROOT = Path(__file__).parents[3]
FLASH = "vllm/v1/attention/backends/flash_attn.py"
LAYER = "vllm.model_executor.layers.attention.attention"
WRITE = ["Attention.forward", "unified_kv_cache_update", "FlashAttentionImpl.do_kv_cache_update"]
READ = ["Attention.forward", "unified_attention_with_output", "FlashAttentionImpl.forward"]


@pytest.fixture(autouse=True)
def no_source(request, monkeypatch, tmp_path):
    """Answers come without the source: it is neither in the cache nor to be had, unless a test asks for it."""
    if "released_source" not in request.fixturenames:
        monkeypatch.setenv(source.CACHE_VARIABLE, str(tmp_path / "none"))
        monkeypatch.setattr(source, "_download", lambda scratch: pytest.fail("the source was asked for"))


def test_the_committed_index_is_what_the_source_gives(released_source):
    committed = index_build.INDEX.read_text(encoding="utf-8")
    assert index_build.render(index_build.build()) == committed, (
        "run `python -m course.vllm.index_build` and commit what it writes"
    )
    assert index_build.INDEX == symbols.INDEX
    assert len(committed) < 300_000
    assert symbols.VERSION == source.VERSION


def test_lines_agree_with_the_source_readers_own(released_source):
    for path in list(index.files())[::9]:
        defined = source.definitions(path)
        for symbol in (each for each in symbols.symbols() if each.path == path):
            assert defined[symbol.qualname] == (symbol.first, symbol.last), symbol


@pytest.mark.parametrize(
    "name",
    [
        f"{LAYER}:Attention.forward",
        "vllm.model_executor.layers.attention:Attention.forward",
        "layers.attention:Attention.forward",
        "attention:Attention.forward",
        ".attention:Attention.forward",
        "Attention.forward",
        "Attention.forward()",
        " Attention.forward ",
        f"{LAYER}.Attention.forward",
        "vllm.model_executor.layers.attention.Attention.forward",
        "vllm/model_executor/layers/attention/attention.py:Attention.forward",
        "attention/attention.py:Attention.forward",
    ],
)
def test_one_definition_has_many_names(name):
    assert index.where(name).name == f"{LAYER}:Attention.forward"


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("get_forward_context", "vllm/forward_context.py:191"),
        ("reshape_and_cache_flash", "vllm/_custom_ops.py:2591"),
        ("fa_utils:reshape_and_cache_flash", "vllm/_custom_ops.py:2591"),
        ("flash_attn:reshape_and_cache_flash", "vllm/_custom_ops.py:2591"),
        ("vllm.vllm_flash_attn:flash_attn_varlen_func", "vllm/vllm_flash_attn/flash_attn_interface.py:176"),
        ("FlashAttentionImpl", f"{FLASH}:592"),
        ("AttentionSelectorConfig", "vllm/v1/attention/selector.py:21"),
    ],
)
def test_where(name, place):
    assert index.where(name).place == place


def test_what_a_symbol_says():
    forward = index.where("FlashAttentionImpl.forward")
    assert (forward.kind, forward.first, forward.last, forward.start) == ("method", 667, 848, 667)
    assert "attn_metadata" in forward.parameters
    assert "slot_mapping" not in forward.parameters
    assert str(forward) == f"method FlashAttentionImpl.forward, {FLASH}:667-848"
    assert index.where("FlashAttentionImpl").bases == ("vllm.v1.attention.backend:AttentionImpl",)
    context = index.where("set_forward_context")
    assert context.start == context.first - 1, "its decorator"
    fields = [each.qualname.partition(".")[2] for each in index.members("AttentionSelectorConfig")]
    assert "has_sink" in fields
    assert not any("window" in field for field in fields)
    assert index.where("FlashAttentionBackend.forward_includes_kv_cache_update").kind == "attribute"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("VLLM_ATTENTION_BACKEND", "defines no 'VLLM_ATTENTION_BACKEND'"),
        ("vllm.attention.layer:Attention.forward", "defines no"),
        ("Attention.forwrad", "defines no"),
        ("", "defines no"),
        (None, "defines no"),
        ("do_kv_cache_update", r"fits \d+ definitions .*:\d+\), .* and \d+ more"),
    ],
)
def test_a_name_of_none_or_of_several_is_refused(name, said):
    with pytest.raises(ValueError, match=f"^name: .*{said}"):
        index.where(name)


def test_find_prefers_whole_names():
    assert [symbol.name for symbol in index.find("Attention")] == [f"{LAYER}:Attention"]
    several = index.find("do_kv_cache_update")
    assert len(several) > 5
    assert {symbol.kind for symbol in several} == {"method"}
    assert index.find("nothing_of_that_name") == []


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("backends/flash_attn.py:592", "line 592 is the class FlashAttentionImpl"),
        ("backends/flash_attn.py:667", "line 667 is the method FlashAttentionImpl.forward"),
        (
            "backends/flash_attn.py:700",
            "line 700 is inside the method FlashAttentionImpl.forward (lines 667 to 848)",
        ),
        ("vllm/forward_context.py:249", "line 249 is a decorator of the function set_forward_context"),
        ("vllm/forward_context.py:1", "line 1 is in no class and no function"),
        ("attention/selector.py:159", "attention/selector.py has 158 lines"),
    ],
)
def test_describe(place, said):
    assert index.describe(place) == said


def test_at_refuses_what_is_no_place():
    assert index.at("backends/flash_attn.py:700").qualname == "FlashAttentionImpl.forward"
    for place in ("flash_attn.py", "flash_attn.py:x", 667, None, "selector.py:52", "no_such.py:1"):
        with pytest.raises(ValueError, match="^place: expected"):
            index.at(place)


@pytest.mark.parametrize(
    "place",
    [
        "flash_attn.py:667",
        "backends/flash_attn.py:667",
        "./backends/flash_attn.py:667",
        f"{FLASH}:667",
        f"`{FLASH}:667`",
        f"{FLASH}:667-848",
        f"/usr/lib/python3/site-packages/{FLASH}:667",
        f"https://github.com/vllm-project/vllm/blob/v0.22.1/{FLASH}#L667",
        f"https://github.com/vllm-project/vllm/blob/v0.22.1/{FLASH}#L667-L848",
    ],
)
def test_a_place_that_is_right(place):
    assert index.objection(place, "FlashAttentionImpl.forward") is None


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (
            "flash_attn.py:592",
            "line 592 is the class FlashAttentionImpl; FlashAttentionImpl.forward starts at 667",
        ),
        ("flash_attn.py:850", "line 850 is the method FlashAttentionImpl.do_kv_cache_update; FlashAttention"),
        ("flash_attn.py:700", "line 700 is inside the method FlashAttentionImpl.forward"),
        ("flash_attn.py:667-850", "FlashAttentionImpl.forward starts there and ends at 848, not at 850"),
        ("flash_attn.py:5000", f"{FLASH} has 1223 lines; FlashAttentionImpl.forward starts at 667"),
        (
            "v1/attention/backend.py:763",
            "is not in v1/attention/backend.py: line 763 is the class AttentionImpl",
        ),
        ("selector.py:52", "FlashAttentionImpl.forward is not in selector.py"),
        ("attention/layer.py:5", "vLLM 0.22.1 has no file attention/layer.py among"),
        ("flash_attn.py", 'expected "file.py:line", got'),
        (667, 'expected "file.py:line", got 667'),
        (
            f"https://github.com/vllm-project/vllm/blob/main/{FLASH}#L667",
            "expected a link to v0.22.1, got one to 'main'",
        ),
    ],
)
def test_a_near_miss_is_told_what_it_hit(place, said):
    assert said in index.objection(place, "FlashAttentionImpl.forward")


def test_a_decorators_line_is_right_too():
    for line in (249, 250):
        assert index.objection(f"forward_context.py:{line}", "set_forward_context") is None
    assert index.objection("forward_context.py:248", "set_forward_context") is not None


def test_the_two_call_paths_of_lesson_2():
    assert index.broken_step([*WRITE, "reshape_and_cache_flash"]) is None
    assert index.broken_step([*READ, "flash_attn_varlen_func"]) is None
    assert index.broken_step(["LlamaAttention.forward", *READ]) is None
    assert (
        index.broken_step(["unified_kv_cache_update", "get_attention_context", "get_forward_context"]) is None
    )
    assert index.route("Attention.forward", "reshape_and_cache_flash") == [
        f"{LAYER}:Attention.forward",
        f"{LAYER}:unified_kv_cache_update",
        "vllm.v1.attention.backends.flash_attn:FlashAttentionImpl.do_kv_cache_update",
        "vllm._custom_ops:reshape_and_cache_flash",
    ]
    assert index.route("reshape_and_cache_flash", "Attention.forward") is None


@pytest.mark.parametrize("backend", ["Triton", "FlashInfer", "FlexAttention"])
def test_every_backend_is_reached_through_the_same_call(backend):
    names = {
        "Triton": "TritonAttentionImpl",
        "FlashInfer": "FlashInferImpl",
        "FlexAttention": "FlexAttentionImpl",
    }
    forward = f"{names[backend]}.forward"
    assert index.broken_step(["Attention.forward", "unified_attention_with_output", forward]) is None


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ([WRITE[0], WRITE[2]], "itself: 1 step(s) are missing, first unified_kv_cache_update"),
        ([READ[0], READ[1], "LlamaAttention.forward"], "does not call LlamaAttention.forward"),
        (["FlashAttentionImpl.forward", "reshape_and_cache_flash"], "does not call reshape_and_cache_flash"),
        (["unified_kv_cache_update", "Attention.forward"], "it is the other way round"),
        (["Attention.forward", "vllm.attention.layer:x"], "defines no 'vllm.attention.layer:x'"),
        (["Attention.forward"], "at least two names"),
        ([], "at least two names"),
        ("Attention.forward", "at least two names"),
        (["Attention.forward", 3], "at least two names"),
    ],
)
def test_a_broken_call_path_is_told_where(path, said):
    assert said in index.broken_step(path)


def test_callers_and_callees():
    assert index.callees("FlashAttentionImpl.do_kv_cache_update") == [
        "vllm._custom_ops:reshape_and_cache_flash"
    ]
    assert f"{LAYER}:unified_kv_cache_update" in index.callers("FlashAttentionImpl.do_kv_cache_update")
    assert "vllm.v1.attention.backend:AttentionImplBase.forward" in index.callees(
        "unified_attention_with_output"
    )


# What the reader of syntax trees makes of text, on modules that are not vLLM's.
MODULES = {
    "vllm/v1/attention/a.py": """\
import torch
from vllm.v1.attention import ops
from vllm.v1.attention.ops import helper as renamed, Tool
from .ops import helper
if torch.cuda.is_available():
    from vllm.v1.attention.ops import chosen
else:
    def chosen(): pass


class Base(Tool):
    def shared(self): pass


class Child(Base):
    size: int = 3

    def run(self, x, /, *rest, key=None, **more):
        helper(); renamed(); ops.helper(); chosen(); torch.empty(1); len(x)
        self.shared(); self.inherited(); super().shared(); Tool()
        def inner():
            chosen()
        inner()
        x()
        kernel[(1,)](x)
        torch.ops.vllm.operator(x)
        self.impl.forward(x)
        self.attn(x)

    def shadows(self, helper):
        helper()


def kernel(): pass
def function(): from vllm.v1.attention.ops import late; late()
direct_register_custom_op(op_name="operator", op_func=function)
""",
    "vllm/v1/attention/ops/__init__.py": "from vllm.v1.attention.ops.impl import helper, Tool, chosen, late\n",
    "vllm/v1/attention/ops/impl.py": """\
def helper(): pass
def chosen(): pass
def late(): pass
class Tool:
    def inherited(self): pass
""",
}


@pytest.fixture
def small_vllm(monkeypatch):
    monkeypatch.setattr(source, "read", MODULES.__getitem__)
    monkeypatch.setattr(source, "expected_files", lambda: dict.fromkeys(MODULES, ""))
    caches = (facts.paths_by_module, facts.module, facts.operators)
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()


def test_how_calls_are_resolved(small_vllm):
    a, impl = "vllm.v1.attention.a", "vllm.v1.attention.ops.impl"
    assert facts.calls(f"{a}:Child.run") == [
        f"{impl}:helper",
        f"{impl}:chosen",
        f"{a}:Base.shared",
        f"{impl}:Tool.inherited",
        f"{impl}:Tool",
        f"{a}:Child.run.inner",
        f"{a}:kernel",
        f"{a}:function",
        "vllm.v1.attention.backend:AttentionImplBase.forward",
        f"{LAYER}:Attention.forward",
    ]
    assert facts.calls(f"{a}:Child.shadows") == [], "a parameter hides the import"
    assert facts.calls(f"{a}:function") == [f"{impl}:late"]
    assert facts.calls(f"{a}:Child.run.inner") == [f"{impl}:chosen"]


def test_how_definitions_are_read(small_vllm):
    defined = facts.module("vllm.v1.attention.a").definitions
    assert defined["Child.run"].names == ["self", "x", "*rest", "key", "**more"]
    kinds = {name: found.kind for name, found in defined.items()}
    assert kinds["Child.size"] == "attribute"
    assert kinds["Child.run.inner"] == kinds["kernel"] == "function"
    assert kinds["Child.run"] == "method"
    assert facts.bases("vllm.v1.attention.a:Base") == ["vllm.v1.attention.ops.impl:Tool"]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["FlashAttentionImpl.forward"], 0, f"method FlashAttentionImpl.forward, {FLASH}:667-848"),
        (["backends/flash_attn.py:592"], 0, "line 592 is the class FlashAttentionImpl"),
        (["no_such_name"], 1, "defines no 'no_such_name'"),
        (["no_such.py:3"], 1, "which fits none"),
    ],
)
def test_the_command(arguments, status, said, capsys):
    assert index.main(arguments) == status
    assert said in capsys.readouterr().out


def test_the_command_that_makes_the_index_says_why_it_cannot():
    done = subprocess.run(
        [sys.executable, "-m", "course.vllm.index_build"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": str(ROOT),
            "PIP_NO_INDEX": "1",
            source.CACHE_VARIABLE: "/proc/none",
        },
    )
    assert done.returncode == 1
    assert "cannot be kept in" in done.stderr
    assert "Traceback" not in done.stderr
