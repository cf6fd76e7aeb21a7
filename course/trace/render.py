"""A tree of calls for people: indented text, and HTML that folds (<details>) and reads aloud in the same words."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from html import escape

from course.trace.tree import Call, Trace

WIDTH = 110
OPEN_LEVELS = 3  # of the HTML tree, unfolded at first

# JupyterLab's own rules for HTML are more specific, hence the !important.
_STYLE = """<style>
.course-trace { font-family: var(--jp-code-font-family, monospace); font-size: 13px; line-height: 1.5; }
.course-trace ul { list-style: none !important; margin: 0 !important; padding-left: 1.5em !important; }
.course-trace > ul { padding-left: 0 !important; }
.course-trace summary { cursor: pointer; }
.course-trace .detail { padding-left: 1.2em; opacity: 0.85; }
.course-trace .leaf { padding-left: 1.2em; }
</style>"""


def text(trace: Trace) -> str:
    """One call on a line, indented below its caller, with its arguments and what it returned below it."""
    lines = [line for call, times in grouped(trace.roots) for line in _lines(call, times, "")]
    return "\n".join(lines) if lines else _nothing(trace)


def html(trace: Trace) -> str:
    """Nested lists; a call with calls below it is a <details>."""
    if not trace.roots:
        return f"<p>{escape(_nothing(trace))}</p>"
    tree = "".join(_item(call, times, 1) for call, times in grouped(trace.roots))
    return f'{_STYLE}<div class="course-trace" role="group" aria-label="Calls, outermost first"><ul>{tree}</ul></div>'


def grouped(calls: Sequence[Call]) -> Iterator[tuple[Call, int]]:
    """Calls in a row that are alike in everything, below them too, as one and how many."""
    times = 0
    for index, call in enumerate(calls):
        times += 1
        if index + 1 == len(calls) or calls[index + 1] != call:
            yield call, times
            times = 0


def _lines(call: Call, times: int, indent: str) -> Iterator[str]:
    yield indent + _headline(call, times)
    for detail in _details(call):
        yield from textwrap.wrap(
            detail,
            WIDTH,
            initial_indent=indent + "    ",
            subsequent_indent=indent + "      ",
            break_long_words=False,
        )
    for below, count in grouped(call.calls):
        yield from _lines(below, count, indent + "  ")


def _item(call: Call, times: int, level: int) -> str:
    headline = f"<strong>{escape(call.name)}</strong>{escape(_headline(call, times).removeprefix(call.name))}"
    details = "".join(f'<div class="detail">{escape(detail)}</div>' for detail in _details(call))
    if not call.calls:
        return f'<li><div class="leaf">{headline}{details}</div></li>'
    below = "".join(_item(each, count, level + 1) for each, count in grouped(call.calls))
    opened = " open" if level <= OPEN_LEVELS else ""
    # JupyterLab keeps its one-letter commands to itself while the summary has the focus.
    summary = f'<summary data-lm-suppress-shortcuts="true">{headline}</summary>'
    return f"<li><details{opened}>{summary}{details}<ul>{below}</ul></details></li>"


def _headline(call: Call, times: int) -> str:
    said = f"{call.name}  {call.file}:{call.line}"
    if call.called_at is not None:
        said += f", called at {call.called_at}"
    if call.kind != "call":
        said += f", {call.kind}" + (f" over grid {call.grid}" if call.grid else "")
    return said + (f"  ({times} times)" if times > 1 else "")


def _details(call: Call) -> Iterator[str]:
    """What went in, but for None and False, and what came out."""
    given = [
        f"{name}: {value}" for name, value in call.arguments.items() if value.text not in ("None", "False")
    ]
    if given:
        yield ", ".join(given)
    if call.raised is not None:
        yield f"raised {call.raised}"
    elif call.returned is not None and call.returned.text != "None":
        yield f"returned {call.returned}"


def _nothing(trace: Trace) -> str:
    return f"no function of {', '.join(trace.packages)} was called"
