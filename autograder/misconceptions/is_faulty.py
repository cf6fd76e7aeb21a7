"""Question 13, first part: testers of closed backends that leave a kind of input out or accuse right ones, and right testers."""

import random
from typing import Any

import torch

from autograder.collect import Collector
from course import differential


# The solution, in which the mistakes below are made; source/04_design.py walks through it.
def is_faulty(backend):
    of = differential.Case.of
    cases = [
        of([8, 12]),
        of([13, 6, 1]),
        of([13, 9], [5, 9]),
        of([14, 30], window=5),
        of([14, 30], [6, 7], window=5),
        of([13, 6], num_heads=6, num_kv_heads=2),
        of([13, 6], num_heads=4, num_kv_heads=2, layout="HND"),
        of([5, 300]),
        of([13], lowest_block=2**27 + 5),
        of([0, 6, 5, 7], [1, 1, 0, 1]),
        of([13, 7], kv_dtype="fp8", k_scale=0.25, v_scale=2.0),
        of([9, 6]).then({1: 7}).then({0: 10, 1: 8}, moved=[0]),
        of([40, 7], dtype="float16"),
    ]
    for case in cases:  # noqa: SIM110
        if differential.compare(backend, differential.reference, case) is not None:
            return True
    return False


detect = Collector(is_faulty)

