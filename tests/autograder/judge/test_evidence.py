"""What a person is told of a submission beside its points, and the pictures that it shows."""

import json
import struct
import zlib
from collections.abc import Iterator

import pytest

import kernels
from autograder.judge import png
from autograder.judge.judge import Judge
from autograder.judge.judgement import Judgement
from autograder.judge.rebuild import kernel_tests
from autograder.judge.sandbox import why_unavailable
from autograder.judge.scan import remarks
from tests.autograder.judge.conftest import LIMITS
from tests.autograder.judge.kernel_lesson import FULL, kernel_lesson, right, submission


@pytest.fixture(scope="module")
def kernel_judge() -> Iterator[Judge]:
    if (reason := why_unavailable()) is not None:
        pytest.skip(reason)
    with Judge(kernel_lesson(), LIMITS) as made:
        yield made


def test_launches_are_counted_for_each_test_and_their_lack_is_a_flag(kernel_judge: Judge) -> None:
    assert kernel_tests(kernel_lesson()) == FULL.keys()
    twice = (
        right("square") + "\ndef square(x, once=square):\n    return once(x) if once(x) is not None else 0"
    )
    without = "def double(x):\n    return x + x"
    judged = kernel_judge.judge(submission(square=twice, double=without))
    assert {name: result.points for name, result in judged.checks.items()} == FULL
    assert {name: result.launches for name, result in judged.checks.items()} == {
        "add": {"_add_kernel": 1},
        "double": {},
        "square": {"_square_kernel": 2},
    }
    assert judged.flags == ("no-kernel-launched",)
    assert judged.checks["double"].flags == ("no-kernel-launched",)
    assert kernel_judge.judge(submission()).flags == ()


def test_a_kernel_of_the_courses_own_is_not_the_learners(kernel_judge: Judge) -> None:
    borrowed = """
def double(x):
    halves = x.reshape(1, 1, -1, 1).repeat(2, 1, 1, 1)
    return 2 * kernels.merge_attn_states(halves, torch.zeros(halves.shape[:3], device=x.device))[0].reshape(-1)
"""
    judged = kernel_judge.judge(submission(double=borrowed))
    assert judged.checks["double"].points == FULL["double"], judged.checks["double"]
    (name,) = judged.checks["double"].launches
    assert name.startswith("kernels.merge.")
    assert judged.flags == ("no-kernel-launched",)


@pytest.mark.skipif(not kernels.INTERPRET, reason="a GPU is asked in test_gpu.py")
def test_a_wild_pointer_in_the_interpreter_costs_its_own_exercise(kernel_judge: Judge) -> None:
    wild = right("double").replace("tl.load(x_ptr + i,", "tl.load(x_ptr + i + 2**45,")
    judged = kernel_judge.judge(submission(double=wild))
    assert {name: result.points for name, result in judged.checks.items()} == {**FULL, "double": 0}
    assert judged.checks["double"].status == "crashed"


def test_torchs_own_attention_is_seen_in_calls_and_in_the_text(kernel_judge: Judge) -> None:
    called = """
import torch.nn.functional as F
def double(x):
    one = torch.ones(1, 1, 1)
    F.scaled_dot_product_attention(one, one, one)
    return x + x
"""
    judged = kernel_judge.judge(submission(double=right("double") + called))
    assert judged.checks["double"].attention_calls == 1
    assert judged.checks["add"].attention_calls == 0
    assert "torch-attention" in judged.flags
    assert judged.remarks["torch-attention"] == (
        "double-code, line 17: F.scaled_dot_product_attention(one, one, one)",
    )


def test_what_a_worker_used_is_measured(kernel_judge: Judge) -> None:
    busy = (
        "import os, time\nend = time.process_time() + 0.5\nwhile time.process_time() < end: pass\nos._exit(0)"
    )
    judged = kernel_judge.judge(submission(double=busy))
    assert judged.checks["double"].status == "crashed"
    assert judged.flags == ("crashed", "suspicious-text")
    assert judged.workers_started == 2
    assert judged.cpu_seconds is not None
    assert judged.cpu_seconds > 0.5
    assert judged.peak_memory is not None
    assert 50e6 < judged.peak_memory < 5e9
    eats = "kept = bytearray(b'1') * 400_000_000\n" + right("double")
    more = kernel_judge.judge(submission(double=eats)).peak_memory
    assert more is not None
    assert more > judged.peak_memory + 200e6


