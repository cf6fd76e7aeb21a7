"""Try other tiles for the Triton tier: `python -m bench.tune [cases]`, on a GPU.

`decode.choose_config`, `prefill_tiles.choose_tile` and `latent._choose_tile` choose from shapes, one way for each. This times other
choices beside theirs, taking turns on the same inputs, so that a choice is a measured one; `--out` keeps the times as JSON.
What was found, for the Hopper programs too, is in bench/results/tuning-h100.md.
"""

import argparse
import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

import kernels
from bench import machine, measure, timing
from bench.all_contenders import CONTENDERS
from bench.cases import Case, choose_cases
from bench.inputs import Inputs, num_copies
from kernels import decode, latent, prefill
from kernels.prefill_tiles import Tile

OWN = "the library's choice"
# Bytes of keys in a tile, stages, splits wanted for each multiprocessor.
DECODE = (
    (8192, 3, 3),
    (8192, 4, 3),
    (16384, 2, 2),
    (16384, 2, 3),
    (16384, 2, 4),
    (16384, 3, 3),
    (32768, 2, 3),
)
# What choose_tile of prefill_tiles.py and _choose_tile of latent.py return.
PREFILL = (
    (256, 64, 8, 3, None),
    (128, 128, 8, 2, None),
    (128, 64, 8, 2, None),
    (128, 64, 8, 2, 128),
    (128, 64, 8, 3, None),
    (128, 32, 8, 3, 128),
    (64, 64, 4, 2, 168),
)
LATENT = ((64, 64, 8, 2, None), (64, 32, 8, 3, None), (64, 32, 8, 4, None), (16, 32, 4, 3, None))
# For each kind of case, whose time it is, and where the choice is made.
PLACES: dict[str, tuple[str, Any, str]] = {
    "decode": ("decode 3: splits, Triton tier", decode, "choose_config"),
    "prefill": ("prefill, Triton tier", prefill, "choose_tile"),
    "mixed": ("prefill, Triton tier", prefill, "choose_tile"),
    "latent": ("latent, Triton tier", latent, "_choose_tile"),
}


def choosers(kind: str) -> dict[str, Callable[..., Any]]:
    """By name, what may stand in the chooser's place; the library's own first."""
    _, module, name = PLACES[kind]
    own = getattr(module, name)

    def config(tile_bytes: int, num_stages: int, splits: int) -> Callable[..., Any]:
        def choose(row_bytes: int, num_sequences: int, device: torch.device, **more: Any) -> Any:
            wanted = splits * kernels.runtime.num_multiprocessors(device)
            return own(row_bytes, num_sequences, device, **more)._replace(
                tile_size=max(16, tile_bytes // row_bytes),
                num_stages=num_stages,
                wanted_splits=max(wanted, num_sequences * 4 // 5),
            )

        return choose

    def always(tile: tuple[int | None, ...]) -> Callable[..., Any]:
        return lambda *shapes: Tile(*tile) if kind in ("prefill", "mixed") else tile  # type: ignore[arg-type]

    if kind == "decode":
        return {OWN: own} | {str(one): config(*one) for one in DECODE}
    return {OWN: own} | {str(one): always(one) for one in (LATENT if kind == "latent" else PREFILL)}


@contextlib.contextmanager
def chosen_by(kind: str, choose: Callable[..., Any]) -> Iterator[None]:
    """While it lasts, the launcher asks `choose`."""
    _, module, name = PLACES[kind]
    own = getattr(module, name)
    setattr(module, name, choose)
    try:
        yield
    finally:
        setattr(module, name, own)


def tune(case: Case) -> dict[str, dict[str, Any]]:
    """By choice: {"us", "spread", "error", ...} as a row of the results has it, or {"failed": why}."""
    rung = next(one for one in CONTENDERS if one.name == PLACES[case.kind][0])
    cache_bytes = torch.cuda.get_device_properties(0).L2_cache_size
    copies = [Inputs(case, seed) for seed in range(num_copies(case, cache_bytes))]
    captured, found = {}, {}
    for name, choose in choosers(case.kind).items():
        try:
            with chosen_by(case.kind, choose):
                captured[name] = timing.capture([rung.prepare(one) for one in copies])
        except Exception as error:  # a tile that does not fit is a line of the table
            found[name] = {"failed": measure.reason(error)}
            measure.check_context(name, error)
    rounds = timing.time_in_turns(captured, settle_seconds=measure.settle_seconds(case))
    for name, one in captured.items():
        error = measure.worst_error(copies, one)
        found[name] = measure.summarise(case, rounds[name], error, rung.error_limit)
    return found


def format_case(case: Case, found: dict[str, dict[str, Any]]) -> list[str]:
    """A heading, the choices by time, and those that failed."""
    lines = [f"{case.name}: {PLACES[case.kind][0]}"]
    timed = [(one["us"], name) for name, one in found.items() if "us" in one]
    for us, name in sorted(timed):
        one = found[name]
        rates = f"{one['tb_per_s']:>7.2f} TB/s{one['tflop_per_s']:>7.1f} TFLOP/s"
        wrong = "" if one["right"] else "  WRONG"
        lines.append(f"  {name:<26}{us:>10.1f} us{rates}  spread {one['spread']:>5.1%}{wrong}")
    return lines + [f"  {name}: {one['failed']}" for name, one in found.items() if "failed" in one]


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0, 2 without a GPU."""
    parser = argparse.ArgumentParser(prog="python -m bench.tune", description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", help="cases whose name contains one of these words")
    parser.add_argument("--out", type=Path, help="keep the times in this JSON file")
    options = parser.parse_args(arguments)
    try:
        cases = choose_cases(options.cases)
    except ValueError as error:
        parser.error(str(error))
    if kernels.INTERPRET or not torch.cuda.is_available():
        print(f"Nothing to measure: kernels run here on: {kernels.describe()}.")
        return 2
    result: dict[str, Any] = {"environment": machine.environment(), "cases": {}}
    for case in cases:
        result["cases"][case.name] = tune(case)
        print("\n".join(format_case(case, result["cases"][case.name])), flush=True)
        if options.out:
            options.out.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
