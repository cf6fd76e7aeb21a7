"""One submission's conversation: calls with plain data, faults that cost one call, a lost sandbox that costs nobody anything."""

from collections.abc import Callable

import psutil
import pytest
import torch

from autograder.failure import AnswerProblem
from autograder.guard import unchanged
from autograder.judge.faults import Fault
from autograder.judge.judgement import CRASHED, MEMORY, TIMEOUT
from autograder.judge.proxy import Proxy, RemoteError
from autograder.judge.sandbox import Sandbox, SandboxLost
from autograder.judge.session import MissingName, Session

Make = Callable[..., Session]


def test_calls_carry_plain_data_both_ways(session: Make) -> None:
    made = session(
        "import torch\nanswer = {'a': [1, 2.5, None, (True, 'x')]}\n"
        "def double(x, times=2):\n    return [x * times, torch.tensor([float('nan')]), x]\n"
    )
    assert made.names() == ["answer", "double", "torch"]
    assert made.get("answer") == {"a": [1, 2.5, None, (True, "x")]}
    double = made.get("double")
    assert callable(double)
    assert type(double).__name__ == "function"
    given = torch.arange(3, dtype=torch.bfloat16)
    doubled, nan, same = double(given, times=3)
    assert torch.equal(doubled, given * 3)
    assert nan.isnan().all()
    assert torch.equal(same, given)
    with pytest.raises(MissingName, match="name 'other' is not defined"):
        made.get("other")


def test_what_is_changed_in_place_is_changed_on_this_side(session: Make) -> None:
    made = session(
        "def spoil(tensor, lists, table):\n    tensor[0] = 9\n    lists[0].append(7)\n    table['new'] = 1\n"
        "def peek(tensor, lists, table):\n    return tensor.sum()\n"
    )
    tensor, lists, table = torch.zeros(2), [[1], [2]], {"old": 0}
    inner = lists[0]
    with unchanged(tensor=tensor, lists=lists):
        made.get("peek")(tensor, lists, table)
    made.get("spoil")(tensor, lists, table=table)
    assert (tensor.tolist(), lists, table) == ([9.0, 0.0], [[1, 7], [2]], {"old": 0, "new": 1})
    assert lists[0] is inner
    tensor, spoil = torch.zeros(2), made.get("spoil")
    with pytest.raises(AnswerProblem, match="changes its input `tensor`"), unchanged(tensor=tensor):
        spoil(tensor, lists, table)
    names = {"a", "b"}
    session("def spoil(names):\n    names.remove('a')\n    return frozenset({('b', 1)})").get("spoil")(names)
    assert names == {"b"}


def test_objects_stay_there_and_are_reached_by_their_methods(session: Make) -> None:
    made = session(
        "class Pool:\n    def __init__(self, n):\n        self.free = n\n"
        "    def take(self, k):\n        self.free -= k\n        return self.free\n"
        "    def __eq__(self, other):\n        return True\n    __hash__ = None\n"
        "def size(pool):\n    return pool.free\n"
    )
    pool = made.get("Pool")(10)
    assert type(pool).__name__ == "Pool"
    assert not callable(pool)
    assert (pool.take(3), pool.free, made.get("size")(pool)) == (7, 7, 7)
    # Its own opinion about equality stays there too.
    assert pool != 7
    assert pool != pool.take
    with pytest.raises(AttributeError):
        pool.missing()


@pytest.mark.parametrize(
    ("body", "name", "kind"),
    [
        ("raise ValueError('block 3')", "ValueError", ValueError),
        ("raise NotImplementedError", "NotImplementedError", NotImplementedError),
        ("raise type('Mine', (KeyError,), {})('x')", "Mine", KeyError),
        ("raise KeyboardInterrupt", "KeyboardInterrupt", RemoteError),
        ("import sys; sys.exit(0)", "SystemExit", RemoteError),
        ("raise OSError('\\ud800\\0')", "OSError", OSError),
        ("raise UnicodeDecodeError('utf-8', b'', 0, 1, 'x')", "UnicodeDecodeError", ValueError),
        ("raise type('NoText', (Exception,), {'__str__': lambda self: 1 / 0})", "NoText", RemoteError),
    ],
)
def test_exceptions_arrive_as_what_they_are_and_stop_nothing(
    session: Make, body: str, name: str, kind: type
) -> None:
    function = session(f"def f():\n    {body}").get("f")
    with pytest.raises(RemoteError) as caught:
        function()
    assert type(caught.value).__name__ == name
    assert isinstance(caught.value, kind)
    assert isinstance(caught.value, Exception)
    assert caught.value.line_in_answer.startswith("in f, line 2: ")


