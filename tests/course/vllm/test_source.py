"""Bringing vLLM's source: pip's answer, the hashes, the cache folder, and finding a definition."""

import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from course.vllm import source
from course.vllm.source import SourceUnavailable

SELECTOR = "vllm/v1/attention/selector.py"
MODULE = (
    "import torch\n\n\nclass A:\n    x: int = 1\n\n    @staticmethod\n    def f():\n        def inner():\n"
    "            pass\n\n        return inner\n\n\nif torch:\n    def g(): pass\nelse:\n    def g(): pass\n"
)


@pytest.fixture
def small_release(tmp_path, monkeypatch):
    """A wheel of three files that pip takes for vLLM 0.22.1, and no package index beside it."""
    wheel = tmp_path / "wheels" / "vllm-0.22.1-cp38-abi3-manylinux_2_28_x86_64.whl"
    wheel.parent.mkdir()
    files = {
        SELECTOR: MODULE,
        "vllm/v1/attention/kernel.abi3.so": "binary",
        "vllm/benchmarks/serve.py": "x = 1\n",
        "vllm-0.22.1.dist-info/METADATA": "Metadata-Version: 2.1\nName: vllm\nVersion: 0.22.1\n",
        "vllm-0.22.1.dist-info/WHEEL": "Wheel-Version: 1.0\nTag: cp38-abi3-manylinux_2_28_x86_64\n",
        "vllm-0.22.1.dist-info/RECORD": "",
    }
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    kept = [path for path in files if source._kept(path)]
    listing = tmp_path / "files.json"
    listing.write_text(json.dumps({p: hashlib.sha256(files[p].encode()).hexdigest() for p in kept}))
    monkeypatch.setattr(source, "FILES", listing)
    monkeypatch.setattr(source, "WHEEL_SHA256", hashlib.sha256(wheel.read_bytes()).hexdigest())
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    monkeypatch.setenv(source.CACHE_VARIABLE, str(tmp_path / "cache" / "vllm"))
    source.expected_files.cache_clear()
    source.definitions.cache_clear()
    yield wheel
    source.expected_files.cache_clear()
    source.definitions.cache_clear()


def test_pip_brings_the_wheel_once_and_only_what_is_needed_is_kept(small_release, monkeypatch):
    assert source.read(SELECTOR) == MODULE
    folder = source.cache_folder()
    kept = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    dist_info = "vllm-0.22.1.dist-info"
    assert kept == [f"{dist_info}/METADATA", f"{dist_info}/RECORD", SELECTOR]
    assert list(folder.parent.iterdir()) == [folder], "nothing is left beside the cache"
    monkeypatch.setattr(source, "_download", lambda scratch: pytest.fail("downloaded twice"))
    assert source.verify() == folder


def test_what_else_lies_in_the_chosen_folder_stays(small_release):
    mine = source.cache_folder() / "vllm" / "mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    source.verify()
    assert mine.read_text() == "mine"


def test_a_wheel_with_another_hash_is_refused(small_release, monkeypatch):
    monkeypatch.setattr(source, "WHEEL_SHA256", "0" * 64)
    with pytest.raises(SourceUnavailable, match=r"is not the released vLLM 0\.22\.1: its SHA-256 differs"):
        source.root()
    assert not source.cache_folder().exists()


def test_a_file_that_the_list_does_not_expect_so_is_refused(small_release):
    listing = json.loads(source.FILES.read_text())
    source.FILES.write_text(json.dumps(listing | {SELECTOR: "0" * 64}))
    source.expected_files.cache_clear()
    with pytest.raises(SourceUnavailable, match="is not what the committed list"):
        source.root()


def test_a_tampered_cache_is_noticed(small_release):
    file = source.root() / SELECTOR
    file.write_text(MODULE + "# changed\n")
    with pytest.raises(
        SourceUnavailable, match=r"is not the file that vLLM 0.22.1 released; delete that file"
    ):
        source.read(SELECTOR)
    with pytest.raises(SourceUnavailable, match="delete that file"):
        source.verify()


