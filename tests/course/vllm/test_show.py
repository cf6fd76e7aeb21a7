"""Passages of vLLM's source: what is shown, in text and HTML, legibly, and what is said when the source is not there."""

import re
from html import unescape

import pytest

from course.vllm import index, source
from course.vllm.show import COLOURS, _words, show

FLASH = "vllm/v1/attention/backends/flash_attn.py"


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No source in the cache, and pip has no index to ask. Counts how often pip was asked."""
    monkeypatch.setenv(source.CACHE_VARIABLE, str(tmp_path / "cache"))
    asked = []

    def refuse(scratch):
        asked.append(scratch)
        raise source.SourceUnavailable("pip could not download vLLM (is this machine offline?): no index")

    monkeypatch.setattr(source, "_download", refuse)
    monkeypatch.setattr("course.vllm.show._missing", {})
    return asked


@pytest.mark.usefixtures("released_source")
class TestWithTheSource:
    def test_a_definition_with_numbers_and_marks(self):
        passage = show("flash_attn.py", "FlashAttentionImpl.do_kv_cache_update", mark=["slot_mapping,", 865])
        assert (passage.path, passage.first, passage.last) == (FLASH, 850, 883)
        lines = source.read(FLASH).splitlines()
        assert list(passage.lines) == lines[849:883]
        title, *numbered = repr(passage).splitlines()
        assert title == f"{FLASH}:850-883 (FlashAttentionImpl.do_kv_cache_update) of vLLM 0.22.1"
        assert numbered[0] == "  850      def do_kv_cache_update("
        assert [line for line in numbered if line.startswith(">")] == [
            f"> {number}  {lines[number - 1]}" for number in (865, 879)
        ]

    def test_decorators_belong_to_a_definition(self):
        passage = show("forward_context.py", "set_forward_context")
        assert passage.lines[0] == "@contextmanager"
        assert passage.lines[1].startswith("def set_forward_context(")

    def test_lines_and_a_part_of_a_definition(self):
        assert (
            show("v1/attention/selector.py", first=52, last=54).lines[0].startswith("def get_attn_backend(")
        )
        part = show("flash_attn.py", "FlashAttentionImpl", last=600)
        assert (part.first, part.last) == (592, 600)
        assert len(show("attention/selector.py").lines) == index.files()["vllm/v1/attention/selector.py"]
        assert (
            show("vllm/v1/worker/block_table.py", "BlockTable", last=30).path
            == "vllm/v1/worker/block_table.py"
        )

    def test_html_says_the_same_as_the_text(self):
        passage = show("flash_attn.py", "FlashAttentionImpl.do_kv_cache_update", mark="slot_mapping")
        html = passage._repr_html_()
        said = unescape(re.sub(r"<style>.*?</style>|<[^>]*>", "", html, flags=re.DOTALL))
        title, *numbered = repr(passage).splitlines()
        assert said.startswith(title)
        assert [line.rstrip() for line in said.removeprefix(title).splitlines()] == numbered
        assert html.count("<mark>") == html.count("</mark>") == len(passage.marked) == 5
        assert f'href="{passage.link}"' in html
        assert passage.link.endswith(f"/blob/v0.22.1/{FLASH}#L850-L883")
        assert re.search(r'<pre tabindex="0" role="region" aria-label="vllm/[^"]*"', html)
        assert '<span class="keyword">def</span>' in html
        assert '<span class="defined">do_kv_cache_update</span>' in html

    def test_a_passage_that_begins_in_a_docstring_is_coloured_as_one(self):
        path = "vllm/v1/attention/backend.py"
        lines = source.read(path).splitlines()
        inside = next(n for n, line in enumerate(lines, 1) if line.count('"""') == 1) + 1
        (line,) = show(path, first=inside, last=inside).words
        assert {kind for kind, word in line if word.strip()} == {"string"}

    def test_no_line_of_an_indexed_file_is_changed_by_colouring(self):
        for path in list(index.files())[::6]:
            text = source.read(path)
            words = _words(text)
            assert ["".join(word for _, word in line) for line in words] == text.splitlines()

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ({"path": "flash_attn.py"}, "path: expected the end of one kept file"),
            ({"path": "no_such.py"}, "path: .*fits none"),
            ({"path": "flash_attn.py", "qualname": "FlashAttentionImpl.fly"}, "path: .*fits vllm/"),
            (
                {"path": "backends/flash_attn.py", "qualname": "FlashAttentionImpl.fly"},
                "qualname: .*defines no",
            ),
            ({"path": "worker/block_table.py", "qualname": "Fly"}, "path: .*fits|qualname: .*defines no"),
            (
                {"path": "attention/selector.py", "first": 150, "last": 159},
                "which has 158 lines, got 150 to 159",
            ),
            ({"path": "attention/selector.py", "first": 0, "last": 3}, "got 0 to 3"),
            ({"path": "attention/selector.py", "first": 9, "last": 3}, "got 9 to 3"),
            (
                {"path": "flash_attn.py", "qualname": "FlashAttentionImpl.forward", "first": 600},
                "lines 667 to 848, got 600",
            ),
            ({"path": "attention/selector.py", "last": 9, "mark": ["no such text"]}, "mark: .*no such text"),
            ({"path": "attention/selector.py", "last": 9, "mark": [10]}, "mark: .*got 10"),
            ({"path": "attention/selector.py", "last": 9, "mark": [""]}, "mark: "),
        ],
    )
    def test_what_the_release_does_not_have_is_refused(self, arguments, said):
        with pytest.raises(ValueError, match=said):
            show(**arguments)


