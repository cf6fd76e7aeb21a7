"""The block table in JupyterLab: a pool to work with, and somebody's own tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import traitlets

from course.widgets.block_table.model import Explorer
from course.widgets.block_table.tensors import Metadata
from course.widgets.view import View

if TYPE_CHECKING:
    import torch

    from kernels.block_pool import BlockPool

__all__ = ["BlockTableExplorer", "TensorView", "show"]


class BlockTableExplorer(View, folder="block_table"):
    """Work a block pool by hand: admit, append, fork, free, share a prefix, evict, preempt; predict the next slots.

        BlockTableExplorer(kernels.BlockPool(16, 4))

    pool: the pool itself, which you may go on using; `refresh()` shows what you did to it. Without one, a small example.
    selected: the physical block whose slots are shown, or -1.
    """

    selected = traitlets.Int(-1).tag(sync=True)
    operations: ClassVar[frozenset[str]] = frozenset(
        {"allocate", "append", "predict", "fork", "free", "preempt", "resume", "evict", "go"}
    )
    model: Explorer

    def __init__(self, pool: BlockPool | None = None) -> None:
        super().__init__(Explorer(pool), title="Block table: which block is whose")

    @property
    def pool(self) -> BlockPool:
        return self.model.pool


class TensorView(View, folder="block_table"):
    """A step's metadata as a picture, with what breaks the contract. `breaches` lists it; `course.show` makes one."""

    selected = traitlets.Int(-1).tag(sync=True)
    model: Metadata

    def __init__(self, metadata: Metadata) -> None:
        super().__init__(metadata, title="Your metadata: block table, slots and lengths")

    @property
    def breaches(self) -> list[str]:
        return [f"{breach.where}: {breach.name}. {breach.text}" for breach in self.model.breaches]


def show(
    block_table: torch.Tensor,
    slot_mapping: torch.Tensor | None = None,
    seq_lens: torch.Tensor | None = None,
    query_start_loc: torch.Tensor | None = None,
    *,
    block_size: int,
    num_blocks: int | None = None,
) -> TensorView:
    """Your own metadata of one step as a picture, with every breach of the contract marked and named.

        course.show(**build_metadata(...), block_size=4, num_blocks=8)

    block_table: [num_reqs, max_num_blocks] int32; entries past a request's end are greyed out and never judged.
    slot_mapping: [num_tokens] int64, or None. seq_lens: [num_reqs] int32; without it, every entry of the table is taken
    for a request's own. query_start_loc: [num_reqs + 1] int32; may be left out where each request has one new token.
    num_blocks: of the cache; without it, blocks are not held against its end. Tensors may lie on a GPU.
    Raises ValueError for a bad block_size or num_blocks only: wrong tensors are what it is for.
    """
    if seq_lens is None:
        import torch

        table = torch.as_tensor(block_table)
        width = table.shape[1] if table.dim() == 2 else 0
        seq_lens = torch.full((table.shape[0],), width * block_size, dtype=torch.int32)
    return TensorView(
        Metadata(
            block_table, slot_mapping, seq_lens, query_start_loc, block_size=block_size, num_blocks=num_blocks
        )
    )
