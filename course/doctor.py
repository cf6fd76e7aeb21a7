"""`course doctor`: in one screen, what this machine can do, and what to do about what is missing.

Each question is one function that returns one finding. Where the answer comes from is an argument, so that a
test can put any machine there.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from course.folder import CourseNotFound, find_root

OK: Literal["ok"] = "ok"
NOTE: Literal["note"] = "note"
MISSING: Literal["missing"] = "missing"

WIDTH = 100
REMAKE = "run `make environment` in the course's folder"

# The smallest command that needs everything the grading sandbox needs of this machine.
SANDBOX_COMMAND = (
    "bwrap",
    "--unshare-all",
    "--die-with-parent",
    "--ro-bind",
    "/",
    "/",
    "--dev",
    "/dev",
    "true",
)
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
COMPILERS = ("cc", "gcc", "clang")
SERVER_EXTENSIONS = {
    "nbgrader.server_extensions.formgrader": "formgrader",
    "nbgrader.server_extensions.assignment_list": "assignment list",
    "nbgrader.server_extensions.validate_assignment": "Validate",
}
LAB_EXTENSION = "@jupyter/nbgrader"
OWN_KERNELS = Path(__file__).resolve().parent.parent / "kernels" / "__init__.py"


@dataclass(frozen=True)
class Finding:
    """One line of the screen.

    ``state`` is "ok", "note" (something works less well, or only part of the course needs it) or "missing"
    (lessons cannot be done). ``todo`` is what to do about it, in words.
    """

    subject: str
    state: Literal["ok", "note", "missing"]
    found: str
    todo: str = ""

    def lines(self) -> list[str]:
        """The finding for a screen of ``WIDTH`` columns: one line, and a second one where there is a to-do."""
        first = textwrap.shorten(f"{self.found}", WIDTH - 20, placeholder=" ...")
        lines = [f"{self.state:8}{self.subject:11} {first}"]
        if self.todo:
            lines.append(f"{'':8}-> {self.todo}")
        return lines


def python(version: tuple[int, ...] = tuple(sys.version_info[:3])) -> Finding:
    """The running interpreter: the versions that the pinned packages are there for."""
    found = ".".join(map(str, version))
    if not (3, 11) <= version[:2] < (3, 14):
        return Finding(
            "Python", MISSING, f"{found}, 3.11, 3.12 or 3.13 is needed", "make PYTHON=python3.12 environment"
        )
    return Finding("Python", OK, found)


def library(
    name: str,
    lowest: tuple[int, int],
    above: tuple[int, int],
    version_of: Callable[[str], str] = importlib.metadata.version,
    load: Callable[[str], object] = __import__,
) -> Finding:
    """A distribution that the kernels need: installed, loads, and of a version that the course is tested with.

    Args:
        lowest: first (major, minor) that is known to work.
        above: first (major, minor) that is not.
    """
    expected = f"{lowest[0]}.{lowest[1]} to {above[0]}.{above[1] - 1}"
    try:
        version = version_of(name)
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, MISSING, f"not installed, {expected} is needed", REMAKE)
    try:
        load(name)
    except Exception as error:
        return Finding(name, MISSING, f"{version} does not load: {error}", f"rm -rf .venv, then {REMAKE}")
    if not lowest <= tuple(int(part) for part in version.split("+")[0].split(".")[:2]) < above:
        return Finding(name, NOTE, f"{version}, the course is tested with {expected}", REMAKE)
    return Finding(name, OK, version)


@dataclass(frozen=True)
class Gpu:
    """What torch says about the first GPU. ``capability`` is None where there is none."""

    name: str = ""
    capability: tuple[int, int] | None = None
    built_for_cuda: bool = False


def look_for_gpu() -> Gpu:
    """Asks torch; a torch that does not load sees no GPU."""
    try:
        import torch

        if torch.cuda.is_available():
            return Gpu(torch.cuda.get_device_name(0), torch.cuda.get_device_capability(0), True)
        return Gpu(built_for_cuda=torch.version.cuda is not None)
    except Exception:
        return Gpu()


def gpu(
    gpu: Gpu | None = None,
    device_present: Callable[[], bool] = lambda: Path("/dev/nvidia0").exists(),
    which: Callable[[str], str | None] = shutil.which,
) -> Finding:
    """Where the Triton kernels run: on a GPU, or in Triton's interpreter on the CPU."""
    gpu = gpu or look_for_gpu()
    if gpu.capability is None:
        if device_present():
            todo = (
                "update the NVIDIA driver"
                if gpu.built_for_cuda
                else "make clean, then `make environment` without TORCH=cpu"
            )
            return Finding(
                "GPU", NOTE, "there is one, and torch cannot use it: Triton interpreter on the CPU", todo
            )
        return Finding("GPU", OK, "none: Triton interpreter on the CPU, all lessons work, with small sizes")
    found = f"{gpu.name}, capability {gpu.capability[0]}.{gpu.capability[1]}"
    if not any(which(name) for name in COMPILERS):
        return Finding("GPU", MISSING, f"{found}; Triton needs a C compiler", "apt-get install gcc")
    if gpu.capability < (8, 0):
        return Finding(
            "GPU", NOTE, f"{found}: before 8.0, bf16 is not in hardware", "use fp16 and fp32 in the lessons"
        )
    return Finding("GPU", OK, found)