def test_a_file_missing_in_the_cache_is_brought_again(small_release):
    (source.root() / SELECTOR).unlink()
    assert source.read(SELECTOR) == MODULE


@pytest.mark.parametrize("colours", [False, True])
def test_offline_is_said_in_one_line(small_release, monkeypatch, colours):
    if colours:  # as a Jupyter kernel's environment has it
        monkeypatch.setenv("FORCE_COLOR", "1")
    small_release.unlink()
    with pytest.raises(
        SourceUnavailable, match=r"could not download vLLM 0\.22\.1 \(is this machine offline\?\)"
    ) as e:
        source.root()
    assert len(str(e.value).splitlines()) == 1
    assert "ERROR: " in str(e.value)
    assert "\x1b" not in str(e.value)


def test_a_cache_folder_that_cannot_be_made_is_said(small_release, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(source.CACHE_VARIABLE, str(tmp_path / "file" / "vllm"))
    with pytest.raises(SourceUnavailable, match="cannot be kept in"):
        source.root()


def test_definitions_of_classes_methods_branches_and_inner_functions(small_release):
    assert source.locate(SELECTOR, "A") == (4, 12)
    assert source.locate(SELECTOR, "A.x") == (5, 5)
    assert source.locate(SELECTOR, "A.f") == (8, 12), "the line of def, not of its decorator"
    assert source.locate(SELECTOR, "A.f.inner") == (9, 10)
    assert source.locate(SELECTOR, "g") == (16, 16)
    with pytest.raises(ValueError, match=r"^qualname: .*no 'A.h'"):
        source.locate(SELECTOR, "A.h")


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.delenv(source.CACHE_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert source.cache_folder() == tmp_path / "attention-backends-course" / "vllm-0.22.1"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert source.cache_folder().is_relative_to(tmp_path / ".cache")
    monkeypatch.setenv(source.CACHE_VARIABLE, "~/here")
    assert source.cache_folder() == tmp_path / "here"


def test_find_wants_one_file():
    assert source.find("attention/selector.py") == SELECTOR
    assert source.find(SELECTOR) == SELECTOR
    with pytest.raises(ValueError, match=r"fits vllm/v1/attention/backends/flash_attn.py, vllm/"):
        source.find("flash_attn.py")
    with pytest.raises(ValueError, match="fits none"):
        source.find("lector.py")


def test_read_refuses_what_is_not_kept():
    for path in ("vllm/benchmarks/serve.py", "../../etc/passwd", "", None):
        with pytest.raises(ValueError, match=r"^path: expected one of the"):
            source.read(path)


def test_the_committed_list_agrees_with_the_wheels_own_record(released_source):
    import base64
    import csv

    record = source.read("vllm-0.22.1.dist-info/RECORD").splitlines()
    said = {path: digest for path, digest, _ in csv.reader(record)}
    for path, digest in source.expected_files().items():
        if said[path]:  # RECORD does not name its own hash
            urlsafe = base64.urlsafe_b64encode(bytes.fromhex(digest)).rstrip(b"=").decode()
            assert said[path] == f"sha256={urlsafe}"


def test_the_release_is_there_whole_and_located(released_source):
    assert source.verify() == released_source
    assert source.locate(SELECTOR, "get_attn_backend") == (52, 102)
    path = "vllm/v1/attention/backends/flash_attn.py"
    assert source.locate(path, "FlashAttentionImpl")[0] == 592
    assert source.locate(path, "FlashAttentionImpl.forward")[0] == 667


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["attention/selector.py", "get_attn_backend"], 0, f"{SELECTOR}:52-102"),
        (["attention/selector.py"], 0, "class AttentionSelectorConfig"),
        (["attention/selector.py", "nothing"], 1, "defines no 'nothing'"),
        (["no/such.py"], 1, "fits none"),
    ],
)
def test_the_command(released_source, arguments, status, said):
    command = [sys.executable, "-m", "course.vllm.source", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[3], check=False)
    assert done.returncode == status
    assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