def test_words_are_found_where_they_are_code_or_data() -> None:
    text = '''"""scaled_dot_product_attention is what this does"""
def f():
    """Like flash_attn."""
    # torch.nn.MultiheadAttention
    return getattr(F, "scaled_dot_product_attention")  # found
torch.allclose = lambda *a: True
class A:
    def __eq__(self, other): return True
'''
    assert remarks([("mine", text), ("empty", "x = 1")]) == {
        "torch-attention": ('mine, line 5: return getattr(F, "scaled_dot_product_attention")  # found',),
        "suspicious-text": ("mine, line 6: torch.allclose = lambda *a: True",),
        "suspicious-object": ("mine, line 8: def __eq__(self, other): return True",),
    }


@pytest.mark.parametrize(
    "text",
    ["(" * 100_000, "x" + ".a" * 100_000, "'''", "\0", "-" * 200_000 + "1", "é" * 10**6, "if 1:\n  x\n y"],
)
def test_no_text_breaks_the_search(text: str) -> None:
    assert remarks([("mine", text)]) == {}


# Pictures

SHOWS = """
import matplotlib.pyplot as plt
plt.figure(figsize=(2, 1))
plt.plot([1, 2, 3])
plt.show()
class Table:
    def _repr_html_(self): return "<b>no</b>"
    def __repr__(self): return "a table"
display(Table())
5 + 5
"""


def test_a_learners_figures_are_kept_and_survive_the_journal(kernel_judge: Judge) -> None:
    judged = kernel_judge.judge(submission(double=right("double") + SHOWS))
    (image,) = judged.images["double-code"]
    assert png.checked(image) == image
    assert "a table\n10\n" in judged.cells["double-code"][0]
    assert "<b>" not in judged.cells["double-code"][0]
    written = json.loads(json.dumps(judged.to_json()))
    again = Judgement.from_json(written)
    assert again.images == judged.images
    assert again.to_json() == judged.to_json()
    assert written["flags"] == list(judged.flags) == []
    # An entry from before there was evidence.
    for name in ("images", "remarks", "flags", "workers_started", "cpu_seconds", "peak_memory"):
        del written[name]
    for result in written["checks"].values():
        del result["evidence"]
    old = Judgement.from_json(written)
    assert (old.images, old.flags, old.workers_started, old.peak_memory) == ({}, (), None, None)
    assert old.score == judged.score


def test_many_and_large_figures_keep_the_journal_small(kernel_judge: Judge) -> None:
    noise = """
import os, struct, zlib
def chunk(kind, body): return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
class Picture:
    def __init__(self, side): self.side = side
    def _repr_png_(self):
        pixels = b"".join(b"\\0" + os.urandom(3 * self.side) for _ in range(self.side))
        head = struct.pack(">IIBBBBB", self.side, self.side, 8, 2, 0, 0, 0)
        body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
        return b"\\x89PNG\\r\\n\\x1a\\n" + body
for _ in range(20): display(Picture(200))
display(Picture(2000))
print("\\1" * 10**6)
"""
    judged = kernel_judge.judge(submission(**{name: right(name) + noise for name in FULL}))
    assert judged.score == sum(FULL.values())
    kept = [image for images in judged.images.values() for image in images]
    assert 1 <= len(kept) <= 4
    assert len(json.dumps(judged.to_json(), indent=1)) < 2e6


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _picture(width: int = 1, height: int = 1, *more: bytes) -> bytes:
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + head
        + b"".join(more)
        + _chunk(b"IDAT", zlib.compress(b"\0\0"))
        + _chunk(b"IEND", b"")
    )


def test_only_a_png_passes_and_only_its_pixels() -> None:
    plain = _picture()
    assert png.checked(plain) == plain
    assert png.checked(_picture(1, 1, _chunk(b"zTXt", b"a bomb"), _chunk(b"iCCP", b"x"))) == plain
    assert png.checked(plain + b"<script>") == plain
    for bad in (
        None,
        "text",
        b"",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"GIF89a",
        plain[:-20],
        plain[:20] + b"\xff" + plain[21:],
        _picture(0, 1),
        _picture(100_000, 100_000),
        _picture(30_000, 1),
        plain[:8] + plain[33:],
        plain[:-12] + bytes(200_000),
    ):
        assert png.checked(bad) is None, bad
