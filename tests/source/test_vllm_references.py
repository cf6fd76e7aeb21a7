"""What the course says about places in vLLM's source holds in the release: file, line and name."""

from pathlib import Path

import pytest

from course.vllm.refs import Reference, objection, references, stale_names, texts

ROOT = Path(__file__).parents[2]
SELECTOR = "vllm/v1/attention/selector.py"
LINK = f"https://github.com/vllm-project/vllm/blob/v0.22.1/{SELECTOR}"


pytestmark = pytest.mark.usefixtures("released_source")


def test_every_reference_of_the_course_holds():
    found = [(file, start, one) for file, start, text in texts(ROOT) for one in references(text)]
    stale = [
        f"{file.relative_to(ROOT)}:{start + one.line - 1}: {one}: {wrong}"
        for file, start, one in found
        if (wrong := objection(one))
    ]
    assert not stale, "\n" + "\n".join(stale)
    assert len(found) >= 5, "the texts refer to vLLM; if none is found, the search is broken"


def test_every_name_variable_and_flag_of_the_course_is_there():
    stale = [
        f"{file.relative_to(ROOT)}:{start + line - 1}: {wrong}"
        for file, start, text in texts(ROOT)
        for line, wrong in stale_names(text, flags=file.parent.name == "source")
    ]
    assert not stale, "\n" + "\n".join(stale)


@pytest.mark.parametrize(
    "text",
    [
        f"`{SELECTOR}:52` (`get_attn_backend`)",
        f"`{SELECTOR}:52-102` (`get_attn_backend`)",
        f"{SELECTOR}:52 (`get_attn_backend`)",
        "`v1/attention/selector.py:52` (`get_attn_backend`)",
        "# see `attention/selector.py:52`\n# (`get_attn_backend`), which",
        "    see `attention/selector.py:52`\n    (`get_attn_backend`)",
        "# 1. see `attention/selector.py:52`\n#    (`get_attn_backend`)",
        f"[`{SELECTOR}:52`]({LINK}#L52) (`get_attn_backend`)",
        f"[`{SELECTOR}:52-102`]({LINK}#L52-L102) (`get_attn_backend`)",
        "`backends/flash_attn.py:667` (`FlashAttentionImpl.forward`)",
        '`v1/attention/backend.py:289` (`"head_size not supported"`)',
        "`vllm/platforms/cuda.py:270` (`_get_backend_priorities`)",
        "`vllm/platforms/cuda.py:79-147` (`_get_backend_priorities`)",
        "`backends/triton_attn.py:367` (`head_size >= 32`)",
        "by get_attn_backend (attention/selector.py:52), which",
        "{'get_attn_backend': 'attention/selector.py:52'}",
        '"FlashAttentionImpl.forward" : "backends/flash_attn.py:667",',
        '("backends/flash_attn.py:667", "FlashAttentionImpl.forward")',
    ],
)
def test_what_holds(text):
    (reference,) = references(text)
    assert objection(reference) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"`{SELECTOR}:52`", "says what stands there nowhere"),
        (f"`{SELECTOR}:52` and then (`get_attn_backend`)", "says what stands there nowhere"),
        (f"`{SELECTOR}:53` (`get_attn_backend`)", f"is at {SELECTOR}:52-102"),
        (f"`{SELECTOR}:52` (`get_attn`)", "is not there"),
        (f"`{SELECTOR}:520` (`get_attn_backend`)", "has 158 lines"),
        (f"`{SELECTOR}:0` (`get_attn_backend`)", "has 158 lines"),
        (f"`{SELECTOR}:60-52` (`get_attn_backend`)", "has 158 lines"),
        ("`backends/flash_attn.py:592` (`FlashAttentionImpl.forward`)", "flash_attn.py:667-"),
        ("`backends/flash_attn.py:667-668` (`FlashAttentionImpl.forward`)", "flash_attn.py:667-"),
        ("`backends/flash_attn.py:667` (`slot_mapping`)", "is not there"),
        ("`flash_attn.py:592` (`FlashAttentionImpl`)", "which fits vllm/"),
        ("`vllm/v1/attention/paged.py:1` (`x`)", "which fits none"),
        ("{'get_attn_backend': 'attention/selector.py:53'}", f"is at {SELECTOR}:52-102"),
        ('("backends/flash_attn.py:592", "FlashAttentionImpl.forward")', "flash_attn.py:667-"),
        (f"[`{SELECTOR}:52`]({LINK}#L53) (`get_attn_backend`)", "the link goes to"),
        (
            f"[`{SELECTOR}:52`]({LINK.replace('0.22.1', '0.22.0')}#L52) (`get_attn_backend`)",
            "the link goes to",
        ),
        (
            f"[`{SELECTOR}:52`]({LINK.replace('v0.22.1', 'main')}#L52) (`get_attn_backend`)",
            "the link must end",
        ),
        (f"[`{SELECTOR}:52-102`]({LINK}#L52-L99) (`get_attn_backend`)", "the link ends at line 99"),
    ],
)
def test_what_is_stale_is_noticed(text, said):
    (reference,) = references(text)
    wrong = objection(reference)
    assert wrong is not None
    assert said in wrong


