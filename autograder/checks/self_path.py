"""Self-grading: the way from the layer through the impl to the kernel, drawn as edges between functions with their files.

Right is any backend's drawing, vLLM's FLASH_ATTN or TRITON_ATTN or one of our own, by its set of edges: more edges may be
drawn as long as they are there, by vLLM's syntax tree or in the recorded run. A class stands for its methods.
"""

from __future__ import annotations

import functools
import pkgutil
import re
from typing import Any

import course
import kernels
from autograder.checks import drawings, recorded_run, vllm_names
from autograder.checks.drawings import STEPS, Drawing, Edge, belongs
from autograder.checks.plain_answers import kind, refuse, text, unanswered
from autograder.failure import AnswerProblem, Problem
from autograder.misconceptions import self_path as mistakes
from autograder.registry import Answer, Check, Output
from autograder.suite import Case, Suite
from course.vllm import index as vllm_index
from kernels import backends

ANSWER = "q_path"
NOTHING_ELSE = "no edge that is not there"
EXPECTED = 'a list of edges (caller, callee), each end as "file.py:name"'
HINTS = (
    "Six edges: three to the write, three to the read. Both ways begin at the layer's forward and go through a function in "
    "the layer's own file.",
    "Name the four files from memory first: the layer's, the backend's, and where the function that writes and the one that "
    "reads come from. Then the functions. Then open the lesson again and compare with your q6_write and q6_read.",
    "Each neighbouring pair of q6_write is an edge, and each of q6_read. Write the file before the name: "
    '("attention.py:Attention.forward", "attention.py:unified_kv_cache_update") is the first.',
)


def cases(suite: Suite) -> list[Case]:
    """The six edges, and that there is no wrong one; in both suites: nothing about them is secret."""
    return [Case(step, {"step": step}) for step in (*STEPS, NOTHING_ELSE)]


def validate(answer: Answer) -> str | None:
    if said := unanswered({ANSWER: answer[ANSWER]}):
        return said
    given = answer[ANSWER]
    # course.widgets.call_path.model.DrawnEdges; by its name, which is all that the judge has of a learner's object.
    if type(given).__name__ == "DrawnEdges":
        return (
            f"{ANSWER} is the drawing itself, which lives in this kernel alone: where notebooks are graded nobody draws, and it "
            "would be empty. Write the edges down: copy the text below the drawing over the cell of the answer"
        )
    if type(given) not in (list, tuple, set, frozenset):
        return f"{ANSWER}: expected {EXPECTED}, got {kind(given)}"
    return None


def read(answer: Answer, case: Case) -> Output:
    """The edges that can be read, and what is wrong with the first that cannot."""
    given = list(answer[ANSWER])
    ends = [end for edge in given if type(edge) in (list, tuple) for end in edge if type(end) is str]
    # A name that fits both code bases is ours where another end can only be ours.
    ours = any(_own(end) and not vllm_names.fitting(end) for end in ends)
    edges: set[Edge] = set()
    unreadable = ""
    for number, edge in enumerate(given):
        try:
            edges.add(_edge(number, edge, ours))
        except AnswerProblem as error:
            unreadable = unreadable or error.problem.headline
    return {"edges": sorted(edges), "unreadable": unreadable}


def _edge(number: int, edge: Any, ours: bool) -> Edge:
    part = f"{ANSWER}[{number}]"
    if type(edge) not in (list, tuple) or len(edge) != 2:
        raise refuse(f"{part}: expected an edge (caller, callee), got {kind(edge)}")
    caller, callee = (_node(part, end, ours) for end in edge)
    return caller, callee


def _node(part: str, value: Any, ours: bool) -> str:
    given = text(part, value, 'a function with its file, "file.py:name"').removesuffix("()").strip()
    if not re.search(r"\.py\b|:|/", given) and given.count(".") < 2:
        raise refuse(f"{part}: {given[:60]!r} says no file; the point is to name the files too")
    own = _own(given) if ours else None
    return own or vllm_names.definition(part, given).name


