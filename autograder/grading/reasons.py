"""Reads from an autograded notebook why each exercise got its points."""

import re
from dataclasses import dataclass
from typing import Any

from nbformat import NotebookNode

from autograder import registry
from autograder.failure import UnknownCheck

ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")

# The sentence of a check's message that names a known mistake (autograder.verdict writes it).
NAMED = re.compile(r"(This is exactly|On this case, this is) what you get when .*?\.(?=\s|$)")

PASSED, PARTIAL, FAILED = "passed", "partial", "failed"
NOT_ANSWERED, BY_HAND, CRASHED, NOT_GRADED = "not answered", "by hand", "crashed", "not graded"


@dataclass(frozen=True)
class Reason:
    """status: one of the words above. text: a sentence or two, "" for full points. misconception: its name, or ""."""

    status: str
    text: str = ""
    misconception: str = ""


def reason_for(cells: list[NotebookNode], grade_id: str, points: float | None, max_points: float) -> Reason:
    """Why the graded cell called `grade_id` of an autograded notebook got `points` (None: nobody has given any yet)."""
    at = next((i for i, cell in enumerate(cells) if _meta(cell).get("grade_id") == grade_id), None)
    if at is None:
        return Reason(FAILED, "the cell is not in the notebook")
    cell = cells[at]
    if _meta(cell).get("solution") or _meta(cell).get("task"):
        if points is None:
            return Reason(BY_HAND, "needs manual grading")
        return Reason(BY_HAND, "graded by hand") if points else Reason(NOT_ANSWERED, "not answered")
    errors = [output for output in cell.get("outputs", []) if output["output_type"] == "error"]
    if errors:
        return _from_error(errors[-1], cells[:at], grade_id)
    if points is not None and points >= max_points:
        return Reason(PASSED)
    printed = "".join(
        o["text"] for o in cell.get("outputs", []) if o["output_type"] == "stream" and o["name"] == "stdout"
    )
    status = PARTIAL if points else FAILED
    return Reason(status, _sentences(printed), _misconception(grade_id, printed))


def _from_error(error: NotebookNode, before: list[NotebookNode], grade_id: str) -> Reason:
    name, value = error["ename"], ANSI.sub("", error["evalue"]).strip()
    if name == "KernelDied":
        return Reason(CRASHED, f"notebook crashed: {value[0].lower()}{value[1:]}")
    if name == "CellTimeoutError":
        return Reason(FAILED, "did not finish within the time limit of a cell")
    unanswered = re.search(r"is not answered yet|has no verdict yet", value)
    if name == "NotImplementedError" or (name == "CheckFailed" and unanswered):
        return Reason(NOT_ANSWERED, "not answered (stub)")
    if name == "CheckFailed":
        return Reason(FAILED, _sentences(value), _misconception(grade_id, value))
    cause = _earlier_error(before, value) if name == "NameError" else None
    return Reason(FAILED, _sentences(cause or f"{name}: {value}"))


def _earlier_error(before: list[NotebookNode], value: str) -> str | None:
    """A missing name usually has its cause in the cell that was to define it, and that one failed itself."""
    wanted = re.search(r"'(\w+)'", value)
    if wanted is None:
        return None
    defines = re.compile(rf"^(def|class) {wanted.group(1)}\b|^{wanted.group(1)}\b.*=", re.MULTILINE)
    for cell in reversed(before):
        for output in cell.get("outputs", []):
            if output["output_type"] == "error" and defines.search(cell["source"]):
                title = _meta(cell).get("grade_id") or cell.get("id", "")
                return f"{value}: its cell {title} failed with {output['ename']}: {ANSI.sub('', output['evalue'])}"
    return None


def _sentences(message: str) -> str:
    """The headline of a check's message and, where it is there, the sentence that names the mistake. One line."""
    lines = [line.strip() for line in ANSI.sub("", message).splitlines() if line.strip()]
    if not lines:
        return ""
    text = re.sub(r"^✗ [\w-]+: ", "", lines[0])
    named = NAMED.search(" ".join(lines[1:]))
    return f"{text} {named.group()}" if named else text


def _misconception(grade_id: str, message: str) -> str:
    """The name of the known mistake whose own words are in the message, or ""."""
    try:
        check = registry.get(grade_id)
    except UnknownCheck:
        return ""
    said = " ".join(message.split())
    found = [known for known in check.misconceptions if " ".join(known.message.split()) in said]
    return max(found, key=lambda known: len(known.message)).name if found else ""


def _meta(cell: NotebookNode) -> dict[str, Any]:
    meta = cell.get("metadata", {}).get("nbgrader", {})
    return meta if isinstance(meta, dict) else {}
