"""The bytes of gRPC's streams in HTTP/1.1: chunks, the messages in them, fields. Knows no connection."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable

CHUNK_BYTES = 2**24  # HAProxy's are as large as its buffer at most
LINE_BYTES = 2**10  # of a chunk's size with its extensions
TRAILER_BYTES = 2**17  # of all fields behind a body
FRAME = 5  # the flag that tells of compression, and four bytes of length
JOINED_BYTES = 2**14  # below it, copying a message behind its header is cheaper than a write in parts

_OURS = ("host", "content-type", "content-length", "te", "connection", "transfer-encoding")
_SIZE, _DATA, _BEHIND, _TRAILERS, _OVER = range(5)


class Broken(Exception):
    """What came is no such stream; there is nobody to tell but the other end of the socket."""


class TooLarge(Exception):
    """A message has more bytes than one may have."""

    def __init__(self, size: int, most: int) -> None:
        super().__init__(f"a message has {size} bytes, {most} are the most that one may have")
        self.size = size


class Messages:
    """Messages out of a body in chunks, which may come cut anywhere."""

    def __init__(self, most_bytes: int) -> None:
        self.trailers = b""  # the fields behind the body, once it is over
        self._most_bytes = most_bytes
        self._state = _SIZE
        self._kept = bytearray()  # of a line, or of trailers, that is not all here
        self._left = 0  # bytes of the chunk that are to come
        self._frame = bytearray()  # of a message
        self._message: bytearray | None = None  # as long as it is to be
        self._filled = 0

    @property
    def between(self) -> bool:
        """Whether what comes next begins a chunk and a message."""
        return self._state == _SIZE and not self._kept and not self._frame

    @property
    def over(self) -> bool:
        """Whether the body has ended."""
        return self._state == _OVER

    def read(self, data: bytes) -> Iterable[tuple[int, bytearray]]:
        """(flag, message) of each that is whole with these bytes; raises Broken, and TooLarge by a message's length.

        A message is nobody else's, so whoever gets it may keep it, or parts of it, without a copy.
        """
        at, view = 0, memoryview(data)
        while at < len(data) and self._state != _OVER:
            if self._state == _DATA:
                part = view[at : at + self._left]
                at += len(part)
                self._left -= len(part)
                if not self._left:
                    self._state = _BEHIND
                yield from self._fill(part)
            elif self._state == _TRAILERS:
                self._kept += view[at:]
                at = len(data)
                self._end()
            else:
                at = self._line(data, at)

    def _line(self, data: bytes, at: int) -> int:
        """Reads on to the end of a line; where it goes on behind it."""
        end = data.find(b"\n", at) + 1
        line = data[at : end or len(data)]
        if self._kept or not end:
            self._kept += line
            if len(self._kept) > LINE_BYTES:
                raise Broken(f"a chunk begins with {bytes(self._kept[:20])!r}")
            if not end:
                return len(data)
            line = bytes(self._kept)
            self._kept.clear()
        if self._state == _BEHIND:
            if line != b"\r\n":
                raise Broken(f"behind a chunk stands {line[:20]!r}")
            self._state = _SIZE
        else:
            self._left = chunk_size(line)
            self._state = _DATA if self._left else _TRAILERS
        return end

    def _fill(self, part: memoryview) -> Iterable[tuple[int, bytearray]]:
        while len(part):
            if self._message is None:
                lacking = FRAME - len(self._frame)
                self._frame += part[:lacking]
                part = part[lacking:]
                if len(self._frame) < FRAME:
                    return
                size = int.from_bytes(self._frame[1:], "big")
                if size > self._most_bytes:
                    raise TooLarge(size, self._most_bytes)
                self._message, self._filled = bytearray(size), 0
            taken = part[: len(self._message) - self._filled]
            self._message[self._filled : self._filled + len(taken)] = taken
            self._filled += len(taken)
            part = part[len(taken) :]
            if self._filled == len(self._message):
                flag, message = self._frame[0], self._message
                self._frame.clear()
                self._message = None
                yield flag, message

    def _end(self) -> None:
        """Ends where all trailers are here."""
        if self._kept.startswith(b"\r\n"):
            self._state = _OVER
        elif (end := self._kept.find(b"\r\n\r\n")) >= 0:
            self.trailers = bytes(self._kept[:end])
            self._state = _OVER
        elif len(self._kept) > TRAILER_BYTES:
            raise Broken(f"its trailers have more than {TRAILER_BYTES} bytes")


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


def as_chunk(message: bytes, behind: bytes = b"") -> tuple[bytes, ...]:
    """A plain message, in two parts, as a chunk by itself: to be written one after another."""
    size = len(message) + len(behind)
    parts = b"%x\r\n\0" % (size + FRAME) + size.to_bytes(4, "big"), message, behind + b"\r\n"
    return (b"".join(parts),) if size < JOINED_BYTES else parts


def chunk_size(digits: bytes) -> int:
    """What a chunk's first line says; Broken where that is no size that HAProxy would send."""
    try:
        size = int(digits.partition(b";")[0], 16)
    except ValueError:
        size = -1
    if not 0 <= size <= CHUNK_BYTES:
        raise Broken(f"a chunk's size is {digits[:20]!r}")
    return size


def fields(lines: Iterable[bytes]) -> list[tuple[str, str]]:
    """Header fields, names in lower case."""
    return [
        (name.strip().lower().decode("latin-1"), value.strip().decode("latin-1"))
        for name, _, value in (line.partition(b":") for line in lines)
    ]


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
