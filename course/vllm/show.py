"""A passage of vLLM 0.22.1's source: highlighted, with line numbers and marked lines, in the notebook and as text.

    show("backends/flash_attn.py", "FlashAttentionImpl.forward", mark=["block_table"])
    show("flash_attn.py", "FlashAttentionImpl.forward", last=690)
    show("v1/attention/selector.py", first=52, last=70, mark=[60])

Without the source the passage says why it is not there, and what the committed index knows of it.
"""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path, PurePosixPath

from course.vllm import index, source
from course.vllm.source import VERSION, SourceUnavailable

# Of the page's theme and of no other: JupyterLab, its HTML export and VS Code say on <body> which it is.
DARK = ('body[data-jp-theme-light="false"]', "body.vscode-dark")
# Text, background, background of a marked line, line numbers; then the kinds of words. Each is legible (WCAG AA, 4.5:1)
# on both backgrounds, which a test computes.
COLOURS = {
    "light": {
        "text": "#1f2328",
        "background": "#f6f8fa",
        "marked": "#fff3b8",
        "number": "#59636e",
        "keyword": "#a0111f",
        "string": "#0a3069",
        "comment": "#57606a",
        "literal": "#0550ae",
        "defined": "#6639ba",
        "decorator": "#8a4600",
    },
    "dark": {
        "text": "#e6edf3",
        "background": "#161b22",
        "marked": "#3d3210",
        "number": "#9ea7b3",
        "keyword": "#ff8d85",
        "string": "#a5d6ff",
        "comment": "#a3acb8",
        "literal": "#79c0ff",
        "defined": "#d6b4ff",
        "decorator": "#ffa657",
    },
}
Line = tuple[tuple[str, str], ...]
_WORDS = ("keyword", "string", "comment", "literal", "defined", "decorator")


@dataclass(frozen=True)
class Passage:
    """Lines `first` to `last` of a file of vLLM; an HTML figure in a notebook, numbered lines elsewhere.

    words: the text, for each line (kind or "", word) pairs. missing: why there is none, one sentence; first and last
    are 0 then when nobody knows them.
    """

    path: str
    qualname: str | None
    first: int
    last: int
    words: tuple[Line, ...] = ()
    marked: frozenset[int] = frozenset()
    missing: str | None = None

    @property
    def lines(self) -> tuple[str, ...]:
        """The text, line by line."""
        return tuple("".join(word for _, word in line) for line in self.words)

    @property
    def link(self) -> str:
        """The passage on GitHub, at the release."""
        lines = f"#L{self.first}-L{self.last}" if self.first else ""
        return f"https://github.com/vllm-project/vllm/blob/v{VERSION}/{self.path}{lines}"

    def __repr__(self) -> str:
        if self.missing is not None:
            return "\n".join([self._title(), self.missing, *self._facts()])
        width = len(str(self.last))
        numbered = (
            f"{'>' if number in self.marked else ' '} {number:{width}}  {line}".rstrip()
            for number, line in enumerate(self.lines, self.first)
        )
        return "\n".join([self._title(), *numbered])

    def _repr_html_(self) -> str:
        title = escape(self._title())
        place, _, rest = title.partition(" ")
        quiet = 'data-lm-suppress-shortcuts="true"'  # JupyterLab keeps its one-letter commands to itself
        caption = f'<figcaption><a {quiet} href="{escape(self.link)}">{place}</a> {rest}</figcaption>'
        if self.missing is not None:
            body = "".join(f"<p>{escape(line)}</p>" for line in [self.missing, *self._facts()])
        else:
            lines = "".join(self._html_lines())
            body = f'<pre tabindex="0" role="region" aria-label="{title}" {quiet}><code>{lines}</code></pre>'
        return f'{_style()}<figure class="vllm-passage">{caption}{body}</figure>'

    def _title(self) -> str:
        lines = f":{self.first}-{self.last}" if self.first else ""
        name = f"({self.qualname}) " if self.qualname else ""
        return f"{self.path}{lines} {name}of vLLM {VERSION}"

    def _facts(self) -> list[str]:
        """What the index knows of a definition whose text is not here."""
        found = [s for s in index.find(self.qualname or "") if s.path == self.path]
        said = []
        for symbol in found[:1]:
            said.append(f"{symbol.qualname} is a {symbol.kind}, lines {symbol.first} to {symbol.last}.")
            for what, names in (
                ("bases", symbol.bases),
                ("parameters", symbol.parameters),
                ("calls", symbol.calls),
            ):
                if names:
                    said.append(f"{what}: {', '.join(names)}")
        return [line for text in said for line in textwrap.wrap(text, 110, subsequent_indent="  ")]

    def _html_lines(self) -> Iterator[str]:
        width = len(str(self.last))
        for number, line in enumerate(self.words, self.first):
            text = "".join(
                f'<span class="{kind}">{escape(word)}</span>' if kind else escape(word) for kind, word in line
            )
            marked = number in self.marked
            text = f'<span class="number">{">" if marked else " "} {number:{width}}  </span>{text}'
            yield f"<mark>{text}</mark>\n" if marked else f"{text}\n"


