"""What a process does to itself, inside the sandbox, before it runs a learner's code.

The sandbox (`sandbox.py`) is shared by the submissions that one zygote serves, one after the other. Each of them gets
namespaces of its own inside it, so that nothing of one is left for the next: its own process ids (when their first process
ends, the kernel ends all others), its own temporary folders, its own shared memory. After that it gives up every right that
the new namespaces brought and may make no further ones. Linux on x86-64 and ARM64; standard library only.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import signal
import struct
from collections.abc import Mapping, Sequence
from typing import Any

CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID = 0x20000, 0x8000000, 0x10000000, 0x20000000
_ALL_CLONE_NEW = 0x7E020000  # every CLONE_NEW... flag that clone takes
_MS_NOSUID_NODEV, _MS_REC_PRIVATE, _MS_BIND_REC = 2 | 4, 0x4000 | (1 << 18), 0x1000 | 0x4000
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = (
    1,
    4,
    22,
    36,
    38,
)
_EPERM, _ENOSYS = 1, 38

# Scratch folders: each worker's own.
SCRATCH = ("/tmp", "/dev/shm")
# Where folders wait whose own place is covered for a moment.
KEPT = "/kept"

# Numbers of system calls, from the kernel's tables: name -> (x86-64, ARM64).
_CALLS = {
    # New namespaces would bring back the right to mount temporary folders without a size.
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    # Other processes' memory, and corners of the kernel that a lesson has no use for.
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    # Memory that belongs to no process is seen by no limit on processes.
    "shmget": (29, 194),
}
_MEMFD_CREATE = (319, 279)
_CLONE, _CLONE3 = (56, 220), (435, 435)
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}

_libc = ctypes.CDLL(None, use_errno=True)


class ConfineError(OSError):
    """A step of the confinement failed; learner's code must not run."""


def _call(step: str, result: int) -> None:
    if result != 0:
        error = ctypes.get_errno()
        raise ConfineError(error, f"{step}: {os.strerror(error)}")


def new_namespaces(tmp_bytes: int, keep: Sequence[str] = ()) -> None:
    """Own user, mount, ipc and process-id namespaces; the process ids begin with the next child.

    tmp_bytes: the size of each scratch folder. keep: read-only folders below a scratch folder that stay visible, each with a
    place of its own in `KEPT`. The caller must have one thread only.
    """
    uid, gid = os.getuid(), os.getgid()
    # The zygote hides its own files in /proc from its user; this process has to write to its own.
    _call("dumpable", _libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0))
    _call("unshare", _libc.unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWPID))
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    _call("private mounts", _libc.mount(b"none", b"/", None, ctypes.c_ulong(_MS_REC_PRIVATE), None))
    places = [f"{KEPT}/{number}" for number in range(len(keep))]
    for path, place in zip(keep, places, strict=True):
        _bind(path, place)
    for folder in SCRATCH:
        options = f"size={tmp_bytes},nr_inodes=20000,mode=1777".encode()
        flags = ctypes.c_ulong(_MS_NOSUID_NODEV)
        _call(f"mount {folder}", _libc.mount(b"tmpfs", folder.encode(), b"tmpfs", flags, options))
    for path, place in zip(keep, places, strict=True):
        os.makedirs(path, exist_ok=True)
        _bind(place, path)


def _bind(source: str, target: str) -> None:
    result = _libc.mount(source.encode(), target.encode(), None, ctypes.c_ulong(_MS_BIND_REC), None)
    _call(f"bind {source}", result)


def set_limits(limits: Mapping[str, Any]) -> None:
    """Limits of this process and its children.

    limits: memory (bytes of private memory on top of what it has now), processes, files, file_bytes.
    """
    with open("/proc/self/status") as file:
        data = next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmData"))
    for kind, value in (
        (resource.RLIMIT_DATA, data + limits["memory"]),
        (resource.RLIMIT_NPROC, limits["processes"]),
        (resource.RLIMIT_NOFILE, limits["files"]),
        (resource.RLIMIT_FSIZE, limits["file_bytes"]),
        (resource.RLIMIT_MEMLOCK, 8 * 2**20),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def give_up_rights(allow_memfd: bool) -> None:
    """No capabilities, no way to get any, no new namespaces. allow_memfd: CUDA's driver may want it."""
    _call("no new privileges", _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    header, nothing = struct.pack("<Ii", 0x20080522, 0), bytes(24)
    _call("capset", _libc.capset(header, nothing))
    machine = platform.machine()
    if machine not in _ARCHITECTURES:
        raise ConfineError(_ENOSYS, f"seccomp: no table of system calls for {machine}")
    program = _filter(*_ARCHITECTURES[machine], allow_memfd)
    buffer = ctypes.create_string_buffer(program, len(program))
    description = struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
    _call("seccomp", _libc.prctl(_PR_SET_SECCOMP, 2, description, 0, 0))


def hide() -> None:
    """No process of the same user may look into this one or attach to it."""
    _call("dumpable", _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0))


def die_with_parent() -> None:
    """This process is killed when the thread that started it ends."""
    _call("parent's death", _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))


def adopt_orphans() -> None:
    """Processes below this one whose parent ends become its children, and not those of the machine's first process."""
    _call("subreaper", _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))


def _filter(column: int, architecture: int, allow_memfd: bool) -> bytes:
    """A BPF program over (call number, architecture, arguments): what is refused, everything else allowed."""

    def step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
        return struct.pack("<HBBI", code, if_true, if_false, value)

    load, equal, at_least, any_bit, give_back = 0x20, 0x15, 0x35, 0x45, 0x06
    allow, refuse, kill = 0x7FFF0000, 0x00050000, 0x80000000
    program = [step(load, 4), step(equal, architecture, 1, 0), step(give_back, kill), step(load, 0)]
    # x86-64's second set of numbers (x32) begins here; the first set alone is judged below.
    program += [step(at_least, 0x40000000, 0, 1), step(give_back, refuse | _ENOSYS)]
    for numbers in _CALLS.values():
        program += [step(equal, numbers[column], 0, 1), step(give_back, refuse | _EPERM)]
    # The C library falls back to clone, and to ordinary files: their arguments can be judged or are limited.
    unknown = [_CLONE3] if allow_memfd else [_CLONE3, _MEMFD_CREATE]
    for numbers in unknown:
        program += [step(equal, numbers[column], 0, 1), step(give_back, refuse | _ENOSYS)]
    program += [
        step(equal, _CLONE[column], 0, 3),
        step(load, 16),  # the flags, low half
        step(any_bit, _ALL_CLONE_NEW, 0, 1),
        step(give_back, refuse | _EPERM),
        step(give_back, allow),
    ]
    return b"".join(program)
