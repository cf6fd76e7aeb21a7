"""A passage of vLLM's source in the notebook: line numbers, highlighting, marked lines.

show("backends/flash_attn.py", "FlashAttentionImpl.forward", mark=["block_table"])
show("v1/attention/selector.py", first=52, last=70)
"""

from collections.abc import Sequence
from dataclasses import dataclass

from course import vllm_source


@dataclass(frozen=True)
class Passage:
    """Lines of a file of vLLM. lines: the text; without the source it is empty and `missing` says why."""

    path: str
    qualname: str | None
    first: int
    last: int
    lines: tuple[str, ...]
    marked: frozenset[int] = frozenset()
    missing: str | None = None

    def __repr__(self) -> str:
        return "\n".join(f"{n:5d}  {line}" for n, line in enumerate(self.lines, self.first))


def show(
    path: str,
    qualname: str | None = None,
    first: int | None = None,
    last: int | None = None,
    mark: Sequence[int | str] = (),
) -> Passage:
    """A definition by name, or lines first to last of a file. `path` may be cut short.

    mark: lines to be pointed at, by number or by a text that stands in them.
    Raises ValueError for a path, name, range or mark that the file does not have.
    """
    full = vllm_source.find(path)
    lines = vllm_source.read(full).splitlines()
    if qualname is not None:
        first, last = vllm_source.locate(full, qualname)
    first, last = first or 1, last or len(lines)
    return Passage(full, qualname, first, last, tuple(lines[first - 1 : last]))
