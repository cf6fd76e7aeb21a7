"""The tracer on a small package of its own, with both hooks where Python has both."""

import gc
import json
import re
import sys
import threading
import weakref

import numpy as np
import pytest
import torch

import course.trace
from course.trace import Trace, trace
from course.trace.hooks import monitored, settraced
from course.trace.values import describe

INNER = """\
import dataclasses
import functools

from elsewhere_pkg import calls_back


def wrapped(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


@dataclasses.dataclass
class Metadata:
    block_table: object
    count: int = 2


class Layer:
    def __call__(self, x):
        return self.forward(x)

    def forward(self, x):
        return calls_back(self.write, x)

    def write(self, x):
        return leaf(x)

    @property
    def size(self):
        return 7


@wrapped
@functools.lru_cache
def decorated(a, /, b=2, *rest, c=3, **more):
    return a


def leaf(x):
    return x


def recurse(n):
    return 0 if n == 0 else 1 + recurse(n - 1)


def in_comprehensions(items):
    a = [
        leaf(item)
        for item in items
    ]
    b = {leaf(item): 1 for item in items}
    return a, b, sum(leaf(item) for item in items)


def count(n):
    for i in range(n):
        got = yield leaf(i)
        if got:
            leaf(got)
    return "done"


def consume(n):
    total = 0
    for i in count(n):
        leaf("between")
        total += i
    return total


def delegate():
    return (yield from count(2))


def send():
    generator = count(3)
    next(generator)
    generator.send("sent")
    generator.close()


def throw():
    generator = count(3)
    next(generator)
    try:
        generator.throw(KeyError("x"))
    except KeyError:
        return "caught"


def handles():
    while True:
        try:
            yield
        except KeyError:
            leaf("handled")


def throw_and_go_on():
    generator = handles()
    next(generator)
    generator.throw(KeyError("x"))
    generator.throw(KeyError("y"))
    next(generator)
    try:
        generator.throw(OSError("z"))
    except OSError:
        leaf("after")


def abandon():
    generator = count(3)
    next(generator)
    del generator
    return leaf(1)


async def wait(n):
    return n if n == 0 else await wait(n - 1)


def run_coroutine():
    coroutine = wait(2)
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value


def fail(depth):
    if depth:
        fail(depth - 1)
    raise ValueError("deep")


def recover():
    try:
        fail(1)
    except ValueError:
        leaf("after")
    return None


def in_callback():
    return calls_back(lambda x: leaf(x), 5)


def make_metadata(table):
    return Metadata(table)


def lazily():
    import traced_pkg.late

    return traced_pkg.late.answer()


def in_thread():
    import threading

    other = threading.Thread(target=leaf, args=("other",))
    other.start()
    other.join()
    return leaf("mine")


def nested_class():
    class Local:
        value = leaf(3)

        def method(self):
            return leaf(4)

    return Local().method()
"""
LATE = "from traced_pkg.inner import leaf\n\nVALUE = leaf('while importing')\n\n\ndef answer():\n    return leaf(42)\n"
TOP = """\
def top(x):
    return x


def __getattr__(name):
    import importlib

    if name == "late":
        return importlib.import_module("traced_pkg.late")
    raise AttributeError(name)
"""
ELSEWHERE = "def calls_back(function, x):\n    return function(x)\n"
LINES = {
    match[1]: number
    for number, line in enumerate(INNER.splitlines(), 1)
    if (match := re.match(r" *(?:async )?def (\w+)", line))
}


def line_of(text: str) -> int:
    """The line of INNER that holds a text, which stands in one only."""
    (number,) = (n for n, line in enumerate(INNER.splitlines(), 1) if text in line)
    return number


@pytest.fixture
def inner(tmp_path, monkeypatch):
    package = tmp_path / "traced_pkg"
    package.mkdir()
    (package / "__init__.py").write_text(TOP)
    (package / "inner.py").write_text(INNER)
    (package / "late.py").write_text(LATE)
    (tmp_path / "elsewhere_pkg.py").write_text(ELSEWHERE)
    monkeypatch.syspath_prepend(str(tmp_path))
    from traced_pkg import inner

    yield inner
    for name in [name for name in sys.modules if name.startswith(("traced_pkg", "elsewhere_pkg"))]:
        del sys.modules[name]


HOOKS = {"settrace": settraced} | ({"monitoring": monitored} if sys.version_info >= (3, 12) else {})


@pytest.fixture(params=HOOKS, autouse=True)
def hook(request, monkeypatch):
    """Each test runs with both hooks; before Python 3.12 there is one."""
    monkeypatch.setattr(course.trace, "watching", HOOKS[request.param])
    return request.param


