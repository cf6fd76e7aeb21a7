"""Answers that several learners handed in with the same text.

Equal text is a reason to look and no proof: the names, the layout, the comments and the type hints are left out of the
comparison, so a short answer of an attentive class may well be equal. Short ones are therefore not compared.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from nbformat import NotebookNode

# Beyond what the cell was given out with. An answer of `merge_states` in lesson 1 has 80 nodes, a table of constants few.
MIN_NODES = 40
MIN_WORDS = 25  # of an explanation
MAX_CHARACTERS = 200_000  # a longer text is compared as it is, without being parsed

_SOLUTION = re.compile(r"^[^\n]*### BEGIN SOLUTION.*?### END SOLUTION[^\n]*\n?", re.DOTALL | re.MULTILINE)
_FREE = (ast.Constant, ast.expr_context, ast.Dict, ast.List, ast.Tuple)  # nodes that show nobody's hand


@dataclass(frozen=True)
class SameText:
    """Learners whose answers in the solution cell `cell` are equal; `exactly`, down to the names of variables."""

    cell: str
    learners: tuple[str, ...]
    exactly: bool


def groups(lesson: NotebookNode, texts: Mapping[str, Mapping[str, str]]) -> list[SameText]:
    """The groups of two and more learners with the same text, cell by cell in the lesson's order, large groups first.

    lesson: the instructor's notebook. texts: learner -> solution cell -> what they wrote there. The instructor's own text
    and the text that a cell was given out with make no group.
    """
    found = []
    for cell in lesson.cells:
        if not cell.metadata.get("nbgrader", {}).get("solution"):
            continue
        code = cell.cell_type == "code"
        given = _SOLUTION.sub("", cell.source)
        least = _size(given, code) + (MIN_NODES if code else MIN_WORDS)
        known = {_plain(cell.source, code), _plain(given, code)}
        by_text: dict[str, list[str]] = defaultdict(list)
        for learner, own in texts.items():
            text = own.get(cell["id"], "")
            plain = _plain(text, code)
            if text.strip() and plain not in known and _size(text, code) >= least:
                by_text[plain].append(learner)
        alike = sorted(
            (sorted(names) for names in by_text.values() if len(names) > 1), key=lambda n: (-len(n), n)
        )
        for names in alike:
            written = (texts[name][cell["id"]] for name in names)
            exactly = not code or len({_canonical(text, rename=False)[0] for text in written}) == 1
            found.append(SameText(cell["id"], tuple(names), exactly))
    return found


def _plain(text: str, code: bool) -> str:
    """The text without what a copyist changes first: layout, comments, names; of prose, case and punctuation."""
    if not code:
        return " ".join(re.findall(r"\w+", text.lower()))
    return _canonical(text, rename=True)[0]


def _size(text: str, code: bool) -> int:
    """How much of the writer's own there is: nodes of the syntax tree that are a choice, or words."""
    return _canonical(text, rename=False)[1] if code else len(re.findall(r"\w+", text))


def _canonical(text: str, *, rename: bool) -> tuple[str, int]:
    """A code cell's text as Python itself would lay it out, and how many nodes of its tree are a choice.

    What is no Python, or was made to break its reader, is compared word by word.
    """
    words = text.split()
    if len(text) > MAX_CHARACTERS:
        return " ".join(words), len(words)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
        _Bare().visit(tree)
        if rename:
            _Anonymous(_bound_names(tree)).visit(tree)
        return ast.unparse(tree), sum(not isinstance(node, _FREE) for node in ast.walk(tree))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return " ".join(words), len(words)


def _bound_names(tree: ast.Module) -> set[str]:
    """Names that the text itself gives a meaning: those of functions, parameters and variables, not of what it imports."""
    bound = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            bound.add(node.id)
    return bound


class _Bare(ast.NodeTransformer):
    """Takes docstrings and type hints out."""

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:] or [ast.Pass()]
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
        elif isinstance(node, ast.arg):
            node.annotation = None
        return node


class _Anonymous(ast.NodeTransformer):
    """Numbers the names given, in the order in which they appear."""

    def __init__(self, names: set[str]) -> None:
        self._names = names
        self._numbers: dict[str, str] = {}

    def _number(self, name: str) -> str:
        return self._numbers.setdefault(name, f"v{len(self._numbers)}") if name in self._names else name

    def visit_Name(self, node: ast.Name) -> ast.Name:
        node.id = self._number(node.id)
        return node

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.arg = self._number(node.arg)
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.name = self._number(node.name)
        return self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.name = self._number(node.name)
        return self.generic_visit(node)
