"""Your kernels under the roof, and on the ladder beside the rungs of `kernels`: timed on a GPU, or committed results without one."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.patches import Patch

import kernels
from course import gpu_timing, plots
from kernels import reference

# `python -m course.roofline bench/results/nvidia-h200.json` makes it: the cases and contenders that this lesson is about.
# BYTES_PER_S is what that GPU's data sheet says of its memory.
DATA = Path(__file__).parent / "data" / "roofline.json"
CASES = ("decode 1 x 32k", "decode 64 x 2k")
CONTENDERS = {
    "decode 1: one head": "kernels: one head a program",
    "decode 2: GQA packed": "kernels: GQA packed",
    "paged_decode": "kernels: split, paged_decode",
    "vLLM Triton": "vLLM's Triton kernel",
    "FlashAttention-3": "FlashAttention-3",
    "FlashInfer decode, tensor cores": "FlashInfer",
    "torch SDPA, dense": "torch SDPA, no paging",
}
BYTES_PER_S = 4.8e12
_MARKERS = "osD^vPX*<>"
_COLOURS = (plots.BLACK, plots.BLUE, plots.VERMILLION, "#007A5A", "#B0588B")
_HATCHES = ("///", "", "...")
_PAPER = {"facecolor": "white", "edgecolor": "none", "pad": 1}


@dataclass(frozen=True)
class Point:
    """One kernel on one case. us: microseconds. bytes, flops: what the case needs at least."""

    case: str
    who: str
    us: float
    bytes: float
    flops: float


@dataclass(frozen=True)
class Committed:
    """Results that lie in the repository. flop_per_s: what a large bf16 matrix product reached in the same run."""

    gpu: str
    flop_per_s: float
    points: list[Point]


def committed() -> Committed:
    """What data/roofline.json holds: a learner's folder need not have the benchmark's results."""
    kept = json.loads(DATA.read_text(encoding="utf-8"))
    return Committed(kept["gpu"], kept["flop_per_s"], [Point(**point) for point in kept["points"]])


def select(result: dict[str, Any]) -> Committed:
    """The part of a benchmark's result that the lesson shows; wrong outputs are left out."""
    points = [
        Point(case["name"], CONTENDERS[who], one["us"], case["bytes"], case["flops"])
        for case in result["cases"]
        for who, one in case["results"].items()
        if case["name"] in CASES and who in CONTENDERS and one["right"]
    ]
    return Committed(result["environment"]["gpu"], result["ceilings"]["matmul_flop_per_s"], points)


def measured(yours: Mapping[str, Callable[..., torch.Tensor]]) -> list[Point]:
    """Points of your decode kernels and of the rungs, on this GPU: bf16, 32 query heads, 8 kv heads of 128, blocks of 16.

    yours: by name, functions of (query, key_cache, value_cache, block_table, seq_lens, scale). One whose output differs from
    the reference gets no point and is named in the message. Raises RuntimeError without a GPU.
    """
    if kernels.INTERPRET:
        raise RuntimeError("kernels are interpreted here: there is nothing to time")
    from kernels.gqa_decode import gqa_decode
    from kernels.single_query import single_query_decode

    rungs: dict[str, Callable[..., Any]] = {
        **yours,
        "kernels: one head a program": single_query_decode,
        "kernels: GQA packed": gqa_decode,
        "kernels: split, paged_decode": kernels.paged_decode,
    }
    points = []
    for num_reqs, seq_len in ((1, 32768), (64, 2048)):
        arguments = _batch(num_reqs, seq_len)
        truth = reference.paged_decode(*arguments).float()
        elements = num_reqs * seq_len * 8 * 128
        for who, function in rungs.items():
            output = function(*arguments).float()
            if not torch.allclose(output, truth, atol=2e-2):
                print(f"{who}: wrong on {num_reqs} x {seq_len}, not timed")
                continue
            us = gpu_timing.median_us(lambda f=function, a=arguments: f(*a))  # type: ignore[misc]
            points.append(
                Point(f"decode {num_reqs} x {seq_len // 1024}k", who, us, 4 * elements, 16 * elements)
            )
    return points


def _batch(num_reqs: int, seq_len: int) -> tuple[Any, ...]:
    generator = torch.Generator(device="cuda").manual_seed(0)
    num_blocks = num_reqs * seq_len // 16
    shape = (num_blocks, 16, 8, 128)
    caches = [torch.randn(shape, generator=generator, device="cuda", dtype=torch.bfloat16) for _ in range(2)]
    query = torch.randn(num_reqs, 32, 128, generator=generator, device="cuda", dtype=torch.bfloat16)
    table = torch.randperm(num_blocks, generator=generator, device="cuda").int().view(num_reqs, -1)
    lens = torch.full((num_reqs,), seq_len, dtype=torch.int32, device="cuda")
    return query, *caches, table, lens, 128**-0.5


