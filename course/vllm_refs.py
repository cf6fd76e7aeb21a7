"""References to vLLM's source in text, and whether they still hold in the release.

A reference is a place and, in parentheses after it, what stands there:

    `vllm/v1/attention/selector.py:52` (`get_attn_backend`)
    `backends/flash_attn.py:667` (`FlashAttentionImpl.forward`)
    `vllm/v1/attention/backend.py:289` (`"head_size not supported"`)

The path may be cut short on the left as long as one kept file fits it. A name with a dot that the file defines must be
defined at that line (and end at the last line, where a range is given); other names, and any other text, must stand in
that line or range. A place may be a link to the release on GitHub: `[place](https://...#L52) (name)`. Places in our
own folders are not meant.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from course import vllm_source

OWN_FOLDERS = ("kernels/", "course/", "autograder/", "bench/", "tests/", "source/", "release/", "tools/")

# Between a place and its name: blanks and at most one line break, in a comment of a py:percent script too.
_GAP = r"[ \t]*(?:\n[ \t]*(?:\#[ \t]*)?)?"
_REFERENCE = re.compile(
    r"(?<![\w./-])(?P<path>[\w./-]*\w\.py):(?P<first>\d+)(?:[-–](?P<last>\d+))?`?"
    r"(?:\]\((?P<link>[^)\s]*)\))?"
    rf"(?:{_GAP}\(`(?P<name>[^`\n]+)`\))?"
)
_LINK = re.compile(r"/vllm/blob/v(?P<version>[^/]+)/(?P<path>[^#]+)#L(?P<first>\d+)(?:-L(?P<last>\d+))?$")


@dataclass(frozen=True)
class Reference:
    """A place in vLLM's source that a text names. `line`: where in the text, counted from 1."""

    line: int
    path: str
    first: int
    last: int | None
    name: str | None
    link: str | None

    def __str__(self) -> str:
        end = "" if self.last is None else f"-{self.last}"
        return f"{self.path}:{self.first}{end} ({self.name})"


def references(text: str) -> list[Reference]:
    """Every place of vLLM's source that the text names, with or without what stands there."""
    found = []
    for match in _REFERENCE.finditer(text):
        if match["path"].startswith(OWN_FOLDERS):
            continue
        last = int(match["last"]) if match["last"] else None
        line = text.count("\n", 0, match.start()) + 1
        found.append(Reference(line, match["path"], int(match["first"]), last, match["name"], match["link"]))
    return found


def objection(reference: Reference) -> str | None:
    """What is wrong with a reference, or None if it holds in the release.

    Raises course.vllm_source.SourceUnavailable when the release's source cannot be had.
    """
    if reference.name is None:
        return "says what stands there nowhere: write (`name`) after the place"
    try:
        path = vllm_source.find(reference.path)
    except ValueError as error:
        return str(error)
    if reference.link is not None and (wrong := _link_objection(reference, path)):
        return wrong
    lines = vllm_source.read(path).splitlines()
    last = reference.last or reference.first
    if not 1 <= reference.first <= last <= len(lines):
        return f"{path} has {len(lines)} lines"
    name = reference.name
    defined = vllm_source.definitions(path).get(name)
    if defined and defined[0] == reference.first and reference.last in (None, defined[1]):
        return None
    text = "\n".join(lines[reference.first - 1 : last])
    if not (defined and "." in name) and _stands_in(name, text):
        return None
    if defined:
        return f"{name} is at {path}:{defined[0]}-{defined[1]}"
    elsewhere = [number for number, line in enumerate(lines, 1) if _stands_in(name, line)]
    return f"{name} is not there; in {path} it stands in lines {elsewhere[:8] or 'none'}"


def texts(root: Path) -> Iterator[tuple[Path, int, str]]:
    """The course's texts that refer to vLLM, as (file, line of the text's start, text).

    Lessons and README whole; of the packages the docstrings.
    """
    for file in [*sorted(root.glob("source/*.py")), root / "README.md"]:
        if file.is_file():
            yield file, 1, file.read_text(encoding="utf-8")
    for package in ("autograder", "course", "kernels"):
        for file in sorted((root / package).rglob("*.py")):
            if file != Path(__file__):
                yield from ((file, line, text) for line, text in _docstrings(file))


def _docstrings(file: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                yield first.lineno, first.value.value


def _link_objection(reference: Reference, path: str) -> str | None:
    link = _LINK.search(reference.link or "")
    if link is None:
        return f"the link must end in /vllm/blob/v{vllm_source.VERSION}/{path}#L{reference.first}"
    last = int(link["last"]) if link["last"] else None
    if (
        link["version"] != vllm_source.VERSION
        or link["path"] != path
        or int(link["first"]) != reference.first
    ):
        return f"the link goes to {link[0]}"
    if last not in (None, reference.last):
        return f"the link ends at line {last}"
    return None


def _stands_in(name: str, text: str) -> bool:
    """Whether the text holds the name, not as part of a longer one."""
    before = r"(?<!\w)" if re.match(r"\w", name) else ""
    after = r"(?!\w)" if re.search(r"\w$", name) else ""
    return re.search(before + re.escape(name) + after, text) is not None
