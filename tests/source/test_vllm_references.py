"""What the course says about places in vLLM's source holds in the release: file, line and name."""

from pathlib import Path

import pytest

from course.vllm_refs import Reference, objection, references, texts

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


def test_lessons_whole_and_docstrings_of_packages_are_read(tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "kernels").mkdir()
    (tmp_path / "source" / "01_x.py").write_text("# %% a [markdown]\n# `selector.py:1`\n")
    (tmp_path / "README.md").write_text("`selector.py:2`")
    (tmp_path / "kernels" / "k.py").write_text(
        'x = "selector.py:9"\n\n\ndef f():\n    """Reads.\n\n    `selector.py:3`"""\n'
    )
    found = [start + one.line - 1 for _, start, text in texts(tmp_path) for one in references(text)]
    assert found == [2, 1, 7]
