"""What `import autograder` finds in a worker: the names that a lesson's cells use, without checks, hints and solutions."""

from typing import Any


class CheckFailed(AssertionError):
    """Never raised here: verdicts are reached on the judge's side."""


class UnknownCheck(ValueError):
    """Never raised here."""


def check(name: str, answer: Any, suite: str = "visible") -> None:
    """Does nothing: the judge checks."""


def hint(name: str) -> None:
    """Does nothing."""
