"""The sandbox's command line: what learner's code finds inside, by bubblewrap, and whether that can be had on this machine.

Inside there is a read-only system, the Python environment, `kernels` and `course`, a stand-in for `autograder`, vLLM's own
source for reading, and nothing else of this machine: no course folder, no home, no network, no other process. What can be
written lies in memory, is limited in size and ends with the worker.
"""

from __future__ import annotations

import functools
import glob
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from autograder.judge import confine
from course.vllm import source as vllm_source

HERE = Path(__file__).resolve().parent
INSIDE = "/course"  # where the packages of the course lie in the sandbox
PACKAGES = ("kernels", "course")
# Where a lesson finds vLLM's own source, if this machine has it. If not, nobody in there waits for a download.
VLLM_SOURCE = f"{INSIDE}/source-of-vllm"
# file of this folder: its place in the sandbox
MODULES = {
    "stand_in.py": "autograder/__init__.py",
    "__init__.py": "autograder/judge/__init__.py",
    "wire.py": "autograder/judge/wire.py",
    "confine.py": "autograder/judge/confine.py",
    "processes.py": "autograder/judge/processes.py",
    "evidence.py": "autograder/judge/evidence.py",
    "observe.py": "autograder/judge/observe.py",
    "launches.py": "autograder/judge/launches.py",
    "drive.py": "autograder/judge/drive.py",
    "shown.py": "autograder/judge/shown.py",
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
    # The zygote is the first process in there: nobody inside can end it, and there is no other to break into.
    line += ["--as-pid-1", "--new-session", "--die-with-parent", "--cap-drop", "ALL", "--clearenv"]
    # First of all: what else is mounted may lie below it.
    line += ["--dev", "/dev"]
    for place in confine.SCRATCH:
        line += ["--size", scratch, "--tmpfs", place]
    for number in range(len(below_scratch())):
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
        line += ["--ro-bind", str(folder_of(package)), f"{INSIDE}/{package}"]
    for module, name in MODULES.items():
        line += ["--ro-bind", str(HERE / module), f"{INSIDE}/{name}"]
    if vllm_source.cache_folder().is_dir():
        line += ["--ro-bind", str(vllm_source.cache_folder().resolve()), VLLM_SOURCE]
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
        vllm_source.CACHE_VARIABLE: VLLM_SOURCE,
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


def below_scratch() -> list[Path]:
    """Python folders that lie where a worker's own scratch folder will be: an environment somewhere in /tmp."""
    return [path for path in _python_folders() if any(path.is_relative_to(s) for s in confine.SCRATCH)]


def _site_folders() -> list[Path]:
    entries = [Path(entry) for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]
    return [entry for entry in dict.fromkeys(entries) if entry.is_dir()]


def folder_of(package: str) -> Path:
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
        raise SandboxUnavailable(
            f"learner's code cannot be isolated on this machine: {reason}. "
            "`autograder grade --unsafe` grades without isolation and says so in every verdict."
        )