LOOP = "def f(x):\n    if x:\n        while True:\n            try:\n                while True:\n                    pass\n"
LOOP += "            except BaseException:\n                pass\n    return 5\n"


@pytest.mark.parametrize(
    ("source", "kind", "words"),
    [
        (LOOP, TIMEOUT, "did not finish within 1 s"),
        ("import os\ndef f(x):\n    if x:\n        os._exit(3)\n    return 5", CRASHED, "exit status 3"),
        ("import os\ndef f(x):\n    if x:\n        os.abort()\n    return 5", CRASHED, "crashed"),
        (
            "import ctypes\ndef f(x):\n    if x:\n        ctypes.string_at(0)\n    return 5",
            CRASHED,
            "Segmentation fault",
        ),
        ("import time\ndef f(x):\n    if x:\n        time.sleep(60)\n    return 5", TIMEOUT, "within 1 s"),
        ("def f(x):\n    if x:\n        raise MemoryError\n    return 5", MEMORY, "more memory"),
        ("def f(x):\n    return 'x' * 10**8 if x else 5", None, ""),
        (
            "import os\ndef f(x):\n    if x:\n        os.closerange(3, 99)\n        while True: pass\n    return 5",
            CRASHED,
            "closed the connection",
        ),
        (
            "import torch\ndef f(x):\n    if x:\n        raise torch.AcceleratorError('CUDA error: misaligned address\\nmore')\n    return 5",
            CRASHED,
            "broke the GPU's state: misaligned address$",
        ),
        (
            "def f(x):\n    if x:\n        raise RuntimeError('Triton Error [CUDA]: an illegal memory access')\n    return 5",
            CRASHED,
            "outside its tensors, which broke the GPU's state",
        ),
    ],
    ids=["loop", "exit", "abort", "segfault", "sleep", "memory", "too-much", "closes", "torch", "triton"],
)
def test_a_fault_costs_the_call_in_hand(session: Make, source: str, kind: str | None, words: str) -> None:
    made = session("before = [1]", call=1)
    made.run_cell("second", source)
    function = made.get("f")
    if kind is None:
        with pytest.raises(RemoteError, match="takes more than"):
            function(1)
        return
    with pytest.raises(Fault, match=words) as caught:
        function(1)
    assert caught.value.kind == kind
    # The same proxy, in a new worker that has run the cells again.
    assert function(0) == 5
    assert made.get("before") == [1]
    assert made.workers_started == 2
    with pytest.raises(Fault):
        function(1)
    with pytest.raises(Fault):
        function(0)  # two faults in one test cell: no more calls
    assert made.workers_started == 2
    made.begin()
    assert function(0) == 5
    with pytest.raises(Fault):
        function(1)
    with pytest.raises(Fault):
        function(0)  # later test cells give it one chance
    assert made.workers_started == 3


def test_the_instructors_cells_get_little_time_after_a_fault(session: Make) -> None:
    made = session("import time\ndef f(): time.sleep(60)", call=0.4, demo=0.4, cell=5)
    assert made.run_cell("before", "time.sleep(0.6)", demo=True).fault is None
    with pytest.raises(Fault):
        made.get("f")()
    fault = made.run_cell("after", "time.sleep(0.6)", demo=True).fault
    assert fault is not None
    assert "within 0.4 s" in fault.problem.headline
    assert made.run_cell("own", "time.sleep(0.6)").fault is None


def test_a_cell_that_ends_the_worker_is_not_replayed(session: Make) -> None:
    made = session("x = 1")
    assert made.run_cell("second", "import os; y = 2; os._exit(0)").fault is not None
    assert made.run_cell("third", "z = 3").fault is None
    assert made.names() == ["x", "z"]


def test_objects_of_an_ended_worker_are_gone(session: Make) -> None:
    made = session("import os\nclass A:\n    def f(self): return 1\ndef end(): os._exit(0)")
    thing = made.get("A")()
    assert thing.f() == 1
    with pytest.raises(Fault):
        made.get("end")()
    with pytest.raises(Fault, match="gone with the worker"):
        thing.f()


def test_what_cannot_be_handed_on_is_the_learners_fault_and_not_the_machines(session: Make) -> None:
    made = session(
        "def deep():\n    x = []\n    for _ in range(29):\n        x = [x]\n    return x\n"
        "class A:\n    pass\ndef same(x, end=0):\n    if end:\n        import os; os._exit(0)\n    return x"
    )
    same, deep, thing = made.get("same"), made.get("deep")(), made.get("A")()
    assert same([1]) == [1]
    with pytest.raises(Fault, match="cannot be handed on: the value is nested"):
        same([[[deep]]])
    with pytest.raises(Fault, match="exit status 0"):
        same(1, end=1)
    made.begin()
    with pytest.raises(Fault, match="gone with the worker"):
        same(thing)
    assert made.lost == ""