def sandbox(
    which: Callable[[str], str | None] = shutil.which,
    run: Callable[..., subprocess.CompletedProcess[str]] = subprocess.run,
) -> Finding:
    """Whether bubblewrap really starts, which a container or a kernel setting can prevent. Grading needs it."""
    if which("bwrap") is None:
        return Finding("sandbox", NOTE, "no bubblewrap; only grading needs it", "apt-get install bubblewrap")
    try:
        ran = run(SANDBOX_COMMAND, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("sandbox", NOTE, f"bubblewrap does not run: {error}", "grade on another machine")
    if ran.returncode != 0:
        reason = (ran.stderr.strip().splitlines() or [f"exit status {ran.returncode}"])[-1]
        return Finding(
            "sandbox",
            NOTE,
            f"bubblewrap does not start: {reason}",
            "allow unprivileged user namespaces, or grade on another machine; lessons work",
        )
    return Finding("sandbox", OK, "bubblewrap starts")


def browser(which: Callable[[str], str | None] = shutil.which) -> Finding:
    """A Chromium for the browser tests. A learner's own browser is of any kind."""
    for name in BROWSERS:
        path = which(name)
        if path:
            return Finding("browser", OK, path)
    return Finding("browser", NOTE, "no Chromium; only the browser tests need it", "apt-get install chromium")


def server_extensions() -> dict[str, bool]:
    """Jupyter's server extensions as configured for this environment and user: name to enabled."""
    from jupyter_core.paths import jupyter_config_path
    from jupyter_server.extension.config import ExtensionConfigManager

    return dict(ExtensionConfigManager(read_config_path=jupyter_config_path()).get_jpserver_extensions())


def lab_extensions() -> dict[str, bool]:
    """JupyterLab's installed extensions: name to enabled."""
    from jupyter_core.paths import jupyter_path
    from jupyterlab_server.config import get_federated_extensions, get_page_config

    path = jupyter_path("labextensions")
    disabled = [
        name.split(":")[0] for name in get_page_config(path).get("disabledExtensions", []) if ":" not in name
    ]
    return {name: name not in disabled for name in get_federated_extensions(path)}


def nbgrader(
    server: Callable[[], dict[str, bool]] = server_extensions,
    lab: Callable[[], dict[str, bool]] = lab_extensions,
    version_of: Callable[[str], str] = importlib.metadata.version,
) -> Finding:
    """nbgrader's pages in JupyterLab: Validate for learners; formgrader and the assignment list for instructors."""
    try:
        version = version_of("nbgrader")
        enabled_server, enabled_lab = server(), lab()
    except importlib.metadata.PackageNotFoundError:
        return Finding("nbgrader", MISSING, "not installed", REMAKE)
    except ImportError as error:
        return Finding("nbgrader", MISSING, f"{version}, and JupyterLab does not load: {error}", REMAKE)
    if LAB_EXTENSION not in enabled_lab:
        return Finding("nbgrader", MISSING, f"{version}, its JupyterLab extension is not installed", REMAKE)
    if not enabled_lab[LAB_EXTENSION]:
        todo = f"jupyter labextension enable {LAB_EXTENSION}"
        return Finding("nbgrader", MISSING, f"{version}, its JupyterLab extension is disabled", todo)
    off = [name for name in SERVER_EXTENSIONS if not enabled_server.get(name)]
    if off:
        shown = ", ".join(SERVER_EXTENSIONS[name] for name in off)
        return Finding(
            "nbgrader",
            MISSING,
            f"{version}, not enabled: {shown}",
            f"jupyter server extension enable {off[0]}",
        )
    return Finding(
        "nbgrader", OK, f"{version}; {', '.join(SERVER_EXTENSIONS.values())} enabled in JupyterLab"
    )


def kernel_command() -> str | None:
    """The program behind the Jupyter kernel named python3, or None where there is no such kernel."""
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    try:
        return str(KernelSpecManager().get_kernel_spec("python3").argv[0])
    except NoSuchKernel:
        return None


def kernel(command: Callable[[], str | None] = kernel_command, own: str = sys.executable) -> Finding:
    """The notebooks' kernel, which has to be this environment's Python."""
    try:
        program = command()
    except ImportError as error:
        return Finding("kernel", MISSING, f"Jupyter does not load: {error}", REMAKE)
    if program is None:
        todo = "python -m ipykernel install --sys-prefix"
        return Finding("kernel", MISSING, "Jupyter knows no kernel named python3", todo)
    # Jupyter puts its own interpreter where a kernel says "python"; a version manager's name would be another.
    if program in (
        "python",
        f"python{sys.version_info[0]}",
        f"python{sys.version_info[0]}.{sys.version_info[1]}",
    ):
        return Finding("kernel", OK, "python3 is this environment")
    if os.path.dirname(os.path.abspath(program)) == os.path.dirname(os.path.abspath(own)):
        return Finding("kernel", OK, "python3 is this environment")
    todo = "jupyter kernelspec uninstall python3, then python -m ipykernel install --sys-prefix"
    return Finding("kernel", MISSING, f"python3 is another Python: {program}", todo)


def imported_kernels() -> Path | None:
    """The file that `import kernels` loads in a fresh Python with nothing of the course in its folder."""
    code = "import importlib.util as u; s = u.find_spec('kernels'); print(s.origin if s and s.origin else '')"
    with tempfile.TemporaryDirectory() as nowhere:
        ran = subprocess.run([sys.executable, "-c", code], cwd=nowhere, capture_output=True, text=True)
    origin = ran.stdout.strip()
    return Path(origin).resolve() if ran.returncode == 0 and origin else None


def foreign_kernels() -> str | None:
    """Version of the package index's unrelated distribution named kernels, where it is installed."""
    try:
        return importlib.metadata.version("kernels")
    except importlib.metadata.PackageNotFoundError:
        return None


def shadow(
    imported: Callable[[], Path | None] = imported_kernels,
    foreign: Callable[[], str | None] = foreign_kernels,
    own: Path = OWN_KERNELS,
) -> Finding:
    """Whose package `import kernels` gives: the package index has an unrelated one of that name."""
    origin, version = imported(), foreign()
    if origin == own:
        if version is None:
            return Finding("kernels", OK, "`import kernels` is the course's")
        found = f"an unrelated package kernels {version} is installed; the course's comes first, so far"
        return Finding("kernels", NOTE, found, "python -m pip uninstall kernels")
    if origin is None:
        return Finding("kernels", MISSING, "`import kernels` finds nothing", REMAKE)
    if version is not None:
        found = f"an unrelated package kernels {version} shadows the course's: {origin}"
        return Finding("kernels", MISSING, found, f"python -m pip uninstall kernels, then {REMAKE}")
    found = f"`import kernels` is not this course's: {origin}"
    return Finding("kernels", MISSING, found, f"move it away or clear PYTHONPATH, or {REMAKE}")


def lessons(root: Callable[[], Path] = find_root) -> Finding:
    """The notebooks to open."""
    try:
        folder = root()
    except CourseNotFound:
        return Finding("lessons", MISSING, "not at or above this folder", "cd to the folder that you cloned")
    count = len(list((folder / "release").glob("*/*.ipynb")))
    if count == 0:
        return Finding(
            "lessons", MISSING, f"none in {folder / 'release'}", "git checkout release, or make release"
        )
    return Finding("lessons", OK, f"{count} in {folder / 'release'}")


def examine() -> list[Finding]:
    """Every finding about this machine, in the order of the screen."""
    # The kernels choose Triton's interpreter for a machine without a GPU, and do so before triton is loaded.
    return [
        python(),
        library("torch", (2, 11), (2, 14)),
        gpu(),
        library("triton", (3, 6), (3, 8)),
        shadow(),
        nbgrader(),
        kernel(),
        lessons(),
        sandbox(),
        browser(),
    ]


def screen(findings: Sequence[Finding]) -> str:
    """The findings as text, the last line being what they come to."""
    lines = [line for finding in findings for line in finding.lines()]
    missing = [finding.subject for finding in findings if finding.state == MISSING]
    if missing:
        lines.append(textwrap.shorten(f"Not ready for the lessons yet: {', '.join(missing)}.", WIDTH))
    else:
        lines.append("Ready for the lessons: make lab")
    return "\n".join(lines)


def main() -> int:
    """Prints the screen. Returns 0 when the lessons can be done here, else 1."""
    findings = examine()
    print(screen(findings))
    return int(any(finding.state == MISSING for finding in findings))
