"""Families of processes: who belongs to one, what it uses, how it is ended. Standard library only; used on both sides."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

_STALE_SECONDS = 60.0
# Processes whose pages the kernel is asked about; for many that are forking it would take seconds.
_PSS_AT_MOST = 8


@dataclass(frozen=True)
class Usage:
    """Processes, and bytes of memory, of a worker. ended: whether its first process has."""

    processes: int
    memory: int
    ended: bool = False


def children(pid: int) -> list[int]:
    """The numbers of a process's children, whichever of its threads made them."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
        return [
            int(child)
            for thread in threads
            for child in Path(f"/proc/{pid}/task/{thread}/children").read_text().split()
        ]
    except OSError:
        return []


def descendants(pid: int, at_most: int = 10_000) -> list[int]:
    """Children, their children, and so on."""
    family = children(pid)
    for member in family:  # grows as it goes
        if len(family) > at_most:
            break
        family += children(member)
    return family


def end_descendants(pid: int, seconds: float = 10.0) -> bool:
    """Kills everything below a process. Returns whether nothing but the dead is left.

    Whoever is stopped first can start nothing any more, so that a fork bomb does not outrun this. Orphans stay below `pid`
    only where it is their subreaper.
    """
    deadline = time.monotonic() + seconds
    known: set[int] = set()
    while time.monotonic() < deadline:
        family = {member for member in descendants(pid) if is_alive(member)}
        if not family:
            return True
        for member in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(member, signal.SIGSTOP)
        if family <= known:
            for member in family:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(member, signal.SIGKILL)
            time.sleep(0.005)
        known |= family
    return False


def tasks_of_user(uid: int) -> int:
    """How many processes and threads a user has."""
    count = 0
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if folder.stat().st_uid == uid:
                count += len(os.listdir(folder / "task"))
    return count


def wait_for_end(family: list[int], seconds: float = 10.0) -> None:
    """Waits until none of these processes lives any more."""
    deadline = time.monotonic() + seconds
    while any(map(is_alive, family)) and time.monotonic() < deadline:
        time.sleep(0.002)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (OSError, IndexError):
        return False


def usage(family: list[int], parent: int, limit: int) -> Usage:
    """What the processes of `family` use, without what they still share with the warm parent that they were forked from.

    Program files in memory do not count: the kernel can drop them at any time. limit: bytes; above it pages that several
    processes share are told apart, where the kernel says so.
    """
    inherited = _memory(parent)[0]
    measured = [_memory(member) for member in family]
    memory = sum(max(0, private - inherited) + shared for private, shared in measured)
    if memory > limit and len(family) <= _PSS_AT_MOST:
        exact = [_proportional(member) for member in family]
        if all(size is not None for size in exact):
            memory = sum(size for size in exact if size is not None)
    return Usage(len(family), memory)


def _memory(pid: int) -> tuple[int, int]:
    """Bytes of a process's anonymous memory, and of its shared memory."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.startswith("Rss")}
    except (OSError, IndexError, ValueError):
        return 0, 0
    return sizes.get("RssAnon", 0), sizes.get("RssShmem", 0)


def _proportional(pid: int) -> int | None:
    """The same in one number, with what n processes share counted as an n-th; None where that may not be read."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except FileNotFoundError:
        return 0  # it has ended
    except OSError:
        return None
    wanted = [line for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:"))]
    return sum(int(line.split()[1]) * 1024 for line in wanted) if wanted else None


# Control groups: a number of processes that not even root exceeds.

_numbers = itertools.count()


def make_pids_group(limit: int) -> Path | None:
    """A cgroup for at most `limit` tasks where this user may make one, else None.

    RLIMIT_NPROC bounds processes for everyone but root, and root is who can make cgroups.
    """
    for parent in _pids_hierarchies():
        _remove_stale(parent)
        folder = parent / f"judge-{os.getpid()}-{next(_numbers)}"
        try:
            folder.mkdir()
        except OSError:
            continue
        try:
            (folder / "pids.max").write_text(str(limit))
            if os.access(folder / "cgroup.procs", os.W_OK):
                return folder
        except OSError:
            pass
        remove_group(folder)
    return None


def _pids_hierarchies() -> list[Path]:
    """Folders of this process in cgroup version 1's pids hierarchy and in version 2's."""
    found = []
    try:
        for entry in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = entry.split(":", 2)
            if "pids" in controllers.split(","):
                found.append(Path("/sys/fs/cgroup/pids") / path.lstrip("/"))
            elif not controllers:
                found.append(Path("/sys/fs/cgroup") / path.lstrip("/"))
    except (OSError, ValueError):
        return []
    return found


def _remove_stale(parent: Path) -> None:
    """Removes the empty groups of judges that were killed. One with processes in it cannot be removed."""
    for folder in parent.glob("judge-*-*"):
        pid = folder.name.split("-")[1]
        try:
            if not Path(f"/proc/{pid}").exists() and time.time() - folder.stat().st_mtime > _STALE_SECONDS:
                folder.rmdir()
        except OSError:
            continue


def remove_group(folder: Path) -> None:
    """Removes a cgroup; its last processes may still be on their way out."""
    for _ in range(50):
        try:
            folder.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.02)
