"""The contract of the session store: records, epochs and journals. Its twins are memory_store and redis_store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from simservice.sessions.settings import PointLimits
from simservice.types import TRUSTING, Caution


@dataclass(frozen=True, kw_only=True)
class SessionRecord:
    """What must be known to bring a session back anywhere."""

    token: str  # 32 hexadecimal digits
    world: str  # name@version
    num_envs: int
    autoreset_mode: str  # AutoresetMode.value
    seeds: bytes  # int64 a lane, little-endian: the luck of lanes that no reset seeds
    open_key: bytes
    epoch: int  # fencing number of the owner; a claim raises it
    tenant: str = ""  # whose it is; nobody else can resume it
    caution: Caution = TRUSTING


@dataclass(frozen=True)
class Recovery:
    """Everything stored of a session: its record, newest snapshot and the journal after it."""

    record: SessionRecord
    snapshot: bytes | None
    snapshot_sequence: int  # the last request the snapshot holds; 0 without one
    last_sequence: int
    journal: Sequence[bytes]  # payloads of snapshot_sequence + 1 ... last_sequence
    replies: bytes | None = None  # what was stored with the snapshot: the answers that no replay makes any more
    claims: int = 1  # this one and those that never ended, since the session was last brought back
    point_bytes: int = 0  # of all saved points


Observer = Callable[[float], None]


class SessionStore(Protocol):
    """All writes name the writer's epoch and fail with SessionFenced when it is not the newest; each call is atomic.

    Every call may fail with StoreUnavailable; a call that failed so may or may not have taken effect, and is safe to
    repeat. An append is handed in when the method returns: those of many sessions share one round trip.
    """

    address: str

    async def create(self, record: SessionRecord, snapshot: bytes | None = None) -> SessionRecord:
        """Stores a new session with its record's epoch; if one with the same open_key exists, returns that one.

        A forked session begins with a snapshot, which holds no request.
        """

    async def record(self, token: str) -> SessionRecord:
        """The session's record as it is, without claiming anything. UnknownSession."""

    async def claim(self, token: str) -> Recovery:
        """Raises the epoch by one and returns all that is stored, the record with the new epoch. UnknownSession."""

    async def settle(self, token: str, epoch: int, brought_back: bool) -> None:
        """Tells that a claim has ended: its process lives, so it is no longer counted.

        When it brought the session back and nobody has claimed it since, the count begins anew. Never an error of the
        session: a settlement may come late.
        """

    def append(
        self, token: str, epoch: int, sequence: int, payload: bytes, observe: Observer | None = None
    ) -> asyncio.Future[None]:
        """Journals one request, durably as the server is configured, and renews the session's time to live.

        It may then live up to an eighth of it longer, at most five seconds.

        `observe` gets the seconds until it was acknowledged, from a store that is elsewhere.

        Repeating an append with the last sequence does nothing; a sequence that is not the next is SequenceGap.
        """

    def flush(self) -> None:
        """Sends the appends handed in so far now, together, instead of when the event loop next turns."""

    def receive(self) -> None:
        """Answers the appends whose acknowledgements are there now, or within a fraction of a millisecond."""

    async def retract(self, token: str, epoch: int, sequence: int) -> int:
        """Takes the last request back from the journal, because the engine refused it; returns the new epoch.

        The epoch rises so that no copy of the refused append that is still under way can come after its retraction.
        If `sequence` is not the last request there is nothing to take back. A snapshot never holds a refused request.
        """

    async def snapshot(self, token: str, epoch: int, sequence: int, data: bytes, replies: bytes | None = None) -> None:
        """Replaces the snapshot by one that holds all requests up to `sequence`, and cuts the journal there.

        `replies` are stored with it, and go with it. One that is not newer than what is stored changes
        nothing; one ahead of the journal is SequenceGap.
        """

    async def save(
        self, token: str, epoch: int, sequence: int, payload: bytes, data: bytes, limits: PointLimits
    ) -> int:
        """Journals a request as append does and keeps `data` as the point of that number; returns all points' bytes.

        PointsExhausted, and nothing done, when there would be more than the limits. Repeating it does nothing.
        """

    async def restore(self, token: str, epoch: int, sequence: int, payload: bytes, point: int) -> bytes:
        """Journals a request as append does and reads a point; UnknownPoint, and nothing done, when it is not there.

        The point stays readable until the journal is cut behind this request.
        """

    async def point(self, token: str, point: int) -> bytes:
        """Reads a point that a journaled restore read, also one that was forgotten since. UnknownPoint."""

    async def forget(self, token: str, epoch: int, sequence: int, payload: bytes, points: Sequence[int]) -> int:
        """Journals a request as append does and gives points up; returns the bytes of those that are left.

        A point that a replay of the journal would read is given up to restores at once, and counts until the cut.
        """

    async def touch(self, token: str, epoch: int) -> None:
        """Renews the session's time to live."""

    async def delete(self, token: str, epoch: int) -> None:
        """Forgets the session; deleting an unknown one is no error."""

    async def announce(self, world: str, contract: bytes, ttl_s: float) -> None:
        """Lists a world (name@version) as served, with its serialised contract, until ttl_s from now."""

    async def announce_room(self, owner: str, room: bytes, ttl_s: float) -> None:
        """Tells how much room a replica (world/replica) has, until ttl_s from now."""

    async def rooms(self) -> dict[str, bytes]:
        """The rooms of all replicas announced and not yet expired, by owner."""

    async def worlds(self) -> dict[str, bytes]:
        """The contracts of all worlds announced and not yet expired, by name@version."""

    async def close(self) -> None:
        """Ends connections; the data stays."""