def outline(traced: Trace) -> list:
    """The tree as nested lists of qualified names."""

    def of(call):
        return [call.qualname, *map(of, call.calls)] if call.calls else call.qualname

    return [of(root) for root in traced.roots]


def run(function, *args, **kwargs) -> Trace:
    return trace(function, *args, packages=("traced_pkg",), **kwargs)


def test_what_is_called_through_another_package_hangs_below_its_caller(inner):
    x = torch.zeros(2, 3, dtype=torch.float16)
    traced = run(inner.Layer(), x)
    assert traced.result is x
    assert outline(traced) == [["Layer.__call__", ["Layer.forward", ["Layer.write", "leaf"]]]]
    forward, write = traced.find("Layer.forward")[0], traced.find("write")[0]
    assert (forward.module, forward.file, forward.line) == (
        "traced_pkg.inner",
        "traced_pkg/inner.py",
        LINES["forward"],
    )
    assert write.called_at == f"traced_pkg/inner.py:{line_of('calls_back(self.write, x)')}"
    assert traced.roots[0].called_at is None
    assert forward.arguments["self"].text == "Layer"
    assert (write.arguments["x"].shape, write.arguments["x"].dtype) == ((2, 3), "float16")
    assert str(write.returned) == "float16 [2, 3]"


def test_arguments_of_every_kind_and_the_line_of_def_below_decorators(inner):
    traced = run(inner.decorated, 1, 5, 6, c=7, d=8)
    wrapper, decorated = traced.calls()
    assert wrapper.qualname == "wrapped.<locals>.wrapper"
    assert {name: str(value) for name, value in decorated.arguments.items()} == {
        "a": "1",
        "b": "5",
        "c": "7",
        "*rest": "(6)",
        "**more": "{'d': 8}",
    }
    assert decorated.line == LINES["decorated"]
    assert outline(run(inner.decorated, 1, 5, 6, c=7, d=8)) == ["wrapped.<locals>.wrapper"], (
        "the cache answered"
    )


def test_recursion(inner):
    traced = run(inner.recurse, 3)
    calls = traced.calls()
    assert [str(call.arguments["n"]) for call in calls] == ["3", "2", "1", "0"]
    assert [str(call.returned) for call in calls] == ["3", "2", "1", "0"]
    assert all(len(call.calls) == 1 for call in calls[:-1])
    assert traced.edges() == {("traced_pkg.inner:recurse", "traced_pkg.inner:recurse")}


def test_comprehensions_belong_to_the_function_around_them(inner):
    traced = run(inner.in_comprehensions, [1, 2])
    assert outline(traced) == [["in_comprehensions", *["leaf"] * 6]]
    lines = [int(call.called_at.split(":")[1]) for call in traced.roots[0].calls]
    first = next(n for n, line in enumerate(INNER.splitlines(), 1) if line == "        leaf(item)")
    assert lines == [first] * 2 + [line_of("{leaf(item): 1")] * 2 + [line_of("sum(leaf(item)")] * 2


def test_a_generator_is_one_call_and_its_caller_goes_on_in_between(inner):
    traced = run(inner.consume, 2)
    assert outline(traced) == [["consume", ["count", "leaf", "leaf"], "leaf", "leaf"]]
    (count,) = traced.find("count")
    assert (count.kind, str(count.returned), count.raised) == ("generator", "'done'", None)
    assert traced.result == 1


def test_generators_that_delegate_receive_are_thrown_at_closed_and_abandoned(inner):
    assert outline(run(list, inner.delegate())) == [["delegate", ["count", "leaf", "leaf"]]]
    sent = run(inner.send)
    assert outline(sent) == [["send", ["count", "leaf", "leaf", "leaf"]]]
    assert sent.find("count")[0].raised == "GeneratorExit"
    thrown = run(inner.throw)
    assert thrown.find("count")[0].raised == "KeyError"
    assert str(thrown.roots[0].returned) == "'caught'"
    handled = run(inner.throw_and_go_on)
    assert outline(handled) == [["throw_and_go_on", ["handles", "leaf", "leaf"], "leaf"]]
    assert handled.find("handles")[0].raised == "OSError"
    assert outline(run(inner.abandon)) == [["abandon", ["count", "leaf"], "leaf"]]


def test_coroutines(inner):
    traced = run(inner.run_coroutine)
    assert outline(traced) == [["run_coroutine", ["wait", ["wait", "wait"]]]]
    assert traced.result == 0


