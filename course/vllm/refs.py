"""References to vLLM's source in text, and whether they still hold in the release.

A reference is a place and, in parentheses after it, what stands there:

    `vllm/v1/attention/selector.py:52` (`get_attn_backend`)
    `backends/flash_attn.py:667` (`FlashAttentionImpl.forward`)
    `vllm/v1/attention/backend.py:289` (`"head_size not supported"`)

The path may be cut short on the left as long as one kept file fits it. A name with a dot that the file defines must be
defined at that line (and end at the last line, where a range is given); other names, and any other text, must stand in
that line or range. A place may be a link to the release on GitHub: `[place](https://...#L52) (name)`. Places in our
own folders are not meant. The name may also come first, and in code a place may be its value or stand beside it:

    get_attn_backend (attention/selector.py:52)
    {"FlashAttentionImpl.forward": "backends/flash_attn.py:667"}
    ("backends/flash_attn.py:667", "FlashAttentionImpl.forward")

Besides, three kinds of names are held against the release wherever they stand: "module:qualname" of vLLM, environment
variables that begin with VLLM_, and, in lessons, flags of the command line.
"""

import ast
import io
import itertools
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from course.vllm import facts, source

OWN_FOLDERS = ("kernels/", "course/", "autograder/", "bench/", "tests/", "source/", "release/", "tools/")

# Between a place and its name: blanks and at most one line break, in a comment of a py:percent script too.
_GAP = r"[ \t]*(?:\n[ \t]*(?:\#[ \t]*)?)?"
_REFERENCE = re.compile(
    r"(?<![\w./-])(?P<path>[\w./-]*\w\.py):(?P<first>\d+)(?:[-–](?P<last>\d+))?`?"
    r"(?:\]\((?P<link>[^)\s]*)\))?"
    rf"(?:{_GAP}\(`(?P<name>[^`\n]+)`\))?"
)
# In plain text, "get_attn_backend (attention/selector.py:52)".
_BEFORE = re.compile(r"(?P<name>[A-Za-z_][\w.]*) \(`?$")
# In code, a string before a colon, or after a comma.
_KEY = re.compile(r"""(?P<quote>["'])(?P<name>[^"'\n]+)(?P=quote)\s*:\s*["']$""")
_BESIDE = re.compile(r"""["']\s*,\s*(?P<quote>["'])(?P<name>[^"'\n]+)(?P=quote)""")

_NAME = re.compile(r"(?<![\w./])vllm(?:\.\w+)+:[A-Za-z_]\w*(?:\.\w+)*")
_VARIABLE = re.compile(r"(?<!\w)VLLM_[A-Z0-9_]*[A-Z0-9]")
_FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*[a-z0-9]")
# What lessons say that the release no longer has.
GONE = {"VLLM_ATTENTION_BACKEND"}

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
        name = match["name"] or _name_beside(text, match.start(), match.end())
        found.append(Reference(line, match["path"], int(match["first"]), last, name, match["link"]))
    return found


def _name_beside(text: str, start: int, end: int) -> str | None:
    before, after = text[max(0, start - 200) : start], text[end : end + 200]
    match = _BEFORE.search(before) or _KEY.search(before) or _BESIDE.match(after)
    return match["name"] if match else None


def objection(reference: Reference) -> str | None:
    """What is wrong with a reference, or None if it holds in the release.

    Raises course.vllm.source.SourceUnavailable when the release's source cannot be had.
    """
    if reference.name is None:
        return "says what stands there nowhere: write (`name`) after the place"
    try:
        path = source.find(reference.path)
    except ValueError as error:
        return str(error)
    if reference.link is not None and (wrong := _link_objection(reference, path)):
        return wrong
    lines = source.read(path).splitlines()
    last = reference.last or reference.first
    if not 1 <= reference.first <= last <= len(lines):
        return f"{path} has {len(lines)} lines"
    name = reference.name
    defined = source.definitions(path).get(name)
    if defined and defined[0] == reference.first and reference.last in (None, defined[1]):
        return None
    text = "\n".join(lines[reference.first - 1 : last])
    if not (defined and "." in name) and _stands_in(name, text):
        return None
    if defined:
        return f"{name} is at {path}:{defined[0]}-{defined[1]}"
    elsewhere = [number for number, line in enumerate(lines, 1) if _stands_in(name, line)]
    return f"{name} is not there; in {path} it stands in lines {elsewhere[:8] or 'none'}"


