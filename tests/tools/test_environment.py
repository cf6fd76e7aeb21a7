"""tools/: which interpreter is taken, one sentence for what is missing, and when the environment is made again.

The machines are made of small scripts on a PATH of their own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# What the two scripts use besides Python.
TOOLS = ("sh", "uname", "sed", "cat", "cut", "sha256sum", "grep", "dirname", "rm", "mkdir", "chmod", "touch")


class Machine:
    """A machine whose programs are exactly the ones that a test puts there."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.bin.mkdir()
        for name in TOOLS:
            found = shutil.which(name)
            assert found, name
            (self.bin / name).symlink_to(found)

    def program(self, name: str, script: str) -> Path:
        path = self.bin / name
        path.unlink(missing_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    def python(self, name: str, version: str, venv: bool = True) -> Path:
        """An interpreter that answers the questions the scripts ask, by their text."""
        major, minor = version.split(".")
        new_enough = (3, 11) <= (int(major), int(minor)) < (3, 14)
        return self.program(
            name,
            f"""case "$*" in
            *"sys.exit(not"*) exit {0 if new_enough else 1} ;;
            *"import venv"*) exit {0 if venv else 1} ;;
            *"print("*) echo {version} ;;
            --version) echo Python {version} ;;
            esac""",
        )

    def run(self, script: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/sh", str(script)],
            env={"PATH": str(self.bin), **environment},
            capture_output=True,
            text=True,
        )

    def prerequisites(self, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.run(ROOT / "tools" / "prerequisites.sh", **environment)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_python3_is_taken_where_it_is_new_enough(machine: Machine) -> None:
    machine.python("python3", "3.11")
    machine.python("python3.12", "3.12")
    done = machine.prerequisites()
    assert (done.returncode, done.stdout, done.stderr) == (0, "python3\n", "")


def test_another_name_is_tried_where_python3_is_old(machine: Machine) -> None:
    machine.python("python3", "3.9")
    machine.python("python3.11", "3.11")
    assert machine.prerequisites().stdout == "python3.11\n"


def test_a_version_managers_empty_shim_is_passed_over(machine: Machine) -> None:
    machine.program("python3", "echo 'pyenv: python3: command not found' >&2; exit 127")
    machine.program("python3.12", "exit 127")
    machine.python("python3.11", "3.11")
    assert machine.prerequisites().stdout == "python3.11\n"


def test_python_that_is_asked_for_is_taken_and_no_other(machine: Machine) -> None:
    machine.python("python3", "3.11")
    other = machine.python("mine", "3.12")
    assert machine.prerequisites(PYTHON=str(other)).stdout == f"{other}\n"


def refused(machine: Machine, **environment: str) -> str:
    """The one sentence; nothing goes to standard output, from where make would take it for an interpreter."""
    done = machine.prerequisites(**environment)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("The course cannot be set up yet: ")
    return done.stderr


def test_no_linux(machine: Machine) -> None:
    machine.program("uname", "echo Darwin")
    assert "needs Linux (Triton has no build for Darwin)" in refused(machine)


def test_no_python(machine: Machine) -> None:
    assert "there is no Python; on Debian: apt-get install python3 python3-venv" in refused(machine)


def test_old_python(machine: Machine) -> None:
    machine.python("python3", "3.9")
    assert "python3 is Python 3.9" in refused(machine)
    assert "apt-get install python3.11" in refused(machine)


def test_python_that_is_too_new(machine: Machine) -> None:
    machine.python("python3", "3.14")
    assert "python3 is Python 3.14, and 3.11, 3.12 or 3.13 is needed" in refused(machine)


def test_no_venv(machine: Machine) -> None:
    machine.python("python3", "3.11", venv=False)
    assert "Python 3.11 has no venv module; on Debian: apt-get install python3.11-venv" in refused(machine)


def test_python_that_is_asked_for_is_old_or_absent(machine: Machine) -> None:
    machine.python("python3", "3.11")
    machine.python("old", "3.8")
    assert "PYTHON=old is Python 3.8" in refused(machine, PYTHON="old")
    assert "PYTHON=none does not run" in refused(machine, PYTHON="none")


# --- environment.sh, with an interpreter whose venv and pip only write down what they were asked ------------------

FAKE_PYTHON = r"""
say() { echo "$*" >> "$LOG"; }
case "$*" in
*"sys.exit(not"*) exit 0 ;;
*"import venv"*) exit 0 ;;
*"sys.version_info[:2])"*) echo "(3, 11)" ;;
*"sys.prefix"*) cat "$(dirname "$0")/activate" ;;
*"torch.version.cuda"*) exit 1 ;;
--version) echo Python 3.11.2 ;;
"-m venv .venv") say venv; mkdir -p .venv/bin; cat "$0" > .venv/bin/python; chmod 755 .venv/bin/python
    echo "$PWD/.venv" > .venv/bin/activate ;;
*" install "*"torch=="*"+cpu"*) say "$*"; exit ${CPU_WHEEL:-0} ;;
*) say "$*" ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path, machine: Machine) -> Path:
    folder = tmp_path / "a course"
    (folder / "tools").mkdir(parents=True)
    for name in ("pyproject.toml", "constraints.txt", "tools/prerequisites.sh", "tools/environment.sh"):
        shutil.copy(ROOT / name, folder / name)
    machine.program("python3", FAKE_PYTHON)
    return folder


def make(
    machine: Machine, checkout: Path, **environment: str
) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Runs environment.sh and returns what it did: the lines that the fake interpreter wrote down."""
    log = checkout.parent / "log"
    log.write_text("")
    done = machine.run(checkout / "tools" / "environment.sh", LOG=str(log), **environment)
    return done, log.read_text().splitlines()


def test_the_first_time_makes_everything_and_the_second_nothing(machine: Machine, checkout: Path) -> None:
    done, did = make(machine, checkout)
    assert done.returncode == 0, done.stderr
    assert did[0] == "venv"
    assert any(line.endswith("--quiet install -c constraints.txt -e .[dev]") for line in did)
    done, did = make(machine, checkout)
    assert (done.returncode, done.stdout, did) == (0, "", [])


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_a_change_renews_it_in_place(machine: Machine, checkout: Path, name: str) -> None:
    make(machine, checkout)
    path = checkout / name
    path.write_text(path.read_text() + "\n# more\n")
    done, did = make(machine, checkout)
    assert "Renewing" in done.stdout
    assert "venv" not in did
    assert any("-e .[dev]" in line for line in did)


def test_a_failed_installation_is_tried_again(machine: Machine, checkout: Path) -> None:
    machine.program("python3", FAKE_PYTHON.replace('*) say "$*" ;;', '*) say "$*"; exit 1 ;;'))
    done, _ = make(machine, checkout)
    assert done.returncode != 0
    machine.program("python3", FAKE_PYTHON)
    shutil.copy(machine.bin / "python3", checkout / ".venv" / "bin" / "python")
    done, did = make(machine, checkout)
    assert done.returncode == 0
    assert any("-e .[dev]" in line for line in did)


def test_a_folder_that_was_moved_is_made_again(machine: Machine, checkout: Path) -> None:
    make(machine, checkout)
    moved = checkout.rename(checkout.parent / "moved")
    done, did = make(machine, moved)
    assert "Making" in done.stdout
    assert did[0] == "venv"


def test_cpu_torch_from_pips_own_configuration(machine: Machine, checkout: Path) -> None:
    pin = next(
        line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch==")
    )
    _, did = make(machine, checkout, TORCH="cpu")
    assert any(line.endswith(f"{pin}+cpu") for line in did)
    assert not any("uv" in line for line in did)
    # It is remembered: the next command does not fetch the large one.
    done, did = make(machine, checkout)
    assert (done.stdout, did) == ("", [])


def test_cpu_torch_through_uv_where_pip_has_none(machine: Machine, checkout: Path) -> None:
    _, did = make(machine, checkout, TORCH="cpu", CPU_WHEEL="1")
    assert any(
        "-m uv pip install" in line and "--torch-backend cpu" in line and "torch==" in line for line in did
    )


def test_an_unknown_torch_is_named(machine: Machine, checkout: Path) -> None:
    done, did = make(machine, checkout, TORCH="gpu")
    assert done.returncode == 1
    assert "TORCH=gpu is not known" in done.stderr
    assert did == []


def test_make_without_a_target_lists_the_commands() -> None:
    done = subprocess.run(
        ["make"], cwd=ROOT, capture_output=True, text=True, env={"PATH": os.environ["PATH"]}
    )
    assert done.returncode == 0
    for target in ("lab", "test", "grade", "release", "test-gpu", "bench", "lint", "clean"):
        assert f"make {target} " in done.stdout