detect.edit(
    "always-faulty",
    "every backend is called faulty. A right one that is accused is not used any more: it costs as much as a fault.",
    ("    for case in cases:", "    return True\n    for case in cases:"),
)
detect.edit(
    "never-faulty",
    "no backend is ever called faulty: call it, and compare with the reference.",
    ("    for case in cases:", "    return False\n    for case in cases:"),
)
detect.edit(
    "one-fixed-case",
    "a single kind of case is tried. Each fault shows on one kind of input alone: a case for each.",
    ("for case in cases:", "for case in cases[:2]:"),
)
detect.edit(
    "every-bit-compared",
    "results are compared bit by bit. Right backends add up in other orders and round differently: allow the budget.",
    (
        "if differential.compare(backend, differential.reference, case) is not None:",
        "if any(not torch.equal(a, b) for x, y in zip(backend(case), differential.reference(case)) for a, b in zip(x, y)):",
    ),
)
detect.edit(
    "full-blocks-only",
    "a request whose last block has a tail was never tried: lengths that are multiples of the block size leave no slot over, "
    "and nothing stale to read.",
    ("of([13, 6, 1])", "of([12, 8, 4])"),
    ("of([13, 9], [5, 9])", "of([12, 8], [5, 8])"),
    ("of([14, 30], window=5)", "of([16, 32], window=5)"),
    ("of([14, 30], [6, 7], window=5)", "of([16, 32], [6, 7], window=5)"),
    ("of([13, 6], num_heads=6", "of([12, 8], num_heads=6"),
    ("of([13, 6], num_heads=4", "of([12, 8], num_heads=4"),
    ("of([5, 300])", "of([4, 300])"),
    ("of([13], lowest", "of([12], lowest"),
    ("of([0, 6, 5, 7], [1, 1, 0, 1])", "of([0, 8, 4, 12], [1, 1, 0, 1])"),
    ("of([13, 7], kv", "of([12, 8], kv"),
    (
        "of([9, 6]).then({1: 7}).then({0: 10, 1: 8}, moved=[0])",
        "of([8, 4]).then({1: 8}).then({0: 12, 1: 12}, moved=[0])",
    ),
    ("of([40, 7], dtype", "of([40, 8], dtype"),
)
detect.edit(
    "zeros-in-what-nobody-owns",
    "what nobody owns always held zeros. Weight 0 times NaN is NaN, weight 0 times 0 is nothing: fill it with NaN.",
    (
        "    of = differential.Case.of\n",
        '    of = lambda *a, **k: differential.Case.of(*a, unowned="zeros", **k)\n',
    ),
)
detect.edit(
    "no-window",
    "a sliding window was never tried.",
    ("        of([14, 30], window=5),\n        of([14, 30], [6, 7], window=5),\n", ""),
)
detect.edit(
    "window-with-decode-only",
    "a window was tried with one query token for each request, and never with a chunk of several.",
    ("        of([14, 30], [6, 7], window=5),\n", ""),
)
detect.edit(
    "low-block-numbers-only",
    "all block numbers were small. 32 bits overflow when block * block_size * num_kv_heads * head_size passes 2**31.",
    ("        of([13], lowest_block=2**27 + 5),\n", ""),
)
detect.edit(
    "one-kv-head-only",
    "there was only ever one kv head. Then every head map is right, and HND is NHD.",
    ("num_heads=6, num_kv_heads=2", "num_heads=6"),
    ("num_heads=4, num_kv_heads=2", "num_heads=4"),
)
detect.edit(
    "powers-of-two-only",
    "every kv head had 1, 2 or 4 query heads. Real models have 3, 5, 6 or 7: try a group that is no power of two.",
    ("num_heads=6, num_kv_heads=2", "num_heads=4, num_kv_heads=2"),
)
detect.edit(
    "nhd-only",
    "a cache of layout HND with several kv heads was never tried.",
    ('        of([13, 6], num_heads=4, num_kv_heads=2, layout="HND"),\n', ""),
)
detect.edit(
    "lse-ignored",
    "only the outputs are compared. The lse is a result too: cascade attention and split-KV merge by it.",
    (
        "if differential.compare(backend, differential.reference, case) is not None:",
        "wrong = differential.compare(lambda c: [(out, lse) for (out, _), (_, lse) in "
        "zip(backend(c), differential.reference(c))], differential.reference, case)\n        if wrong is not None:",
    ),
)
detect.edit(
    "short-requests-only",
    "no request was longer than a split. Long contexts are where splits are merged, and where there are too many of them.",
    ("        of([5, 300]),\n", ""),
    ("of([40, 7], dtype", "of([15, 7], dtype"),
    (
        "        of([14, 30], window=5),\n        of([14, 30], [6, 7], window=5),\n",
        "        of([14, 15], window=5),\n        of([14, 15], [6, 7], window=5),\n",
    ),
)
detect.edit(
    "long-requests-alone",
    "long requests were tried, and never after a short one in the same batch: what is computed once for the batch, from its "
    "first or its longest request, shows only there.",
    ("of([5, 300])", "of([300, 5])"),
)
detect.edit(
    "one-step-only",
    "every case had one step. What a backend keeps from step to step shows only in a second one.",
    (".then({1: 7}).then({0: 10, 1: 8}, moved=[0])", ""),
)
detect.edit(
    "never-preempted",
    "there were several steps, and every request was in all of them: none was preempted, left out and brought back.",
    (".then({1: 7}).then(", ".then({0: 10, 1: 7}).then("),
)
detect.edit(
    "no-zero-length",
    "a request of length 0, or one without query tokens, was never tried. CUDA graphs pad batches with them.",
    ("        of([0, 6, 5, 7], [1, 1, 0, 1]),\n", ""),
)
detect.edit(
    "nan-forgiven",
    "NaN passes the comparison: `error > tolerance` is False for NaN. Ask whether the error is within, not whether it is beyond.",
    (
        "if differential.compare(backend, differential.reference, case) is not None:",
        "if any(((a.double() - b.double()).nan_to_num(0.0, 9.0, 9.0).abs() > 2e-3).any() "
        "for x, y in zip(backend(case), differential.reference(case)) for a, b in zip(x, y)):",
    ),
)
detect.edit(
    "unit-scales-only",
    "an fp8 cache was tried with scales of 1 only, where forgetting them does no harm.",
    ("k_scale=0.25, v_scale=2.0", "k_scale=1.0, v_scale=1.0"),
)
detect.edit(
    "equal-scales-only",
    "keys and values of the fp8 cache always had the same scale: which is which does not show.",
    ("k_scale=0.25, v_scale=2.0", "k_scale=0.5, v_scale=0.5"),
)


