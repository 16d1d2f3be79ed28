"""gRPC's streams as HTTP/1.1 in chunks, from HAProxy to a replica on the same machine.

HAProxy takes HTTP/2 from everybody and can hand a stream on as an HTTP/1.1 request whose body and answer are chunked,
in both directions at once, a connection a stream. Frames of gRPC (a flag, four bytes of length, the message) and its
status in the trailers stay what they are. A message is then read and answered on the replica's own event loop, where
grpc.aio needs a second thread, a socket between the two and some hundred microseconds.
"""

from __future__ import annotations

import asyncio
import logging
import os
import zlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import Any, cast
from urllib.parse import quote

import grpc
import grpc.aio

from simservice.protocol.chunks import Broken, Messages, TooLarge, as_chunk, field, fields, metadata, whole
from simservice.serving.begun import Begun

log = logging.getLogger(__name__)

Behaviour = Callable[[Any, Any], AsyncIterator[bytes]]
"""A handler of streams as grpc.aio calls it: (requests, context) to serialised replies."""

Begin = Callable[[bytes], Begun[tuple[bytes, bytes]] | None]
"""Begins to answer a message where that can be, in two parts of one reply."""

HEAD_BYTES = 2**17  # of a request; HAProxy's buffer, its own bound, is half of that
BUFFERED_BYTES = 2**22  # of an answer that its reader has not taken, before the writer waits
WAITING = 2  # messages that have come before anybody asked for them; then nothing more is read

_ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ngrpc-accept-encoding: identity,deflate,gzip\r\n"
    b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n"
)
_WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
_PLAIN = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")  # of a status's words


class ChunkedServer:
    """Listens at a socket's path for one method's streams; made within the event loop that is to serve them."""

    def __init__(
        self, path: str, method: str, behaviour: Behaviour, decode: Callable[[bytes], Any], most_bytes: int
    ) -> None:
        self.path = path
        self._make = lambda: _Stream(method, behaviour, decode, most_bytes)
        self._server: asyncio.AbstractServer | None = None

    async def start(self) -> None:
        """From now on it listens. OSError: nobody can at that path."""
        self._server = await asyncio.get_running_loop().create_unix_server(self._make, self.path)

    def close(self) -> None:
        """Takes no more streams; those under way go on."""
        if self._server is not None:
            self._server.close()


