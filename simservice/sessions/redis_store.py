"""The session store in Redis or Valkey: every call is one Lua script.

redis_layout.py has the keys.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import redis.asyncio
from redis.asyncio.connection import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from simservice.errors import ConfigError, StoreUnavailable, UnknownPoint, UnknownSession
from simservice.sessions.redis_failures import FIRST_PAUSE_S, LONGEST_PAUSE_S, UNREACHED, is_refusal
from simservice.sessions.redis_journal import Journal
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
from simservice.sessions.store import Observer, Recovery, SessionRecord

SCRIPTS = (
    *("open", "create", "claim", "settle", "retract", "snapshot", "touch", "delete", "announce", "worlds"),
    *("save", "restore", "forget"),
    *("lease", "lease_renew", "lease_release", "lease_used", "report", "reports"),
    *("policy_put", "policy_get", "policy_graph"),
)


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
        self._journal = Journal(pool, self.address, patience_s)

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

    def append(
        self, token: str, epoch: int, sequence: int, payload: bytes, observe: Observer | None = None
    ) -> asyncio.Future[None]:
        """Sends on a connection of its own, without waiting for appends under way."""
        return self._journal.send(token, sequence, (*keys_of(token), epoch, sequence, payload, self._ttl_ms), observe)

    def flush(self) -> None:
        """Sends the appends handed in so far, in one write."""
        self._journal.flush()

    def receive(self) -> None:
        """Answers the appends that have been acknowledged."""
        self._journal.receive()

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
                if is_refusal(error) or loop.time() + pause >= deadline:
                    raise StoreUnavailable(self.address, str(error) or "no answer") from error
            except redis.RedisError as error:
                raise StoreUnavailable(self.address, str(error)) from error
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)


def _without_secrets(url: str) -> str:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"
