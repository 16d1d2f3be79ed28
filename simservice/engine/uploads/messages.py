"""What foreign libraries say, and frames of numbers and bytes between this process and the one that inspects."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from typing import Any

MOST_BYTES = 2**30


def first_line(error: Exception) -> str:
    """What a library said, as far as it fits into a message."""
    words = "".join(letter if letter.isprintable() else " " for letter in str(error))
    return " ".join(words.split())[:240]


def send(peer: socket.socket, head: dict[str, Any], blobs: Sequence[bytes] = ()) -> None:
    """One frame: a JSON head that also tells the blobs' lengths, then the blobs."""
    told = json.dumps({"head": head, "blobs": [len(blob) for blob in blobs]}).encode()
    peer.sendall(len(told).to_bytes(8, "little") + told)
    for blob in blobs:
        peer.sendall(blob)


def receive(peer: socket.socket) -> tuple[dict[str, Any], list[bytes]]:
    """The next frame; EOFError when the other side has ended."""
    told = json.loads(_exactly(peer, int.from_bytes(_exactly(peer, 8), "little")))
    return told["head"], [_exactly(peer, length) for length in told["blobs"]]


def _exactly(peer: socket.socket, length: int) -> bytes:
    if length > MOST_BYTES:
        raise EOFError(f"a frame of {length} bytes")
    found = bytearray(length)
    view, place = memoryview(found), 0
    while place < length:
        count = peer.recv_into(view[place:])
        if not count:
            raise EOFError
        place += count
    return bytes(found)
