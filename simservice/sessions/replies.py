"""Answers of a session as one blob: for each its number, its size and its bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

HEAD = struct.Struct("<QQ")


def pack_replies(replies: Iterable[tuple[int, bytes]]) -> bytes:
    """Numbers and answers."""
    return b"".join(HEAD.pack(sequence, len(raw)) + raw for sequence, raw in replies)


def unpack_replies(blob: bytes) -> Iterator[tuple[int, bytes]]:
    """What pack_replies was given."""
    place = 0
    while place < len(blob):
        sequence, size = HEAD.unpack_from(blob, place)
        place += HEAD.size + size
        yield sequence, blob[place - size : place]