class _Refused(Exception):
    """The stream ends with a status of its own."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.code = code
        self.details = details


class _Stream(asyncio.Protocol):
    """One connection and the stream on it; handlers have it as their context, with what they use of grpc.aio's."""

    def __init__(self, method: str, behaviour: Behaviour, decode: Callable[[bytes], Any], most_bytes: int) -> None:
        self._method = method.encode()
        self._behaviour = behaviour
        self._decode = decode
        self._most_bytes = most_bytes
        self._incoming = Messages(most_bytes)
        self._transport: asyncio.Transport
        self._descriptor = -1  # of the transport's socket
        self._task: asyncio.Task[None] | None = None
        self._head = bytearray()  # of the request, while it is not all here
        self._messages: deque[bytes | Begun[Any]] = deque()
        self._begin_at_once: Begin | None = None
        self._under_way: Begun[tuple[bytes, bytes]] | None = None  # what has begun; the handler waits in read()
        self._reader: asyncio.Future[None] | None = None  # of who waits for a message
        self._writer: asyncio.Future[None] | None = None  # of who waits for room
        self._ended = False  # no message comes any more
        self._held = False  # reading is put off
        self._window = 0  # how zlib is to read compressed messages
        self._problem: _Refused | None = None  # of the requests; the handler hears of their end only
        self._metadata: tuple[tuple[str, str | bytes], ...] = ()
        self._code = grpc.StatusCode.OK
        self._details = ""
        self._trailing: Sequence[tuple[str, str | bytes]] = ()

    # ---- what a handler calls --------------------------------------------------------------------------------------

    def attend(self, begin: Begin) -> None:
        """From now on messages that come while read() waits for one are given to `begin` first.

        What it begins is answered as soon as it is done, before read() returns anything; what fails is for read() to
        return, as is what `begin` does not take (None).
        """
        self._begin_at_once = begin

    async def read(self) -> Any:
        """The next request, one that has begun and failed (see attend), or grpc.aio.EOF."""
        if not self._messages and not self._ended:
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        if self._messages:
            message = self._messages.popleft()
            if self._held and len(self._messages) < WAITING:
                self._held = False
                self._transport.resume_reading()
            return message if isinstance(message, Begun) else self._decode(message)
        return grpc.aio.EOF

    async def write(self, message: bytes) -> None:
        """Sends a serialised reply; waits where its reader is far behind."""
        self._send(message, b"")
        if self._writer is not None:
            await self._writer

    def _send(self, message: bytes, behind: bytes) -> None:
        if self._transport.is_closing():  # uvloop's transports raise
            return
        parts = as_chunk(message, behind)
        sent = 0 if self._transport.get_write_buffer_size() else _written(self._descriptor, parts)
        for part in parts:
            if sent < len(part):
                self._transport.write(memoryview(part)[sent:])
            sent = max(sent - len(part), 0)

    def invocation_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        """What the client sent along."""
        return self._metadata

    def set_code(self, code: Any) -> None:
        """The status to end with: a grpc.StatusCode or its number."""
        self._code = code if isinstance(code, grpc.StatusCode) else _CODES[code]

    def set_details(self, details: str) -> None:
        """Its words."""
        self._details = details

    def set_trailing_metadata(self, trailing_metadata: Sequence[tuple[str, str | bytes]]) -> None:
        """What is sent behind the last reply."""
        self._trailing = trailing_metadata

    def code(self) -> grpc.StatusCode:
        """The status so far."""
        return self._code

    def details(self) -> str:
        """Its words so far."""
        return self._details

    def trailing_metadata(self) -> Sequence[tuple[str, str | bytes]]:
        """What was set."""
        return self._trailing

    def peer(self) -> str:
        """HAProxy, whoever stands before it."""
        return "unix:"

    def auth_context(self) -> dict[str, Any]:
        """Nothing: certificates end at HAProxy."""
        return {}

    def peer_identities(self) -> None:
        """None, as above."""
        return None

    def peer_identity_key(self) -> None:
        """None, as above."""
        return None

    # ---- what the event loop calls ---------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(BUFFERED_BYTES)
        self._descriptor = transport.get_extra_info("socket").fileno()

    def data_received(self, data: bytes) -> None:
        if self._ended:  # whatever comes behind the end, or behind what was refused, is nobody's
            return
        if self._task is not None and self._incoming.between and (message := whole(data)) is not None:
            self._put(message)
            return
        try:
            if self._task is not None or (data := self._begin(data)):
                for packed, body in self._incoming.read(data):
                    self._put(self._unpacked(body) if packed else bytes(body))
                if self._incoming.over:
                    self._end_of_requests()
        except Broken as problem:
            log.warning("a stream from HAProxy cannot be read: %s", problem)
            self._transport.abort()
        except TooLarge as problem:
            words = f"the request has {problem.size} bytes, {self._most_bytes} are the most that one may have"
            self._refuse(_Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, words))
        except _Refused as problem:
            self._refuse(problem)

    def eof_received(self) -> None:
        """The other side is gone: a stream's end is a chunk, never this."""

    def connection_lost(self, error: Exception | None) -> None:
        if self._under_way is not None:
            self._under_way.cancel()
        if self._task is not None:
            self._task.cancel()
        self._messages.clear()
        self._held = False
        self._end_of_requests()
        self.resume_writing()

    def pause_writing(self) -> None:
        self._writer = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None and not writer.done():
            writer.set_result(None)

    # ---- requests ----------------------------------------------------------------------------------------------------

    def _begin(self, data: bytes) -> bytes:
        """Where the request's head is here its handler runs, and what stands behind it is returned."""
        self._head += data
        end = self._head.find(b"\r\n\r\n")
        if end < 0:
            if len(self._head) > HEAD_BYTES:
                raise Broken(f"its head has more than {HEAD_BYTES} bytes")
            return b""
        line, *lines = bytes(self._head[:end]).split(b"\r\n")
        behind = bytes(self._head[end + 4 :])
        words = line.split(b" ")
        if len(words) != 3 or words[2] != b"HTTP/1.1":
            raise Broken(f"it begins with {line[:80]!r}")
        said = fields(lines)
        if ("transfer-encoding", "chunked") not in said:
            raise Broken("its body does not come in chunks")
        self._metadata = tuple(metadata(said))
        found = dict(said)
        self._window = _WINDOWS.get(found.get("grpc-encoding", ""), 0)
        # At once, and not with the first reply: a client that speaks HTTP/1.1 hears by it that it may (see its wire).
        self._transport.write(_ANSWER)
        kind = found.get("content-type", "")
        self._task = asyncio.get_running_loop().create_task(self._serve(words[1], kind))
        return behind

    def _refuse(self, problem: _Refused) -> None:
        self._problem = problem
        self._end_of_requests()

    def _unpacked(self, message: bytearray) -> bytes:
        if not self._window:
            words = "a request is compressed in a way that is not known here; gzip and deflate are"
            raise _Refused(grpc.StatusCode.UNIMPLEMENTED, words)
        reader = zlib.decompressobj(self._window)
        try:
            found = reader.decompress(message, self._most_bytes)
        except zlib.error as error:
            raise _Refused(grpc.StatusCode.INTERNAL, f"a compressed request cannot be read: {error}") from error
        if not reader.eof:
            words = f"a compressed request is cut off or has more than {self._most_bytes} bytes"
            raise _Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, words)
        return found

    def _put(self, message: bytes) -> None:
        begin = self._begin_at_once if self._under_way is None and self._writer is None else None
        if begin is not None and self._reader is not None and not self._reader.done():
            begun = begin(message)
            if begun is not None:
                if begun.done:
                    self._answer(begun)
                else:
                    self._under_way = begun
                    begun.then(self._over)
                return
        self._messages.append(message)
        self._offer()

    def _offer(self) -> None:
        """Wakes who waits for a message; where nobody does, puts off reading more than some."""
        if self._reader is not None and self._under_way is None:
            if not self._reader.done():
                self._reader.set_result(None)
        elif len(self._messages) >= WAITING and not self._held:
            self._held = True
            self._transport.pause_reading()

    def _over(self, begun: Begun[tuple[bytes, bytes]]) -> None:
        self._under_way = None
        self._answer(begun)
        if self._messages or self._ended:
            self._offer()

    def _answer(self, begun: Begun[tuple[bytes, bytes]]) -> None:
        if begun.result is not None:
            self._send(*begun.result)
        else:
            self._messages.appendleft(begun)
            self._offer()

    def _end_of_requests(self) -> None:
        self._ended = True
        if self._under_way is None and self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    # ---- the handler -------------------------------------------------------------------------------------------------

    async def _serve(self, path: bytes, kind: str) -> None:
        """Runs the handler and says how it ended; cancelled when the client has gone."""
        try:
            if path != self._method:
                raise _Refused(grpc.StatusCode.UNIMPLEMENTED, "there is no such method")
            if not kind.startswith("application/grpc"):
                raise _Refused(grpc.StatusCode.INTERNAL, "the request is not of gRPC's content type")
            async with aclosing(self._behaviour(None, self)) as replies:  # type: ignore[type-var]
                async for reply in replies:
                    await self.write(reply)
        except _Refused as refusal:
            self._problem = refusal
        except Exception as error:  # as grpc.aio has it
            log.exception("a stream's handler failed")
            if self._code is grpc.StatusCode.OK:
                self._code, self._details = grpc.StatusCode.UNKNOWN, f"Unexpected {type(error)}: {error}"
        finally:
            self._begin_at_once = None
            if self._under_way is not None:  # its handler is called away: it is answered to nobody
                self._under_way.then(lambda _: None)
                self._under_way = None
            self._end_of_requests()  # for whoever still reads in the handler's place
        self._finish()

    def _finish(self) -> None:
        if self._transport.is_closing():  # nobody is left to hear of it, and uvloop's transports raise
            return
        if self._problem is not None:
            self._code, self._details = self._problem.code, self._problem.details
        said = [b"grpc-status: %d" % self._code.value[0]]
        if self._details:
            said.append(b"grpc-message: " + quote(self._details, safe=_PLAIN).encode())
        said += [name.lower().encode() + b": " + field(value) for name, value in self._trailing]
        self._transport.write(b"0\r\n" + b"\r\n".join(said) + b"\r\n\r\n")
        self._transport.close()


def _written(descriptor: int, parts: Sequence[bytes]) -> int:
    """How many bytes went out at once; uvloop's transport would keep them until the loop turns."""
    try:
        return os.writev(descriptor, parts)
    except OSError:  # its buffer is full, or its transport is about to find out that it broke
        return 0


_CODES: dict[Any, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}
