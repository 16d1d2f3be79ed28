"""Fork, save, restore and forget: requests that turn a session's lanes into bytes, copies, or what they were before.

They are numbered and journaled like steps, so a repeat gets the first answer and a replay makes it again:
- a saved point is named by the number of its request, and stored with the journal entry in one atomic call;
- a restore is journaled together with the reading of its point, which stays stored while a replay may need it;
- a forked session's token is a keyed hash of its parent's token and of a key that the client drew, so whoever does
  the request again, here or on another replica, finds the session that the first one made.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from dataclasses import replace
from typing import TypeVar

import numpy as np

from simservice.errors import CapacityExhausted, InternalError, InvalidInput, SimserviceError, UnknownPoint
from simservice.sessions.holdings import Holdings
from simservice.sessions.lanes import (
    Branch,
    Forget,
    Forgotten,
    Fork,
    Forked,
    LaneEngine,
    Restore,
    Restored,
    Result,
    Save,
    Saved,
)
from simservice.sessions.quotas import QuotaKeeper, Tenant
from simservice.sessions.session import Session
from simservice.sessions.settings import SessionConfig
from simservice.sessions.snapshots import Snapshots
from simservice.sessions.store import SessionRecord, SessionStore
from simservice.sessions.waiting import ended, heard
from simservice.types import SEED_LIMIT, Array, Leaves

T = TypeVar("T")


class Branches:
    """Does these requests for the sessions of one service."""

    def __init__(
        self,
        engine: LaneEngine,
        store: SessionStore,
        held: Holdings,
        snapshots: Snapshots,
        quotas: QuotaKeeper,
        config: SessionConfig,
    ) -> None:
        self._engine = engine
        self._store = store
        self._held = held
        self._snapshots = snapshots
        self._quotas = quotas
        self._config = config

    async def apply(self, session: Session, sequence: int, command: Branch, payload: bytes, tenant: Tenant) -> Result:
        """Does one request under the rules of SessionService.apply."""
        async with session.turn:
            await self._held.settled(session)
            kept = session.kept(sequence)
            if kept is not None:
                self._held.stats.repeats += 1
                return kept
            work = self._held.spawn(self._guarded(session, sequence, command, payload, tenant))
            try:
                await ended(work)
            except asyncio.CancelledError:
                # The caller has gone, its request has not: whoever comes next waits for its end.
                session.unsettled = work
                work.add_done_callback(heard)
                raise
            return work.result()

    async def _guarded(
        self, session: Session, sequence: int, command: Branch, payload: bytes, tenant: Tenant
    ) -> Result:
        try:
            result, data = await self._do(session, sequence, command, payload, tenant)
        except Exception as error:
            if isinstance(error, SimserviceError) and error.recoverable:
                self._held.stats.refused += 1
                raise
            raise self._held.lose(session, error) from error
        session.journal_bytes += len(payload)
        session.commit(sequence, result, self._config.replies_kept)
        self._held.stats.requests += 1
        self._held.renew(session)
        self._snapshots.after(session, sequence, data)
        return result

    async def _do(
        self, session: Session, sequence: int, command: Branch, payload: bytes, tenant: Tenant
    ) -> tuple[Result, bytes | None]:
        """The answer, and what the lanes are now where that is known."""
        where = session.token, session.epoch, sequence, payload
        if isinstance(command, Save):
            data = await self._engine.snapshot(session.lanes)
            session.point_bytes = await self._store.save(*where, data, self._config.point_limits)
            return Saved(sequence), data
        if isinstance(command, Restore):
            data = await self._store.restore(*where, command.point)
            return await _restored(self._engine.restore(session.lanes, data), self._engine.look(session.lanes)), data
        if isinstance(command, Forget):
            session.point_bytes = await self._store.forget(*where, command.points)
            return Forgotten(), None
        answer = forked(session.record, sequence, command)
        child = await self._child(session, answer, command, tenant)
        try:
            await self._store.append(*where)
        except BaseException:
            if child is not None:  # it stays in the store, for whoever does the request again
                self._give_back(child.record, child.lanes)
            raise
        if child is not None:
            self._held.install(child)
        self._held.stats.forked += 1
        session.snapshot_due = sequence
        return answer, None

    async def _child(self, session: Session, answer: Forked, command: Fork, tenant: Tenant) -> Session | None:
        """The new session, stored; None where an earlier attempt has made it, whose lanes come when it is resumed."""
        source = _source(session.record, command, self._config.max_num_envs)
        fresh = command.seeds if command.seeds is not None else _drawn(len(source)) if command.fresh else None
        seeds = fresh if fresh is not None else _drawn(len(source))  # every lane has the luck of its snapshot
        record = replace(
            session.record,
            token=answer.token,
            num_envs=len(source),
            seeds=seeds.astype("<i8").tobytes(),
            open_key=hashlib.blake2b(answer.token.encode(), digest_size=32).digest(),
            epoch=1,
        )
        if self._held.get(record.token) is not None:
            return None
        await self._quotas.acquire(tenant, record.token, record.num_envs)
        lanes = None
        try:
            lanes = self._allocated(session, seeds)
            copied = self._engine.copy(session.lanes[source], lanes, fresh)
            data = await _both(copied, self._engine.snapshot(lanes))
            stored = await self._store.create(record, data)
        except BaseException:
            self._give_back(record, lanes)
            raise
        if stored != record:
            self._give_back(record, lanes)
            return None
        child = Session(record, lanes, {}, 0, record.epoch, 0.0, self._snapshots.interval)
        child.snapshot_bytes, child.detached = len(data), True
        return child

    def _give_back(self, record: SessionRecord, lanes: Array | None) -> None:
        if lanes is not None:
            self._engine.release(lanes)
        self._quotas.release(record.tenant, record.token)

    def _allocated(self, session: Session, seeds: Array) -> Array:
        try:
            return self._engine.allocate(len(seeds), session.mode, seeds, session.record.caution)
        except CapacityExhausted as error:
            raise self._held.hinted(error) from error


async def redo(
    engine: LaneEngine, lanes: Array, record: SessionRecord, sequence: int, command: Branch, store: SessionStore
) -> asyncio.Future[Result]:
    """Hands a journaled request in once more, when a session is replayed; the future has its answer.

    What it did to the store is there already, so only a restore does anything.
    """
    if isinstance(command, Restore):
        try:
            data = await store.point(record.token, command.point)
        except UnknownPoint as error:
            raise InternalError(f"the saved point {command.point}, which its journal needs, is gone") from error
        return asyncio.ensure_future(_restored(engine.restore(lanes, data), engine.look(lanes)))
    answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
    if isinstance(command, Save):
        answer.set_result(Saved(sequence))
    elif isinstance(command, Forget):
        answer.set_result(Forgotten())
    else:
        answer.set_result(forked(record, sequence, command))
    return answer


async def _both(done: asyncio.Future[None], wanted: asyncio.Future[T]) -> T:
    """The second answer, once the first is there, too."""
    await asyncio.wait((done, wanted))
    wanted.exception()  # heard, even where the first one's is raised
    done.result()
    return wanted.result()


async def _restored(done: asyncio.Future[None], wanted: asyncio.Future[Leaves]) -> Result:
    return Restored(await _both(done, wanted))


def forked(record: SessionRecord, sequence: int, command: Fork) -> Forked:
    """The answer to a fork: the same for all who do it."""
    digest = hashlib.blake2b(command.key, digest_size=16, key=record.token.encode())
    digest.update(sequence.to_bytes(8, "little"))
    lanes = record.num_envs if command.lanes is None else len(command.lanes)
    return Forked(digest.hexdigest(), lanes * command.copies)


def _source(record: SessionRecord, command: Fork, most: int) -> Array:
    """The parent's lane of each new lane, by its place in the session; InvalidInput for what cannot be meant."""
    lanes = np.arange(record.num_envs) if command.lanes is None else command.lanes
    if not len(lanes) or lanes.min() < 0 or lanes.max() >= record.num_envs:
        raise InvalidInput("lanes", f"must be some of 0 to {record.num_envs - 1}")
    if len(np.unique(lanes)) < len(lanes):
        raise InvalidInput("lanes", "a lane is named twice; ask for more copies instead")
    if not 1 <= command.copies <= most // len(lanes):
        problem = f"{command.copies} copies of {len(lanes)} lanes; a session has 1 to {most} lanes"
        raise InvalidInput("copies", problem)
    if not 16 <= len(command.key) <= 64:
        raise InvalidInput("fork_key", f"it has {len(command.key)} bytes; draw 16 to 64 at random")
    count = len(lanes) * command.copies
    if command.seeds is not None and (not command.fresh or len(command.seeds) != count or command.seeds.min() < 0):
        raise InvalidInput("seeds", f"with fresh luck, {count} integers from 0, one a new lane; else none")
    return np.repeat(lanes, command.copies).astype(np.int64)


def _drawn(count: int) -> Array:
    return (np.frombuffer(secrets.token_bytes(8 * count), dtype="<u8") % SEED_LIMIT).astype(np.int64)
