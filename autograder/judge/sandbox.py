"""The sandbox that learner's code runs in: bubblewrap around a warm parent (`zygote`), which makes one worker at a time.

Inside there is a read-only system, the Python environment, `kernels` and `course`, a stand-in for `autograder`, and nothing
else of this machine: no course folder, no home, no network, no other process. What can be written lies in memory, is
limited in size and ends with the worker.
"""

from __future__ import annotations

import contextlib
import functools
import glob
import importlib.util
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from autograder.judge import confine

_HERE = Path(__file__).resolve().parent
INSIDE = "/course"  # where the packages of the course lie in the sandbox
PACKAGES = ("kernels", "course")
# file of this folder: its place in the sandbox
_MODULES = {
    "stand_in.py": "autograder/__init__.py",
    "__init__.py": "autograder/judge/__init__.py",
    "wire.py": "autograder/judge/wire.py",
    "confine.py": "autograder/judge/confine.py",
    "worker.py": "autograder/judge/worker.py",
    "zygote.py": "autograder/judge/zygote.py",
}
# fmt: off
_SYSTEM = (
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64",
    "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives", "/etc/fonts", "/etc/localtime",
)
_GPU_NODES = (
    "/dev/nvidia[0-9]*", "/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia-caps",
)
# fmt: on
PRELOAD = ("torch", "kernels", "kernels:paged_attention", "kernels:reshape_and_cache", "kernels:reference")


class SandboxUnavailable(RuntimeError):
    """No sandbox can be made on this machine. The text says why and what helps."""


class SandboxLost(RuntimeError):
    """The sandbox stopped answering, or could not start a worker: the machine's fault, not a learner's."""


@dataclass(frozen=True)
class Limits:
    """What one worker may use.

    memory: bytes of private memory, all its processes together. tmp: bytes of each scratch folder (/tmp, /dev/shm).
    processes: processes and threads. files: open files. frame: bytes of one message to or from it. output: bytes that
    are kept of what it prints. cell, call: seconds for one cell and for one call. demo: seconds for a cell of the instructor's once something has met a
    limit: it most likely calls the same function, and no points hang on it. total: seconds for one submission.
    faults: how many calls of a function may end in a time limit, a crash or a lack of memory in one test cell; after that
    it is not called there any more, and later test cells try it once.
    """

    memory: int = 4 * 2**30
    tmp: int = 256 * 2**20
    processes: int = 128
    files: int = 256
    frame: int = 64 * 2**20
    output: int = 256 * 2**10
    cell: float = 60.0
    call: float = 30.0
    demo: float = 10.0
    total: float = 600.0
    faults: int = 2

    def for_worker(self) -> dict[str, int]:
        """What the zygote is told."""
        return {
            "memory": self.memory,
            "processes": self.processes,
            "files": self.files,
            "file_bytes": self.tmp,
            "frame": self.frame,
            "gpu": int(bool(gpu_nodes())),
        }


def gpu_nodes() -> list[str]:
    """The NVIDIA device nodes of this machine."""
    return sorted(node for pattern in _GPU_NODES for node in glob.glob(pattern))


