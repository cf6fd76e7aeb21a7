"""Question 6: the call paths from `Attention.forward` to the cache write and to the paged read in vLLM with FLASH_ATTN.

A path is right if each step calls the next by the syntax tree of vLLM's source, and if it leads from the layer through
FLASH_ATTN's impl to the function that writes, or reads, the blocks. So roads that vLLM's text really has (cascade
attention, context parallelism) are right as well. The same two paths are recorded in a run of our own layer, and a test
holds them against each other, role by role.
"""

from __future__ import annotations

import itertools
import re
from typing import Any

from autograder.checks import recorded_run, vllm_names
from autograder.checks.plain_answers import entries, is_blank, kind, refuse, text, unanswered
from autograder.failure import Problem
from autograder.misconceptions import q6_paths as mistakes
from autograder.registry import Answer, Check, Output
from autograder.suite import Case, Suite
from course.vllm import index as vllm_index

WRITE, READ, ARGUMENTS = PARTS = ("q6_write", "q6_read", "q6_arguments")
START = "vllm.model_executor.layers.attention.attention:Attention.forward"
IMPL = "vllm.v1.attention.backends.flash_attn:FlashAttentionImpl"
LOOKUP = "get_attention_context"
# What a path must lead through, and where it ends: (method of the impl, the function it calls with the addresses).
THROUGH = {
    WRITE: (f"{IMPL}.do_kv_cache_update", "vllm._custom_ops:reshape_and_cache_flash"),
    READ: (f"{IMPL}.forward", "vllm.vllm_flash_attn.flash_attn_interface:flash_attn_varlen_func"),
}
RUN = dict(zip((WRITE, READ), recorded_run.ENDS["PAGED_TORCH"], strict=True))
HINTS = (
    "Each path has four functions: the layer's forward, an operator in the layer's own file, a method of FLASH_ATTN's "
    "impl, and the function that touches the cache. Our own layer has the same four under nearly the same names: trace it "
    "first, then look for each in vLLM.",
    "Begin at use_direct_call (layers/attention/attention.py:490) and read the if and the else: both call the same two "
    "functions, once directly and once as torch operators. Which of the two calls happens only if "
    "forward_includes_kv_cache_update (backends/flash_attn.py:96) is False?",
    "The write goes through unified_kv_cache_update (layers/attention/attention.py:691), the read through "
    "unified_attention_with_output (layers/attention/attention.py:734); each calls one method of layer.impl. With FLASH_ATTN "
    "these are FlashAttentionImpl.do_kv_cache_update (backends/flash_attn.py:850) and FlashAttentionImpl.forward "
    "(backends/flash_attn.py:667): see which function each of them calls, and from which of its own parameters it takes "
    "the addresses.",
)


def cases(suite: Suite) -> list[Case]:
    """The two paths and the two arguments, in both suites: nothing about them is secret."""
    return [
        Case("the path to the write", {"part": WRITE}),
        Case("the path to the read", {"part": READ}),
        Case("what carries the slot mapping", {"part": ARGUMENTS, "key": "slot_mapping"}),
        Case("what carries the block table", {"part": ARGUMENTS, "key": "block_table"}),
    ]


def validate(answer: Answer) -> str | None:
    return unanswered(dict(answer))


def read(answer: Answer, case: Case) -> Output:
    """A path as "module:qualname"s, or an argument's name. Raises AnswerProblem for what is no answer."""
    part = case.inputs["part"]
    if part == ARGUMENTS:
        return _argument(answer[part], case.inputs["key"])
    return {"path": _path(part, answer[part])}


def _path(part: str, value: Any) -> list[str]:
    expected = 'a list of names in vLLM\'s source, each "module:qualname", from Attention.forward on'
    if type(value) not in (list, tuple):
        raise refuse(f"{part}: expected {expected}, got {kind(value)}")
    if is_blank(value):
        raise refuse(f"{part} is empty; expected {expected}")
    if any(type(step) is str and vllm_names.is_own(step.strip()) for step in value):
        right = list(map(str, value)) == recorded_run.path(RUN[part])
        what = "is the path that our own layer takes" if right else "names the course's own code"
        raise refuse(f"{part} {what}; asked is the one in vLLM's source, with FLASH_ATTN")
    steps: list[str] = []
    for number, step in enumerate(value):
        name = vllm_names.definition(f"{part}[{number}]", step).name
        if name == IMPL and vllm_names.is_place(step):
            raise refuse(f"{part}[{number}]: {_class_for_method()}")
        method = next((m for m in (START, *THROUGH[part]) if m.rpartition(".")[0] == name), name)
        # A class stands for the method that is on the path; an operator and its function are one step.
        if not steps or steps[-1] != method:
            steps.append(method)
    return steps


def _class_for_method() -> str:
    """What is said to the line of the class, which is where the question as it is commonly asked sends people."""
    impl = vllm_index.where(IMPL)
    methods = (vllm_index.where(method) for method, _ in THROUGH.values())
    starts = " and ".join(f"{m.qualname.rpartition('.')[2]} starts at {m.first}" for m in methods)
    return f"line {impl.first} is the class {impl.qualname}; {starts}"


