"""Reading a plan's values: what is no plain number, text or dict is told where it stands and what was expected."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any


class PlanError(ValueError):
    """A plan that cannot be read or run. The text names the place in the plan and what was expected there."""

    def _render_traceback_(self) -> list[str]:
        """In a notebook the text alone: the mistake is in the plan, and no line of ours says where."""
        return [f"PlanError: {self}"]


def part(plan: Any, name: str) -> Any:
    """A part of the plan. Raises PlanError where it is missing."""
    if type(plan) is not dict:
        raise PlanError(f"the plan: expected a dict, got {kind(plan)}")
    if plan.get(name) is None:
        raise PlanError(f"{name} is missing from the plan")
    return plan[name]


def mapping(place: str, value: Any, needed: Collection[str] = (), *, closed: bool = False) -> dict[str, Any]:
    """A dict with texts for keys; needed: keys that must be there. closed: no other may be."""
    if type(value) is not dict or any(type(key) is not str for key in value):
        raise PlanError(f"{place}: expected a dict with names for keys, got {kind(value)}")
    for key in needed:
        if value.get(key) is None:
            raise PlanError(f'{place}["{key}"] is missing')
    if closed:
        only(place, value, needed)
    return value


def only(place: str, given: dict[str, Any], known: Collection[str]) -> None:
    """Raise PlanError for a key that is not known here."""
    for key in given:
        if key not in known:
            raise PlanError(f"{place}: nothing here is called {key[:40]!r}; expected {', '.join(known)}")


def text(place: str, value: Any) -> str:
    """A text that says something."""
    if type(value) is not str or not value.strip():
        raise PlanError(f"{place}: expected a name, got {kind(value)}")
    return value


def choice(place: str, value: Any, known: Collection[str]) -> str:
    """One of the known texts."""
    if type(value) is not str or value not in known:
        shown = repr(value[:40]) if type(value) is str else kind(value)
        raise PlanError(f"{place}: expected one of {', '.join(known)}, got {shown}")
    return value


def number(place: str, value: Any, low: float, high: float) -> float:
    """A number, an int or a float, in a range."""
    if type(value) not in (int, float) or not low <= value <= high:
        shown = f"{value!r:.40}" if type(value) in (int, float) else kind(value)
        raise PlanError(f"{place}: expected a number from {low:g} to {high:g}, got {shown}")
    return float(value)


def whole(place: str, value: Any, low: int, high: int) -> int:
    """A whole number in a range."""
    if type(value) is not int or not low <= value <= high:
        shown = f"{value!r:.40}" if type(value) in (int, float) else kind(value)
        raise PlanError(f"{place}: expected a whole number from {low} to {high}, got {shown}")
    return value


def kind(value: Any) -> str:
    """What a value is, in words: "a list", "an int"."""
    name = type(value).__name__
    return ("an " if name[:1].lower() in "aeiou" else "a ") + name
