"""What a result depends on: versions, the GPU, and the state of its clocks while it was measured."""

import platform
import statistics
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import kernels

# nvidia-smi's names -> ours
QUERIES = {
    "clocks.sm": "sm_mhz",
    "clocks.mem": "memory_mhz",
    "temperature.gpu": "celsius",
    "power.draw": "watts",
    "clocks_event_reasons.active": "throttle_reasons",
}
# The bits of throttle_reasons (NVML's clocks event reasons).
REASONS = {
    0x1: "idle",
    0x2: "application clocks",
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "thermal, software",
    0x40: "thermal, hardware",
    0x80: "power brake",
    0x100: "display clocks",
}


def environment(commit: str | None = None) -> dict[str, str]:
    """commit: where it is known better than the files here know it."""
    import triton

    return {
        "gpu": kernels.describe(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "cuda": str(torch.version.cuda),
        "driver": _driver(),
        "commit": commit or _commit(),
        "date": now(),
    }


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _run(*command: str) -> str:
    """Its output without line ends; empty where the program is missing or fails."""
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip()


def _driver() -> str:
    command = ("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", _this_gpu())
    return _run(*command) or "unknown"


def _this_gpu() -> str:
    """nvidia-smi's word for the GPU that torch calls the first one: with several, or some hidden, numbers differ."""
    if not torch.cuda.is_available():
        return "--id=0"
    return f"--id=GPU-{torch.cuda.get_device_properties(0).uuid}"


def _commit() -> str:
    """The commit that is measured, marked where files differ from it; "unknown" outside a repository."""
    return _run("git", "describe", "--always", "--dirty", "--abbrev=12") or "unknown"


@contextmanager
def watch_clocks() -> Iterator[dict[str, Any]]:
    """Ask nvidia-smi five times a second; when the block ends, the dictionary holds what `summarise_clocks` says."""
    summary: dict[str, Any] = {}
    command = [
        "nvidia-smi",
        f"--query-gpu={','.join(QUERIES)}",
        "--format=csv,noheader,nounits",
        _this_gpu(),
        "--loop-ms=200",
    ]
    try:
        watcher = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    except OSError:
        yield summary
        return
    try:
        yield summary
    finally:
        watcher.terminate()
        summary |= summarise_clocks(watcher.communicate()[0].splitlines())


def summarise_clocks(lines: list[str]) -> dict[str, Any]:
    """The range of each number and all reasons that slowed the clocks; without numbers an empty dictionary."""
    samples = [[field.strip() for field in line.split(",")] for line in lines]
    samples = [fields for fields in samples if len(fields) == len(QUERIES)]
    summary: dict[str, Any] = {"samples": len(samples)}
    for index, name in enumerate(list(QUERIES.values())[:-1]):
        numbers = [float(fields[index]) for fields in samples if _is_number(fields[index])]
        if numbers:
            summary[name] = [min(numbers), statistics.median(numbers), max(numbers)]
    active = 0
    for fields in samples:
        if fields[-1].startswith("0x"):
            active |= int(fields[-1], 16)
    summary["throttle_reasons"] = [name for bit, name in REASONS.items() if active & bit]
    return summary if samples else {}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
