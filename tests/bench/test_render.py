"""The table and the picture: what they say, and that those in the repository are made from the results beside them."""

import json

import matplotlib
import pytest

from bench import render, roofline, targets
from bench.result_file import FORMAT, RESULTS
from tests.bench.results import make_result


def is_rendered(path) -> bool:
    """Other results lie in the folder too."""
    content = json.loads(path.read_text())
    return isinstance(content, dict) and content.get("format") == FORMAT


def stale_files(path) -> list[str]:
    """Which of the page and the picture beside a result `python -m bench.render` would write anew."""
    result = json.loads(path.read_text())
    page, picture = path.with_suffix(".md"), path.with_suffix(".svg")
    stale = []
    if not page.exists() or page.read_text() != render.as_markdown(result, path.stem):
        stale.append(page.name)
    drawn = picture.read_text() if picture.exists() else ""
    # Another version of Matplotlib draws in other words.
    drawn_here = not drawn or f"Matplotlib v{matplotlib.__version__}," in drawn
    if drawn_here and drawn.encode() != roofline.as_svg(result):
        stale.append(picture.name)
    return stale


def test_what_is_committed_is_fresh():
    for path in filter(is_rendered, sorted(RESULTS.glob("*.json"))):
        assert stale_files(path) == [], f"run: python -m bench.render {path.stem}"
        for file in (path, path.with_suffix(".md"), path.with_suffix(".svg")):
            assert file.stat().st_size < 1_000_000


def test_what_is_stale_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(render, "RESULTS", tmp_path)
    path, page, picture = (tmp_path / f"x.{suffix}" for suffix in ("json", "md", "svg"))
    result = make_result(ours=0.9, fa3=0.6)
    result["cases"] = result["cases"][:2]
    path.write_text(json.dumps(result))
    assert is_rendered(path)
    assert stale_files(path) == ["x.md", "x.svg"]
    assert render.main(["x"]) == 0
    assert stale_files(path) == []
    for file in (page, picture):
        kept = file.read_text()
        file.write_text(kept.replace(result["cases"][0]["name"], "another case"))
        assert stale_files(path) == [file.name]
        file.write_text(kept)


def cell(page: str, row: str, column: int) -> str:
    line = next(line for line in page.splitlines() if line.startswith(f"| {row} |"))
    return line.split("|")[column + 1].strip()


def test_the_ratio_is_to_the_best_peer_that_reads_the_paged_cache():
    page = render.as_markdown(make_result(ours=0.9, vllm=0.3, fa3=0.6, dense=0.95), "x")
    assert cell(page, "decode 64 x 2k", 5) == "FlashAttention-3"
    assert cell(page, "decode 64 x 2k", 6) == "1.50"
    assert "- FlexAttention: there is a reason (every case)" in page
    assert "held back by: power cap" in page


def test_a_wrong_output_is_no_rival_and_not_ours():
    result = make_result(ours=0.9, vllm=0.5, fa3=0.6)
    for row in result["cases"]:
        row["results"]["FlashAttention-3"]["right"] = False
    page = render.as_markdown(result, "x")
    assert cell(page, "decode 64 x 2k", 5) == "vLLM Triton"
    for row in result["cases"]:
        row["results"][targets.CALLS[row["kind"]]]["right"] = False
    assert cell(render.as_markdown(result, "x"), "decode 64 x 2k", 6) == "–"


def test_a_rung_that_is_faster_than_the_call_is_not_ours():
    result = make_result(ours=0.8, fa3=0.9)
    for row in result["cases"]:
        row["results"]["decode 2: GQA packed"] = {**row["results"]["FlashAttention-3"], "us": 1.0}
    assert cell(render.as_markdown(result, "x"), "decode 64 x 2k", 6) == "0.89"


def verdict(result, case, what):
    return next(one for one in targets.verdicts(result) if one.case == case and what in one.what)


def test_targets():
    result = make_result(ours=0.95, vllm=0.1, fa3=0.9)
    assert verdict(result, "decode 64 x 2k", "times as fast").got == pytest.approx(0.95 / 0.9)
    assert verdict(result, "decode 64 x 2k", "times as fast").met
    assert verdict(result, "decode 128 x 8k", "4.8 TB/s").got == pytest.approx(0.95)
    assert verdict(result, "prefill 1 x 8k", "TFLOP/s").got == pytest.approx(760)
    assert not verdict(make_result(ours=0.9, fa3=0.9), "2k queries on 16k", "FlashAttention-3").met
    with pytest.raises(StopIteration):
        verdict(result, "decode 64 x 2k", "4.8 TB/s")  # half a gigabyte


def test_bandwidth_is_held_against_the_data_sheet_of_the_gpu_that_was_measured():
    result = make_result(ours=0.6)
    result["environment"]["gpu"] = "NVIDIA H100 80GB HBM3 (compute capability 9.0)"
    assert verdict(result, "decode 128 x 8k", "3.35 TB/s").got == pytest.approx(0.6 * 4.8 / 3.35)
    assert "3.35 TB/s, data sheet" in roofline.as_svg(result).decode()
    result["environment"]["gpu"] = "another"
    assert verdict(result, "decode 128 x 8k", "4.5 TB/s").got == pytest.approx(0.6 * 4.8 / 4.5)


def test_in_prefill_the_rival_is_flash_attention_3():
    result = make_result(ours=0.8, vllm=0.9, fa3=0.5)
    assert verdict(result, "prefill 1 x 8k", "FlashAttention-3").got == pytest.approx(1.6)


def test_what_was_not_measured_is_not_met():
    result = make_result(ours=0.9)
    assert verdict(result, "decode 64 x 2k", "times as fast").got is None
    assert not verdict(result, "decode 64 x 2k", "times as fast").met
    assert "not measured" in render.as_markdown(result, "x")


def test_an_empty_result_can_be_rendered():
    result = make_result() | {"cases": []}
    assert "## Targets" in render.as_markdown(result, "x")


def test_the_picture_is_the_same_every_time_and_names_the_cases():
    result = make_result(ours=0.9, fa3=0.6, dense=0.8)
    picture = roofline.as_svg(result)
    assert picture == roofline.as_svg(result)
    for words in ("decode 128 ragged", "best paged peer", "800 TFLOP/s, matrix product"):
        assert words in picture.decode()


def test_an_unknown_name_is_refused(capsys):
    with pytest.raises(SystemExit):
        render.main(["no-such-machine"])
    assert "name: there is no" in capsys.readouterr().err
