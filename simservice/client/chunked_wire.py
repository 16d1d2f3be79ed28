"""A stream as an HTTP/1.1 request in chunks, by a socket of its own: a message is one write, an answer one read.

A client spends a third of the processor time on a step that it spends by gRPC. The service's front door takes both
ways (see serving/haproxy_launcher.py); any other server, and a proxy that does not hand a request's parts on as they
come, is found out before a message is sent, and gRPC serves.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections import deque
from urllib.parse import unquote

from simservice import __version__
from simservice.client.wire import Ended, Metadata, status_name
from simservice.protocol.chunks import Broken, Messages, TooLarge, as_chunk, field, fields, metadata, whole

HEAD_BYTES = 2**17  # of an answer
READ_BYTES = 2**16
KEEPALIVE = (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 16_000))
"""So that a peer that vanished without a word is noticed."""

BUSY = (b"429", b"500", b"502", b"503", b"504")  # HTTP's statuses after which to try again
AGENT = f"simservice-python/{__version__}".encode()


class NotTaken(Exception):
    """Who listens at the address does not take streams this way; nothing was sent that it could have acted upon."""

    def __init__(self, problem: str, late: bool = False) -> None:
        super().__init__(problem)
        self.late = late  # it said nothing in time


class ChunkedWire:
    """A Wire (see there) to an address, of one method's stream."""

    def __init__(self, address: str, method: str, given: Metadata, most_bytes: int, timeout_s: float) -> None:
        """Connects, and waits until the answer begins; NotTaken where it is none of this kind, or too late."""
        self._process = os.getpid()
        self._one = threading.Lock()
        self._incoming = Messages(most_bytes)
        self._waiting: deque[bytes | bytearray] = deque()  # messages that came together with one before
        self._status: Ended | None = None
        self._cancelled = False
        until = time.monotonic() + timeout_s
        try:
            self._socket = _connected(address, timeout_s)
        except (OSError, ValueError) as error:  # ValueError: Python takes no such name; gRPC says it better
            raise NotTaken(f"no connection: {error}") from error
        try:
            self._put(_request(address, method, given))
            self._await_answer(until)
        except BaseException as error:
            self._socket.close()
            if isinstance(error, TimeoutError):
                raise NotTaken(f"no answer within {timeout_s:g} s", late=True) from error
            if isinstance(error, OSError | Broken):
                raise NotTaken(f"it is not taken: {error}") from error
            raise

    def _await_answer(self, until: float) -> None:
        """Hears the answer's head, and what came with it; Broken where it is no answer to a stream."""
        head = bytearray()
        while True:
            self._socket.settimeout(max(until - time.monotonic(), 1e-3))
            data = self._socket.recv(READ_BYTES)
            if not data:
                raise Broken("the connection was closed")
            head += data
            if not head.startswith(b"HTTP/1."[: len(head)]) or len(head) > HEAD_BYTES:
                raise Broken(f"the answer begins with {bytes(head[:20])!r}")
            while (end := head.find(b"\r\n\r\n")) >= 0:
                line, *lines = bytes(head[:end]).split(b"\r\n")
                del head[: end + 4]
                if line[9:10] == b"1":  # of the hundreds: there is more to come
                    continue
                self._socket.settimeout(None)
                if self._begins(line, fields(lines)) and head:
                    self._hear(bytes(head))
                return

    def send(self, message: bytes) -> None:
        """Sends; what the server said before it ended the stream is still there to be received."""
        for part in as_chunk(message):
            self._put(part)

    def receive(self) -> bytes | bytearray:
        """The next message, waiting for it; Ended where there will be none."""
        with self._one:
            while True:
                if self._waiting:
                    return self._waiting.popleft()
                if self._status is not None:
                    self._socket.close()
                    raise self._status
                try:
                    data = self._socket.recv(READ_BYTES)
                except OSError as error:
                    self._over("UNAVAILABLE", f"the connection broke: {error}")
                    continue
                except BaseException:  # a signal's handler raised: whether something was read is not known
                    self._interrupted()
                    raise
                if self._incoming.between and (message := whole(data)) is not None:
                    return message
                self._hear(data)

    def cancel(self) -> None:
        """Ends the stream, and whoever waits for it."""
        self._cancelled = True
        if os.getpid() == self._process:  # in a forked child the connection is the parent's
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def drain(self) -> None:
        """Gives the socket back, where nobody waits at it; else whoever waits does."""
        if self._one.acquire(blocking=False):
            try:
                if self._cancelled:
                    self._over("CANCELLED", "cancelled by this side")
                    self._socket.close()
            finally:
                self._one.release()

    def _put(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError:  # receive() tells
            pass
        except BaseException:  # a signal's handler raised: how much was sent is not known
            self._interrupted()
            raise

    def _interrupted(self) -> None:
        self._over("CANCELLED", "the wait was interrupted")
        self.cancel()

    # ---- what comes --------------------------------------------------------------------------------------------------

    def _begins(self, line: bytes, said: list[tuple[str, str]]) -> bool:
        """Whether messages follow, and not a status; Broken where it is no answer to a stream."""
        found, code = dict(said), line[9:12]
        if code in BUSY:
            self._over("UNAVAILABLE", f"HTTP status {code.decode()}")
        elif code != b"200" or not found.get("content-type", "").startswith("application/grpc"):
            raise Broken(f"the answer is {line[:80]!r} of the type {found.get('content-type', '')!r}")
        elif "grpc-status" in found:
            self._take_status(said)
        elif found.get("transfer-encoding") != "chunked":
            raise Broken("the answer does not come in chunks")
        return self._status is None

    def _hear(self, data: bytes) -> None:
        """Takes what has come, also that nothing comes any more."""
        if not data:
            self._over("UNAVAILABLE", "the connection was closed")
            return
        try:
            for packed, message in self._incoming.read(data):
                if packed:
                    raise Broken("a message is compressed, which was not asked for")
                self._waiting.append(message)
        except Broken as problem:
            self._over("INTERNAL", f"the answer cannot be read: {problem}")
        except TooLarge as problem:
            self._over("RESOURCE_EXHAUSTED", str(problem))
        if self._incoming.over:
            self._take_status(fields(self._incoming.trailers.split(b"\r\n")))

    def _take_status(self, said: list[tuple[str, str]]) -> None:
        found = dict(said)
        words = unquote(found.get("grpc-message", ""), errors="replace")
        if (code := found.get("grpc-status", "")).isdigit():
            self._over(status_name(int(code)), words, tuple(metadata(said)))
        else:
            self._over("UNKNOWN", "the answer ended without a status")

    def _over(self, code: str, details: str, behind: Metadata = ()) -> None:
        if self._status is None:
            if self._cancelled:
                code, details, behind = "CANCELLED", "cancelled by this side", ()
            self._status = Ended(code, details, behind)


def _request(address: str, method: str, given: Metadata) -> bytes:
    host = b"localhost" if address.startswith("unix:") else address.encode()
    lines = [b"POST %s HTTP/1.1" % method.encode(), b"host: " + host, b"user-agent: " + AGENT]
    lines += [b"content-type: application/grpc", b"te: trailers", b"transfer-encoding: chunked"]
    lines += [name.lower().encode() + b": " + field(value) for name, value in given]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def _connected(address: str, timeout_s: float) -> socket.socket:
    if address.startswith("unix:"):
        found = socket.socket(socket.AF_UNIX)
        try:
            found.settimeout(timeout_s)
            found.connect(address.removeprefix("unix:").removeprefix("//"))
        except BaseException:
            found.close()
            raise
        return found
    host, _, port = address.rpartition(":")
    found = socket.create_connection((host.strip("[]"), int(port)), timeout_s)
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE:
        if hasattr(socket, name):
            found.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return found
