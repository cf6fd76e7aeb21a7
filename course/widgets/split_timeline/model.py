"""Which way of cutting a batch ends first: guess, then see each program on its multiprocessor."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from course.deployments import Table
from course.widgets.split_timeline.schedules import BEGIN, NAMES, Program, Timeline, run, shares

__all__ = ["ESTIMATE", "OFFERED", "PRESETS", "Splitting"]

PRESETS = {
    "ragged": (8192, 1536, 1024, 512, 512, 256),
    "one long request": (16384,),
    "eight of one length": (2048,) * 8,
    "one long, seven short": (8192, *(300,) * 7),
}
OFFERED = {"num_kv_heads": (1, 2, 4), "num_sms": (4, 8, 16), "num_splits": (2, 4, 8, 16)}
MOST_REQUESTS, LONGEST = 8, 131072
ESTIMATE = (
    "An estimate, not a measurement. Time is counted in tokens (one key and one value of one kv head). A multiprocessor runs "
    f"one program at a time; to begin and end costs a program {BEGIN} tokens, and so does the launch of the merge."
)


class Splitting:
    """A decode batch, one query token a request, and what three schedules make of it.

    seq_lens: tokens of each request, at most 8. num_sms: multiprocessors. num_splits: those of the fixed schedule.
    Raises ValueError for other values than `change` and `lengths` take.
    """

    def __init__(
        self,
        seq_lens: Sequence[int] = PRESETS["ragged"],
        *,
        num_kv_heads: int = 2,
        num_sms: int = 16,
        num_splits: int = 16,
    ) -> None:
        self.seq_lens = _checked(seq_lens)
        self.sizes = {"num_kv_heads": num_kv_heads, "num_sms": num_sms, "num_splits": num_splits}
        for field, value in self.sizes.items():
            _check_size(field, value)
        self.guessed: str | None = None
        self.right = self.guesses = 0

    def change(self, field: str, value: int) -> str:
        """Sets num_kv_heads, num_sms or num_splits; the guess is open again."""
        _check_size(field, value)
        self.sizes[field] = value
        self.guessed = None
        return f"{field} is {value}. Which schedule ends first now?"

    def lengths(self, text: str) -> str:
        """Takes seq_lens as text, such as "8192, 512, 64"; the guess is open again."""
        if not isinstance(text, str):
            raise ValueError(f"seq_lens: expected a text such as '8192, 512', got {text!r}")
        words = text.replace(",", " ").replace("[", " ").replace("]", " ").split()
        try:
            numbers = [int(word) for word in words]
        except ValueError:
            raise ValueError(
                f"seq_lens: expected whole numbers with commas between them, got {text!r}"
            ) from None
        self.seq_lens = _checked(numbers)
        self.guessed = None
        return f"{_count(len(numbers), 'request')}, {sum(numbers):,} tokens. Which schedule ends first now?"

    def preset(self, name: str) -> str:
        """Takes one of PRESETS for a batch."""
        if name not in PRESETS:
            raise ValueError(f"name: expected one of {list(PRESETS)}, got {name!r}")
        return self.lengths(", ".join(map(str, PRESETS[name])))

    def guess(self, name: str) -> str:
        """Commits to the schedule that ends first, and shows all. A second guess at the same batch does not count."""
        if name not in NAMES:
            raise ValueError(f"name: expected one of {list(NAMES)}, got {name!r}")
        timelines = self.timelines()
        best = min(timeline.total for timeline in timelines.values())
        first = [one for one, timeline in timelines.items() if timeline.total == best]
        if self.guessed is None:
            self.guessed = name
            self.guesses += 1
            self.right += name in first
        verdict = "Right" if self.guessed in first else "Not this time"
        totals = "; ".join(f"{self.label(one)}: {timeline.total:,}" for one, timeline in timelines.items())
        return f"{verdict}: {' and '.join(map(self.label, first))} came first. In tokens, merge included: {totals}."

    def label(self, name: str) -> str:
        """A schedule's name as it is shown."""
        return f"{self.sizes['num_splits']} splits for every request" if name == "fixed" else NAMES[name]

    def timelines(self) -> dict[str, Timeline]:
        """The three schedules of the batch in hand."""
        heads, sms, splits = (self.sizes[field] for field in ("num_kv_heads", "num_sms", "num_splits"))
        return {name: run(shares(name, self.seq_lens, heads, sms, splits), sms) for name in NAMES}

    def to_dict(self) -> dict[str, Any]:
        """Before a guess nothing of the answer travels to the page."""
        return {
            "seq_lens": list(self.seq_lens),
            "sizes": dict(self.sizes),
            "offered": {field: list(values) for field, values in OFFERED.items()},
            "presets": list(PRESETS),
            "labels": {name: self.label(name) for name in NAMES},
            "guessed": self.guessed,
            "score": [self.right, self.guesses],
            "estimate": ESTIMATE,
            "results": [] if self.guessed is None else self._results(),
        }

    def _results(self) -> list[dict[str, Any]]:
        timelines = self.timelines()
        best = min(timeline.total for timeline in timelines.values())
        return [
            {
                "name": name,
                "first": timeline.total == best,
                "programs": len(timeline.programs),
                "makespan": timeline.makespan,
                "merge": timeline.merge,
                "total": timeline.total,
                "idle": round(timeline.idle, 4),
                "beginning": round(timeline.beginning, 4),
                "bars": [_bar(program) for program in timeline.programs],
            }
            for name, timeline in timelines.items()
        ]

    def describe(self) -> str:
        lens = ", ".join(f"{chr(65 + i)} {seq_len}" for i, seq_len in enumerate(self.seq_lens))
        head = f"A decode batch over {self.sizes['num_sms']} multiprocessors, {self.sizes['num_kv_heads']} kv heads: {lens}."
        if self.guessed is None:
            names = ", ".join(f"{name!r} ({self.label(name)})" for name in NAMES)
            return f'{head}\nWhich schedule ends first? view.do("guess", NAME) shows it: {names}.'
        return f"{head}\n{ESTIMATE}\n{self._table()!r}"

    def to_html(self) -> str:
        head = escape(self.describe().split("\n")[0])
        return (
            f"<p>{head} Which schedule ends first?</p><details><summary>After your guess</summary>"
            f"{self._table()._repr_html_()}<p>{escape(ESTIMATE)}</p></details>"
        )

    def _table(self) -> Table:
        rows = []
        for name, timeline in self.timelines().items():
            shares_of_time = [f"{100 * share:.0f} %" for share in (timeline.idle, timeline.beginning)]
            row = [self.label(name), str(len(timeline.programs)), f"{timeline.makespan:,}", *shares_of_time]
            rows.append([*row, f"{timeline.merge:,}", f"{timeline.total:,}"])
        return Table("Three schedules of one batch", HEADER, rows)


HEADER = ["schedule", "programs", "last ends", "idle", "begin and end", "merge", "in all"]


def _bar(program: Program) -> list[int]:
    """[sm, request, kv head, split, first token, end, start, stop]"""
    share = program.share
    return [
        program.sm,
        share.request,
        share.kv_head,
        share.split,
        share.first,
        share.end,
        program.start,
        program.stop,
    ]


def _checked(seq_lens: Sequence[int]) -> tuple[int, ...]:
    lens = tuple(seq_lens)
    if not 1 <= len(lens) <= MOST_REQUESTS:
        raise ValueError(f"seq_lens: expected 1 to {MOST_REQUESTS} requests, got {len(lens)}")
    for seq_len in lens:
        if type(seq_len) is not int or not 0 <= seq_len <= LONGEST:
            raise ValueError(f"seq_lens: expected whole numbers from 0 to {LONGEST}, got {seq_len!r}")
    return lens


def _check_size(field: str, value: int) -> None:
    if field not in OFFERED:
        raise ValueError(f"field: expected one of {list(OFFERED)}, got {field!r}")
    if type(value) is not int or value not in OFFERED[field]:
        raise ValueError(f"{field}: expected one of {list(OFFERED[field])}, got {value!r}")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
