"""Whether bytes from a worker are a picture that may be shown in feedback."""

from __future__ import annotations

import struct
import zlib
from typing import Any

MAX_BYTES = 150_000  # of one image
MAX_PIXELS, MAX_SIDE = 4_000_000, 4000
_MAGIC = b"\x89PNG\r\n\x1a\n"
_KEPT = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")


def checked(data: Any) -> bytes | None:
    """The picture with nothing but its header, colours and pixels; None where it is no PNG, or too large.

    Every other kind of chunk is left out: texts, profiles and animations are no part of what is seen.
    """
    if type(data) is not bytes or not data.startswith(_MAGIC) or len(data) > MAX_BYTES:
        return None
    kept, kinds, at = [_MAGIC], list[bytes](), len(_MAGIC)
    while at < len(data):
        if len(data) - at < 12:
            return None
        (length,) = struct.unpack_from(">I", data, at)
        end = at + 12 + length
        if end > len(data):
            return None
        chunk = data[at:end]
        kind, body = chunk[4:8], chunk[8:-4]
        if zlib.crc32(chunk[4:-4]) != struct.unpack(">I", chunk[-4:])[0]:
            return None
        if not kinds and not _is_header(kind, body):
            return None
        if kinds and kind == b"IHDR":
            return None
        if kind in _KEPT:
            kept.append(chunk)
            kinds.append(kind)
        at = end
        if kind == b"IEND":
            break
    if b"IDAT" not in kinds or kinds[-1] != b"IEND":
        return None
    return b"".join(kept)


def _is_header(kind: bytes, body: bytes) -> bool:
    if kind != b"IHDR" or len(body) != 13:
        return False
    width, height = struct.unpack_from(">II", body)
    return bool(width and height and width * height <= MAX_PIXELS and max(width, height) <= MAX_SIDE)