def show(
    path: str,
    qualname: str | None = None,
    first: int | None = None,
    last: int | None = None,
    mark: Sequence[int | str] = (),
) -> Passage:
    """A definition by its name, or lines of a file, or both: a part of a definition.

    path: may be cut short on the left, as long as one file fits it, or one that has `qualname`.
    first, last: lines of the file, counted from 1; None is the start (decorators included) and end of the definition,
        or of the file.
    mark: lines to point at, by number or by a text that stands in them.

    Raises ValueError for a path, name, range or mark that the release does not have. Where the release's source
    cannot be had, the passage is returned without its lines.
    """
    full = _file(path, qualname)
    try:
        words = _words(_read(full))
    except SourceUnavailable as error:
        return _without_source(full, qualname, first, last, mark, str(error))
    start, end = _range(full, qualname) if qualname is not None else (1, len(words))
    first, last = start if first is None else first, end if last is None else last
    if not start <= first <= last <= end:
        of = f"{qualname}, lines {start} to {end}" if qualname else f"{full}, which has {end} lines"
        raise ValueError(f"first, last: expected lines of {of}, got {first} to {last}")
    passage = Passage(full, qualname, first, last, words[first - 1 : last])
    return replace(passage, marked=_marked(mark, passage.lines, first))


def _without_source(
    path: str, qualname: str | None, first: int | None, last: int | None, mark: Sequence[int | str], why: str
) -> Passage:
    """The passage as far as the index knows it; what cannot be known is not held against the lesson."""
    start, end = 0, 0
    if path in index.files():
        start, end = _range(path, qualname) if qualname is not None else (1, index.files()[path])
    first = start if first is None else first
    last = (end or first) if last is None else last
    numbers = frozenset(each for each in mark if isinstance(each, int))
    return Passage(path, qualname, first, last, (), numbers, why)


_missing: dict[Path, str] = {}


def _read(path: str) -> str:
    """The file's text. What could not be downloaded once is not tried again in this session."""
    folder = source.cache_folder()
    if folder in _missing and not (folder / path).is_file():
        raise SourceUnavailable(_missing[folder])
    try:
        return source.read(path)
    except SourceUnavailable as error:
        _missing[folder] = str(error)
        raise


def _file(path: str, qualname: str | None) -> str:
    parts = PurePosixPath(path).parts
    matches = [each for each in source.expected_files() if PurePosixPath(each).parts[-len(parts) :] == parts]
    if len(matches) > 1 and qualname is not None:
        having = {symbol.path for symbol in index.find(qualname) if symbol.qualname == qualname}
        matches = [each for each in matches if each in having] or matches
    return matches[0] if len(matches) == 1 else source.find(path)


def _range(path: str, qualname: str) -> tuple[int, int]:
    """The lines of a definition, with its decorators where the index has it."""
    for symbol in index.find(qualname):
        if symbol.path == path and symbol.qualname == qualname:
            return symbol.start, symbol.last
    if path in index.files():
        raise ValueError(f"qualname: {path} of vLLM {VERSION} defines no {qualname!r}")
    return source.locate(path, qualname)


def _marked(mark: Sequence[int | str], lines: tuple[str, ...], first: int) -> frozenset[int]:
    if isinstance(mark, int | str):
        mark = [mark]
    numbers: set[int] = set()
    for each in mark:
        if isinstance(each, str):
            found = {number for number, line in enumerate(lines, first) if each and each in line}
        else:
            found = {each} & set(range(first, first + len(lines)))
        if not found:
            raise ValueError(f"mark: expected lines of the passage, or text in them, got {each!r}")
        numbers |= found
    return frozenset(numbers)


@functools.lru_cache(maxsize=32)
def _words(text: str) -> tuple[Line, ...]:
    """The words of each line of a whole file: where a passage begins, a docstring may have begun above."""
    from pygments.lexers import PythonLexer
    from pygments.token import Token

    kinds = (
        (Token.Keyword, "keyword"),
        (Token.Operator.Word, "keyword"),
        (Token.Literal.String, "string"),
        (Token.Comment, "comment"),
        (Token.Literal.Number, "literal"),
        (Token.Name.Builtin, "literal"),
        (Token.Name.Function, "defined"),
        (Token.Name.Class, "defined"),
        (Token.Name.Decorator, "decorator"),
    )
    lines: list[list[tuple[str, str]]] = [[]]
    for token, word in PythonLexer(stripnl=False).get_tokens(text):
        kind = next((kind for above, kind in kinds if token in above), "")
        for number, part in enumerate(word.split("\n")):
            if number:
                lines.append([])
            if part:
                lines[-1].append((kind, part))
    return tuple(map(tuple, lines[: len(text.splitlines())]))


@functools.cache
def _style() -> str:
    """The figure's rules. JupyterLab's own for HTML are more specific, hence the !important."""

    def rules(theme: str, where: str) -> str:
        colour = COLOURS[theme]
        box = f"{where}.vllm-passage pre"
        return (
            f"{box} {{ color: {colour['text']}; background: {colour['background']} !important; }}\n"
            f"{box} code {{ color: {colour['text']} !important; background: none !important; }}\n"
            f"{box} mark {{ color: inherit; background: {colour['marked']}; }}\n"
            f"{box} .number {{ color: {colour['number']}; }}\n"
            + "".join(f"{box} .{kind} {{ color: {colour[kind]}; }}\n" for kind in _WORDS)
        )

    return (
        "<style>\n.vllm-passage { margin: 0.5em 0; }\n"
        ".vllm-passage figcaption a { text-decoration: underline !important; }\n"
        ".vllm-passage pre { max-height: 36em; overflow: auto; padding: 0.5em !important; border-radius: 4px; }\n"
        ".vllm-passage pre code { font-size: 13px; line-height: 1.45; }\n"
        ".vllm-passage mark { display: inline-block; min-width: 100%; }\n"
        ".vllm-passage .number { user-select: none; }\n"
        ".vllm-passage .comment { font-style: italic; }\n"
        + rules("light", "")
        + "".join(rules("dark", f"{where} ") for where in DARK)
        + "</style>"
    )
