"""The sandbox, started for real: what learner's code finds there, and what it cannot do."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from autograder.judge import sandbox as sandbox_module
from autograder.judge.faults import Fault
from autograder.judge.judgement import CRASHED, MEMORY, TIMEOUT
from autograder.judge.sandbox import Sandbox, SandboxUnavailable, gpu_nodes
from autograder.judge.session import Session
from course.vllm import source as vllm_source

ROOT = Path(__file__).resolve().parents[3]
Make = Callable[..., Session]

TRY = """
def attempt(text):
    try:
        return repr(eval(text, globals()))
    except BaseException as error:
        return f"{type(error).__name__}: {error}"

import ctypes, glob, os, shutil, socket, subprocess, sys, tempfile
"""


@pytest.fixture
def attempt(session: Make) -> Callable[[str], str]:
    """Evaluates an expression as a learner's cell would and returns the result's or the error's text."""
    made = session(TRY, call=60)
    function = made.get("attempt")
    return lambda text: str(function(text))


def test_nothing_of_the_course_and_no_home_is_there(attempt: Callable[[str], str], tmp_path: Path) -> None:
    (tmp_path / "submission.ipynb").write_text("{}")
    for path in (ROOT / "source", ROOT / "autograder", ROOT / "release", tmp_path):
        assert "FileNotFoundError" in attempt(f"os.listdir({str(path)!r})")
    assert attempt("os.listdir(os.path.expanduser('~'))") == "[]"
    assert attempt("os.listdir('/home')").startswith(("FileNotFoundError", "[]"))
    assert "FileNotFoundError" in attempt("open('/etc/passwd').read()")
    # The packages are there; checks, misconceptions and solutions are not.
    assert attempt("__import__('kernels').describe()").startswith("'")
    assert "<module 'course'" in attempt("__import__('course')")
    for name in (
        "autograder.checks",
        "autograder.registry",
        "autograder.misconceptions",
        "autograder.learner",
    ):
        assert "ModuleNotFoundError" in attempt(f"__import__({name!r})")
    assert attempt("__import__('autograder').check('anything', 1)") == "None"
    files = "[p for p, _, names in os.walk(top) if 'merge_states.py' in names]"
    tops = "[f'/{n}' for n in os.listdir('/') if n not in ('proc', 'sys', 'usr')]"
    assert attempt(f"[{files} for top in {tops}]").strip("[], ") == ""


def test_vllms_source_is_there_for_reading_or_is_not_waited_for(attempt: Callable[[str], str]) -> None:
    where = "__import__('course.vllm.source').vllm.source"
    text = attempt(f"{where}.read('vllm/v1/attention/selector.py')")
    if vllm_source.cache_folder().is_dir():
        assert "class AttentionSelectorConfig" in text
        assert "OSError" in attempt(f"open({where}.cache_folder() / 'vllm' / 'mine.py', 'w')")
    else:
        assert "SourceUnavailable" in text


