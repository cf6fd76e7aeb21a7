"""What one worker may use."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What one worker may use.

    memory: bytes of private memory, all its processes together. tmp: bytes of each scratch folder (/tmp, /dev/shm).
    processes: processes and threads. files: open files. frame: bytes of one message to or from it. output: bytes that
    are kept of what it prints. gpu: the share of a GPU's memory that torch gives it. cell, call: seconds for one cell and
    for one call. demo: seconds for a cell of the instructor's once something has met a limit: it most likely calls the same
    function, and no points hang on it. test: seconds for all calls of one test cell. total: seconds for one submission.
    faults: how many calls of a function may end in a time limit, a crash or a lack of memory in one test cell; after that
    it is not called there any more, and later test cells try it once.
    """

    memory: int = 4 * 2**30
    tmp: int = 256 * 2**20
    processes: int = 128
    files: int = 256
    frame: int = 64 * 2**20
    output: int = 256 * 2**10
    gpu: float = 0.8
    cell: float = 60.0
    call: float = 30.0
    demo: float = 10.0
    test: float = 240.0
    total: float = 600.0
    faults: int = 2

    def for_worker(self) -> dict[str, float]:
        """What the zygote is told."""
        names = ("memory", "processes", "files", "frame", "gpu")
        return {**{name: getattr(self, name) for name in names}, "file_bytes": self.tmp}
