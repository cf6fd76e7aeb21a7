"""Try tiles for the plain-Triton prefill kernel: `python -m bench.tune_prefill [cases]`, on a GPU.

`kernels.prefill._choose_tile` has one choice for each head size and dtype. This prints the time of others beside it, each
with its error, so that the choice is a measured one. Compile first what costs nothing to know: registers and spills.

What was found is in bench/results/tuning-h100.md.
"""

import argparse
import functools
import statistics
from collections.abc import Sequence
from typing import Any

import torch

import kernels
from bench import timing
from bench.cases import Case, choose_cases
from bench.inputs import Inputs, num_copies
from kernels import prefill

# (BLOCK_M, TILE_SIZE, num_warps, num_stages)
Tile = tuple[int, int, int, int]
TILES: tuple[Tile, ...] = (
    (128, 64, 8, 2),
    (128, 64, 8, 3),
    (128, 64, 8, 4),
    (128, 64, 8, 5),
    (128, 32, 8, 3),
    (128, 32, 8, 4),
    (128, 128, 8, 3),
    (64, 64, 4, 3),
    (64, 64, 8, 3),
    (64, 32, 4, 3),
    (64, 32, 8, 3),
)


def measure(case: Case, tile: Tile | None) -> tuple[float, float]:
    """(seconds of one call, error against float32); tile None is the library's own choice."""
    cache_bytes = torch.cuda.get_device_properties(0).L2_cache_size
    copies = [Inputs(case, seed) for seed in range(num_copies(case, cache_bytes))]
    keywords: dict[str, Any] = {"sliding_window": case.sliding_window}
    if case.kv_dtype != "bfloat16":
        keywords |= {"k_scale": copies[0].k_scale, "v_scale": copies[0].v_scale}

    def call(inputs: Inputs) -> torch.Tensor:
        return kernels.paged_prefill(
            inputs.query,
            inputs.key_cache,
            inputs.value_cache,
            inputs.block_table,
            inputs.seq_lens,
            inputs.query_start_loc,
            inputs.scale,
            **keywords,
        )

    chosen = prefill._choose_tile
    try:
        if tile is not None:
            prefill._choose_tile = lambda *shapes: tile
        captured = timing.capture([functools.partial(call, inputs) for inputs in copies])
    finally:
        prefill._choose_tile = chosen
    seconds = statistics.median(captured.replay() for _ in range(10))
    return seconds, copies[-1].error(captured.outputs[-1])


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0, 2 without a GPU."""
    parser = argparse.ArgumentParser(prog="python -m bench.tune_prefill", description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", help="cases whose name contains one of these words")
    words = parser.parse_args(arguments).cases or ["prefill", "2k queries"]
    if kernels.INTERPRET or not torch.cuda.is_available():
        print(f"Nothing to measure: kernels run here on: {kernels.describe()}.")
        return 2
    for case in choose_cases(words):
        print(f"{case.name}\n{'tile':<20}{'us':>10}{'TFLOP/s':>10}{'error':>10}")
        for tile in (None, *TILES):
            try:
                seconds, error = measure(case, tile)
            except Exception as failure:  # a tile that does not fit is a line of the table
                print(f"{tile!s:<20}  {type(failure).__name__}: {str(failure).splitlines()[0][:80]}")
                continue
            rate = case.flops / seconds * 1e-12
            print(f"{tile!s:<20}{seconds * 1e6:>10.1f}{rate:>10.1f}{error:>10.1e}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
