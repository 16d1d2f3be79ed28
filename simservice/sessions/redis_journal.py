"""The connection that carries nothing but appends to the journal: those of one tick leave together and return together.

A step waits for its append, so an append may cost no more than its share of one write and one read: redis-py makes the
connection (it knows every kind of URL), then this protocol takes its transport over, and answers come in the order of
the requests. Measured in docs/decisions.md.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import select
import socket
from collections import deque
from collections.abc import Callable, Iterable
from functools import lru_cache
from time import perf_counter
from typing import Any, NamedTuple

import hiredis
import redis
from redis.asyncio.connection import ConnectionPool

from simservice.errors import SimserviceError, StoreUnavailable
from simservice.sessions.redis_failures import FIRST_PAUSE_S, LONGEST_PAUSE_S, UNREACHED, is_refusal
from simservice.sessions.redis_layout import checked, lua
from simservice.sessions.store import Observer

NEAR_S = 0.0003
"""A store that answers sooner is waited for by receive(): the way round the event loop would take as long."""

FAR_TICKS = 32
"""After a wait for nothing so many calls of receive() do not wait: a store that is far costs little more for it."""


ACKNOWLEDGED = b"*1\r\n:1\r\n"
"""What append.lua says when all is well."""

SELECTABLE = 1024
"""select(), which alone waits for less than a millisecond, knows no descriptor from this one on."""


Arguments = tuple[str, str, str, int, int, bytes, int]
"""Keys, then epoch, sequence, payload and time to live in milliseconds."""


class _Append(NamedTuple):
    token: str
    sequence: int
    arguments: Arguments
    done: asyncio.Future[None]
    observe: Observer | None
    began: float  # of perf_counter
    deadline: float  # of the event loop's clock


class Journal(asyncio.Protocol):
    """Appends in the order they are handed in; a lost connection is made again and what was under way sent again."""

    def __init__(self, pool: ConnectionPool, address: str, patience_s: float) -> None:
        self._pool = pool
        self._address = address
        self._patience_s = patience_s
        self._text = lua("append")
        self._sha = hashlib.sha1(self._text.encode(), usedforsecurity=False).hexdigest()
        self._pending: deque[_Append] = deque()  # sent or to be sent, unanswered, in order
        self._outgoing: list[bytes] = []  # of what is pending: packed, and not sent yet
        self._flushing: asyncio.Handle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._transport: asyncio.Transport | None = None
        self._socket: socket.socket | None = None  # a second handle on a connection without TLS: see _sent, receive
        self._far = 0
        self._former: asyncio.BaseProtocol | None = None  # redis-py's, which must hear of the end
        self._connection: Any = None
        self._connecting: asyncio.Task[None] | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._problem = "no answer"
        self._reader = hiredis.Reader()

    def send(self, token: str, sequence: int, arguments: Arguments, observe: Observer | None) -> asyncio.Future[None]:
        """Hands one append in; its future fails with what the script or the network said."""
        loop = self._loop = self._loop or asyncio.get_running_loop()
        deadline = loop.time() + self._patience_s
        append = _Append(token, sequence, arguments, loop.create_future(), observe, perf_counter(), deadline)
        self._pending.append(append)
        if self._transport is not None:
            self._outgoing.append(self._packed(append))
            if self._flushing is None:
                self._flushing = loop.call_soon(self.flush)
        elif self._connecting is None:
            self._connecting = loop.create_task(self._connect())
        if self._watch is None:
            self._watch = loop.call_at(deadline, self._check_patience)
        return append.done

    def flush(self) -> None:
        """Sends all that was handed in, in one write."""
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        if self._outgoing and self._transport is not None:
            data = self._outgoing[0] if len(self._outgoing) == 1 else b"".join(self._outgoing)
            if self._socket is not None and not self._transport.get_write_buffer_size():
                data = data[_sent(self._socket, data) :]
            if data:
                self._transport.write(data)
        self._outgoing.clear()

    def receive(self) -> None:
        """Takes the answers that have arrived, and from a store that is near those about to arrive."""
        while self._pending and self._socket is not None:
            try:
                data = self._socket.recv(65536)
            except BlockingIOError:
                if self._far:
                    self._far -= 1
                    return
                if not select.select((self._socket,), (), (), NEAR_S)[0]:
                    self._far = FAR_TICKS
                    return
            except OSError:
                return  # the transport meets the same, and connects again
            else:
                if not data:
                    return
                self.data_received(data)

    def data_received(self, data: bytes) -> None:
        """Gives answers to those who wait, oldest first."""
        if data == ACKNOWLEDGED and len(self._pending) == 1 and not self._reader.has_data():
            self._acknowledge(self._pending.popleft())  # as nearly always
            return
        self._reader.feed(data)
        while self._pending and (answer := self._reader.gets()) is not False:
            append = self._pending.popleft()
            if isinstance(answer, hiredis.ReplyError) and str(answer).startswith("NOSCRIPT") and self._transport:
                self._pending.append(append)  # somebody flushed the scripts: send the text once
                self._transport.write(_pack("EVAL", self._text, append.arguments))
            elif isinstance(answer, Exception):
                self._fail(append, StoreUnavailable(self._address, str(answer)))
            elif not append.done.done():
                try:
                    checked(answer, append.token, append.sequence)
                except SimserviceError as error:
                    append.done.set_exception(error)
                else:
                    self._acknowledge(append)

    @staticmethod
    def _acknowledge(append: _Append) -> None:
        if not append.done.done():
            append.done.set_result(None)
            if append.observe is not None:
                append.observe(perf_counter() - append.began)

    def connection_lost(self, error: Exception | None) -> None:
        """Connects again when somebody waits; the others find out when they next append."""
        if isinstance(self._former, asyncio.Protocol):
            self._former.connection_lost(error)
        self._transport = self._former = None
        self._put_down()
        self._problem = str(error) if error else "the connection was closed"
        if self._pending and self._connecting is None and self._loop is not None:
            self._connecting = self._loop.create_task(self._connect())

    async def close(self) -> None:
        """Fails what is unanswered and ends the connection."""
        self._fail_all(lambda append: True)
        if self._watch is not None:
            self._watch.cancel()
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait([self._connecting])
        await self._disconnect()

    async def _connect(self) -> None:
        """Tries until connected, or until nobody waits any more."""
        pause = FIRST_PAUSE_S
        try:
            while self._pending:
                try:
                    await self._open()
                    return
                except (*UNREACHED, redis.RedisError) as error:
                    self._problem = str(error) or type(error).__name__
                    if is_refusal(error):
                        self._fail_all(lambda append: True)
                        return
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)
        finally:
            self._connecting = None

    async def _open(self) -> None:
        await self._disconnect()
        connection = self._connection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        await connection.connect()
        await connection.send_command("SCRIPT", "LOAD", self._text)
        await connection.read_response()
        transport = connection._writer.transport
        self._former = transport.get_protocol()
        self._reader = hiredis.Reader()
        transport.set_protocol(self)
        self._transport = transport
        if transport.get_extra_info("sslcontext") is None:
            # Both handles read one stream of bytes on one thread, each whatever the other has not yet taken.
            self._socket = _second_handle(transport.get_extra_info("socket").fileno())
        self._outgoing = [self._packed(append) for append in self._pending]
        self.flush()

    async def _disconnect(self) -> None:
        self._put_down()
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect()

    def _put_down(self) -> None:
        self._outgoing.clear()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _packed(self, append: _Append) -> bytes:
        """The append as the wire has it: hiredis's packing takes twice as long, over what is the same each time."""
        *keys, epoch, sequence, payload, ttl_ms = append.arguments
        first, second, last = b"%d" % epoch, b"%d" % sequence, b"%d" % ttl_ms
        return b"%b$%d\r\n%b\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (
            _head(self._sha, *keys),
            *(len(first), first, len(second), second),
            *(len(payload), payload, len(last), last),
        )

    def _check_patience(self) -> None:
        """Fails appends that waited too long. A server that took them and never answered is not asked again."""
        assert self._loop is not None
        self._watch = None
        now = self._loop.time()
        if self._pending and self._pending[0].deadline <= now:
            self._fail_all(lambda append: self._transport is not None or append.deadline <= now)
            if (transport := self._transport) is not None:
                self._transport = None  # at once: a late answer must not count for whoever appends next
                self._put_down()
                transport.abort()
        if self._pending:
            self._watch = self._loop.call_at(self._pending[0].deadline, self._check_patience)

    def _fail_all(self, chosen: Callable[[_Append], bool]) -> None:
        pending, self._pending = self._pending, deque()
        for append in pending:
            if chosen(append):
                self._fail(append, StoreUnavailable(self._address, self._problem))
            else:
                self._pending.append(append)

    @staticmethod
    def _fail(append: _Append, error: SimserviceError) -> None:
        if not append.done.done():
            append.done.set_exception(error)


def _second_handle(descriptor: int) -> socket.socket | None:
    """The same connection once more; None in a process of so many connections that select() could not wait for it."""
    copy = os.dup(descriptor)
    if copy < SELECTABLE:
        return socket.socket(fileno=copy)
    os.close(copy)
    return None


def _sent(connection: socket.socket, data: bytes) -> int:
    """How many bytes went out at once. uvloop's transport would keep them until the loop turns, tick and all."""
    try:
        return connection.send(data)
    except OSError:  # its buffer is full, or its transport is about to find out that it broke
        return 0


@lru_cache(maxsize=4096)
def _head(sha: str, *keys: str) -> bytes:
    """What the commands of one session begin with."""
    words = "EVALSHA", sha, "3", *keys
    return b"*%d\r\n" % (len(words) + 4) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word.encode()) for word in words)


def _pack(verb: str, script: str, arguments: Iterable[str | int | bytes]) -> bytes:
    packed: bytes = hiredis.pack_command((verb, script, 3, *arguments))  # type: ignore[arg-type]
    return packed
