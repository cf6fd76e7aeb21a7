"""Without bubblewrap: refused, or permitted and said so; the same limits, and nothing left running when a verdict falls."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from nbformat import NotebookNode

from autograder.judge import bubblewrap
from autograder.judge.faults import CRASHED, MEMORY, TIMEOUT, Fault
from autograder.judge.judge import Judge
from autograder.judge.sandbox import Sandbox, SandboxUnavailable
from autograder.judge.session import Session
from tests.autograder.judge.conftest import LIMITS, Class
from tests.autograder.judge.test_hostile import FULL, WRONG, points
from tests.autograder.judge.test_sandbox import DAEMON, _sleepers, _wait


@pytest.fixture(scope="module")
def no_bubblewrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A PATH with every command of this machine but bwrap."""
    folder = tmp_path_factory.mktemp("bin")
    for entry in os.get_exec_path():
        for command in Path(entry).glob("*"):
            if command.name != "bwrap" and not (folder / command.name).exists():
                (folder / command.name).symlink_to(command)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(folder))
        bubblewrap.why_unavailable.cache_clear()
        yield
    bubblewrap.why_unavailable.cache_clear()


@pytest.fixture(scope="module")
def plain(no_bubblewrap: None) -> Iterator[Sandbox]:
    with Sandbox(limits=LIMITS, unsafe=True) as made:
        yield made


@pytest.fixture
def session(plain: Sandbox) -> Iterator[Callable[..., Session]]:
    made = []

    def make(source: str, **limits: float) -> Session:
        made.append(Session(plain, replace(LIMITS, **limits)))
        made[-1].run_cell("first", source)
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_permission_is_no_wish_where_a_sandbox_can_be_made() -> None:
    if (reason := bubblewrap.why_unavailable()) is not None:
        pytest.skip(reason)
    with Sandbox(preload=(), limits=LIMITS, unsafe=True) as made:
        assert made.name == "bubblewrap"


def test_without_permission_it_is_refused_with_what_helps(no_bubblewrap: None, lesson: NotebookNode) -> None:
    with pytest.raises(SandboxUnavailable, match="apt install bubblewrap.*--unsafe"):
        Judge(lesson)


def test_the_judge_works_and_says_so(no_bubblewrap: None, lesson: NotebookNode) -> None:
    with Judge(lesson, replace(LIMITS, memory=2 * 2**30), unsafe=True) as judge:
        assert judge.sandbox_name == "none"
        learners = Class(judge, lesson)
        assert points(learners.hand_in()) == FULL
        judged = learners.hand_in(q3_update_code=WRONG, q3_merge_code="import os\nos._exit(0)")
        assert points(judged) == {**FULL, "q3-update": 0, "q3-merge": 0}
        assert judged.checks["q3-merge"].status == "crashed"
        looks = "import os\ndef merge_states(a, b):\n    raise RuntimeError(str(sorted(os.environ)) + os.getcwd())"
        message = learners.hand_in(q3_merge_code=looks).checks["q3-merge"].message
        assert "SECRET" not in message
        folder = judge.sandbox._folder
        assert folder is not None
        place = folder.path
        assert place.is_dir()
    assert not place.exists()


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("def f():\n    while True: pass", TIMEOUT),
        ("import os\ndef f(): os._exit(3)", CRASHED),
        ("def f():\n    kept = []\n    while True: kept.append(bytearray(50_000_000))", MEMORY),
        (
            "import mmap\ndef f():\n    kept = []\n    while True:\n        kept.append(mmap.mmap(-1, 50_000_000))\n"
            "        kept[-1].write(b'1' * 50_000_000)",
            MEMORY,
        ),
    ],
    ids=["loop", "exit", "memory", "shared memory"],
)
def test_limits_hold(session: Callable[..., Session], source: str, kind: str) -> None:
    made = session(source, call=20 if kind == MEMORY else 1)
    with pytest.raises(Fault) as caught:
        made.get("f")()
    assert caught.value.kind == kind
    assert made.run_cell("next", "x = 1").fault is None


def test_a_detached_daemon_ends_with_its_worker(session: Callable[..., Session]) -> None:
    marker = f"96{os.getpid()}"
    made = session(DAEMON.format(marker=marker))
    assert len(_sleepers(marker)) == 1
    made.close()
    assert _sleepers(marker) == []
    # Also one that holds the worker's connection.
    for daemon in (DAEMON.format(marker=marker), "import os, time\nif os.fork() == 0: time.sleep(1000)"):
        made = session(daemon + "\nos._exit(0)")
        assert made.cell_faults["first"].kind == CRASHED
        assert "exit status 0" in made.cell_faults["first"].problem.headline
        assert _sleepers(marker) == []


def test_a_fork_bomb_is_ended_whole(session: Callable[..., Session]) -> None:
    before = len(psutil.pids())
    made = session(
        "import os\ndef f():\n    while True:\n        try: os.fork()\n        except OSError: pass", call=5
    )
    with pytest.raises(Fault) as caught:
        made.get("f")()
    assert caught.value.kind in (CRASHED, TIMEOUT)
    made.close()
    assert _wait(lambda: len(psutil.pids()) < before + 20)


def test_each_worker_has_a_folder_of_its_own(session: Callable[..., Session]) -> None:
    source = (
        "import os, tempfile\nplace = tempfile.gettempdir(), os.getcwd(), os.environ['TRITON_CACHE_DIR']\n"
    )
    places = []
    for _ in range(2):
        made = session(source + "open('left', 'w').write('x')")
        temporary, current, cache = made.get("place")
        assert temporary == current
        assert Path(cache).parent == Path(current)
        assert Path(current, "left").exists()
        places.append(current)
        made.close()
        assert not Path(current).exists()
    assert places[0] != places[1]


def test_everything_ends_with_the_judge(plain: Sandbox) -> None:
    marker = f"95{os.getpid()}"
    with Sandbox(preload=(), limits=LIMITS, unsafe=True) as other:
        Session(other).run_cell("first", DAEMON.format(marker=marker))
        family = psutil.Process(other.pid).children(recursive=True)
        assert len(_sleepers(marker)) == 1
    assert _sleepers(marker) == []
    assert not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in family)