def test_our_own_files_and_other_text_are_no_references():
    assert (
        references("`kernels/decode.py:12` and `course/cli.py:3`, at 12:30, file.py, ratio 3:4, a.pyc:3")
        == []
    )


def test_the_line_in_the_text_is_told():
    assert references("one\ntwo `attention/selector.py:52` (`get_attn_backend`)") == [
        Reference(2, "attention/selector.py", 52, None, "get_attn_backend", None)
    ]


@pytest.mark.parametrize(
    "text",
    [
        "vllm.forward_context:get_forward_context",
        "'vllm.v1.attention.backends.flash_attn:FlashAttentionImpl.forward',",
        "vllm.model_executor.layers.attention:Attention.forward",
        "vllm.v1.worker.gpu_model_runner:GPUModelRunner.execute_model",
        "vllm.vllm_flash_attn:flash_attn_varlen_func",
        "VLLM_BATCH_INVARIANT, not VLLM_ATTENTION_BACKEND, COURSE_VLLM_SOURCE or VLLM_",
        "`--attention-backend` and --block-size=16, a--b, ---",
    ],
)
def test_names_that_the_release_has(text):
    assert stale_names(text, flags=True) == []


@pytest.mark.parametrize(
    "text",
    [
        "vllm.attention.layer:Attention.forward",
        "vllm.forward_context:get_context",
        "vllm.v1.attention.backends.flash_attn:FlashAttentionImpl.fly",
        "vllm.model_executor.layers.attention:Attention.fly",
        "VLLM_ATTENTION_BACKENDS",
        "--attention-backends",
    ],
)
def test_names_that_the_release_does_not_have(text):
    assert stale_names(f"one\ntwo {text}", flags=True) == [(2, f"vLLM 0.22.1 has no {text}")]
    if text.startswith("--"):
        assert stale_names(text, flags=False) == []


def test_what_is_said_to_be_gone_must_be_gone(monkeypatch):
    monkeypatch.setattr("course.vllm.refs.GONE", {"VLLM_BATCH_INVARIANT"})
    assert stale_names("VLLM_BATCH_INVARIANT", flags=True) == [(1, "vLLM 0.22.1 has VLLM_BATCH_INVARIANT")]


def test_which_texts_are_read(tmp_path):
    files = {
        "source/01_x.py": "# %% a [markdown]\n# `selector.py:1`\n",
        "README.md": "`selector.py:2`",
        "docs/deep/x.md": "\n`selector.py:3`",
        "kernels/sub/k.py": (
            'x = 1\n\n\ndef f():\n    """Reads.\n\n    `selector.py:7`"""\n'
            '    return "selector.py:8"  # selector.py:8\n\n\n# `selector.py:11`\n# (`name`)\n'
        ),
        "autograder/misconceptions/wrong.py": '"""`selector.py:9`"""\n',
        "tests/t.py": '"""`selector.py:9`"""\n',
    }
    for name, text in files.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    found = [
        (file.relative_to(tmp_path).as_posix(), start + one.line - 1, one.first, one.name)
        for file, start, text in texts(tmp_path)
        for one in references(text)
    ]
    assert sorted(found) == [
        ("README.md", 1, 2, None),
        ("docs/deep/x.md", 2, 3, None),
        ("kernels/sub/k.py", 7, 7, None),
        ("kernels/sub/k.py", 8, 8, None),
        ("kernels/sub/k.py", 8, 8, None),
        ("kernels/sub/k.py", 11, 11, "name"),
        ("source/01_x.py", 2, 1, None),
    ]
