"""What a recorded kernel touched, in JupyterLab."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import traitlets

from course.recording.model import Recording
from course.widgets.memory_view.model import MemoryPicture
from course.widgets.view import View

if TYPE_CHECKING:
    import torch

    from course.recording.access import Access

__all__ = ["MemoryView"]


class MemoryView(View, folder="memory_view"):
    """Step through what a Triton kernel loaded and stored in the interpreter.

        with course.record(key_cache=key_cache, ...) as recording:
            paged_attention(query, key_cache, ...)
        MemoryView(recording, block_table, seq_lens)

    access: the number of the access shown, -1 before the first, `len(recording)` for one that went out of bounds.
    chosen: what is stepped through: {"program": i, "tensor": i, "line": i, "marked": bool}, -1 for all.
    columns: the accesses (`Compact.packed`), sent to the page once.
    """

    columns = traitlets.Dict().tag(sync=True)
    access = traitlets.Int(-1).tag(sync=True)
    chosen = traitlets.Dict({"program": -1, "tensor": -1, "line": -1, "marked": False}).tag(sync=True)

    def __init__(
        self,
        recording: Recording,
        block_table: torch.Tensor | None = None,
        seq_lens: torch.Tensor | None = None,
        query_start_loc: torch.Tensor | None = None,
        *,
        caches: Iterable[str] = ("key_cache", "value_cache"),
    ) -> None:
        model = MemoryPicture(recording, block_table, seq_lens, query_start_loc, caches=caches)
        kernels = dict.fromkeys(launch.kernel for launch in recording.launches)
        title = f"What {' and '.join(kernels) or 'no kernel'} touched"
        super().__init__(model, title=title, columns=model.columns.packed())

    @property
    def selected(self) -> Access | None:
        """The access shown, of the recording."""
        recording = self.model.recording  # type: ignore[attr-defined]
        return recording[self.access] if 0 <= self.access < len(recording) else None
