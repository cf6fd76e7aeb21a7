"""Which tensor an address belongs to, and whether it may be touched.

While a recording runs, a kernel does not get the real addresses of its arguments. Each tensor gets a region of
addresses of its own, far from the others, with its first element in the middle: pointer arithmetic stays within
the region, so that an address says which argument it came from, even when the offset is off by a petabyte. (With real
addresses, a read past the end of K that falls into V looks like a read of V.) Just before memory is touched the
address is checked and translated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import torch

# Regions lie where no real address is. Their distance is no power of two, so that a wild offset, which is a multiple of
# a stride, does not lead from one tensor's first element to another's; it is a multiple of a page, so that an address
# is aligned as the real one is.
FIRST_REGION = 1 << 62
REGION_DISTANCE = (1 << 52) + 0x1357_9BDF_5000
MAX_TENSORS = 1000
_PAGE = 4096


class OutOfBounds(IndexError):
    """A kernel was about to touch memory that does not belong to the tensor whose pointer it used. Nothing was touched.

    Attributes: kernel (its name), program (x, y, z), kind ("load", "store" or "atomic"), line (a `Line`), tensor (its
    name, or None for an address that no known tensor has), offset (of the first such lane, in elements from the
    tensor's first; None with tensor None), num_lanes (how many lanes were out of bounds), recording (what was
    recorded until then, set when the recording ends).
    """

    def __init__(self, message: str, **details: object) -> None:
        super().__init__(message)
        self.kernel = details.get("kernel")
        self.program = details.get("program")
        self.kind = details.get("kind")
        self.line = details.get("line")
        self.tensor = details.get("tensor")
        self.offset = details.get("offset")
        self.num_lanes = details.get("num_lanes")
        self.recording: object = None


@dataclass(frozen=True)
class RecordedTensor:
    """A tensor as it was when it was recorded. Bytes count from its first element.

    name: as the caller named it, or after the kernel's parameter ("key_cache" for key_cache_ptr).
    shape, strides: in elements. dtype: "float32". itemsize: bytes an element.
    first_byte, end_byte: where its storage begins and ends; a view does not start where its storage does.
    named: whether the caller named it.
    """

    name: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str
    itemsize: int
    first_byte: int
    end_byte: int
    named: bool

    def indices(self, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where elements are: offsets [n] in elements from the first -> indices [n, ndim], inside [n] bool.

        `inside` is False for an element of the storage that is not part of this view; its indices mean nothing.
        Raises ValueError for a tensor whose elements overlap.
        """
        by_stride = sorted(
            (dim for dim, size in enumerate(self.shape) if size > 1 and self.strides[dim] > 0),
            key=lambda dim: -self.strides[dim],
        )
        extent = 1
        for dim in reversed(by_stride):
            if self.strides[dim] < extent:
                raise ValueError(
                    f"{self.name}: elements overlap (shape {self.shape}, strides {self.strides}), so that an offset "
                    "has no single index"
                )
            extent += (self.shape[dim] - 1) * self.strides[dim]
        rest = np.asarray(offsets, dtype=np.int64)
        indices = np.zeros((len(rest), len(self.shape)), dtype=np.int64)
        inside = np.full(len(rest), math.prod(self.shape) > 0)
        for dim in by_stride:
            indices[:, dim] = rest // self.strides[dim]
            rest = rest - indices[:, dim] * self.strides[dim]
            inside &= (indices[:, dim] >= 0) & (indices[:, dim] < self.shape[dim])
        return indices, inside & (rest == 0)


class _Region(NamedTuple):
    """A tensor's addresses: what a kernel gets, where the tensor is, and where the interpreter finds it now.

    base, own, here: each the address of its first element. own is on the tensor's device. here is on the host: for a
    tensor on a GPU, in the copy that the launch has, and None where it has none.
    first_byte, end_byte: as in `RecordedTensor`.
    """

    base: int
    own: int
    here: int | None
    first_byte: int
    end_byte: int


