"""How far a grading is, on standard error: a bar in a terminal, a line for each submission elsewhere."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def watched(items: Iterable[Item], total: int, doing: str) -> Iterator[Item]:
    """The items as they come. doing: what is done to submissions, such as "judged"."""
    if sys.stderr.isatty():
        width = min(shutil.get_terminal_size((80, 24)).columns, 100)
        yield from tqdm(items, total=total, desc=doing, unit="submission", ncols=width)
        return
    for number, item in enumerate(items, start=1):
        print(f"{doing} {number} of {total}", file=sys.stderr, flush=True)
        yield item
