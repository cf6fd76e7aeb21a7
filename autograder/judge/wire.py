"""Plain data as bytes and back, for two processes that do not trust each other.

Nothing that arrives can run: there is no pickle and no name of a class to look up. What may travel is None, bool, int,
float, complex, str, bytes, list, tuple, dict, set, frozenset, torch.dtype and torch.Tensor, all of exactly these types.
Anything else goes as a *handle*: the name of its type, whether it can be called, and a number under which its owner keeps the object.

A value is one tag byte, then what the tag asks for; integers are little-endian. A frame is a value's bytes after their
length. `decode` and `Frames` raise `WireError`, and nothing else, for whatever bytes they are given.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

MAX_FRAME = 64 * 2**20  # bytes of one message
MAX_DEPTH = 32
MAX_NAME = 120  # characters of a handle's type name
MAX_INT = 128  # bytes of one integer
MAX_DIMS = 16
MAX_ITEMS = 50_000  # values in one message, a tensor counting as one: what reads them must not take forever

# The position is the code: new ones go to the end.
# fmt: off
_DTYPES: tuple[torch.dtype, ...] = (
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16, torch.bfloat16,
    torch.float32, torch.float64, torch.complex64, torch.complex128, torch.float8_e4m3fn, torch.float8_e5m2,
    torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz, torch.complex32,
)
# fmt: on
_DTYPE_CODES = {dtype: code for code, dtype in enumerate(_DTYPES)}
_DEVICES = ("cpu", "cuda")
_HEADER = struct.Struct("<I")


class WireError(ValueError):
    """A value that cannot be sent, or bytes that are not one."""


@dataclass(frozen=True)
class Handle:
    """An object that stays with its owner, who knows it by `number`."""

    type_name: str
    is_callable: bool
    number: int


# Sender: the handle for an object that is no plain data, or None to refuse it.
ToHandle = Callable[[Any], Handle | None]
# Receiver: what to put in a handle's place.
FromHandle = Callable[[Handle], Any]


def encode(value: Any, to_handle: ToHandle | None = None, *, limit: int = MAX_FRAME) -> bytes:
    """The bytes of `value`. Raises WireError for what is no plain data, is nested too deeply or exceeds `limit` bytes.

    Types are compared exactly: an instance of a subclass may behave in any way, so it is no plain data.
    """
    out = _Out(to_handle, limit)
    out.put(value, 0)
    return b"".join(out.parts)


def decode(data: bytes, from_handle: FromHandle | None = None) -> Any:
    """The value of these bytes. Raises WireError unless they are exactly one value."""
    reader = _In(data, from_handle)
    try:
        value = reader.get(0)
    except (OverflowError, MemoryError, RuntimeError, UnicodeDecodeError) as error:
        raise WireError(f"the value cannot be built: {type(error).__name__}") from error
    if reader.at != len(data):
        raise WireError(f"{len(data) - reader.at} bytes follow the value")
    return value


def frame(payload: bytes) -> bytes:
    """`payload` as it goes over the pipe: four bytes with its length, then itself."""
    return _HEADER.pack(len(payload)) + payload


class Frames:
    """Puts frames together from the pieces that a pipe delivers."""

    def __init__(self, limit: int = MAX_FRAME) -> None:
        self._limit = limit
        self._buffer = bytearray()

    @property
    def wanted(self) -> int:
        """How many bytes are certainly still missing from the frame that has begun."""
        if len(self._buffer) < _HEADER.size:
            return _HEADER.size - len(self._buffer)
        return _HEADER.size + int(_HEADER.unpack_from(self._buffer)[0]) - len(self._buffer)

    def feed(self, piece: bytes) -> list[bytes]:
        """Payloads that `piece` completes. Raises WireError as soon as a length exceeds the limit."""
        self._buffer += piece
        complete = []
        while len(self._buffer) >= _HEADER.size:
            length = int(_HEADER.unpack_from(self._buffer)[0])
            if length > self._limit:
                raise WireError(f"a message of {length} bytes is announced; at most {self._limit} are taken")
            end = _HEADER.size + length
            if len(self._buffer) < end:
                break
            complete.append(bytes(self._buffer[_HEADER.size : end]))
            del self._buffer[:end]
        return complete


class _Out:
    def __init__(self, to_handle: ToHandle | None, limit: int) -> None:
        self.parts: list[bytes] = []
        self._size = 0
        self._limit = limit
        self._items = 0
        self._to_handle = to_handle

    def _add(self, *parts: bytes) -> None:
        for part in parts:
            self._size += len(part)
        if self._size > self._limit:
            raise WireError(f"the value takes more than {self._limit} bytes")
        self.parts += parts

    def _sized(self, tag: bytes, data: bytes) -> None:
        self._add(tag, struct.pack("<I", len(data)), data)

    def put(self, value: Any, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise WireError(f"the value is nested more than {MAX_DEPTH} deep")
        self._items += 1
        if self._items > MAX_ITEMS:
            raise WireError(f"the value consists of more than {MAX_ITEMS} values")
        kind = type(value)
        if value is None:
            self._add(b"N")
        elif kind is bool:
            self._add(b"T" if value else b"F")
        elif kind is int and value.bit_length() < 8 * MAX_INT:
            self._sized(b"i", value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True))
        elif kind is float:
            self._add(b"f", struct.pack("<d", value))
        elif kind is complex:
            self._add(b"c", struct.pack("<dd", value.real, value.imag))
        elif kind is str:
            self._sized(b"s", value.encode("utf-8", "surrogatepass"))
        elif kind is bytes:
            self._sized(b"b", value)
        elif kind is list or kind is tuple:
            self._add(b"l" if kind is list else b"t", struct.pack("<I", len(value)))
            for item in value:
                self.put(item, depth + 1)
        elif kind is dict:
            self._add(b"d", struct.pack("<I", len(value)))
            for key, item in value.items():
                self.put(key, depth + 1)
                self.put(item, depth + 1)
        elif (kind is set or kind is frozenset) and all(map(_is_key, value)):
            self._add(b"e" if kind is set else b"E", struct.pack("<I", len(value)))
            for item in value:
                self.put(item, depth + 1)
        elif kind is torch.dtype and value in _DTYPE_CODES:
            self._add(b"y", bytes([_DTYPE_CODES[value]]))
        elif kind is torch.Tensor and self._is_plain(value):
            self._tensor(value)
        else:
            self._handle(value, kind)

    @staticmethod
    def _is_plain(tensor: torch.Tensor) -> bool:
        return (
            tensor.layout is torch.strided
            and tensor.dtype in _DTYPE_CODES
            and tensor.device.type in _DEVICES
            and tensor.ndim <= MAX_DIMS
        )

    def _tensor(self, tensor: torch.Tensor) -> None:
        size = tensor.numel() * tensor.element_size()
        if self._size + size > self._limit:
            raise WireError(f"a tensor of {size} bytes; at most {self._limit} are taken")
        plain = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous().reshape(-1)
        head = bytes([_DTYPE_CODES[tensor.dtype], _DEVICES.index(tensor.device.type), tensor.ndim])
        self._add(b"x", head, struct.pack(f"<{tensor.ndim}Q", *tensor.shape))
        self._add(plain.view(torch.uint8).numpy().tobytes() if size else b"")

    def _handle(self, value: Any, kind: type) -> None:
        handle = self._to_handle(value) if self._to_handle is not None else None
        if handle is None:
            raise WireError(f"a {kind.__name__} is no plain data")
        name = handle.type_name[:MAX_NAME].encode("utf-8", "replace")
        self._add(b"h", struct.pack("<?QI", handle.is_callable, handle.number, len(name)), name)


class _In:
    def __init__(self, data: bytes, from_handle: FromHandle | None) -> None:
        self._data = data
        self.at = 0
        self._items = 0
        self._from_handle = from_handle

    def _take(self, count: int) -> bytes:
        if count > len(self._data) - self.at:
            raise WireError(f"{count} bytes are announced, {len(self._data) - self.at} are left")
        self.at += count
        return self._data[self.at - count : self.at]

    def _unpack(self, form: str) -> tuple[Any, ...]:
        return struct.unpack(form, self._take(struct.calcsize(form)))

    def _count(self) -> int:
        """A number of items, each of which takes a byte at least."""
        count = int(self._unpack("<I")[0])
        if count > len(self._data) - self.at:
            raise WireError(f"{count} items are announced, {len(self._data) - self.at} bytes are left")
        return count

    def get(self, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise WireError(f"the value is nested more than {MAX_DEPTH} deep")
        self._items += 1
        if self._items > MAX_ITEMS:
            raise WireError(f"the value consists of more than {MAX_ITEMS} values")
        tag = self._take(1)
        if tag in _CONSTANTS:
            return _CONSTANTS[tag]
        if tag == b"i":
            count = self._count()
            if not 0 < count <= MAX_INT:
                raise WireError(f"an integer of {count} bytes; expected 1 to {MAX_INT}")
            return int.from_bytes(self._take(count), "little", signed=True)
        if tag == b"f":
            return self._unpack("<d")[0]
        if tag == b"c":
            return complex(*self._unpack("<dd"))
        if tag == b"s":
            return self._take(self._count()).decode("utf-8", "surrogatepass")
        if tag == b"b":
            return self._take(self._count())
        if tag == b"l":
            return [self.get(depth + 1) for _ in range(self._count())]
        if tag == b"t":
            return tuple([self.get(depth + 1) for _ in range(self._count())])
        if tag == b"d":
            return self._dict(depth)
        if tag == b"e":
            return self._set(depth)
        if tag == b"E":
            return frozenset(self._set(depth))
        if tag == b"y":
            return self._dtype(self._take(1)[0])
        if tag == b"x":
            return self._tensor()
        if tag == b"h":
            return self._handle()
        raise WireError(f"{tag!r} begins no value")

    def _dict(self, depth: int) -> dict[Any, Any]:
        built: dict[Any, Any] = {}
        for number in range(self._count()):
            key = self.get(depth + 1)
            if not _is_key(key):
                raise WireError(f"a {type(key).__name__} cannot be the key of a dict")
            built[key] = self.get(depth + 1)
            if len(built) != number + 1:
                raise WireError("a dict names a key twice")
        return built

    def _set(self, depth: int) -> set[Any]:
        built: set[Any] = set()
        for number in range(self._count()):
            item = self.get(depth + 1)
            if not _is_key(item):
                raise WireError(f"a {type(item).__name__} cannot be in a set")
            built.add(item)
            if len(built) != number + 1:
                raise WireError("a set names a value twice")
        return built

    @staticmethod
    def _dtype(code: int) -> torch.dtype:
        if code >= len(_DTYPES):
            raise WireError(f"there is no dtype number {code}")
        return _DTYPES[code]

    def _tensor(self) -> torch.Tensor:
        code, device, ndim = self._take(3)
        dtype = self._dtype(code)
        if device >= len(_DEVICES) or ndim > MAX_DIMS:
            raise WireError(f"a tensor on device number {device} with {ndim} dimensions")
        shape = self._unpack(f"<{ndim}Q")
        if math.prod(size or 1 for size in shape) > 2**48:
            raise WireError(f"a tensor of shape {list(shape)}")
        raw = self._take(math.prod(shape) * dtype.itemsize)
        if not raw:
            tensor = torch.empty(shape, dtype=dtype)
        else:
            plain = torch.frombuffer(bytearray(raw), dtype=torch.uint8)
            if dtype is torch.bool and bool((plain > 1).any()):
                raise WireError("a bool tensor holds bytes other than 0 and 1")
            tensor = plain.view(dtype).reshape(shape)
        if _DEVICES[device] == "cuda":
            if not torch.cuda.is_available():
                raise WireError("a tensor on a GPU, and there is none here")
            tensor = tensor.cuda()
        return tensor

    def _handle(self) -> Any:
        is_callable, number, length = self._take(1), *self._unpack("<QI")
        if is_callable not in (b"\0", b"\1") or length > 4 * MAX_NAME:
            raise WireError("a malformed handle")
        name = self._take(length).decode("utf-8")[:MAX_NAME]
        if self._from_handle is None:
            raise WireError("a handle where plain data was expected")
        return self._from_handle(Handle(name, is_callable == b"\1", number))


_CONSTANTS: dict[bytes, Any] = {b"N": None, b"T": True, b"F": False}


def _is_key(key: Any) -> bool:
    if type(key) is tuple:
        return all(_is_key(item) for item in key)
    return key is None or type(key) in (bool, int, float, complex, str, bytes, torch.dtype)
