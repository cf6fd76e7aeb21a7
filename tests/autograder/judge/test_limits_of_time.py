"""What answers forever is ended by the clock of its test; what a killed judge leaves behind is cleared away."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from autograder.judge import processes
from autograder.judge.faults import TIMEOUT, Fault
from autograder.judge.session import Session

Make = Callable[..., Session]


def test_answers_that_never_end_have_a_limit_of_their_own(session: Make) -> None:
    """Each call is quick, and a test that waits for the pool to be empty would wait forever."""
    made = session(
        "class Pool:\n    num_free = 5\n    def take(self): return 1\npool = Pool()\n", test=2, total=100
    )
    made.begin()
    pool = made.get("pool")
    started = time.monotonic()

    def until_empty() -> None:
        while pool.num_free:
            pool.take()

    with pytest.raises(Fault, match="did not finish the test within 2 s") as caught:
        until_empty()
    assert caught.value.kind == TIMEOUT
    assert time.monotonic() - started < 10
    # The next test has a clock of its own, and the submission most of its time.
    made.begin()
    assert made.get("pool").num_free == 5


def test_drops_of_an_answer_do_not_stretch_the_limit(session: Make) -> None:
    """A byte now and then, by hand, on the judge's connection."""
    made = session(
        "import os, time\ndef f():\n"
        "    sockets = [int(n) for n in os.listdir('/proc/self/fd') if os.path.lexists(f'/proc/self/fd/{n}')\n"
        "               and os.readlink(f'/proc/self/fd/{n}').startswith('socket')]\n"
        "    os.write(sockets[0], b'\\xff\\xff\\0\\0')\n"
        "    while True:\n        os.write(sockets[0], b'x')\n        time.sleep(0.05)\n",
        call=1,
    )
    started = time.monotonic()
    with pytest.raises(Fault, match="did not finish within 1 s"):
        made.get("f")()
    assert time.monotonic() - started < 5


def test_the_learners_kernels_py_shadows_nothing(session: Make) -> None:
    made = session(
        "import os, sys\nfor name in ('kernels.py', 'torch.py', 'autograder.py', 'sitecustomize.py'):\n"
        "    open(name, 'w').write('raise SystemExit')\n"
        "for name in [n for n in sys.modules if n.split('.')[0] == 'kernels']: del sys.modules[name]\n"
        "import kernels\nplace = kernels.__file__, sorted(os.listdir('.')), os.getcwd() in sys.path"
    )
    assert made.get("place") == (
        "/course/kernels/__init__.py",
        ["autograder.py", "kernels.py", "sitecustomize.py", "torch.py"],
        False,
    )


def test_empty_groups_of_judges_that_were_killed_are_removed(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True
    )
    stale, young = tmp_path / f"judge-{ended.stdout.strip()}-0", tmp_path / f"judge-{ended.stdout.strip()}-1"
    own, other = tmp_path / f"judge-{os.getpid()}-0", tmp_path / "something-else"
    for folder in (stale, young, own, other):
        folder.mkdir()
        if folder != young:
            os.utime(folder, (1, 1))
    processes._remove_stale(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([young, own, other])