def test_the_environment_is_empty_of_ours(
    attempt: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = set(eval(attempt("sorted(os.environ)")))
    assert names <= {*sandbox_module.environment(1), "PWD", "OLDPWD", "SHLVL", "_", "LC_CTYPE"} | {
        "KMP_INIT_AT_FORK",
        "KMP_DUPLICATE_LIB_OK",
        "TRITON_INTERPRET",
    }
    assert attempt("os.environ['HOME']") == "'/tmp'"
    descriptors = attempt(
        "{n: os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd') if "
        "os.path.lexists(f'/proc/self/fd/{n}')}"
    )
    # stdin, stdout, stderr, the worker's own socket. Not the zygote's. With a GPU, its driver's.
    assert descriptors.count("socket:") == 1
    others = [target for target in eval(descriptors).values() if "nvidia" not in target]
    assert len(others) == 4 or gpu_nodes()


def test_learners_share_no_service_of_the_gpus_driver(
    attempt: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """NVIDIA's MPS would put their kernels into one context. It is found by a variable, or at its usual place."""
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", "/run/mps")
    assert not [name for name in sandbox_module.environment(1) if "MPS" in name]
    assert attempt("os.path.exists('/tmp/nvidia-mps')") == "False"


def test_there_is_no_network(attempt: Callable[[str], str]) -> None:
    assert "OSError" in attempt("socket.create_connection(('1.1.1.1', 53), timeout=2)")
    assert "gaierror" in attempt("socket.getaddrinfo('localhost.example.org', 80)")
    with __import__("socket").create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert "OSError" in attempt(f"socket.create_connection(('127.0.0.1', {port}), timeout=2)") or (
            "ConnectionRefusedError" in attempt(f"socket.create_connection(('127.0.0.1', {port}), timeout=2)")
        )


def test_only_scratch_folders_can_be_written_and_they_are_small(attempt: Callable[[str], str]) -> None:
    for path in ("/x", "/usr/x", "/course/x", "/course/kernels/x", "/dev/x", f"{os.path.realpath('.')}/x"):
        assert "Error" in attempt(f"open({path!r}, 'w')")
    assert attempt("open('/tmp/x', 'w').write('1' * 1000)") == "1000"
    for folder in ("/tmp", "/dev/shm"):
        text = f"[open(f'{folder}/f{{n}}', 'wb').write(bytes(2**20)) for n in range(100)]"
        assert "No space left on device" in attempt(text)
    # One file may not be larger than the folder either, not even a sparse one.
    assert "File too large" in attempt("os.truncate('/tmp/x', 2**40)")


def test_nothing_is_left_for_the_next_learner(session: Make) -> None:
    first = session("open('/tmp/left', 'w').write('x'); open('/dev/shm/left', 'w').write('x')")
    assert first.names() == []
    first.close()
    second = session("import os\nfound = os.listdir('/tmp') + os.listdir('/dev/shm')")
    assert second.get("found") == []


def test_no_new_rights_and_no_new_namespaces(attempt: Callable[[str], str]) -> None:
    libc = "ctypes.CDLL(None, use_errno=True)"
    refused = f"({libc}.{{}}, ctypes.get_errno())"
    assert attempt(refused.format("unshare(0x10000000)")) == "(-1, 1)"
    assert attempt(refused.format("mount(b'x', b'/tmp', b'tmpfs', 0, None)")) == "(-1, 1)"
    assert attempt(refused.format("umount2(b'/tmp', 0)")) == "(-1, 1)"
    assert attempt(refused.format("ptrace(16, 2, 0, 0)")) == "(-1, 1)"
    if not gpu_nodes():  # the driver wants it
        assert attempt(refused.format("memfd_create(b'x', 0)")) == "(-1, 38)"
    # clone with CLONE_NEWUSER, asked of the kernel directly; SIGCHLD is 17.
    number = {"x86_64": 56, "aarch64": 220}[os.uname().machine]
    assert attempt(refused.format(f"syscall({number}, 0x10000000 | 17, 0, 0, 0, 0)")) == "(-1, 1)"
    capabilities = attempt("[line for line in open('/proc/self/status') if line.startswith('Cap')]")
    assert "CapEff:\\t0000000000000000" in capabilities
    assert "CapPrm:\\t0000000000000000" in capabilities


def test_the_zygote_is_out_of_reach(attempt: Callable[[str], str], sandbox: Sandbox) -> None:
    """Its memory and descriptors are those of every learner to come."""
    others = [int(name) for name in eval(attempt("os.listdir('/proc')")) if name.isdigit()]
    own = int(eval(attempt("os.readlink('/proc/self')")))
    for pid in set(others) - {own}:
        for name in ("mem", "environ", "maps"):
            assert "PermissionError" in attempt(f"open('/proc/{pid}/{name}', 'rb').read(1)")
        for number in range(8):
            assert "Error" in attempt(f"os.readlink('/proc/{pid}/fd/{number}')")
        assert "PermissionError" in attempt(f"os.listdir('/proc/{pid}/root/')")
    if sandbox.nested:  # numbers there mean nothing to kill: the worker sees itself alone
        assert attempt("os.getpid()") == "1"
        assert "ProcessLookupError" in attempt("os.kill(2, 9)")
        assert "ProcessLookupError" in attempt("os.kill(3, 9)")
    # Who is the first process cannot be ended, or stopped, from inside.
    assert attempt("os.kill(1, 19)") == attempt("os.kill(1, 9)") == "None" or sandbox.nested
    assert attempt("5") == "5"


DAEMON = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execv("/bin/sleep", ["sleep", "{marker}"])
    os._exit(0)
time.sleep(0.3)
"""


def _sleepers(marker: str) -> list[psutil.Process]:
    return [p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == ["sleep", marker]]


def test_a_detached_daemon_ends_with_its_worker(session: Make) -> None:
    marker = f"98{os.getpid()}"
    made = session(DAEMON.format(marker=marker))
    assert len(_sleepers(marker)) == 1
    made.close()
    assert _sleepers(marker) == []


def test_everything_ends_with_the_sandbox(sandbox: Sandbox) -> None:
    marker = f"97{os.getpid()}"
    with Sandbox(preload=(), limits=sandbox.limits) as other:
        made = Session(other)
        made.run_cell("first", DAEMON.format(marker=marker))
        assert len(_sleepers(marker)) == 1
        family = psutil.Process(other.pid).children(recursive=True)
    assert _wait(lambda: not any(p.is_running() for p in family))
    assert _sleepers(marker) == []
    with pytest.raises(sandbox_module.SandboxLost):
        other.start_worker()


def _wait(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


@pytest.mark.parametrize(
    "source",
    [
        "def eat():\n    kept = []\n    while True:\n        kept.append(bytearray(50_000_000))",
        "def eat():\n    import torch\n    kept = []\n    while True:\n        kept.append(torch.ones(10_000_000))",
        # Shared memory counts for no limit of one process; the watch sees it.
        "def eat():\n    import mmap\n    kept = []\n    while True:\n"
        "        kept.append(mmap.mmap(-1, 50_000_000))\n        kept[-1].write(b'1' * 50_000_000)",
        # Nor does what children hold.
        "def eat():\n    import os, time\n    for _ in range(8):\n        if os.fork() == 0:\n"
        "            kept = bytearray(b'1') * 300_000_000\n            time.sleep(60)\n    time.sleep(60)",
    ],
    ids=["bytes", "tensors", "shared", "children"],
)
def test_memory_is_limited(session: Make, source: str) -> None:
    made = session(source, call=30)
    with pytest.raises(Fault) as caught:
        made.get("eat")()
    assert caught.value.kind == MEMORY
    assert "1 GiB" in caught.value.problem.headline
    assert made.run_cell("next", "x = 1").fault is None


def test_a_fork_bomb_stays_small(session: Make) -> None:
    made = session(
        "import os\ndef bomb():\n    while True:\n        try:\n            os.fork()\n"
        "        except OSError:\n            pass",
        call=10,
    )
    before = len(psutil.pids())
    with pytest.raises(Fault) as caught:
        made.get("bomb")()
    # Root's processes are only counted by the watch; everyone else's meet a limit that they never get over.
    assert caught.value.kind == (TIMEOUT if os.getuid() else CRASHED)
    assert ("more than 40 processes" in caught.value.problem.headline) == (os.getuid() == 0)
    assert _wait(lambda: len(psutil.pids()) < before + 20)


def test_without_bubblewrap_there_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    sandbox_module.why_unavailable.cache_clear()
    try:
        with pytest.raises(SandboxUnavailable, match="bwrap is not installed"):
            Sandbox()
    finally:
        monkeypatch.undo()
        sandbox_module.why_unavailable.cache_clear()


def test_a_kernel_without_nested_namespaces_gets_a_sandbox_for_each_worker(sandbox: Sandbox) -> None:
    with Sandbox(preload=(), limits=sandbox.limits, nested=False) as plain:
        for _ in range(2):
            with Session(plain) as made:
                made.run_cell("first", "import os\nfound = os.listdir('/tmp')\nopen('/tmp/left', 'w')")
                assert made.get("found") == []
                assert made.workers_started == 1


def test_an_environment_in_tmp_stays_there(tmp_path: Path) -> None:
    """The sandbox has a /tmp of its own, and each worker another: what Python needs there is not lost under it."""
    if not tmp_path.is_relative_to("/tmp"):
        pytest.skip("temporary files are not in /tmp here")
    made = tmp_path / "environment"
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", "--system-site-packages", made], check=True
    )
    (site,) = made.glob("lib/python*/site-packages")
    (site / "more.pth").write_text("\n".join(path for path in sys.path if path.endswith("-packages")))
    (site / "only_here.py").write_text("value = 5")
    text = """
from autograder.judge.sandbox import Sandbox
from autograder.judge.session import Session
with Sandbox(preload=()) as sandbox:
    for _ in range(2):
        with Session(sandbox) as session:
            source = "import only_here, os, sys\\nvalue = only_here.value, sys.prefix, os.listdir('/tmp')"
            assert not session.run_cell("first", source).error
            print(session.get("value"))
            assert session.run_cell("writes", "open(only_here.__file__, 'w')").error.startswith("OSError")
"""
    python = made / "bin" / "python"
    done = subprocess.run([python, "-c", text], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"(5, '{made}', ['{tmp_path.parts[2]}'])"] * 2
