"""Reading answers that are plain values: sets of words, dicts, lists, texts. What is none is told what was expected."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from typing import Any

from autograder.failure import AnswerProblem, Problem

# A learner's set may come as any of these: the order says nothing.
_COLLECTIONS = (set, frozenset, list, tuple)


def refuse(headline: str, detail: str = "") -> AnswerProblem:
    """To be raised where an answer cannot be looked at, or breaks a rule."""
    return AnswerProblem(Problem(headline, detail))


def kind(value: Any) -> str:
    """ "a list", "an int": what a value is, in words."""
    name = type(value).__name__
    return ("an " if name[:1].lower() in "aeiou" else "a ") + name


def is_blank(value: Any) -> bool:
    """Whether this is what the lesson's cell gives to begin with: nothing, or an empty text or container."""
    if value is None or value is ...:
        return True
    if type(value) is str:
        return not value.strip()
    if type(value) is dict:
        return all(map(is_blank, value.values()))
    return type(value) in _COLLECTIONS and all(map(is_blank, value))


def unanswered(parts: dict[str, Any]) -> str | None:
    """The sentence for an answer none of whose parts says anything; None for any other."""
    if not all(map(is_blank, parts.values())):
        return None
    names = list(parts)
    listed = names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
    return f"this is not answered yet: fill in {listed}"


def text(name: str, value: Any, expected: str) -> str:
    """A text without the blanks around it. Raises AnswerProblem for anything else, with what was `expected`."""
    if is_blank(value):
        raise refuse(f"{name} is empty; expected {expected}")
    # Exactly str: an object that equals everything, or a text that changes, is no answer.
    if type(value) is not str:
        raise refuse(f"{name}: expected {expected}, got {kind(value)}")
    return value.strip().strip("`").strip()


def words(name: str, value: Any, candidates: Collection[str]) -> frozenset[str]:
    """A set of candidates; a list or a tuple of them will do. Raises AnswerProblem for anything else."""
    expected = "a set of words from the list of candidates"
    if type(value) not in _COLLECTIONS:
        raise refuse(f"{name}: expected {expected}, got {kind(value)}")
    if is_blank(value):
        raise refuse(f"{name} is empty; expected {expected}")
    found = set()
    for item in value:
        if type(item) is not str:
            raise refuse(f"{name}: expected {expected}; in it is {kind(item)}")
        word = item.strip().removesuffix("()").replace(" ", "_").replace("-", "_").lower()
        if word not in candidates:
            near = difflib.get_close_matches(word, candidates, n=1)
            guess = f"; did you mean {near[0]}?" if near else ""
            raise refuse(f"{name}: {item.strip()[:40]!r} is not among the candidates{guess}")
        found.add(word)
    return frozenset(found)


def entries(name: str, value: Any, expected: str) -> dict[str, Any]:
    """A dict with texts for keys. Raises AnswerProblem for anything else, with what was `expected`."""
    if type(value) is not dict:
        raise refuse(f"{name}: expected {expected}, got {kind(value)}")
    if any(type(key) is not str for key in value):
        raise refuse(f"{name}: expected {expected}; one of its keys is no text")
    return {key.strip(): item for key, item in value.items()}


def listed(items: Collection[str]) -> str:
    """ "a", "a and b", "a, b and c": in alphabetical order."""
    *first, last = sorted(items)
    return f"{', '.join(first)} and {last}" if first else last