def command(descriptor: int, preload: Sequence[str], *, nested: bool, tmp: int, threads: int) -> list[str]:
    """The bubblewrap command line that starts a zygote which is spoken to over `descriptor`.

    tmp: bytes of the scratch folders (with `nested` each worker gets its own over them, and the zygote's own is small).
    threads: how many threads torch uses in a worker. Needs no privileges, and gives the inside none.
    """
    scratch = str(8 * 2**20 if nested else tmp)
    line = ["bwrap", "--unshare-all", "--uid", "1000", "--gid", "1000", "--hostname", "worker"]
    line += ["--new-session", "--die-with-parent", "--cap-drop", "ALL", "--clearenv"]
    # First of all: what else is mounted may lie below it.
    line += ["--dev", "/dev"]
    for place in confine.SCRATCH:
        line += ["--size", scratch, "--tmpfs", place]
    for number in range(len(_below_scratch())):
        line += ["--dir", f"{confine.KEPT}/{number}"]
    mounted: list[Path] = []
    for system in map(Path, _SYSTEM):
        if system.is_symlink():
            line += ["--symlink", os.readlink(system), str(system)]
        elif system.exists():
            line += ["--ro-bind", str(system), str(system)]
            mounted.append(system)
    for path in _python_folders():
        if not any(path.is_relative_to(known) for known in mounted):
            line += ["--ro-bind", str(path), str(path)]
            mounted.append(path)
    for folder in _site_folders():
        # An installed course lies among the packages, with its checks and solutions: an empty folder covers them.
        for installed in ("autograder", *PACKAGES):
            if (folder / installed).is_dir():
                line += ["--tmpfs", str(folder / installed), "--remount-ro", str(folder / installed)]
    for package in PACKAGES:
        line += ["--ro-bind", str(_folder_of(package)), f"{INSIDE}/{package}"]
    for module, name in _MODULES.items():
        line += ["--ro-bind", str(_HERE / module), f"{INSIDE}/{name}"]
    line += ["--proc", "/proc"]
    for node in gpu_nodes():
        line += ["--dev-bind", node, node]
    if gpu_nodes():
        line += ["--ro-bind", "/sys", "/sys"]
    line += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/tmp"]
    for variable, value in environment(threads).items():
        line += ["--setenv", variable, value]
    line += [sys.executable, "-P", "-s", "-m", "autograder.judge.zygote", str(descriptor), *preload]
    return [*line, "--hide"]


def environment(threads: int) -> dict[str, str]:
    """The whole environment of a worker: nothing of ours but where Python, CUDA and scratch folders are."""
    values = {
        "PATH": f"{Path(sys.executable).parent}:/usr/local/cuda/bin:/usr/local/bin:/usr/bin:/bin",
        "HOME": "/tmp",
        "TMPDIR": "/tmp",
        "USER": "learner",
        "LOGNAME": "learner",
        "LANG": "C.UTF-8",
        "PYTHONPATH": INSIDE,
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "MPLBACKEND": "Agg",
        "MPLCONFIGDIR": "/tmp",
        "TRITON_CACHE_DIR": "/tmp/triton",
        "TORCHINDUCTOR_CACHE_DIR": "/tmp/inductor",
        "CUDA_CACHE_PATH": "/tmp/cuda",
        # Looks for a GPU without starting CUDA, after which the zygote could not be forked.
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    }
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        values[name] = str(threads)
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_HOME", "LD_LIBRARY_PATH", "TRITON_INTERPRET"):
        if name in os.environ:
            values[name] = os.environ[name]
    return values


def _python_folders() -> list[Path]:
    """The folders that hold Python, torch and the other packages, outermost first."""
    found = {Path(sys.prefix), Path(sys.base_prefix), *_site_folders()}
    for entry in os.environ.get("LD_LIBRARY_PATH", "").split(":"):
        if entry and Path(entry).is_dir():
            found.add(Path(entry))
    # A virtual environment's python is a link, possibly through others.
    link = Path(sys.executable)
    while link.is_symlink():
        link = link.parent / os.readlink(link)
        found.add(Path(os.path.normpath(link)).parent)
    return sorted((path for path in found if path.is_dir()), key=lambda path: len(path.parts))


def _below_scratch() -> list[Path]:
    """Python folders that lie where a worker's own scratch folder will be: an environment somewhere in /tmp."""
    return [path for path in _python_folders() if any(path.is_relative_to(s) for s in confine.SCRATCH)]


def _site_folders() -> list[Path]:
    entries = [Path(entry) for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]
    return [entry for entry in dict.fromkeys(entries) if entry.is_dir()]


