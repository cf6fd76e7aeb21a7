"""The three schedules of `widgets.SplitTimeline`, run on this machine's GPU and drawn with its own times.

    show([8192, 1536, 1024, 512, 512, 256])

One lane is one multiprocessor; a bar reaches from a program's first to its last nanosecond. The merge is not recorded.
Without a GPU, what an H100 recorded is shown for the batch of the lesson; `python -m course.recorded_schedules` on a GPU writes it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from matplotlib.axes import Axes

import kernels
from course import plots
from course.widgets.split_timeline.schedules import NAMES, Share, shares

if TYPE_CHECKING:
    from course.gpu_timeline import Piece, Recorded

__all__ = ["describe", "draw", "keep", "pieces_of", "record_schedules", "show"]

HEAD_SIZE, NUM_QUERIES_PER_KV, BLOCK_SIZE = 128, 4, 16
KEPT = Path(__file__).parent / "data" / "recorded_schedules.json"
KEPT_SEQ_LENS = [8192, 1536, 1024, 512, 512, 256]  # lesson 3's batch


def pieces_of(programs: Sequence[Share]) -> list[Piece]:
    """What the programs of a schedule read; one without a token reads nothing and is left out."""
    from course.gpu_timeline import Piece  # loads triton

    return [
        Piece(share.request, share.kv_head, share.first, share.end)
        for share in programs
        if share.end > share.first
    ]


def record_schedules(
    seq_lens: Sequence[int], *, num_kv_heads: int = 8, num_splits: int = 16
) -> dict[str, list[Recorded]]:
    """Each schedule's programs as they ran on this GPU, on random bfloat16 data in shuffled blocks.

    The schedules are cut for as many multiprocessors as the GPU has. Raises RuntimeError without a GPU.
    """
    from course.gpu_timeline import record

    if kernels.INTERPRET:
        raise RuntimeError("recording programs on their multiprocessors needs a CUDA GPU")
    arguments = _batch(seq_lens, num_kv_heads)
    num_sms = torch.cuda.get_device_properties(0).multi_processor_count
    return {
        name: record(pieces_of(shares(name, seq_lens, num_kv_heads, num_sms, num_splits)), *arguments)
        for name in NAMES
    }


def _batch(seq_lens: Sequence[int], num_kv_heads: int) -> tuple[Any, ...]:
    generator = torch.Generator(device="cuda").manual_seed(0)
    widths = [-(-seq_len // BLOCK_SIZE) for seq_len in seq_lens]
    num_blocks = max(1, sum(widths))
    blocks = torch.randperm(num_blocks, generator=generator, device="cuda").int()
    table = torch.zeros(len(seq_lens), max(1, *widths), dtype=torch.int32, device="cuda")
    taken = 0
    for request, width in enumerate(widths):
        table[request, :width] = blocks[taken : taken + width]
        taken += width
    shape = (num_blocks, BLOCK_SIZE, num_kv_heads, HEAD_SIZE)
    like: dict[str, Any] = {"generator": generator, "device": "cuda", "dtype": torch.bfloat16}
    query = torch.randn(len(seq_lens), num_kv_heads * NUM_QUERIES_PER_KV, HEAD_SIZE, **like)
    caches = [torch.randn(shape, **like) for _ in range(2)]
    lens = torch.tensor(seq_lens, dtype=torch.int32, device="cuda")
    return query, *caches, table, lens, HEAD_SIZE**-0.5


def describe(recorded: Mapping[str, Sequence[Recorded]], num_sms: int) -> list[str]:
    """One sentence for each schedule: programs, when the last one ended, and how long multiprocessors waited for it."""
    lines = []
    for name, programs in recorded.items():
        makespan = max((each.end_ns for each in programs), default=0)
        idle = 1 - sum(_busy_ns(programs).values()) / (num_sms * makespan) if makespan else 0.0
        lines.append(
            f"{NAMES[name]}: {len(programs)} programs, the last ends after {makespan / 1000:.1f} us; "
            f"{100 * idle:.0f} % of the multiprocessors' time nothing ran"
        )
    return lines


def _busy_ns(programs: Sequence[Recorded]) -> dict[int, int]:
    """Nanoseconds in which at least one program ran, by multiprocessor: several may run at once."""
    spans: dict[int, list[tuple[int, int]]] = {}
    for each in programs:
        spans.setdefault(each.multiprocessor, []).append((each.start_ns, each.end_ns))
    busy = {}
    for multiprocessor, own in spans.items():
        reached = total = 0
        for start, end in sorted(own):
            total += max(0, end - max(start, reached))
            reached = max(reached, end)
        busy[multiprocessor] = total
    return busy


def draw(recorded: Mapping[str, Sequence[Recorded]], num_sms: int, title: str) -> plots.Picture:
    """One panel for each schedule, all on one scale of time; requests by letter and hatch."""
    picture = plots.Picture(figsize=(10.5, 5.2), layout="constrained", facecolor="white")
    picture.suptitle(title)
    panels = picture.subplots(1, len(recorded), sharex=True, sharey=True, squeeze=False)[0]
    for panel, (name, programs) in zip(panels, recorded.items(), strict=True):
        _draw_lanes(panel, programs)
        panel.set(title=NAMES[name], xlabel="microseconds", ylim=(num_sms - 0.5, -0.5))
        panel.title.set_fontsize(10)
    panels[0].set_ylabel("multiprocessor")
    requests = sorted({each.piece.request for programs in recorded.values() for each in programs})
    picture.legend(
        handles=[plots.owner_patch(request) for request in requests],
        loc="outside lower center",
        ncols=max(1, len(requests)),
        fontsize=9,
    )
    picture.alt_text = f"{title}. " + ". ".join(describe(recorded, num_sms)) + "."
    return picture


def _draw_lanes(axes: Axes, programs: Sequence[Recorded]) -> None:
    """Programs that ran at the same time on one multiprocessor are drawn over one another, half transparent."""
    for request in sorted({each.piece.request for each in programs}):
        own = [each for each in programs if each.piece.request == request]
        axes.barh(
            [each.multiprocessor for each in own],
            [(each.end_ns - each.start_ns) / 1000 for each in own],
            left=[each.start_ns / 1000 for each in own],
            height=0.9,
            **plots.owner_style(request),
            linewidth=0.3,
            alpha=0.85,
        )


def show(
    seq_lens: Sequence[int], *, num_kv_heads: int = 8, num_splits: int = 16
) -> plots.Picture | plots.KeptPicture | None:
    """The schedules recorded on this machine's GPU. Without one: what was recorded of the same batch elsewhere, and said
    to be so, or a sentence."""
    if kernels.INTERPRET:
        kept = json.loads(KEPT.read_text(encoding="utf-8"))
        if kept["batch"] != [list(seq_lens), num_kv_heads, num_splits]:
            print("No GPU here: nothing was recorded. The timeline above is the model's estimate, in tokens.")
            return None
        print(f"No GPU here. This was recorded on another machine's {kept['gpu']}:", *kept["lines"], sep="\n")
        return plots.KeptPicture(base64.b64decode(kept["png"]), kept["alt_text"])
    recorded = record_schedules(seq_lens, num_kv_heads=num_kv_heads, num_splits=num_splits)
    num_sms = torch.cuda.get_device_properties(0).multi_processor_count
    print("\n".join(describe(recorded, num_sms)))
    return draw(recorded, num_sms, f"Recorded on {torch.cuda.get_device_name(0)}")


def keep(path: Path = KEPT) -> None:
    """Record the lesson's batch on this GPU, and write what `show` has to show without one. Raises RuntimeError without a
    GPU."""
    recorded = record_schedules(KEPT_SEQ_LENS)
    gpu, num_sms = torch.cuda.get_device_name(0), torch.cuda.get_device_properties(0).multi_processor_count
    picture = draw(recorded, num_sms, f"Recorded on {gpu}")
    kept = {
        "gpu": gpu,
        "batch": [KEPT_SEQ_LENS, 8, 16],
        "lines": describe(recorded, num_sms),
        "alt_text": picture.alt_text,
        "png": base64.b64encode(picture.png()).decode("ascii"),
    }
    path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    keep()