def _own(given: str) -> str | None:
    """The function of ours, or the class with such a method, that a name fits by the recorded runs."""
    module, _, qualname = re.sub(r"\.py(?=:)", "", given.strip()).replace("/", ".").rpartition(":")
    if module.rpartition(".")[2] not in _own_modules():
        return None
    for backend in recorded_run.ENDS:
        for name in _recorded_names(backend):
            known, _, function = name.partition(":")
            if f".{known}".endswith(f".{module.lstrip('.')}") and belongs(qualname, function):
                return f"{known}:{qualname}"
    return None


@functools.cache
def _own_modules() -> frozenset[str]:
    folders = (*kernels.__path__, *backends.__path__, *course.__path__)
    return frozenset(module.name for module in pkgutil.iter_modules(folders))


@functools.cache
def _recorded_names(backend: str) -> list[str]:
    return sorted({call.name for call in recorded_run.recorded(backend).calls()})


def inspect(output: Output, case: Case) -> Problem | None:
    edges, step = set(map(tuple, output["edges"])), case.inputs["step"]
    if step == NOTHING_ELSE:
        objection = output["unreadable"] or _wrong(edges)
    else:
        objection = _missing(edges, step)
        objection = objection and (output["unreadable"] or objection)
    return Problem(objection) if objection else None


def _missing(edges: set[Edge], step: str) -> str | None:
    drawing = _meant(edges)
    caller, callee = drawing.edges[STEPS.index(step)]
    if any(belongs(a, caller) and belongs(b, callee) for a, b in edges):
        return None
    if any(belongs(b, caller) and belongs(a, callee) for a, b in edges):
        return f"{step}: this edge is drawn the other way round; the caller comes first"
    return f"there is no edge for {step}"


def _meant(edges: set[Edge]) -> Drawing:
    """The drawing that a learner's comes nearest to."""
    possible = list(drawings.of_vllm())
    if any(a.startswith("kernels.") or b.startswith("kernels.") for a, b in edges):
        possible += [drawings.of_ours(backend) for backend in recorded_run.ENDS]

    def found(drawing: Drawing) -> int:
        nodes = {node for edge in edges for node in edge}
        return sum(any(belongs(node, name) for node in nodes) for name in drawing.nodes())

    return max(possible, key=found)


def _wrong(edges: set[Edge]) -> str | None:
    """What is wrong with the first edge that is not there."""
    for caller, callee in sorted(edges):
        ours = [name.startswith(("kernels.", "course.")) for name in (caller, callee)]
        if any(ours):
            if not all(ours):
                return f"{_short(caller)} and {_short(callee)} are of two code bases: draw vLLM's or ours"
            if not any(_recorded(caller, callee, backend) for backend in recorded_run.ENDS):
                return f"in the recorded run {_short(caller)} does not call {_short(callee)}"
        elif not any(vllm_names.calls(a, b) for a in _methods(caller) for b in _methods(callee)):
            return f"{_short(caller)} does not call {_short(callee)}"
    return None


def _recorded(caller: str, callee: str, backend: str) -> bool:
    return any(belongs(caller, a) and belongs(callee, b) for a, b in _recorded_edges(backend))


@functools.cache
def _recorded_edges(backend: str) -> set[Edge]:
    return recorded_run.recorded(backend).edges()


def _methods(name: str) -> list[str]:
    """A function itself; of a class, its methods."""
    symbol = vllm_index.where(name)
    if symbol.kind != "class":
        return [name]
    return [member.name for member in vllm_index.members(name) if member.kind == "method"]


def _short(name: str) -> str:
    module, _, qualname = name.partition(":")
    return f"{module.rpartition('.')[2]}.py:{qualname}"


CHECK = Check(
    name="self_path",
    grade_id="self-path",
    parts=(ANSWER,),
    cases=cases,
    run=read,
    inspect=inspect,
    solution=mistakes.TRUTH,
    misconceptions=mistakes.MISCONCEPTIONS,
    right_variants=mistakes.RIGHT_VARIANTS,
    hints=HINTS,
    validate=validate,
    partial=True,
)