def _folder_of(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise SandboxUnavailable(f"the package {package} is not importable here")
    return Path(spec.origin).resolve().parent


@functools.cache
def why_unavailable() -> str | None:
    """Why no sandbox can be made here, or None when one can. Starts a small one to find out, once."""
    if not sys.platform.startswith("linux"):
        return f"bubblewrap needs Linux, and this is {sys.platform}"
    if shutil.which("bwrap") is None:
        return "bwrap is not installed (on Debian and Ubuntu: apt install bubblewrap)"
    trial = ["bwrap", "--unshare-all", "--uid", "1000", "--gid", "1000", "--die-with-parent", "--new-session"]
    trial += ["--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "/bin/true"]
    try:
        done = subprocess.run(trial, capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"bwrap did not run: {error}"
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        return (
            f"bwrap may not make namespaces here ({reason}). In a container it needs --privileged or a seccomp profile "
            "that allows user namespaces; on Ubuntu 24.04 an AppArmor profile for bwrap"
        )
    return None


def require() -> None:
    """Raises SandboxUnavailable when `why_unavailable` has a reason."""
    if (reason := why_unavailable()) is not None:
        raise SandboxUnavailable(f"learner's code cannot be isolated on this machine: {reason}.")


@dataclass(frozen=True)
class Usage:
    """Processes, and bytes of memory, of a worker."""

    processes: int
    memory: int


def _children(pid: int) -> list[int]:
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


def _resident(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _proportional(pid: int) -> int:
    """Memory of a process, with what n processes share counted as an n-th."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    except (OSError, IndexError, ValueError, StopIteration):
        return 0


class Worker:
    """A worker as the judge sees it: a socket for messages, a pipe with what it prints, its number at the zygote."""

    def __init__(self, number: int, connection: socket.socket, output: int) -> None:
        self.number = number
        self.connection = connection
        self.output = output

    def close(self) -> None:
        self.connection.close()
        os.close(self.output)


_numbers = itertools.count()


class Sandbox:
    """A running sandbox. One worker at a time; starting another is cheap, because it is forked from a warm parent.

    Where the kernel allows no namespaces inside namespaces, `nested` turns False by itself: then one sandbox serves one
    worker, and `spent` says that it has. With a GPU it is False from the start: CUDA's cuInit answers 304 in a
    process-id namespace whose /proc belongs to another one, and a nested namespace can mount no /proc of its own. Keep
    the thread that made it alive: the sandbox ends with it.
    """

    def __init__(
        self,
        preload: Sequence[str] = PRELOAD,
        limits: Limits | None = None,
        *,
        threads: int = 1,
        nested: bool | None = None,
        start_seconds: float = 180.0,
    ) -> None:
        require()
        self.limits = limits or Limits()
        self.nested = not gpu_nodes() if nested is None else nested
        self._preload, self._threads, self._start_seconds = tuple(preload), threads, start_seconds
        self._lock = threading.Lock()
        self._open()

    def _open(self) -> None:
        self.spent = False
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        line = command(
            theirs.fileno(), self._preload, nested=self.nested, tmp=self.limits.tmp, threads=self._threads
        )
        self._group = _make_pids_group(self.limits.processes + 64)
        if self._group is not None:
            enter = 'echo $$ > "$0/cgroup.procs" && exec "$@"'
            line = ["/bin/sh", "-c", enter, str(self._group), *line]
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  closed by close()
        self._control = ours
        self.process = subprocess.Popen(
            line,
            stdin=subprocess.DEVNULL,
            stdout=self._errors,
            stderr=self._errors,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
        theirs.close()
        try:
            ready = self._receive(self._start_seconds)
            if "error" in ready:
                raise SandboxLost(f"the sandbox's Python could not start:\n{ready['error']}")
            self.preloaded = ready["ready"]
        except BaseException:
            self.close()
            raise

    def start_worker(self) -> Worker:
        """A new worker. The one before must have been ended. Raises SandboxLost when there can be none."""
        if self.spent:
            self.reopen()
        ours, theirs = socket.socketpair()
        read_end, write_end = os.pipe()
        try:
            keep = [str(path) for path in _below_scratch()]
            limits = self.limits.for_worker()
            request = {"do": "start", "nested": self.nested, "keep": keep, "limits": limits}
            reply = self._ask(request, 30.0, [theirs.fileno(), write_end])
        except BaseException:
            ours.close()
            os.close(read_end)
            raise
        finally:
            theirs.close()
            os.close(write_end)
        if "error" not in reply:
            self.spent = not self.nested
            os.set_blocking(read_end, False)
            return Worker(reply["id"], ours, read_end)
        ours.close()
        os.close(read_end)
        if self.nested:
            # Namespaces inside namespaces are refused here: one sandbox for each worker isolates as well.
            self.nested = False
            self.reopen()
            return self.start_worker()
        raise SandboxLost(f"no worker could be started: {reply['error']}")

    def end_worker(self, worker: Worker, patience: float = 0.0) -> int | None:
        """Kills a worker and everything that it started.

        patience: seconds to wait for it to end by itself first. Returns its exit status as a shell counts (137: killed
        by somebody else), or None when it was alive and had to be killed.
        """
        reply = self._ask({"do": "end", "id": worker.number, "patience": patience}, 30.0)
        status: int | None = reply["status"]
        worker.close()
        if self.spent:
            self.close()  # what it may have left running dies with the sandbox
        return status

    def _ask(
        self, request: dict[str, Any], seconds: float, descriptors: Sequence[int] = ()
    ) -> dict[str, Any]:
        with self._lock:
            try:
                socket.send_fds(self._control, [json.dumps(request).encode()], list(descriptors))
            except OSError as error:
                raise SandboxLost(f"the sandbox is gone: {error}") from error
            return self._receive(seconds)

    def _receive(self, seconds: float) -> dict[str, Any]:
        self._control.settimeout(seconds)
        try:
            data = self._control.recv(1 << 16)
        except TimeoutError as error:
            raise SandboxLost(f"the sandbox did not answer within {seconds:.0f} s") from error
        except OSError as error:
            raise SandboxLost(f"the sandbox is gone: {error}") from error
        if not data:
            self._errors.seek(0)
            said = self._errors.read()[-1000:].decode(errors="replace").strip()
            raise SandboxLost(f"the sandbox ended{': ' + said if said else ''}")
        answer: dict[str, Any] = json.loads(data)
        return answer

    def reopen(self) -> None:
        """Ends this sandbox and starts another in its place. Raises SandboxLost when that does not start."""
        self.close()
        self._open()

    def usage(self) -> Usage:
        """What the worker and everything that it started use now. Zeros when there is none.

        Stops counting processes above the limit, and then says nothing about memory: a fork bomb is not looked at twice.
        """
        # sh becomes bwrap; bwrap's child is the first process inside; its child is the zygote, whose child waits for the
        # worker.
        pid = self.process.pid
        for _ in range(3):
            parent, below = pid, _children(pid)
            if not below:
                return Usage(0, 0)
            pid = below[0]
        zygote, family = _resident(parent), _children(pid)
        for member in family:  # grows as it goes
            if len(family) > self.limits.processes:
                return Usage(len(family), 0)
            family += _children(member)
        resident = {member: _resident(member) for member in family}
        if sum(resident.values()) <= self.limits.memory:
            return Usage(len(family), sum(resident.values()))
        # Pages that a fork shares with its parent were counted for each. For a few processes the kernel can say how much
        # is really theirs; it would take seconds for many that are forking, so there it is what the zygote has not.
        if len(family) <= 8:
            memory = sum(map(_proportional, family))
        else:
            memory = sum(max(0, size - zygote) for size in resident.values())
        return Usage(len(family), memory)

    def close(self) -> None:
        """Ends the sandbox with everything in it. May be called twice."""
        self._control.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._errors.close()
        if self._group is not None:
            _remove_group(self._group)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _make_pids_group(limit: int) -> Path | None:
    """A cgroup for at most `limit` tasks where this user may make one, else None.

    RLIMIT_NPROC bounds processes for everyone but root, and root is who can make cgroups.
    """
    for parent in _pids_hierarchies():
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
        _remove_group(folder)
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


def _remove_group(folder: Path) -> None:
    """Removes a cgroup; its last processes may still be on their way out."""
    for _ in range(50):
        try:
            folder.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError:
            threading.Event().wait(0.02)
