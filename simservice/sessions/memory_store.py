"""The session store without a server, for unit tests only: NOT DURABLE, everything is gone with the process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from simservice.errors import SequenceGap, SessionFenced, SimserviceError, UnknownPoint, UnknownSession
from simservice.sessions.settings import PointLimits
from simservice.sessions.store import Observer, Recovery, SessionRecord


@dataclass
class _Stored:
    record: SessionRecord
    deadline: float
    snapshot: bytes | None = None
    snapshot_sequence: int = 0
    replies: bytes | None = None
    last_sequence: int = 0
    retracted_by: int = 0
    journal: list[bytes] = field(default_factory=list)
    claims: int = 0
    points: dict[int, bytes] = field(default_factory=dict)
    restored: dict[int, int] = field(default_factory=dict)  # by point: the last request that did
    forgotten: set[int] = field(default_factory=set)

    @property
    def point_bytes(self) -> int:
        return sum(map(len, self.points.values()))

    def drop(self, point: int) -> None:
        self.points.pop(point, None)
        self.restored.pop(point, None)
        self.forgotten.discard(point)


class MemoryStore:
    """A SessionStore in a dict. Several services of one process may share it."""

    def __init__(self, *, idle_ttl_s: float = 600.0, now: Callable[[], float] = time.monotonic) -> None:
        self.address = "memory (not durable)"
        self._idle_ttl_s = idle_ttl_s
        self._now = now
        self._sessions: dict[str, _Stored] = {}
        self._tokens: dict[bytes, str] = {}
        self._rooms: dict[str, tuple[bytes, float]] = {}
        self._worlds: dict[str, tuple[bytes, float]] = {}

    async def create(self, record: SessionRecord, snapshot: bytes | None = None) -> SessionRecord:
        """Stores a record, or returns the one that has its open key."""
        token = self._tokens.get(record.open_key, record.token)
        if self._alive(token) is None:
            self._tokens[record.open_key] = record.token
            self._sessions[record.token] = _Stored(record, self._deadline(), snapshot)
            return record
        return self._sessions[token].record

    async def record(self, token: str) -> SessionRecord:
        """Reads the record."""
        return self._known(token).record

    async def claim(self, token: str) -> Recovery:
        """Raises the epoch and reads everything."""
        stored = self._known(token)
        stored.record = replace(stored.record, epoch=stored.record.epoch + 1)
        stored.deadline = self._deadline()
        stored.claims += 1
        return Recovery(
            record=stored.record,
            snapshot=stored.snapshot,
            snapshot_sequence=stored.snapshot_sequence,
            last_sequence=stored.last_sequence,
            journal=list(stored.journal),
            replies=stored.replies,
            claims=stored.claims,
            point_bytes=stored.point_bytes,
        )

    async def settle(self, token: str, epoch: int, brought_back: bool) -> None:
        """Takes the claim out of the count."""
        stored = self._alive(token)
        if stored is not None:
            all_of_them = brought_back and stored.record.epoch == epoch
            stored.claims = 0 if all_of_them else max(0, stored.claims - 1)

    def append(
        self, token: str, epoch: int, sequence: int, payload: bytes, observe: Observer | None = None
    ) -> asyncio.Future[None]:
        """Done, or failed, when it returns."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            stored = self._owned(token, epoch)
            if self._next(stored, sequence):
                self._journal(stored, payload)
            stored.deadline = self._deadline()
            if observe is not None:
                observe(0.0)
        except SimserviceError as error:
            future.set_exception(error)
        else:
            future.set_result(None)
        return future

    def flush(self) -> None:
        """Nothing is under way."""

    def receive(self) -> None:
        """Nothing is under way."""

    async def retract(self, token: str, epoch: int, sequence: int) -> int:
        """Takes the last request back and raises the epoch."""
        stored = self._known(token)
        if stored.retracted_by == epoch and stored.record.epoch == epoch + 1:
            return epoch + 1
        stored = self._owned(token, epoch)
        if sequence == stored.last_sequence > stored.snapshot_sequence:
            stored.journal.pop()
            stored.last_sequence -= 1
        stored.record = replace(stored.record, epoch=epoch + 1)
        stored.retracted_by = epoch
        return epoch + 1

    async def snapshot(self, token: str, epoch: int, sequence: int, data: bytes, replies: bytes | None = None) -> None:
        """Replaces the snapshot and cuts the journal."""
        stored = self._owned(token, epoch)
        if sequence > stored.last_sequence:
            raise SequenceGap(sequence, stored.last_sequence)
        if sequence > stored.snapshot_sequence:
            del stored.journal[: sequence - stored.snapshot_sequence]
            stored.snapshot, stored.snapshot_sequence, stored.replies = data, sequence, replies
            for point in [point for point in stored.forgotten if stored.restored[point] <= sequence]:
                stored.drop(point)
        stored.deadline = self._deadline()

    async def save(
        self, token: str, epoch: int, sequence: int, payload: bytes, data: bytes, limits: PointLimits
    ) -> int:
        """Journals and keeps."""
        stored = self._owned(token, epoch)
        if self._next(stored, sequence):
            count, total = len(stored.points), stored.point_bytes
            if count + 1 > limits.most or total + len(data) > limits.most_bytes:
                raise limits.exceeded(count, total, len(data))
            stored.points[sequence] = data
            self._journal(stored, payload)
        return stored.point_bytes

    async def restore(self, token: str, epoch: int, sequence: int, payload: bytes, point: int) -> bytes:
        """Journals and reads."""
        stored = self._owned(token, epoch)
        new = self._next(stored, sequence)
        if point not in stored.points or point in stored.forgotten:
            raise UnknownPoint(point)
        if new:
            stored.restored[point] = sequence
            self._journal(stored, payload)
        return stored.points[point]

    async def point(self, token: str, point: int) -> bytes:
        """Reads."""
        stored = self._alive(token)
        if stored is None or point not in stored.points:
            raise UnknownPoint(point)
        return stored.points[point]

    async def forget(self, token: str, epoch: int, sequence: int, payload: bytes, points: Sequence[int]) -> int:
        """Journals and gives up."""
        stored = self._owned(token, epoch)
        if self._next(stored, sequence):
            for point in points:
                if stored.restored.get(point, 0) > stored.snapshot_sequence:
                    stored.forgotten.add(point)
                else:
                    stored.drop(point)
            self._journal(stored, payload)
        return stored.point_bytes

    async def touch(self, token: str, epoch: int) -> None:
        """Renews the time to live."""
        self._owned(token, epoch).deadline = self._deadline()

    async def delete(self, token: str, epoch: int) -> None:
        """Forgets the session and its open key."""
        if self._alive(token) is not None:
            self._tokens.pop(self._owned(token, epoch).record.open_key, None)
            del self._sessions[token]

    async def announce(self, world: str, contract: bytes, ttl_s: float) -> None:
        """Lists a world."""
        self._worlds[world] = (contract, self._now() + ttl_s)

    async def announce_room(self, owner: str, room: bytes, ttl_s: float) -> None:
        """Lists a room."""
        self._rooms[owner] = (room, self._now() + ttl_s)

    async def rooms(self) -> dict[str, bytes]:
        """The rooms whose deadline has not passed."""
        self._rooms = {owner: told for owner, told in self._rooms.items() if told[1] > self._now()}
        return {owner: room for owner, (room, _) in self._rooms.items()}

    async def worlds(self) -> dict[str, bytes]:
        """The worlds whose deadline has not passed."""
        return {world: contract for world, (contract, deadline) in self._worlds.items() if deadline > self._now()}

    async def close(self) -> None:
        """There is nothing to end."""

    @staticmethod
    def _next(stored: _Stored, sequence: int) -> bool:
        """Whether it is the next request, and not the last one repeated."""
        if sequence not in (stored.last_sequence, stored.last_sequence + 1):
            raise SequenceGap(sequence, stored.last_sequence + 1)
        return sequence == stored.last_sequence + 1

    def _journal(self, stored: _Stored, payload: bytes) -> None:
        stored.journal.append(payload)
        stored.last_sequence += 1
        stored.deadline = self._deadline()

    def _deadline(self) -> float:
        return self._now() + self._idle_ttl_s

    def _alive(self, token: str) -> _Stored | None:
        stored = self._sessions.get(token)
        if stored is not None and stored.deadline <= self._now():
            del self._sessions[token]
            return None
        return stored

    def _known(self, token: str) -> _Stored:
        stored = self._alive(token)
        if stored is None:
            raise UnknownSession(token)
        return stored

    def _owned(self, token: str, epoch: int) -> _Stored:
        stored = self._known(token)
        if stored.record.epoch != epoch:
            raise SessionFenced(token)
        return stored
