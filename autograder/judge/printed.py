"""What learner's code prints, up to a limit."""

from __future__ import annotations

import os

from autograder.judge.proxy import clean


class Printed:
    """What was printed, up to `limit` bytes; `lost` counts the bytes after that."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept = bytearray()
        self.lost = 0

    def text(self, start: int = 0) -> str:
        """What was printed after the first `start` bytes."""
        return clean(self._kept[start:].decode(errors="replace"))

    def __len__(self) -> int:
        return len(self._kept)

    def forget(self, length: int, lost: int) -> None:
        """Back to where `length` bytes were kept and `lost` were not."""
        del self._kept[length:]
        self.lost = lost

    def take(self, pipe: int) -> bool:
        """Takes a piece of what stands in a pipe that does not block. False when there is none now, or never again."""
        try:
            piece = os.read(pipe, 1 << 18)
        except OSError:  # BlockingIOError too
            return False
        room = max(0, self._limit - len(self._kept))
        self._kept += piece[:room]
        self.lost += len(piece) - len(piece[:room])
        return bool(piece)

    def drain(self, pipe: int) -> None:
        """Takes what stands in the pipe, however fast it is filled again."""
        for _ in range(64):
            if not self.take(pipe):
                return
