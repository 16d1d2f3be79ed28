"""The session store in Redis or Valkey: every call is one Lua script. The only file that knows redis.

redis_layout.py has the keys.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import hiredis
import redis.asyncio
import redis.exceptions
from redis.asyncio.connection import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from simservice.errors import (
    ConfigError,
    SimserviceError,
    StoreUnavailable,
    UnknownPoint,
    UnknownSession,
)
from simservice.sessions.redis_layout import (
    CONTRACTS,
    DEADLINES,
    ROOMS,
    checked,
    from_fields,
    keys_of,
    lua,
    open_key_of,
    pairs,
    to_fields,
)
from simservice.sessions.settings import PointLimits
from simservice.sessions.store import Recovery, SessionRecord

SCRIPTS = (
    *("open", "create", "claim", "settle", "retract", "snapshot", "touch", "delete", "announce", "worlds"),
    *("save", "restore", "forget"),
    *("lease", "lease_renew", "lease_release", "lease_used", "report", "reports"),
)
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.01, 0.2  # between attempts to connect
REFUSED = (  # what no patience heals
    redis.exceptions.AuthenticationError,
    redis.exceptions.AuthorizationError,
    ssl.SSLCertVerificationError,
)
UNREACHED = (redis.ConnectionError, redis.TimeoutError, OSError)


class RedisStore:
    """A SessionStore at a redis://, rediss:// or unix:// URL. Serves one event loop.

    A lost connection is made again and what was under way is sent again, which the scripts allow; only after
    `patience_s` without an answer a call fails with StoreUnavailable.
    """

    def __init__(self, url: str, *, idle_ttl_s: float = 600.0, patience_s: float = 2.0) -> None:
        try:
            options: dict[str, Any] = {
                "protocol": 2,
                "socket_timeout": patience_s,
                "socket_connect_timeout": patience_s,
                "retry": Retry(NoBackoff(), 0),  # patience is counted here, over all attempts
            }
            self._client = redis.asyncio.Redis.from_url(url, **options)
            pool: ConnectionPool = ConnectionPool.from_url(url, **options)
        except ValueError as error:
            raise ConfigError(
                f"the session store's URL cannot be used ({error}); it looks like redis://host:6379/0, "
                "rediss://host:6379/0 or unix:///path/to/socket"
            ) from error
        self.address = _without_secrets(url)
        self._ttl_ms = int(idle_ttl_s * 1000)
        self._patience_s = patience_s
        self._scripts = {name: self._client.register_script(lua(name)) for name in SCRIPTS}
        self._journal = _Journal(pool, self.address, patience_s)

    async def create(self, record: SessionRecord, snapshot: bytes | None = None) -> SessionRecord:
        """Reserves the open key, then stores the record under the token that holds it; both steps can be repeated."""
        token = (await self._call("open", [open_key_of(record.open_key)], [record.token, self._ttl_ms])).decode()
        session, _, states = keys_of(token)
        fields = to_fields(replace(record, token=token))
        stored = await self._call("create", [session, states], [self._ttl_ms, snapshot or b"", *fields])
        return from_fields(pairs(stored))

    async def record(self, token: str) -> SessionRecord:
        """Reads the record."""
        stored = await self._patiently(lambda: self._client.hgetall(keys_of(token)[0]))
        if not stored:
            raise UnknownSession(token)
        return from_fields(stored)

    async def claim(self, token: str) -> Recovery:
        """Raises the epoch and reads everything in one atomic call."""
        flat, journal, (snapshot, point_bytes, replies) = checked(
            await self._call("claim", keys_of(token), [self._ttl_ms]), token
        )
        fields = pairs(flat)
        return Recovery(
            record=from_fields(fields),
            snapshot=snapshot,
            snapshot_sequence=int(fields[b"snapshot_sequence"]),
            last_sequence=int(fields[b"last"]),
            journal=journal,
            replies=replies,
            claims=int(fields[b"claims"]),
            point_bytes=int(point_bytes or 0),
        )

    async def settle(self, token: str, epoch: int, brought_back: bool) -> None:
        """Takes the claim out of the count."""
        await self._call("settle", keys_of(token)[:1], [epoch, int(brought_back)])

    def append(self, token: str, epoch: int, sequence: int, payload: bytes) -> asyncio.Future[None]:
        """Sends at once, on a connection of its own, without waiting for appends under way."""
        return self._journal.send(token, sequence, (*keys_of(token), epoch, sequence, payload, self._ttl_ms))

    async def retract(self, token: str, epoch: int, sequence: int) -> int:
        """Takes the last request back and raises the epoch."""
        return int(checked(await self._call("retract", keys_of(token)[:2], [epoch, sequence]), token)[0])

    async def snapshot(self, token: str, epoch: int, sequence: int, data: bytes, replies: bytes | None = None) -> None:
        """Replaces the snapshot and cuts the journal in one atomic call."""
        answer = await self._call("snapshot", keys_of(token), [epoch, sequence, data, self._ttl_ms, replies or b""])
        checked(answer, token, sequence)

    async def save(
        self, token: str, epoch: int, sequence: int, payload: bytes, data: bytes, limits: PointLimits
    ) -> int:
        """Journals and keeps in one atomic call."""
        asked = [epoch, sequence, payload, self._ttl_ms, data, *limits]
        answer = await self._call("save", keys_of(token), asked)
        if answer[:2] == [0, b"full"]:
            raise limits.exceeded(answer[2], answer[3], len(data))
        return int(checked(answer, token, sequence)[0])

    async def restore(self, token: str, epoch: int, sequence: int, payload: bytes, point: int) -> bytes:
        """Journals and reads in one atomic call."""
        answer = await self._call("restore", keys_of(token), [epoch, sequence, payload, self._ttl_ms, point])
        if answer == [0, b"point"]:
            raise UnknownPoint(point)
        return bytes(checked(answer, token, sequence)[0])

    async def point(self, token: str, point: int) -> bytes:
        """Reads one field."""
        data = await self._patiently(lambda: self._client.hget(keys_of(token)[2], f"point:{point}"))
        if data is None:
            raise UnknownPoint(point)
        return bytes(data)

    async def forget(self, token: str, epoch: int, sequence: int, payload: bytes, points: Sequence[int]) -> int:
        """Journals and gives up in one atomic call."""
        answer = await self._call("forget", keys_of(token), [epoch, sequence, payload, self._ttl_ms, *points])
        return int(checked(answer, token, sequence)[0])

    async def touch(self, token: str, epoch: int) -> None:
        """Renews the time to live of all keys of the session."""
        checked(await self._call("touch", keys_of(token), [epoch, self._ttl_ms]), token)

    async def delete(self, token: str, epoch: int) -> None:
        """Forgets the session and its open key."""
        (open_key,) = checked(await self._call("delete", keys_of(token), [epoch]), token)
        if open_key:
            await self._patiently(lambda: self._client.delete(open_key_of(open_key)))

    async def announce(self, world: str, contract: bytes, ttl_s: float) -> None:
        """Lists a world by the server's clock."""
        await self._call("announce", [DEADLINES, CONTRACTS], [world, contract, int(ttl_s * 1000)])

    async def announce_room(self, owner: str, room: bytes, ttl_s: float) -> None:
        """Lists a room by the server's clock."""
        await self._call("announce", ROOMS, [owner, room, int(ttl_s * 1000)])

    async def rooms(self) -> dict[str, bytes]:
        """Reads the list and cleans it."""
        return {owner.decode(): room for owner, room in pairs(await self._call("worlds", ROOMS, [])).items()}

    async def worlds(self) -> dict[str, bytes]:
        """Reads the list and cleans it."""
        answer = await self._call("worlds", [DEADLINES, CONTRACTS], [])
        return {world.decode(): contract for world, contract in pairs(answer).items()}

    async def close(self) -> None:
        """Ends both connections."""
        await self._journal.close()
        await self._client.aclose()

    async def run(self, name: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """Runs one of the scripts as a single atomic call, again where that answer got lost; for leases.py."""
        return await self._call(name, keys, arguments)

    async def _call(self, name: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        script = self._scripts[name]
        return await self._patiently(lambda: script(keys=keys, args=arguments))

    async def _patiently(self, command: Callable[[], Awaitable[Any]]) -> Any:
        """Runs a command that may be repeated, until it is answered or patience ends."""
        loop = asyncio.get_running_loop()
        deadline, pause = loop.time() + self._patience_s, FIRST_PAUSE_S
        while True:
            try:
                return await command()
            except UNREACHED as error:
                if _is_refusal(error) or loop.time() + pause >= deadline:
                    raise StoreUnavailable(self.address, str(error) or "no answer") from error
            except redis.RedisError as error:
                raise StoreUnavailable(self.address, str(error)) from error
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)


class _Append(NamedTuple):
    token: str
    sequence: int
    arguments: tuple[str | int | bytes, ...]
    done: asyncio.Future[None]
    deadline: float  # of the event loop's clock


class _Journal(asyncio.Protocol):
    """The connection that carries nothing but appends.

    A step waits for its append, so an append may cost no more than one write and one read: redis-py makes the
    connection (it knows every kind of URL), then this protocol takes its transport over, and answers come in the order
    of the requests. Measured in docs/decisions.md: a third of the CPU of redis.asyncio's own way.
    """

    def __init__(self, pool: ConnectionPool, address: str, patience_s: float) -> None:
        self._pool = pool
        self._address = address
        self._patience_s = patience_s
        self._text = lua("append")
        self._sha = hashlib.sha1(self._text.encode(), usedforsecurity=False).hexdigest()
        self._pending: deque[_Append] = deque()  # sent or to be sent, unanswered, in order
        self._loop: asyncio.AbstractEventLoop | None = None
        self._transport: asyncio.Transport | None = None
        self._former: asyncio.BaseProtocol | None = None  # redis-py's, which must hear of the end
        self._connection: Any = None
        self._connecting: asyncio.Task[None] | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._problem = "no answer"
        self._reader = hiredis.Reader()

    def send(self, token: str, sequence: int, arguments: tuple[str | int | bytes, ...]) -> asyncio.Future[None]:
        """Hands one append in; its future fails with what the script or the network said."""
        loop = self._loop = self._loop or asyncio.get_running_loop()
        deadline = loop.time() + self._patience_s
        append = _Append(token, sequence, arguments, loop.create_future(), deadline)
        self._pending.append(append)
        if self._transport is not None:
            self._transport.write(self._packed(append))
        elif self._connecting is None:
            self._connecting = loop.create_task(self._connect())
        if self._watch is None:
            self._watch = loop.call_at(deadline, self._check_patience)
        return append.done

    def data_received(self, data: bytes) -> None:
        """Gives answers to those who wait, oldest first."""
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
                    append.done.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        """Connects again when somebody waits; the others find out when they next append."""
        if isinstance(self._former, asyncio.Protocol):
            self._former.connection_lost(error)
        self._transport = self._former = None
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
                    if _is_refusal(error):
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
        transport.write(b"".join(self._packed(append) for append in self._pending))

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect()

    def _packed(self, append: _Append) -> bytes:
        return _pack("EVALSHA", self._sha, append.arguments)

    def _check_patience(self) -> None:
        """Fails appends that waited too long. A server that took them and never answered is not asked again."""
        assert self._loop is not None
        self._watch = None
        now = self._loop.time()
        if self._pending and self._pending[0].deadline <= now:
            self._fail_all(lambda append: self._transport is not None or append.deadline <= now)
            if self._transport is not None:
                self._transport.abort()
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


def _is_refusal(error: Exception) -> bool:
    """Whether the server refused us, which no patience heals; redis-py wraps what happens while it connects."""
    return any(isinstance(found, REFUSED) for found in (error, error.__cause__, error.__context__))


def _pack(verb: str, script: str, arguments: Iterable[str | int | bytes]) -> bytes:
    packed: bytes = hiredis.pack_command((verb, script, 3, *arguments))  # type: ignore[arg-type]
    return packed


def _without_secrets(url: str) -> str:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"
