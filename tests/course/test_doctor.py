"""`course doctor`: every answer it can give, on machines that are made up here, and on this one."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

from course import doctor
from course.doctor import MISSING, NOTE, OK, Finding, Gpu
from course.folder import CourseNotFound

SUBJECTS = [
    "Python",
    "torch",
    "GPU",
    "triton",
    "kernels",
    "nbgrader",
    "kernel",
    "lessons",
    "sandbox",
    "browser",
]
OWN = Path("/course/kernels/__init__.py")


def has(*names: str):
    """A `which` that knows these programs."""
    return lambda name: f"/usr/bin/{name}" if name in names else None


def raising(error: Exception):
    def fake(*_: object, **__: object):
        raise error

    return fake


def ran(status: int, stderr: str = ""):
    return lambda command, **_: subprocess.CompletedProcess(command, status, "", stderr)


def library(version: str = "2.13.0+cpu", **fakes: object) -> Finding:
    arguments = {"version_of": lambda name: version, "load": lambda name: None, **fakes}
    return doctor.library("torch", (2, 11), (2, 14), **arguments)


SERVER = dict.fromkeys(doctor.SERVER_EXTENSIONS, True)
LAB = {doctor.LAB_EXTENSION: True}
NOT_INSTALLED = importlib.metadata.PackageNotFoundError("it")


def nbgrader(server: object = SERVER, lab: object = LAB, **fakes: object) -> Finding:
    return doctor.nbgrader(
        **{"server": lambda: server, "lab": lambda: lab, "version_of": lambda n: "0.9.6", **fakes}
    )


def shadow(imported: Path | None, foreign: str | None) -> Finding:
    return doctor.shadow(imported=lambda: imported, foreign=lambda: foreign, own=OWN)


H200 = Gpu("NVIDIA H200", (9, 0), True)
T4 = Gpu("Tesla T4", (7, 5), True)

# A finding, its state, and a piece of what it says (found or to do).
BRANCHES = [
    (doctor.python((3, 11, 2)), OK, "3.11.2"),
    (doctor.python((3, 10, 13)), MISSING, "make PYTHON=python3.12 environment"),
    (doctor.python((3, 14, 0)), MISSING, "3.11, 3.12 or 3.13 is needed"),
    (library(), OK, "2.13.0+cpu"),
    (library("2.11.0+cu130"), OK, "2.11.0"),
    (library("2.10.1"), NOTE, "tested with 2.11 to 2.13"),
    (library("2.14.0"), NOTE, "tested with 2.11 to 2.13"),
    (library(version_of=raising(NOT_INSTALLED)), MISSING, "not installed, 2.11 to 2.13 is needed"),
    (library(load=raising(OSError("libc10.so: cannot open"))), MISSING, "libc10.so: cannot open"),
    (doctor.gpu(Gpu(), lambda: False, has()), OK, "Triton interpreter"),
    (doctor.gpu(Gpu(built_for_cuda=False), lambda: True, has()), NOTE, "without TORCH=cpu"),
    (doctor.gpu(Gpu(built_for_cuda=True), lambda: True, has()), NOTE, "update the NVIDIA driver"),
    (doctor.gpu(H200, lambda: True, has("gcc")), OK, "NVIDIA H200, capability 9.0"),
    (doctor.gpu(H200, lambda: True, has()), MISSING, "apt-get install gcc"),
    (doctor.gpu(T4, lambda: True, has("cc")), NOTE, "use fp16 and fp32"),
    (doctor.sandbox(has()), NOTE, "apt-get install bubblewrap"),
    (doctor.sandbox(has("bwrap"), ran(0)), OK, "bubblewrap starts"),
    (
        doctor.sandbox(has("bwrap"), ran(1, "x\nbwrap: No permissions to create a namespace\n")),
        NOTE,
        "No permissions",
    ),
    (doctor.sandbox(has("bwrap"), ran(3)), NOTE, "exit status 3"),
    (doctor.sandbox(has("bwrap"), raising(OSError("exec format error"))), NOTE, "exec format error"),
    (doctor.sandbox(has("bwrap"), raising(subprocess.TimeoutExpired("bwrap", 20))), NOTE, "does not run"),
    (doctor.browser(has("google-chrome")), OK, "/usr/bin/google-chrome"),
    (doctor.browser(has()), NOTE, "apt-get install chromium"),
    (nbgrader(), OK, "formgrader, assignment list, Validate enabled"),
    (nbgrader(version_of=raising(NOT_INSTALLED)), MISSING, "not installed"),
    (
        doctor.nbgrader(raising(ImportError("no jupyter_server")), dict, lambda name: "0.9.6"),
        MISSING,
        "no jupyter_server",
    ),
    (nbgrader(lab={}), MISSING, "is not installed"),
    (nbgrader(lab={doctor.LAB_EXTENSION: False}), MISSING, "jupyter labextension enable @jupyter/nbgrader"),
    (
        nbgrader(server={**SERVER, "nbgrader.server_extensions.validate_assignment": False}),
        MISSING,
        "jupyter server extension enable nbgrader.server_extensions.validate_assignment",
    ),
    (nbgrader(server={}), MISSING, "not enabled: formgrader, assignment list, Validate"),
    (doctor.kernel(lambda: "python", "/venv/bin/python"), OK, "this environment"),
    (doctor.kernel(lambda: "/venv/bin/python3.11", "/venv/bin/python"), OK, "this environment"),
    (doctor.kernel(lambda: "/opt/conda/bin/python", "/venv/bin/python"), MISSING, "/opt/conda/bin/python"),
    (doctor.kernel(lambda: None), MISSING, "ipykernel install --sys-prefix"),
    (doctor.kernel(raising(ImportError("no zmq"))), MISSING, "no zmq"),
    (shadow(OWN, None), OK, "is the course's"),
    (shadow(OWN, "0.11.1"), NOTE, "unrelated package kernels 0.11.1 is installed"),
    (shadow(Path("/site/kernels/__init__.py"), "0.11.1"), MISSING, "kernels 0.11.1 shadows the course's"),
    (shadow(Path("/elsewhere/kernels.py"), None), MISSING, "/elsewhere/kernels.py"),
    (shadow(None, None), MISSING, "finds nothing"),
    (doctor.lessons(raising(CourseNotFound("none"))), MISSING, "cd to the folder that you cloned"),
]


@pytest.mark.parametrize(("finding", "state", "said"), BRANCHES)
def test_a_branch(finding: Finding, state: str, said: str) -> None:
    assert finding.state == state
    assert said in f"{finding.found} {finding.todo}"
    assert (finding.todo == "") == (finding.state == OK)
    assert all(len(line) <= 100 for line in finding.lines())


def test_lessons_are_counted_where_they_lie(tmp_path: Path) -> None:
    assert doctor.lessons(lambda: tmp_path).state == MISSING
    (tmp_path / "release" / "01_a").mkdir(parents=True)
    (tmp_path / "release" / "01_a" / "01_a.ipynb").write_text("{}")
    found = doctor.lessons(lambda: tmp_path)
    assert found.state == OK
    assert found.found.startswith("1 in ")


def test_the_worst_machine_fits_one_screen() -> None:
    """Ten subjects, each with a to-do and a long reason: 24 lines of 100 columns."""
    text = doctor.screen([Finding(subject, MISSING, "why " * 100, "what to do") for subject in SUBJECTS])
    assert len(text.splitlines()) <= 24
    assert all(len(line) <= 100 for line in text.splitlines())


@pytest.mark.parametrize(
    ("states", "status", "last"),
    [
        ([OK, NOTE], 0, "Ready for the lessons: make lab"),
        ([OK, MISSING, NOTE], 1, "Not ready for the lessons yet: subject 1."),
    ],
)
def test_exit_status(
    states: list[str],
    status: int,
    last: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    findings = [Finding(f"subject {i}", state, "found", "do") for i, state in enumerate(states)]
    monkeypatch.setattr(doctor, "examine", lambda: findings)
    assert doctor.main() == status
    assert capsys.readouterr().out.splitlines()[-1] == last


def test_a_gpu_that_torch_cannot_ask_about_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # makes `import torch` fail
    assert doctor.look_for_gpu() == Gpu()


def test_a_foreign_kernels_is_seen_where_it_really_shadows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package of that name that comes first on the path, with its metadata, as pip would leave it."""
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "__init__.py").write_text("")
    (tmp_path / "kernels-0.11.1.dist-info").mkdir()
    (tmp_path / "kernels-0.11.1.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: kernels\nVersion: 0.11.1\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    finding = doctor.shadow()
    assert finding.state == MISSING
    assert "kernels 0.11.1 shadows the course's" in finding.found


def test_this_machine_is_examined_for_real() -> None:
    """The command as a user runs it: exit status and last line agree, one screen, every subject there."""
    command = [sys.executable, "-m", "course.cli", "doctor"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(doctor.__file__).parents[1])
    lines = done.stdout.splitlines()
    assert done.stderr == ""
    assert len(lines) <= 24
    assert all(len(line) <= 100 for line in lines)
    assert lines[-1].startswith("Ready" if done.returncode == 0 else "Not ready")
    for subject in SUBJECTS:
        assert any(line[8:].startswith(f"{subject} ") for line in lines), subject