def test_an_exception_that_is_caught(inner):
    traced = run(inner.recover)
    assert outline(traced) == [["recover", ["fail", "fail"], "leaf"]]
    assert [call.raised for call in traced.calls()] == [None, "ValueError", "ValueError", None]
    assert str(traced.roots[0].returned) == "None"


def test_an_exception_that_is_not_goes_through_with_the_trace(inner):
    with pytest.raises(ValueError, match="deep") as caught:
        run(inner.fail, 1)
    assert outline(caught.value.trace) == [["fail", "fail"]]
    assert caught.value.trace.roots[0].raised == "ValueError"
    assert outline(run(inner.leaf, 1)) == ["leaf"], "the next trace starts anew"


def test_lambdas_and_methods_of_local_classes(inner):
    assert outline(run(inner.in_callback)) == [["in_callback", ["in_callback.<locals>.<lambda>", "leaf"]]]
    local = "nested_class.<locals>.Local.method"
    assert outline(run(inner.nested_class)) == [["nested_class", "leaf", [local, "leaf"]]]


def test_what_dataclasses_write_for_themselves_is_no_call(inner):
    traced = run(inner.make_metadata, torch.zeros(2, 4, dtype=torch.int32))
    assert outline(traced) == ["make_metadata"]
    assert str(traced.roots[0].returned) == "Metadata(block_table=int32 [2, 4], count=2)"


def test_an_import_on_the_way_leaves_no_calls(inner):
    import traced_pkg

    assert outline(run(lambda: traced_pkg.late.answer())) == [["answer", "leaf"]]
    del sys.modules["traced_pkg.late"]
    for _ in range(2):
        assert outline(run(inner.lazily)) == [["lazily", ["answer", "leaf"]]]


def test_other_threads_are_not_recorded(inner):
    traced = run(inner.in_thread)
    assert outline(traced) == [["in_thread", "leaf"]]
    assert str(traced.find("leaf")[0].arguments["x"]) == "'mine'"


