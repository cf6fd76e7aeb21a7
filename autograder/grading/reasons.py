"""Why an exercise got its points, in a sentence or two for the table: from the journal's entry."""

from __future__ import annotations

import re
from dataclasses import dataclass

from autograder.grading.journal import Entry
from autograder.judge.judgement import INFRASTRUCTURE, MISSING, PASSED

# The statuses of the judge, and two for what it has no say in.
BY_HAND, REFUSED = "by hand", "refused"
NOT_GRADED = (INFRASTRUCTURE, REFUSED)
AGAIN = "run autograder grade again"

# The sentence of a check's message that names a known mistake (autograder.verdict writes it).
_NAMED = re.compile(r"(This is exactly|On this case, this is) what you get when .*?\.(?=\s|$)")


@dataclass(frozen=True)
class Reason:
    """status: one of the judge's, or of the words above. text: "" for full points. misconception: its name, or ""."""

    status: str
    text: str = ""
    misconception: str = ""


def reason_for(entry: Entry, test: str, sources: dict[str, str]) -> Reason:
    """Why a test got its points. sources: the text of each cell that ran, by name, in order."""
    result = entry.judgement.checks[test]
    if result.status == INFRASTRUCTURE:
        return Reason(INFRASTRUCTURE, f"not graded: {_sentences(result.message)}; {AGAIN}")
    if result.status == PASSED:
        return Reason(PASSED)
    if result.status == MISSING:
        return Reason(MISSING, _missing(entry, result.message, sources))
    return Reason(result.status, _sentences(result.message), result.misconception or "")


def by_hand(auto: float | None, manual: float | None) -> Reason:
    """For an exercise that a person grades. auto: 0 where nothing was written, None where it waits for the person."""
    if manual is not None:
        return Reason(BY_HAND, "graded by hand")
    return Reason(BY_HAND, "needs manual grading") if auto is None else Reason(MISSING, "not answered")


def _missing(entry: Entry, message: str, sources: dict[str, str]) -> str:
    """A missing name usually has its cause in the cell that was to define it, and that one failed itself."""
    wanted = re.search(r"^name '(\w+)' is not defined", message)
    if wanted is None:
        return "not answered (stub)"
    name = wanted.group(1)
    defines = re.compile(rf"^\s*(def|class) {name}\b|^{name}\b.*=", re.MULTILINE)
    for cell, source in sources.items():
        _, error = entry.judgement.cells.get(cell, ("", ""))
        if error and defines.search(source):
            return f"{message}: its cell {cell} failed with {_sentences(error)}"
    return message


def _sentences(message: str) -> str:
    """The headline of a message and, where it is there, the sentence that names the mistake. One line."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    if not lines:
        return ""
    text = re.sub(r"^✗ [\w-]+: ", "", lines[0])
    named = _NAMED.search(" ".join(lines[1:]))
    return f"{text} {named.group()}" if named else text