def stale_names(text: str, *, flags: bool) -> list[tuple[int, str]]:
    """(line in the text, what is wrong) for each name, variable and, if asked for, flag that the release does not have.

    Raises course.vllm.source.SourceUnavailable when the release's source cannot be had.
    """
    wrong = []
    for pattern, exists in ((_NAME, _is_defined), (_VARIABLE, _is_variable), (_FLAG, _is_flag)):
        if pattern is _FLAG and not flags:
            continue
        for match in pattern.finditer(text):
            if exists(match[0]) == (match[0] in GONE):
                has = "has" if match[0] in GONE else "has no"
                line = text.count("\n", 0, match.start()) + 1
                wrong.append((line, f"vLLM {source.VERSION} {has} {match[0]}"))
    return wrong


def _is_defined(name: str) -> bool:
    module, _, qualname = name.partition(":")
    first, _, rest = qualname.partition(".")
    reached = facts.follow(f"{module}:{first}")
    if rest:
        owner, _, attribute = f"{reached}.{rest}".rpartition(".")
        return facts.member(owner, attribute) is not None
    return facts.definition(reached) is not None


def _is_variable(name: str) -> bool:
    # A variable that is gone must be in no file; one that is there is declared in this one.
    if name in GONE:
        return any(_stands_in(name, source.read(path)) for path in facts.paths_by_module().values())
    return _stands_in(name, source.read("vllm/envs.py"))


def _is_flag(name: str) -> bool:
    return f'"{name}"' in source.read("vllm/engine/arg_utils.py")


def texts(root: Path) -> Iterator[tuple[Path, int, str]]:
    """The course's texts that refer to vLLM, as (file, line of the text's start, text).

    Lessons and documents whole; of the packages the strings, docstrings among them, and the comments. Left out is
    autograder/misconceptions, which holds answers that are wrong.
    """
    whole = [*root.glob("source/*.py"), *root.glob("*.md"), *root.glob("docs/**/*.md")]
    for file in sorted(whole):
        yield file, 1, file.read_text(encoding="utf-8")
    for package in ("autograder", "bench", "course", "kernels"):
        for file in sorted((root / package).rglob("*.py")):
            if file != Path(__file__) and not file.is_relative_to(root / "autograder" / "misconceptions"):
                yield from ((file, line, text) for line, text in _strings_and_comments(file))


def _strings_and_comments(file: Path) -> Iterator[tuple[int, str]]:
    text = file.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
    comments = {
        token.start[0]: token.string
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT
    }
    for first in comments:
        if first - 1 not in comments:
            following = itertools.takewhile(comments.__contains__, itertools.count(first))
            yield first, "\n".join(comments[line] for line in following)


def _link_objection(reference: Reference, path: str) -> str | None:
    link = _LINK.search(reference.link or "")
    if link is None:
        return f"the link must end in /vllm/blob/v{source.VERSION}/{path}#L{reference.first}"
    last = int(link["last"]) if link["last"] else None
    if link["version"] != source.VERSION or link["path"] != path or int(link["first"]) != reference.first:
        return f"the link goes to {link[0]}"
    if last not in (None, reference.last):
        return f"the link ends at line {last}"
    return None


def _stands_in(name: str, text: str) -> bool:
    """Whether the text holds the name, not as part of a longer one."""
    before = r"(?<!\w)" if re.match(r"\w", name) else ""
    after = r"(?!\w)" if re.search(r"\w$", name) else ""
    return re.search(before + re.escape(name) + after, text) is not None
