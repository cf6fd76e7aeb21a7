"""`python -m bench`: measure our kernels and their peers on this machine's GPU, and write bench/results/NAME.json."""

import argparse
import re
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import torch

import kernels
from bench import result_file
from bench.all_contenders import choose_contenders
from bench.cases import CASES, Case, choose_cases
from bench.worker import Excluded, Session, WorkerLost

# How long a worker may say nothing. FlashInfer compiles a path for about a minute, longer when several compile.
COMPILE_SILENCE = 240.0
MEASURE_SILENCE = 90.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0, 1 when an output is wrong or a case could not be measured, 2 when nothing could."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("cases", nargs="*", help="measure only cases whose name contains one of these words")
    parser.add_argument("--name", help="write bench/results/NAME.json (default: the GPU's name)")
    parser.add_argument("--commit", help="the commit measured, on a machine with the files and no repository")
    parser.add_argument(
        "--contenders", action="append", default=[], help="only those with this in their name"
    )
    parser.add_argument(
        "--resume", action="store_true", help="only cases that the file lacks for this commit"
    )
    parser.add_argument(
        "--compile-jobs", type=int, default=6, help="processes that compile before (default 6)"
    )
    options = parser.parse_args(arguments)
    try:
        cases = choose_cases(options.cases)
        contenders = choose_contenders(options.contenders)
        path = None if options.name is None else result_file.result_path(options.name)
    except ValueError as error:
        parser.error(str(error))
    if kernels.INTERPRET or not torch.cuda.is_available():
        print(
            f"Nothing to measure: benchmarks need a CUDA GPU, and kernels run here on: {kernels.describe()}."
        )
        return 2

    excluded: Excluded = defaultdict(dict)
    session = Session([contender.name for contender in contenders], excluded)
    environment = session.ask("environment", options.commit, silence=MEASURE_SILENCE)
    path = path or result_file.result_path(default_name(torch.cuda.get_device_name()))
    result = result_file.load(path)
    if options.resume:
        done = {row["name"] for row in result["cases"] if row["commit"] == environment["commit"]}
        cases = [case for case in cases if case.name not in done]
    print(", ".join(f"{key} {value}" for key, value in environment.items()), flush=True)

    compile_all(cases, [contender.name for contender in contenders], excluded, options.compile_jobs)
    result["environment"] = environment
    result["contenders"] |= {contender.name: contender.describe() for contender in contenders}
    result["ceilings"] = session.ask("ceilings", silence=MEASURE_SILENCE)
    print(format_ceilings(result["ceilings"]), flush=True)
    faults = measure_all(cases, session, result, path)
    session.stop()
    print(f"Written to {path}.")
    for line in faults:
        print(line, file=sys.stderr)
    return 1 if faults else 0


def default_name(gpu: str) -> str:
    """The file's name where none is given: "NVIDIA H200" -> "nvidia-h200"."""
    return re.sub(r"[^a-z0-9]+", "-", gpu.lower()).strip("-")


def measure_all(cases: Sequence[Case], session: Session, result: dict[str, Any], path: Path) -> list[str]:
    """Measure the cases one by one, each written to the file and printed as soon as it is done; what went wrong."""
    faults = []
    start = time.monotonic()
    for case in cases:
        try:
            row = session.ask_about("measure", case, silence=MEASURE_SILENCE)
        except (WorkerLost, RuntimeError) as error:
            faults.append(f"{case.name}: not measured: {error}")
            continue
        row["commit"] = result["environment"]["commit"]
        result_file.put(result, row, [one.name for one in CASES])
        result_file.save(path, result)
        print(f"[{time.monotonic() - start:.0f} s]", "\n".join(format_row(row)), flush=True)
        faults += [f"{case.name}: {wrong}" for wrong in wrong_outputs(row)]
    return faults


def compile_all(cases: Sequence[Case], names: list[str], excluded: Excluded, num_jobs: int) -> None:
    """Run everything once, several cases side by side, so that compilers have filled their caches before the timing."""
    waiting: SimpleQueue[Case] = SimpleQueue()
    for case in cases:
        waiting.put(case)

    def work() -> None:
        session = Session(names, excluded)
        while True:
            try:
                case = waiting.get_nowait()
            except Empty:
                break
            try:
                session.ask_about("compile", case, silence=COMPILE_SILENCE)
            except (
                WorkerLost,
                RuntimeError,
            ) as error:  # it will show again, and be reported, when it is measured
                print(f"compiling for {case.name}: {error}", file=sys.stderr)
        session.stop()

    threads = [threading.Thread(target=work) for _ in range(min(num_jobs, len(cases)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def wrong_outputs(row: dict[str, Any]) -> list[str]:
    """A sentence for each contender whose output is not what it should be."""
    return [
        f"{name} has relative error {one['error']}, over {one['error_limit']:.1e}"
        for name, one in row["results"].items()
        if not one["right"]
    ]


def format_ceilings(ceilings: dict[str, float]) -> str:
    return (
        f"This GPU reads {ceilings['read_bytes_per_s'] / 1e12:.2f} TB/s, copies {ceilings['copy_bytes_per_s'] / 1e12:.2f} "
        f"TB/s, and multiplies bfloat16 matrices at {ceilings['matmul_flop_per_s'] / 1e12:.0f} TFLOP/s."
    )


def format_row(row: dict[str, Any]) -> list[str]:
    """A heading, the contenders by time, and who was left out."""
    lines = [
        f"{row['name']}: {row['bytes'] / 1e6:.0f} MB, {row['flops'] / 1e9:.1f} GFLOP, {row['copies']} copies"
    ]
    for name, one in sorted(row["results"].items(), key=lambda item: item[1]["us"]):
        error = "NaN" if one["error"] is None else f"{one['error']:.1e}"
        lines.append(
            f"  {name:<32}{one['us']:>10.1f} us{one['tb_per_s']:>7.2f} TB/s{one['tflop_per_s']:>7.1f} TFLOP/s"
            f"  spread {one['spread']:>5.1%}  error {error}{'' if one['right'] else '  WRONG'}"
        )
    return lines + [f"  {name}: not measured: {why}" for name, why in row["skipped"].items()]
