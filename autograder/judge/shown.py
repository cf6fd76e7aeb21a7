"""What a learner's cell shows, as a notebook would: text is printed, figures and other pictures are kept as PNG."""

from __future__ import annotations

import io
import sys
from typing import Any

MAX_IMAGES = 4  # of one cell
MAX_BYTES = 150_000  # of one image
_DPI = 100


class Shown:
    """The pictures of the cell that runs. Nothing is drawn unless it is `wanted`."""

    def __init__(self) -> None:
        self.wanted = False
        self._images: list[bytes] = []

    def display(self, *values: Any) -> None:
        """IPython's `display`."""
        for value in values:
            if not (self.wanted and self._draw(value)):
                print(value if type(value) is str else repr(value))

    def end_of_cell(self) -> None:
        """Shows and closes pyplot's open figures, as the inline backend does."""
        pyplot = sys.modules.get("matplotlib.pyplot")
        if pyplot is None:
            return
        for number in pyplot.get_fignums()[:MAX_IMAGES] if self.wanted else ():
            self._draw(pyplot.figure(number))
        pyplot.close("all")

    def take(self) -> dict[str, list[bytes]]:
        images, self._images = self._images, []
        return {"images": images}

    def _draw(self, value: Any) -> bool:
        """Keeps the picture of a value that is one. Returns whether there is one."""
        if len(self._images) >= MAX_IMAGES:
            return False
        figures = sys.modules.get("matplotlib.figure")
        try:
            if figures is not None and isinstance(value, figures.Figure):
                file = io.BytesIO()
                value.savefig(file, format="png", dpi=min(value.dpi, _DPI))
                data = file.getvalue()
            else:
                data = type(value)._repr_png_(value)
        except Exception:  # no picture, or one that cannot be drawn: its text is shown
            return False
        if type(data) is not bytes or len(data) > MAX_BYTES:
            return False
        if data not in self._images:  # a figure that is both the last value and still open
            self._images.append(data)
        return True
