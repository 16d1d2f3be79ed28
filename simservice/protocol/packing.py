"""Makes large replies small, where both sides know a codec. Whole replies: nearly all of a large one is one leaf.

Of rendered frames zstd's first level makes a thirtieth to a hundredth at 3 GB/s and more, faster than one stream of
gRPC carries bytes on one machine; of noisy ones a half at a tenth of that, which pays on slow networks alone. PNG and
JPEG are thirty times slower and no smaller (docs/decisions.md).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from simservice.errors import InternalError, InvalidInput
from simservice.protocol.v1 import service_pb2 as pb

try:
    import zstandard
except ImportError:  # the base client does without: pip install simservice[compress]
    zstandard = None  # type: ignore[assignment]

CODECS_KEY = "simservice-codecs"
ZSTD, ALWAYS = "zstd", "always"
SMALL_BYTES = 16_384  # replies below it stay as they are
WORTH = 8.0  # times smaller, for packing to cost less time than it saves on a fast network
WORTH_ALWAYS = 1.1
PAUSE = 63  # replies that stay as they are after one that was not worth it
MOST_BYTES = 256 * 2**20  # of an unpacked reply

Compression = Literal["auto", "always", "never"]
"""When large replies are packed: from another machine where that saves much, wherever it saves any, or not at all."""


def offered(compression: Compression) -> str | None:
    """What a client says in its metadata; None: nothing. InvalidInput for what is no such word, or cannot be had."""
    if compression not in ("auto", "always", "never"):
        raise InvalidInput("compression", f'{compression!r} is not "auto", "always" or "never"')
    if compression == "always" and zstandard is None:
        raise InvalidInput("compression", "needs zstandard on this side: pip install simservice[compress]")
    if compression == "never" or zstandard is None:
        return None
    return f"{ZSTD}, {ALWAYS}" if compression == "always" else ZSTD


class Packer:
    """Packs the replies of one stream, as its caller offered; what is not worth it is left alone for a while."""

    def __init__(self, said: str) -> None:
        words = [word.strip() for word in said.split(",")]
        self._worth = WORTH_ALWAYS if ALWAYS in words else WORTH
        self._codec = zstandard.ZstdCompressor(level=1) if zstandard is not None and ZSTD in words else None
        self._pause = 0

    def pack(self, reply: bytes) -> bytes:
        """The serialised reply, or a serialised PlayReply that holds it packed."""
        if len(reply) < SMALL_BYTES or self._codec is None:
            return reply
        if self._pause:
            self._pause -= 1
            return reply
        packed = self._codec.compress(reply)
        if len(packed) * self._worth > len(reply):
            self._pause = PAUSE
            return reply
        return pb.PlayReply(packed=packed).SerializeToString()


def unpacked(reply: pb.PlayReply) -> pb.PlayReply:
    """The reply that is packed in this one, with the times that stand beside it."""
    assert zstandard is not None, "nothing was offered"
    try:
        if not 0 <= zstandard.frame_content_size(reply.packed) <= MOST_BYTES:
            raise InternalError(f"the server sent a packed reply of no size or of more than {MOST_BYTES:,} bytes")
        inner = pb.PlayReply.FromString(zstandard.ZstdDecompressor().decompress(reply.packed))
    except zstandard.ZstdError as error:
        raise InternalError(f"the server sent a packed reply that cannot be unpacked ({error})") from error
    reply.ClearField("packed")
    inner.MergeFrom(reply)
    return inner


def said_in(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """What a caller offers in a call's metadata."""
    for key, value in metadata:
        if key == CODECS_KEY:
            return value.decode(errors="replace") if isinstance(value, bytes) else value
    return ""