@detect.right("random-search", part="is_faulty")
def at_random(backend):
    """Draws cases with many odd things at once."""
    rng = random.Random(7)
    for seed in range(16):
        kv_heads = 2
        lens = [rng.choice([0, 0, 8, 14]), rng.choice([6, 11, 11, 310]), 13]
        fields: Any = {
            "num_heads": kv_heads * rng.choice([3, 3, 2]),
            "num_kv_heads": kv_heads,
            "layout": rng.choice(["NHD", "HND"]),
            "window": rng.choice([None, None, 6]),
            "kv_dtype": rng.choice(["auto", "fp8"]),
            "k_scale": 0.5,
            "v_scale": 4.0,
            "lowest_block": rng.choice([0, 2**27 + 1]),
            "seed": seed,
        }
        case = differential.Case.of(lens, [rng.choice([0, 1]), rng.choice([1, 5]), 1], **fields)
        if seed % 2:
            case = case.then({2: 14}).then({1: lens[1] + 1, 0: lens[0], 2: 15}, moved=[1])
        if differential.compare(backend, differential.reference, case) is not None:
            return True
    return False


@detect.right("against-kernels-reference", part="is_faulty")
def against_kernels(backend):
    """The course's own reference in float32 as the truth, and a tolerance of its own."""
    from kernels import reference

    def right(case):
        for step in range(len(case.steps)):
            given = differential.inputs(case, step)
            scales: Any = (
                {} if given.k_scale is None else {"k_scale": given.k_scale, "v_scale": given.v_scale}
            )
            yield reference.paged_attention(
                *given.arguments(), given.scale, sliding_window=given.window, return_lse=True, **scales
            )

    of = differential.Case.of
    first = of([7, 11, 2], [3, 1, 2], num_heads=3)
    cases = [
        first,
        of([4, 8, 4]),
        of([31, 3], [9, 1], window=4, num_heads=10, num_kv_heads=2, layout="HND"),
        of([1, 260, 3], num_heads=6, num_kv_heads=2),
        of([22], block_size=8, lowest_block=2**30),
        of([3, 0, 0, 9], [0, 1, 0, 2]),
        of([17], kv_dtype="fp8", k_scale=2.0, v_scale=0.5),
        of([17, 5, 9]).then({2: 9, 1: 6}).then({2: 10, 0: 18}, moved=[0, 2]),
    ]
    for case in cases:
        for got, expected in zip(backend(case), right(case), strict=True):
            if not all(torch.allclose(a, b, atol=1e-4, rtol=1e-4) for a, b in zip(got, expected)):
                return True
    return False


@detect.right("one-odd-thing-at-a-time", part="is_faulty")
def one_at_a_time(backend):
    """Starts from one ordinary case and changes a field of it for each trial."""

    def changed(seq_lens=(9, 14, 20), query_lens=(1, 6, 1), **fields):
        fields = {"num_heads": 6, "num_kv_heads": 2, "seed": 5, **fields}
        return differential.Case.of(seq_lens, query_lens, **fields)

    cases = [
        changed(),
        changed([8, 12, 16]),
        changed([9, 14, 270]),
        changed(window=6),
        changed(layout="HND"),
        changed(kv_dtype="fp8", k_scale=4.0, v_scale=0.5),
        changed(lowest_block=2**26 + 9),
        changed(lowest_block=2**28 + 9),
        changed([0, 14, 20], [1, 0, 1]),
        changed(dtype="float16"),
        changed().then({1: 15}).then({1: 16, 0: 10}, moved=[0]),
    ]
    return any(differential.compare(backend, differential.reference, case) for case in cases)
