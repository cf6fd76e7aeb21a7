"""What torch does while kernels are recorded: which operations read a known tensor, and what they allocate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

if TYPE_CHECKING:
    from course.recording.memory import Memory

# These take an argument's shape and not its data.
_FACTORIES = ("aten.empty", "aten.new_", "aten.zeros", "aten.ones", "aten.full", "aten.rand")


@dataclass(frozen=True)
class TorchOp:
    """One operation of torch that wrote something.

    name: "aten.index.Tensor". reads: the recording's tensors whose memory its arguments share.
    shape: of its largest output. bytes: of that output. allocated: bytes of outputs that are new memory.
    launch: how many kernels had been launched before it.
    """

    name: str
    reads: tuple[str, ...]
    shape: tuple[int, ...]
    bytes: int
    allocated: int
    launch: int


class WatchTorch(TorchDispatchMode):
    """Writes operations down. `paused` while the interpreter runs: what it does is the kernel's work, not torch's."""

    def __init__(self, memory: Memory, num_launches: Callable[[], int]) -> None:
        super().__init__()
        self.ops: list[TorchOp] = []
        self.paused = False
        self._memory = memory
        self._num_launches = num_launches

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not self.paused:
            self._note(str(func), tree_leaves((args, kwargs)), tree_leaves(result))
        return result

    def _note(self, name: str, inputs: list[Any], outputs: list[Any]) -> None:
        tensors = [leaf for leaf in inputs if _has_memory(leaf)]
        results = [leaf for leaf in outputs if _has_memory(leaf)]
        before = {tensor.untyped_storage().data_ptr() for tensor in tensors}
        new = {
            result.untyped_storage().data_ptr(): result.untyped_storage().nbytes()
            for result in results
            if result.untyped_storage().data_ptr() not in before
        }
        # A view moves nothing. What writes into an argument (copy_, index_put_) ends in an underscore or takes `out`.
        writes = new or "_." in name or "out" in name.split(".")[-1]
        if not writes or not results:
            return
        largest = max(results, key=lambda result: result.numel() * result.element_size())
        reads: set[str] = set()
        if not name.startswith(_FACTORIES):
            reads = {known for tensor in tensors for known in self._memory.names_of(tensor)}
        self.ops.append(
            TorchOp(
                name,
                tuple(sorted(reads)),
                tuple(largest.shape),
                largest.numel() * largest.element_size(),
                sum(new.values()),
                self._num_launches(),
            )
        )


def _has_memory(leaf: Any) -> bool:
    return isinstance(leaf, torch.Tensor) and leaf.layout is torch.strided and leaf.device.type != "meta"