def test_offline_the_passage_says_so_and_what_the_index_knows(offline):
    passage = show("flash_attn.py", "FlashAttentionImpl.do_kv_cache_update", mark=["slot_mapping"])
    assert (passage.path, passage.first, passage.last, passage.lines) == (FLASH, 850, 883, ())
    said = repr(passage).splitlines()
    assert said[1] == "pip could not download vLLM (is this machine offline?): no index"
    assert "parameters: self, layer, key, value, kv_cache, slot_mapping" in said
    assert "calls: vllm._custom_ops:reshape_and_cache_flash" in said
    html = passage._repr_html_()
    assert passage.link in html
    for line in said[1:]:
        assert line in html


def test_offline_every_kind_of_passage_is_still_one(offline):
    assert show("attention/selector.py", first=52, last=70).first == 52
    assert show("attention/selector.py", first=52).last == 158
    unknown = show("vllm/v1/worker/block_table.py", "BlockTable")
    assert (unknown.first, unknown.last) == (0, 0)
    assert repr(unknown).startswith(
        "vllm/v1/worker/block_table.py (BlockTable) of vLLM 0.22.1\npip could not"
    )
    assert unknown.link.endswith("/block_table.py")
    with pytest.raises(ValueError, match="^qualname"):
        show("backends/flash_attn.py", "FlashAttentionImpl.fly")
    assert len(offline) == 1, "asked once, then it is known"


def test_a_changed_file_is_not_shown(offline, tmp_path):
    for path in source.expected_files():
        file = tmp_path / "cache" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("changed = True\n")
    passage = show("attention/selector.py")
    assert passage.lines == ()
    assert "is not the file that vLLM 0.22.1 released" in repr(passage)


def _luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", COLOURS)
def test_every_word_is_legible_on_every_background(theme):
    colours = COLOURS[theme]
    for ground in ("background", "marked"):
        for kind in set(colours) - {"background", "marked"}:
            dark, light = sorted([_luminance(colours[kind]), _luminance(colours[ground])])
            contrast = (light + 0.05) / (dark + 0.05)
            assert contrast >= 4.5, f"{theme}: {kind} on {ground}: {contrast:.2f}"