def test_two_threads_trace_side_by_side(inner):
    found, barrier = {}, threading.Barrier(2)

    def work(number):
        def body():
            barrier.wait(timeout=30)
            inner.recurse(number)
            barrier.wait(timeout=30)

        found[number] = run(body)

    threads = [threading.Thread(target=work, args=(number,)) for number in (3, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {number: len(traced.calls()) for number, traced in found.items()} == {3: 4, 5: 6}


def test_packages_are_chosen_by_whole_names(inner):
    import traced_pkg

    assert outline(trace(inner.in_callback, packages=("elsewhere_pkg",))) == ["calls_back"]
    assert outline(trace(inner.in_callback, packages=("traced",))) == []
    assert outline(trace(traced_pkg.top, 1, packages=("traced_pkg.inner",))) == []
    both = trace(inner.in_callback, packages=["elsewhere_pkg", "traced_pkg.inner"])
    assert outline(both) == [["in_callback", ["calls_back", ["in_callback.<locals>.<lambda>", "leaf"]]]]
    (top,) = run(traced_pkg.top, 1).calls()
    assert top.file == "traced_pkg/__init__.py"
    assert top.name == "traced_pkg:top"


def test_a_place_that_one_trace_left_out_is_there_for_the_next(inner):
    trace(inner.in_callback, packages=("elsewhere_pkg",))
    assert outline(run(inner.in_callback)) == [["in_callback", ["in_callback.<locals>.<lambda>", "leaf"]]]


def test_flat_edges_path_and_dict(inner):
    traced = run(inner.Layer(), 1)
    name = "traced_pkg.inner:{}".format
    assert [call.name for call in traced.calls()] == [
        name(each) for each in ("Layer.__call__", "Layer.forward", "Layer.write", "leaf")
    ]
    assert (name("Layer.write"), name("leaf")) in traced.edges()
    whole = [name("Layer.__call__"), name("Layer.forward"), name("Layer.write")]
    for to in ("write", "Layer.write", "inner:Layer.write", name("Layer.write")):
        assert traced.path(to) == whole
    for to in ("rite", "other:write", "forward.write", ""):
        with pytest.raises(ValueError, match=r"^to: expected a function that was called, got .*Layer.write"):
            traced.path(to)
    as_dict = json.loads(json.dumps(traced.to_dict()))
    assert as_dict["packages"] == ["traced_pkg"]
    assert as_dict["calls"][0]["calls"][0]["qualname"] == "Layer.forward"
    assert as_dict["calls"][0]["arguments"]["x"] == {"text": "1", "shape": None, "dtype": None}


def test_modules_can_be_left_out_afterwards(inner):
    traced = trace(inner.in_callback, packages=("elsewhere_pkg", "traced_pkg"))
    assert outline(traced.without("elsewhere_pkg")) == outline(run(inner.in_callback))
    assert outline(traced.without("traced_pkg.inner")) == ["calls_back"]
    assert outline(traced.without("traced")) == outline(traced)
    assert len(traced.calls()) == 4, "it is as it was"


def test_the_trace_keeps_no_tensor_alive(inner):
    def make():
        x = torch.zeros(3)
        leaving_a_generator_open = inner.count(2)
        traced = run(lambda: inner.in_comprehensions([x, next(leaving_a_generator_open)]) and None)
        return traced, weakref.ref(x)

    traced, gone = make()
    gc.collect()
    assert str(traced.find("leaf")[1].arguments["x"]) == "float32 [3]"
    assert gone() is None


def test_text_and_html_say_the_same_and_fold_what_repeats(inner):
    traced = run(inner.in_comprehensions, [1, 1])
    text = repr(traced)
    assert (
        text.splitlines()[0]
        == f"traced_pkg.inner:in_comprehensions  traced_pkg/inner.py:{LINES['in_comprehensions']}"
    )
    assert text.count("traced_pkg.inner:leaf") == 3
    assert text.count("(2 times)") == 3
    assert f"called at traced_pkg/inner.py:{line_of('sum(leaf(item)')}" in text
    html = traced._repr_html_()
    said = re.sub(r"<style>.*?</style>|<[^>]*>", "", html, flags=re.DOTALL)
    for line in text.splitlines():
        assert line.strip().replace("'", "&#x27;") in said
    assert html.count("<details open>") == 1
    assert html.count("<li>") == html.count("</li>") == 4


def test_html_is_escaped(inner):
    html = run(inner.leaf, "<b>&")._repr_html_()
    assert "<b>" not in html
    assert "&lt;b&gt;&amp;" in html


def test_a_trace_of_nothing_says_so():
    traced = trace(len, "ab", packages=("traced_pkg",))
    assert traced.result == 2
    assert repr(traced) == "no function of traced_pkg was called"
    assert "no function of traced_pkg was called" in traced._repr_html_()


def test_bad_arguments(inner):
    with pytest.raises(ValueError, match="^function: expected a callable, got int"):
        trace(3)
    for packages in ("traced_pkg", (), [3], [""]):
        with pytest.raises(ValueError, match="^packages: expected names of packages"):
            trace(len, "", packages=packages)
    with pytest.raises(RuntimeError, match="cannot be nested"):
        run(lambda: run(inner.leaf, 1))
    assert outline(run(inner.leaf, 1)) == ["leaf"]


def test_another_trace_function_is_put_back(inner, hook):
    if hook != "settrace":
        pytest.skip("sys.monitoring leaves it alone")
    mine = lambda frame, event, arg: None  # noqa: E731
    before = sys.gettrace()
    sys.settrace(mine)
    try:
        run(inner.leaf, 1)
        found = sys.gettrace()
    finally:
        sys.settrace(before)
    assert found is mine


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (torch.zeros(2, 0), "float32 [2, 0]"),
        (torch.nn.Parameter(torch.zeros(1, dtype=torch.bfloat16)), "bfloat16 [1]"),
        (np.zeros((2, 3), np.int64), "int64 [2, 3]"),
        (torch.float16, "float16"),
        (torch.device("cpu"), "cpu"),
        (torch.Size([2, 3]), "[2, 3]"),
        (torch.nn.Linear(1, 1), "Linear"),
        (torch.nn.Linear, "class Linear"),
        (0.125, "0.125"),
        (None, "None"),
        ("x" * 99, "'" + "x" * 38 + "…"),
        ((1, torch.zeros(2), [3]), "(1, float32 [2], list)"),
        (list(range(20)), "[0, 1, 2, 3, 4, 5, 6, 7, 12 more]"),
        ({"layer.0": torch.zeros(2)}, "{'layer.0': float32 [2]}"),
        (len, "len"),
        (lambda: 0, "<lambda>"),
    ],
)
def test_values_in_a_few_words(value, text):
    assert describe(value).text.removeprefix("test_values_in_a_few_words.<locals>.") == text


def test_a_value_that_misbehaves_is_named_by_its_type():
    class Hostile:
        def __repr__(self):
            raise RuntimeError("no")

        @property
        def shape(self):
            raise RuntimeError("no")

        def __getattr__(self, name):
            raise RuntimeError("no")

    assert describe(Hostile()).text.endswith("Hostile")