def show(yours: Mapping[str, Callable[..., torch.Tensor]]) -> plots.Picture:
    """The roofline with your kernels on this machine's GPU; without one, with the committed results, said to be so."""
    if kernels.INTERPRET:
        kept = committed()
        print(
            f"No GPU here: nothing of yours was timed. What you see was measured on an {kept.gpu} and is committed."
        )
        return draw(kept.points, BYTES_PER_S, kept.flop_per_s, f"Committed results: {kept.gpu}")
    return draw(measured(yours), *gpu_timing.ceilings(), kernels.describe())


def draw(points: list[Point], bytes_per_s: float, flop_per_s: float, title: str) -> plots.Picture:
    """The roof with every point below it, and beside it the ladder: what share of the roof each kernel reaches, case by case.

    Kernels stand in the order in which they come, yours first; cases are told apart by hatch, kernels by marker.
    """
    whos = list(dict.fromkeys(point.who for point in points))
    rank = {who: index for index, who in enumerate(CONTENDERS.values())}
    whos.sort(key=lambda who: rank.get(who, -1))
    cases = list(dict.fromkeys(point.case for point in points))
    picture = plots.Picture(figsize=(10.5, 1.8 + 0.42 * max(len(whos), 5)), layout="constrained")
    picture.suptitle(title)
    roof, ladder = picture.subplots(1, 2, width_ratios=[2, 3])
    _draw_roof(roof, points, whos, cases, bytes_per_s, flop_per_s)
    said = []
    for row, who in enumerate(whos):
        for case in cases:
            for point in (one for one in points if (one.who, one.case) == (who, case)):
                floor = max(point.bytes / bytes_per_s, point.flops / flop_per_s) * 1e6
                _draw_rung(ladder, row, cases.index(case), len(cases), floor / point.us, point.us)
                said.append(f"{who}, {case}: {point.us:.0f} us, {100 * floor / point.us:.0f} % of the roof")
        ladder.plot(-0.04, row, **_mark(whos.index(who), solid=True), clip_on=False)
    ladder.set(title="The ladder: share of the roof", xlim=(0, 1.32), ylim=(len(whos) - 0.4, -0.6))
    ladder.set_yticks(range(len(whos)), whos)
    ladder.tick_params(axis="y", length=0, pad=20)
    ladder.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
    ladder.axvline(1, color="black", linewidth=1)
    keys = [
        Patch(
            facecolor="white",
            edgecolor=plots.INK,
            hatch=_HATCHES[index % 3],
            label=f"{case} ({'hollow' if index else 'solid'} marker)",
        )
        for index, case in enumerate(cases)
    ]
    picture.legend(handles=keys, loc="outside lower right", ncols=len(keys), fontsize=9)
    print("\n".join(said))
    picture.alt_text = f"{title}. " + "; ".join(said) + "."
    return picture


def _draw_roof(
    axes: Axes, points: list[Point], whos: list[str], cases: list[str], bytes_per_s: float, flop_per_s: float
) -> None:
    """FLOPs a second over FLOPs a byte, both on logarithmic scales. A solid marker is the first case."""
    left, right = 0.8, 3e4
    ridge = flop_per_s / bytes_per_s
    roof = [left * bytes_per_s / 1e12, flop_per_s / 1e12, flop_per_s / 1e12]
    axes.plot([left, ridge, right], roof, color="black")
    for point in points:
        mark = _mark(whos.index(point.who), solid=point.case == cases[0])
        axes.plot(point.flops / point.bytes, point.flops / point.us / 1e6, **mark)
    axes.set(xscale="log", yscale="log", xlim=(left, right), title="The roof")
    axes.set_xlabel("FLOP per byte that has to move")
    axes.set_ylabel("TFLOP/s")
    axes.grid(alpha=0.3)


def _draw_rung(axes: Axes, row: int, place: int, places: int, share: float, us: float) -> None:
    """One kernel's bar for one case, with its numbers behind it."""
    height = 0.78 / places
    middle = row - 0.39 + height * (place + 0.5)
    axes.barh(
        middle, share, height, color="white", edgecolor=plots.INK, linewidth=0.8, hatch=_HATCHES[place % 3]
    )
    axes.text(
        share + 0.015, middle, f"{us:,.0f} us, {100 * share:.0f} %", va="center", fontsize=8, bbox=_PAPER
    )


def _mark(index: int, *, solid: bool) -> dict[str, Any]:
    colour = _COLOURS[index % len(_COLOURS)]
    fill = colour if solid else "white"
    return {
        "marker": _MARKERS[index % len(_MARKERS)],
        "color": colour,
        "markerfacecolor": fill,
        "linestyle": "",
    }


if __name__ == "__main__":
    chosen = asdict(select(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
    DATA.write_text(json.dumps(chosen, indent=1) + "\n", encoding="utf-8")
