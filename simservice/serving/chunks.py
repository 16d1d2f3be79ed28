"""The bytes of gRPC's streams in HTTP/1.1: chunks, the messages in them, fields. Knows no connection."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable

CHUNK_BYTES = 2**24  # HAProxy's are as large as its buffer at most
FRAME = 5  # the flag that tells of compression, and four bytes of length

_OURS = ("host", "content-type", "content-length", "te", "connection", "transfer-encoding")


class Broken(Exception):
    """What came is no such stream; there is nobody to tell but the other end of the socket."""


def whole(data: bytes) -> bytes | None:
    """The message, where the bytes are one chunk that holds one plain message: what nearly all are."""
    end = data.find(b"\r\n", 0, 12)
    begin = end + 2 + FRAME
    if end < 1 or len(data) < begin + 2 or data[end + 2] or not data.endswith(b"\r\n"):
        return None
    size = int.from_bytes(data[begin - 4 : begin], "big")
    if len(data) != begin + size + 2 or chunk_size(data[:end]) != size + FRAME:
        return None
    return data[begin:-2]


def chunk_size(digits: bytes | bytearray) -> int:
    """What a chunk's first line says; Broken where that is no size that HAProxy would send."""
    try:
        size = int(digits.partition(b";")[0], 16)
    except ValueError:
        size = -1
    if not 0 <= size <= CHUNK_BYTES:
        raise Broken(f"a chunk's size is {bytes(digits[:20])!r}")
    return size


def metadata(fields: Iterable[tuple[str, str]]) -> Iterable[tuple[str, str | bytes]]:
    """What gRPC calls metadata; binary fields that are no base64 are as good as absent."""
    for name, value in fields:
        if name in _OURS or (name.startswith("grpc-") and not name.endswith("-bin")):
            continue
        if not name.endswith("-bin"):
            yield name, value
            continue
        for part in value.split(","):
            try:
                yield name, base64.b64decode(part.strip() + "=" * (-len(part.strip()) % 4), validate=True)
            except binascii.Error:
                continue


def field(value: str | bytes) -> bytes:
    """Metadata as a field: text that is safe as it is, bytes (of names ending in -bin) in base64."""
    if isinstance(value, bytes):
        return base64.b64encode(value).rstrip(b"=")
    return "".join(letter for letter in value if " " <= letter <= "~").encode()