class Memory:
    """The tensors of one recording, their regions, and where they really are.

    `tensors` grows with each new argument; tensor i has region i. The tensors themselves are held until the
    recording ends: an address must not be used again for another tensor meanwhile.
    """

    def __init__(self, named: Mapping[str, torch.Tensor]) -> None:
        self.tensors: list[RecordedTensor] = []
        self._regions: list[_Region] = []
        self._by_identity: dict[tuple, int] = {}
        self._held: list[torch.Tensor] = []
        self._by_storage: dict[int, list[int]] = {}  # of the tensors that the caller named
        self._all_by_storage: dict[int, list[int]] = {}
        for name, tensor in named.items():
            index = self._add(name, tensor, named=True)
            if tensor.untyped_storage().nbytes():
                self._by_storage.setdefault(tensor.untyped_storage().data_ptr(), []).append(index)

    def argument(self, name: str, kernel: str, device: torch.Tensor, host: torch.Tensor) -> tuple[int, int]:
        """(tensor's index, address for the kernel) of an argument; `host` is what the interpreter will read."""
        index = self._named(device)
        if index is None:
            index = self._by_identity.get(_identity(device))
        if index is None:
            index = self._add(self._free_name(name, kernel), device, named=False)
        region = self._regions[index]
        # Where the tensor's first element is now: the argument may be another view of its storage, or a copy.
        here = host.untyped_storage().data_ptr() - region.first_byte
        self._regions[index] = region._replace(here=here)
        shift = host.data_ptr() - here if host.untyped_storage().nbytes() else 0
        return index, region.base + shift

    def end_launch(self) -> None:
        """The launch's copies of tensors that are on a GPU are gone."""
        for index, tensor in enumerate(self._held):
            if not _is_on_host(tensor):
                self._regions[index] = self._regions[index]._replace(here=None)

    @property
    def on_host(self) -> bool:
        """Whether every tensor is where the interpreter can find it without a copy."""
        return all(_is_on_host(tensor) for tensor in self._held)

    def names_of(self, tensor: torch.Tensor) -> tuple[str, ...]:
        """The tensors of this recording that share memory with this one."""
        indices = self._all_by_storage.get(tensor.untyped_storage().data_ptr(), [])
        if not indices or tensor.numel() == 0:
            return ()
        first, end = _span(tensor)
        overlapping = []
        for index in indices:
            held_first, held_end = _span(self._held[index])
            if self._held[index].numel() and first < held_end and held_first < end:
                overlapping.append(self.tensors[index].name)
        return tuple(overlapping)

    def locate(self, addresses: np.ndarray, itemsize: int) -> list[tuple[int, np.ndarray | None, np.ndarray]]:
        """Which bytes of which tensors: [(tensor, which of the addresses (None: all), bytes from its first element)].

        Tensor -1 is an address that no known tensor has. Bytes may be out of bounds: `outside` says where.
        """
        index = (int(addresses[0]) - FIRST_REGION + REGION_DISTANCE // 2) // REGION_DISTANCE
        if 0 <= index < len(self._regions):
            base, _, here, first_byte, end_byte = self._regions[index]
            relative = (addresses - np.uint64(base)).view(np.int64)
            if here is not None and relative.min() >= first_byte and relative.max() + itemsize <= end_byte:
                return [(index, None, relative)]
        return self._locate_each(addresses, itemsize)

    def _locate_each(
        self, addresses: np.ndarray, itemsize: int
    ) -> list[tuple[int, np.ndarray | None, np.ndarray]]:
        """As `locate`, when pointers of several tensors meet in one access, or some are wrong."""
        ids = (addresses - np.uint64(FIRST_REGION - REGION_DISTANCE // 2)) // np.uint64(REGION_DISTANCE)
        ids = np.where(ids < len(self._regions), ids.astype(np.int64), -1)
        # An address that is in no region is a tensor's own: passed as a number, or loaded from a table of pointers.
        missing = [number for number, region in enumerate(self._regions) if region.here is None]
        ids[np.isin(ids, missing)] = -1
        found = []
        for index in np.unique(ids).tolist():
            which = ids == index
            if index >= 0:
                relative = (addresses[which] - np.uint64(self._regions[index][0])).view(np.int64)
                found.append((index, which, relative))
                continue
            for own_index, (_, own, here, first_byte, end_byte) in enumerate(self._regions):
                distance = (addresses - np.array(own, dtype=np.int64).view(np.uint64)).view(np.int64)
                inside = which & (distance >= first_byte) & (distance + itemsize <= end_byte)
                if here is not None and inside.any():
                    found.append((own_index, inside, distance[inside]))
                    which = which & ~inside
            if which.any():
                found.append((-1, which, addresses[which].view(np.int64)))
        return found

    def outside(self, index: int, relative: np.ndarray, itemsize: int) -> np.ndarray:
        """Which of these bytes of tensor `index` must not be touched, bool."""
        if index < 0:
            return np.ones(len(relative), dtype=bool)
        _, _, _, first_byte, end_byte = self._regions[index]
        return (relative < first_byte) | (relative + itemsize > end_byte)

    def real(self, index: int, relative: np.ndarray) -> np.ndarray:
        """Addresses on the host, uint64, of bytes of tensor `index`, which `locate` found."""
        return (relative + self._regions[index].here).astype(np.uint64)

    def real_difference(self, index: int) -> np.ndarray:
        """What to add to an address in the region of tensor `index` to get the real one, uint64."""
        region = self._regions[index]
        assert region.here is not None  # `locate` says which tensors there are
        return np.array(region.here - region.base, dtype=np.int64).view(np.uint64)

    def _named(self, tensor: torch.Tensor) -> int | None:
        """The caller's tensor that this argument is, or is a view of."""
        storage = tensor.untyped_storage()
        indices = self._by_storage.get(storage.data_ptr(), []) if storage.nbytes() else []
        if len(indices) <= 1:
            return indices[0] if indices else None
        for index in indices:
            if _identity(self._held[index]) == _identity(tensor):
                return index
        # K and V as views of one tensor, say: the argument belongs to the view that its first element is in.
        address = tensor.data_ptr()
        covering = [i for i in indices if _span(self._held[i])[0] <= address < _span(self._held[i])[1]]
        starting = [i for i in covering if self._held[i].data_ptr() == address]
        if len(starting) == 1:
            return starting[0]
        return covering[0] if len(covering) == 1 else None

    def _free_name(self, name: str, kernel: str) -> str:
        taken = {tensor.name for tensor in self.tensors}
        wanted, count = name, 1
        while wanted in taken:
            count += 1
            wanted = f"{name} of {kernel}" if count == 2 else f"{name} of {kernel} ({count - 1})"
        return wanted

    def _add(self, name: str, tensor: torch.Tensor, *, named: bool) -> int:
        index = len(self.tensors)
        if index == MAX_TENSORS:
            raise RuntimeError(f"course.record: more than {MAX_TENSORS} tensors in one recording")
        storage = tensor.untyped_storage()
        itemsize = tensor.element_size()
        first_byte = -tensor.storage_offset() * itemsize
        end_byte = first_byte + storage.nbytes()
        self.tensors.append(
            RecordedTensor(
                name,
                tuple(tensor.shape),
                tuple(tensor.stride()),
                str(tensor.dtype).removeprefix("torch."),
                itemsize,
                first_byte,
                end_byte,
                named,
            )
        )
        base = FIRST_REGION + index * REGION_DISTANCE + tensor.data_ptr() % _PAGE
        own = storage.data_ptr() - first_byte
        here = own if _is_on_host(tensor) else None
        self._regions.append(_Region(base, own, here, first_byte, end_byte))
        self._held.append(tensor)
        if storage.nbytes():
            self._by_identity.setdefault(_identity(tensor), index)
            self._all_by_storage.setdefault(storage.data_ptr(), []).append(index)
        return index


def _is_on_host(tensor: torch.Tensor) -> bool:
    return tensor.device.type == "cpu"


def _identity(tensor: torch.Tensor) -> tuple:
    storage = tensor.untyped_storage().data_ptr()
    return storage, tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tuple(tensor.stride())


def _span(tensor: torch.Tensor) -> tuple[int, int]:
    """The addresses of a tensor's first byte and of the byte after its last."""
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), tensor.data_ptr() + (last + 1) * tensor.element_size()