FORGE = """
import os, struct
def sockets():
    return [int(n) for n in os.listdir('/proc/self/fd') if os.path.lexists(f'/proc/self/fd/{n}')
            and os.readlink(f'/proc/self/fd/{n}').startswith('socket')]
def f(data):
    for n in sockets():
        os.write(n, data)
    return 5
"""


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xff\xff\xff",
        b"\1\0\0\0N",
        b"\1\0\0\0?",
        b"\0\0\0\0",
        # {"id": 0, "value": None}: a reply to no request
        b"\x1b\0\0\0d\2\0\0\0s\2\0\0\0idi\1\0\0\0\0s\5\0\0\0valueN",
    ],
    ids=["too long", "no dict", "no value", "empty", "other request"],
)
def test_writing_to_the_judge_by_hand_is_no_answer(session: Make, data: bytes) -> None:
    made = session(FORGE)
    with pytest.raises(Fault, match=r"cannot be read|no answer") as caught:
        made.get("f")(data)
    assert caught.value.kind == CRASHED
    assert made.get("sockets")()  # and the next call has a new worker


def test_output_is_kept_up_to_a_limit_and_never_in_the_way(session: Make) -> None:
    made = session(
        "print('hello')\ndef f():\n    print('x' * 30_000_000)\n    return 5", output=1000, call=20
    )
    assert made.get("f")() == 5
    assert made.output.startswith("hello\nxxx")
    assert len(made.output) == 1000
    assert made.output_lost > 29_000_000


def test_cells_are_those_of_a_notebook(session: Make) -> None:
    made = session("%matplotlib inline\n!ls\nx = 1\nlen?\n5 % 3")
    assert made.get("x") == 1
    assert "are left out" in made.output
    assert made.run_cell("magic", "%%timeit\nx = 2").error == ""
    assert made.get("x") == 1
    assert made.run_cell("wrong", "def f(:").error.startswith("SyntaxError")
    assert made.run_cell("null", "x = '\0'").error.startswith(("SyntaxError", "ValueError"))
    assert made.run_cell("raises", "y = 2\n1 / 0").error == "ZeroDivisionError: division by zero"
    assert made.get("y") == 2
    assert made.run_cell("exit", "import sys; sys.exit(1)").error == "SystemExit: 1"
    text = "from dataclasses import dataclass\n@dataclass\nclass A:\n    x: int\nimport pickle, inspect\n"
    assert made.run_cell("pickle", text + "a = pickle.loads(pickle.dumps(A(3))).x").error == ""
    assert made.get("a") == 3
    assert made.run_cell("source", "def g():\n    return 1\ntext = inspect.getsource(g)").error == ""
    assert made.get("text") == "def g():\n    return 1\n"


def test_the_whole_submission_has_a_limit(session: Make) -> None:
    made = session("import time\ndef f(): time.sleep(60)", total=2, call=30)
    with pytest.raises(Fault, match="used up its 2 s"):
        made.get("f")()
    with pytest.raises(Fault, match="used up its 2 s"):
        made.names()


def _kill(sandbox: Sandbox) -> None:
    outermost = psutil.Process(sandbox.pid)
    family = outermost.children(recursive=True)
    outermost.kill()
    psutil.wait_procs(family, timeout=5)


def test_a_lost_sandbox_is_replaced_and_costs_nothing(sandbox: Sandbox) -> None:
    with Sandbox(preload=(), limits=sandbox.limits) as other, Session(other) as made:
        made.run_cell("first", "def f(): return 5")
        function = made.get("f")
        _kill(other)
        assert function() == 5
        assert made.faults == []
        assert isinstance(function, Proxy)
        assert made.lost == ""


def test_a_machine_that_makes_no_sandbox_is_said_to_be_at_fault(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Sandbox(preload=(), limits=sandbox.limits) as other, Session(other) as made:
        made.run_cell("first", "def f(): return 5")
        function = made.get("f")
        monkeypatch.setattr("autograder.judge.sandbox.command", lambda *_, **__: ["/bin/false"])
        _kill(other)
        if other._ahead is not None:
            other._ahead.close()
        with pytest.raises(SandboxLost):
            function()
        assert "sandbox" in made.lost
        assert made.faults == []
