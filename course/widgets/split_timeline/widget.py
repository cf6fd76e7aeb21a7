"""The timeline of split-KV schedules in JupyterLab."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from course.widgets.split_timeline.model import PRESETS, Splitting
from course.widgets.view import View

__all__ = ["SplitTimeline"]


class SplitTimeline(View, folder="split_timeline"):
    """Guess which way of cutting a decode batch ends first, then see every program on its multiprocessor.

        SplitTimeline([8192, 512, 64], num_kv_heads=2, num_sms=16, num_splits=16)

    The arguments are `Splitting`'s. Times are estimates, in tokens, and the view says so.
    """

    operations: ClassVar[frozenset[str]] = frozenset({"change", "lengths", "preset", "guess"})

    def __init__(
        self,
        seq_lens: Sequence[int] = PRESETS["ragged"],
        *,
        num_kv_heads: int = 2,
        num_sms: int = 16,
        num_splits: int = 16,
    ) -> None:
        splitting = Splitting(seq_lens, num_kv_heads=num_kv_heads, num_sms=num_sms, num_splits=num_splits)
        super().__init__(splitting, title="One batch, three schedules: who ends first?")
