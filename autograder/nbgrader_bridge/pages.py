"""Text of learners on nbgrader's pages: formatted, but without anything that acts.

formgrader runs with the instructor's rights. A script in an answer's Markdown could press its buttons and score itself.
"""

from __future__ import annotations

import re
from typing import Any

import bleach  # type: ignore[import-untyped]
from jinja2 import pass_context
from jinja2.runtime import Context
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

_TAGS = (
    "a abbr b blockquote br code dd del details div dl dt em h1 h2 h3 h4 h5 h6 hr i img kbd li ol p pre s samp small span "
    "strong sub summary sup table tbody td th thead tr u ul"
)
TAGS = frozenset(_TAGS.split())
# What Pygments gives to the words of a program. Any other class, or an id, could pass for a part of the page.
HIGHLIGHT = re.compile(r"highlight|[a-z]{1,2}[0-9a-z]?")
# Not to a file that was handed in beside the notebook: formgrader would open it as a page of its own.
LINK = re.compile(r"https?://|mailto:|#")
PICTURE = re.compile(r"data:image/(png|jpeg|gif|webp);base64,[A-Za-z0-9+/=\s]*")


@pass_context
def markdown2html(context: Context, source: str) -> str:
    """In place of nbconvert's filter of this name, through `HTMLExporter.filters`."""
    attachments = context.get("cell", {}).get("attachments", {})
    made = MarkdownWithMath(
        renderer=IPythonRenderer(escape=False, attachments=attachments, exclude_anchor_links=True)
    ).render(source)
    clean: str = bleach.clean(
        made, tags=TAGS, attributes=_may_stand, protocols=["http", "https", "mailto", "data"], strip=True
    )
    return clean


def _may_stand(tag: str, name: str, value: str) -> bool:
    if name == "class":
        return all(HIGHLIGHT.fullmatch(word) for word in value.split())
    if name == "src":
        return tag == "img" and bool(PICTURE.fullmatch(value))
    if name == "href":
        return tag == "a" and bool(LINK.match(value))
    return name in ("title", "alt", "align", "colspan", "rowspan", "open", "start", "width", "height")


def as_text(cell: Any) -> None:
    """Makes a raw cell, whose text nbconvert puts into the page as it is, a Markdown cell that shows it as a program."""
    cell.cell_type = "markdown"
    cell.source = "\n".join(f"    {line}" for line in cell.source.splitlines())
    cell.pop("attachments", None)
