"""What travels between judge and worker: it comes back as it was, and no bytes whatever get past the decoder."""

from __future__ import annotations

import math
import struct
from contextlib import suppress
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autograder.judge import wire
from autograder.judge.wire import Frames, Handle, WireError, decode, encode, frame

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**200), 2**200),
    st.floats(),
    st.complex_numbers(),
    st.text(st.characters()),
    st.binary(),
    st.sampled_from([torch.float16, torch.bfloat16, torch.int64]),
)
KEYS = st.one_of(st.integers(), st.text(), st.booleans(), st.none(), st.tuples(st.integers(), st.text()))


@st.composite
def tensors(draw: Any) -> torch.Tensor:
    """Any bits in any shape: NaN with a payload, infinities and denormals among them."""
    dtype = draw(st.sampled_from([d for d in wire._DTYPES if d is not torch.bool] + [torch.bool]))
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    size = math.prod(shape) * dtype.itemsize
    raw = draw(st.binary(min_size=size, max_size=size))
    if dtype is torch.bool:
        raw = bytes(byte & 1 for byte in raw)
    if not raw:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8).view(dtype).reshape(shape)


VALUES = st.recursive(
    SCALARS | tensors(),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(KEYS, inner, max_size=4),
        st.sets(KEYS, max_size=4),
        st.frozensets(KEYS, max_size=4),
    ),
    max_leaves=12,
)


def same(a: Any, b: Any) -> bool:
    """Equal in type and in every bit."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        bits = [t.contiguous().reshape(-1).view(torch.uint8) if t.numel() else t for t in (a, b)]
        return a.shape == b.shape and a.dtype == b.dtype and (not a.numel() or torch.equal(*bits))
    if isinstance(a, float):
        return struct.pack("<d", a) == struct.pack("<d", b)
    if isinstance(a, complex):
        return same(a.real, b.real) and same(a.imag, b.imag)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return same(list(a.items()), list(b.items()))
    if isinstance(a, set | frozenset):
        return same(sorted(a, key=encode), sorted(b, key=encode))
    return bool(a == b)


@given(VALUES)
def test_what_is_sent_arrives_bit_by_bit(value: Any) -> None:
    assert same(decode(encode(value)), value)


@given(st.binary(max_size=200))
@settings(max_examples=500)
def test_random_bytes_are_a_value_or_a_wire_error(data: bytes) -> None:
    try:
        value = decode(data, lambda handle: handle)
    except WireError:
        return
    assert same(decode(encode(value, lambda handle: handle), lambda handle: handle), value)


@given(VALUES, st.data())
@settings(max_examples=300)
def test_a_damaged_value_is_a_value_or_a_wire_error(value: Any, data: st.DataObject) -> None:
    bytes_ = bytearray(encode(value))
    for _ in range(data.draw(st.integers(1, 4))):
        bytes_[data.draw(st.integers(0, len(bytes_) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(bytes_)))
    for damaged in (bytes(bytes_), bytes(bytes_[:cut])):
        with suppress(WireError):
            decode(damaged, lambda handle: handle)


@given(st.lists(st.binary(max_size=50), max_size=6), st.data())
def test_frames_come_together_from_any_pieces(payloads: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(map(frame, payloads))
    frames, got = Frames(), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        got += frames.feed(stream[:size])
        stream = stream[size:]
    assert got == payloads


def test_a_frame_over_the_limit_is_refused_before_it_is_read() -> None:
    with pytest.raises(WireError, match="a message of 11 bytes is announced; at most 10"):
        Frames(limit=10).feed(frame(b"x" * 11)[:4])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "1 bytes are announced, 0 are left"),
        (b"?", "begins no value"),
        (b"NN", "1 bytes follow the value"),
        (b"l\xff\xff\xff\xff", "items are announced"),
        (b"s\x01\0\0\0\xff", "cannot be built"),
        (b"i\0\0\0\0", "an integer of 0 bytes"),
        (b"l\1\0\0\0" * 40 + b"N", "more than 32 deep"),
        (b"d\2\0\0\0sN", "4 bytes are announced"),
        (b"d\1\0\0\0l\0\0\0\0N", "a list cannot be the key of a dict"),
        (b"d\2\0\0\0NNNN", "names a key twice"),
        (b"e\1\0\0\0l\0\0\0\0", "a list cannot be in a set"),
        (b"E\2\0\0\0NN", "a set names a value twice"),
        (b"y\xff", "no dtype number 255"),
        (b"x\x08\0\1" + struct.pack("<Q", 2**62), "a tensor of shape"),
        (b"x\x08\0\2" + struct.pack("<QQ", 2**40, 0), None),
        (b"x\x08\7\0", "device number 7"),
        (b"x\0\0\1" + struct.pack("<Q", 1) + b"\2", "other than 0 and 1"),
        (b"h\1" + b"\0" * 8 + b"\0\0\0\0", "a handle where plain data"),
    ],
)
def test_every_malformed_value_has_its_sentence(data: bytes, message: str | None) -> None:
    if message is None:
        assert tuple(decode(data).shape) == (2**40, 0)
        return
    with pytest.raises(WireError, match=message):
        decode(data)


class AlwaysEqual(str):
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = str.__hash__


class Lazy(torch.Tensor):
    pass


@pytest.mark.parametrize(
    "value",
    [
        AlwaysEqual("x"),
        object(),
        len,
        {AlwaysEqual("x")},
        torch.zeros(2).as_subclass(Lazy),
        torch.nn.Parameter(torch.zeros(2)),
        torch.empty(2, device="meta"),
        torch.eye(2).to_sparse(),
        torch.Size([1]),
        1 << 5000,
    ],
)
def test_only_exact_types_are_plain_data(value: Any) -> None:
    with pytest.raises(WireError, match="is no plain data"):
        encode(value)
    kind = type(value).__name__
    got = decode(encode([value], lambda v: Handle(type(v).__name__, callable(v), 7)), lambda handle: handle)
    assert got == [Handle(kind, callable(value), 7)]


def test_a_list_that_holds_itself_and_a_value_too_large_are_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(WireError, match="more than 32 deep"):
        encode(loop)
    with pytest.raises(WireError, match="more than 50000 values"):
        encode([0] * 50_000)
    with pytest.raises(WireError, match="more than 50000 values"):
        decode(b"l" + struct.pack("<I", 50_000) + b"N" * 50_000)
    with pytest.raises(WireError, match="a tensor of 4000 bytes"):
        encode(torch.zeros(1000), limit=1000)
    with pytest.raises(WireError, match="more than 1000 bytes"):
        encode("x" * 2000, limit=1000)


def test_views_transposes_and_gradients_arrive_as_their_values() -> None:
    base = torch.arange(12.0).reshape(3, 4).requires_grad_()
    assert torch.equal(decode(encode(base.T)), base.detach().T)
    assert torch.equal(decode(encode(base[:, ::2])), base.detach()[:, ::2])
    assert decode(encode(torch.tensor([1 + 2j]).conj())).tolist() == [1 - 2j]
    got = decode(encode(torch.tensor(2.5)))
    got += 1  # what arrives is the receiver's own and may be written to
    assert got.item() == 3.5
