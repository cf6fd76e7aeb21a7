"""Answers for the sample class, made from the misconceptions and right variants that the checks register.

A new misconception so gets a sample submission by itself. One learner takes as many mistakes as fit: at most one for
each part of an answer, and none that would hide another.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from autograder import registry
from autograder.class_collector import text_of_class
from autograder.registry import Check


@dataclass
class Sample:
    """A learner's answers, all parts of them by name, and what the checks should find: grade id -> misconception."""

    learner: str
    parts: dict[str, Any]
    mistakes: dict[str, str] = field(default_factory=dict)


def samples(grade_ids: list[str]) -> list[Sample]:
    """As many samples as it takes to hold every right variant, then as many as it takes to hold every misconception once."""
    checks = [registry.get(grade_id) for grade_id in grade_ids]
    solution = {name: part for check in checks for name, part in check.solution.items()}
    right: list[Sample] = []
    filled: list[set[str]] = []  # the parts that come from a variant
    for check in checks:
        for variant in check.right_variants:
            # Parts that belong together come from one variant, whichever check registers it.
            if any(
                all(sample.parts[name] is part for name, part in variant.parts.items()) for sample in right
            ):
                continue
            free = next((i for i, used in enumerate(filled) if not used & variant.parts.keys()), None)
            if free is None:
                right.append(Sample(f"right-{len(right) + 1:02}", dict(solution)))
                filled.append(set())
                free = len(right) - 1
            right[free].parts.update(variant.parts)
            filled[free] |= variant.parts.keys()
    mistaken: list[Sample] = []
    taken: list[set[str]] = []  # the parts that a sample's mistakes leave their mark on
    for check in checks:
        for misconception in check.misconceptions:
            if any(sample.mistakes.get(check.grade_id) == misconception.name for sample in mistaken):
                continue
            marks = set(check.parts)
            free = next((i for i, used in enumerate(taken) if not used & marks), None)
            if free is None:
                mistaken.append(Sample(f"mistake-{len(mistaken) + 1:02}", dict(solution)))
                taken.append(set())
                free = len(mistaken) - 1
            mistaken[free].parts.update(misconception.parts)
            taken[free] |= marks
            for other in checks:
                name = _mistake(other, misconception.parts)
                if name is not None:
                    mistaken[free].mistakes[other.grade_id] = name
    return right + mistaken


def _mistake(check: Check, parts: Mapping[str, Any]) -> str | None:
    """The misconception of `check` that consists of exactly these parts: checks may share one."""
    for known in check.misconceptions:
        if known.parts.keys() == parts.keys() and all(known.parts[name] is parts[name] for name in parts):
            return known.name
    return None


def text_of(name: str, value: Any) -> str:
    """Python text that gives `name` this value in a notebook: a function or class with all it needs, or a plain value."""
    if (text := text_of_class(value)) is not None:
        return text
    if not callable(value):
        return f"{name} = {value!r}"
    statements = _needed(value, set())
    own = _definition(value)
    return "\n\n\n".join([*statements, re.sub(r"^def \w+", f"def {name}", own, count=1)])


def _definition(function: Callable[..., Any]) -> str:
    """A function's text without its decorators."""
    source = textwrap.dedent(inspect.getsource(function))
    node = ast.parse(source).body[0]
    assert isinstance(node, ast.FunctionDef)
    return "\n".join(source.splitlines()[node.lineno - 1 : node.end_lineno])


def _needed(function: Any, seen: set[str]) -> list[str]:
    """Statements for the module-level names that a function uses: imports, constants, other functions."""
    statements = []
    namespace = function.__globals__
    names = {node.id for node in ast.walk(ast.parse(_definition(function))) if isinstance(node, ast.Name)}
    names &= set(function.__code__.co_names)  # a local variable may be called like something of the module
    for name in sorted(names & namespace.keys() - seen):
        value = namespace[name]
        if value is function:
            continue
        seen.add(name)
        if isinstance(value, ModuleType):
            statements.append(f"import {value.__name__}" + ("" if value.__name__ == name else f" as {name}"))
        elif inspect.isfunction(value) and value.__module__ == namespace["__name__"]:
            statements += [*_needed(value, seen), _definition(value)]
        elif inspect.isfunction(value) or inspect.isclass(value):
            statements.append(f"from {value.__module__} import {value.__name__} as {name}")
        elif isinstance(value, bool | int | str | tuple) and ast.literal_eval(repr(value)) == value:
            statements.append(f"{name} = {value!r}")
        else:
            raise ValueError(
                f"{function.__name__} uses {name}, which cannot be written into a notebook: {value!r}"
            )
    return statements