def _argument(value: Any, key: str) -> Output:
    given = entries(ARGUMENTS, value, 'a dict with the keys "slot_mapping" and "block_table"')
    if key not in given:
        raise refuse(
            f"{ARGUMENTS} has no entry for {key}; its keys are {', '.join(map(repr, given)) or 'none'}"[:200]
        )
    written = text(
        f"{ARGUMENTS}[{key!r}]", given[key], "the name of a parameter of FlashAttentionImpl's method"
    )
    # "FlashAttentionImpl.forward:attn_metadata.block_table" and "forward(attn_metadata)" are attn_metadata of forward.
    names = re.findall(r"[A-Za-z_]\w*", written)
    methods = [name for name in names if name in ("forward", "do_kv_cache_update")]
    words = [name for name in names if name not in ("forward", "do_kv_cache_update", *_OWNERS)]
    if not words:
        raise refuse(f"{ARGUMENTS}[{key!r}]: {written[:60]!r} names no parameter")
    return {"argument": words[0], "field": words[1:2], "method": methods[-1:]}


_OWNERS = {*re.findall(r"\w+", IMPL), "self", "impl", "layer", "attn_layer"}


def inspect(output: Output, case: Case) -> Problem | None:
    part = case.inputs["part"]
    if part == ARGUMENTS:
        objection = _wrong_argument(output, case.inputs["key"])
        return Problem(f"{ARGUMENTS}[{case.inputs['key']!r}]: {objection}") if objection else None
    objection = _wrong_path(part, output["path"])
    return Problem(f"{part}: {objection}") if objection else None


def _wrong_path(part: str, path: list[str]) -> str | None:
    method, end = THROUGH[part]
    other = THROUGH[READ if part == WRITE else WRITE]
    if path[0] != START:
        if START in path:
            return f"it begins before the layer, with {_short(path[0])}; begin with Attention.forward"
        return f"it begins with {_short(path[0])}; begin with Attention.forward (layers/attention/attention.py:437)"
    if end not in path and (other[0] in path or other[1] in path) and path[-1] == other[1]:
        return f"this path ends where the cache is {'read' if part == WRITE else 'written'}"
    for caller, callee in itertools.pairwise(path):
        if objection := _no_call(caller, callee):
            return objection
    if path[-1] != end:
        return _unfinished(path[-1], method)
    if method not in path:
        return f"it does not pass through FlashAttentionImpl.{method.rpartition('.')[2]}"
    return None


def _no_call(caller: str, callee: str) -> str | None:
    """Why a step does not call the next one, or None if it does."""
    step = vllm_index.where(caller)
    if step.kind == "class":
        return f"{step.qualname} is a class; which of its methods is called here?".rstrip("?")
    if step.qualname == LOOKUP:
        return f"{LOOKUP} is called on the way and has returned before the next step; it calls no impl"
    if vllm_names.calls(caller, callee):
        target = vllm_index.where(callee)
        if target.kind == "method" and "Impl." in target.qualname and not callee.startswith(f"{IMPL}."):
            if target.path.endswith("attention/backend.py"):
                return (
                    f"{target.qualname} is only declared; with FLASH_ATTN the object is a FlashAttentionImpl"
                )
            return f"{target.qualname} belongs to another backend; FLASH_ATTN's impl is FlashAttentionImpl"
        return None
    said = f"{_short(caller)} ({step.path.rpartition('/')[2]}:{step.first}) does not call {_short(callee)}"
    if caller == f"{IMPL}.forward" and callee == THROUGH[WRITE][1]:
        return f"{said}: it has no slot mapping among its parameters and writes nothing"
    between = vllm_index.route(caller, callee)
    if between and len(between) > 2:
        missing = "a step" if len(between) == 3 else f"{len(between) - 2} steps"
        return f"{said} itself; {missing} between them {'is' if len(between) == 3 else 'are'} missing"
    return said


def _unfinished(last: str, method: str) -> str:
    step = vllm_index.where(last)
    if last == method:
        address = "slot mapping" if method == THROUGH[WRITE][0] else "block table"
        return f"it stops at {step.qualname}, which leaves the work to a function that it hands the {address}"
    return f"it ends at {step.qualname}, which is not the function that touches the cache"


def _wrong_argument(output: Output, key: str) -> str | None:
    method = THROUGH[WRITE if key == "slot_mapping" else READ][0]
    name, said = method.rpartition(".")[2], output["argument"]
    parameters = vllm_index.where(method).parameters
    right = ("slot_mapping", "layer_slot_mapping") if key == "slot_mapping" else ("attn_metadata",)
    if output["method"] not in ([], [name]):
        other = output["method"][0]
        return f"the one to look at is FlashAttentionImpl.{name}; {other} does the other half of the work"
    if said in right and output["field"] in (
        [],
        ["block_table"] if key == "block_table" else ["slot_mapping"],
    ):
        return None
    if said not in parameters:
        return f"FlashAttentionImpl.{name} has no parameter {said}; it has {', '.join(parameters[1:])}"
    if said == "kv_cache":
        return "kv_cache is the blocks themselves; it says nothing about whose they are"
    return (
        f"{said} is a parameter of FlashAttentionImpl.{name}, but does not hold the {key.replace('_', ' ')}"
    )


def _short(name: str) -> str:
    return name.partition(":")[2]


CHECK = Check(
    name="q6_paths",
    grade_id="q6-paths",
    parts=PARTS,
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
