"""Words and numbers as the report shows them, in a terminal, on the page and in the CSV."""

from __future__ import annotations

from collections.abc import Iterable

NOTHING = "–"  # there is no number yet, which is not 0


def printable(text: str) -> str:
    """One line that can be written to a terminal: what would move its cursor or change its colours is spelled out."""
    return "".join(c if c.isprintable() else " " if c in "\n\t" else ascii(c)[1:-1] for c in text)


def percent(share: float | None) -> str:
    return NOTHING if share is None else f"{100 * share:.0f} %"


def mean(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.1f}"


def points(value: float | None) -> str:
    return NOTHING if value is None else f"{value:g}"


def duration(seconds: float) -> str:
    """Seconds as a person says them: "0.4 s", "12 min", "3 h 20 min", "2 d 4 h"."""
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def count(number: int, word: str) -> str:
    """ "1 learner", "2 learners"."""
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def size(num_bytes: float) -> str:
    return f"{num_bytes / 2**30:.1f} GiB" if num_bytes >= 2**30 else f"{num_bytes / 2**20:.0f} MiB"


def some(names: Iterable[str], most: int) -> str:
    """Names in one line; those past `most` are counted."""
    listed = list(names)
    more = len(listed) - most
    return ", ".join(listed[:most]) + (f" and {more} more" if more > 0 else "")
