"""Mask and tiles in JupyterLab."""

from __future__ import annotations

from typing import ClassVar

from course.widgets.mask_tiles.model import Masking, Setting
from course.widgets.view import View

__all__ = ["MaskTiles"]


class MaskTiles(View, folder="mask_tiles"):
    """Which keys each query sees, and which tiles of them a kernel skips, computes without a mask, or with one.

        MaskTiles(num_computed=10, num_new=6, block_q=4, tile_size=4, sliding_window=None, causal=True)

    One request of a step, at most 64 keys. predict: hide the tiles until their numbers have been predicted. `counts` has them.
    Raises ValueError for a setting that cannot be.
    """

    operations: ClassVar[frozenset[str]] = frozenset({"change", "load", "reset", "ask_first", "commit"})
    model: Masking

    def __init__(
        self,
        num_computed: int = 0,
        num_new: int = 12,
        *,
        block_q: int = 4,
        tile_size: int = 4,
        sliding_window: int | None = None,
        causal: bool = True,
        predict: bool = False,
    ) -> None:
        setting = Setting(num_computed, num_new, block_q, tile_size, sliding_window, causal)
        super().__init__(Masking(setting, predict=predict), title="Mask and tiles: what a kernel computes")

    @property
    def counts(self) -> dict[str, int]:
        """Tiles by kind and entries; empty while a prediction is waited for."""
        counts: dict[str, int] = self.state["counts"]
        return counts
