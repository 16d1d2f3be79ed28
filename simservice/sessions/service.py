"""The use cases of a session: open, resume, apply, branch, render, close. Knows no ray, grpc, torch or redis.

Exactly once. A request goes to the engine and to the journal at the same moment, and is answered when both are done.
- Answered means journaled: whoever resumes the session replays it.
- A request the engine refuses was journaled too; it is taken back (`retract`) before the refusal is answered. A process
  that dies in between leaves it as the journal's last entry, where recovery meets the same refusal and takes it back.
- When the journal cannot be written the lanes may be ahead of it, so they are dropped and the next resume replays.
- A snapshot taken at request n is stored once n + replies_kept requests are journaled. So a replay always makes every
  answer that a repeat may still ask for, and no answer is ever stored.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import weakref
from collections.abc import AsyncGenerator, Callable
from functools import partial

import numpy as np
from gymnasium.vector import AutoresetMode

from simservice.errors import (
    CapacityExhausted,
    InvalidInput,
    ModelRetired,
    ReplicaDraining,
    SessionClosed,
    SessionFenced,
    SessionQuarantined,
    SimserviceError,
    StoreUnavailable,
    UnknownSession,
)
from simservice.sessions.branches import Branches
from simservice.sessions.caution import check_caution
from simservice.sessions.claims import Claims
from simservice.sessions.deadlines import Deadlines
from simservice.sessions.holdings import Holdings
from simservice.sessions.imagining import Imagining, NoPolicies, Policies
from simservice.sessions.lanes import Branch, Command, LaneEngine, Result
from simservice.sessions.leases import MemoryLeases
from simservice.sessions.quotas import ANYONE, QuotaKeeper, Tenant, own_key
from simservice.sessions.recovery import revive, submit
from simservice.sessions.session import Session
from simservice.sessions.settings import SessionConfig, SessionStats
from simservice.sessions.snapshots import ReplyCodec, Snapshots
from simservice.sessions.store import Observer, Recovery, SessionRecord, SessionStore
from simservice.sessions.waiting import ended, heard, in_a_task
from simservice.types import SEED_LIMIT, TRUSTING, Array, Caution, Imagine, Imagined

log = logging.getLogger(__name__)

ARGUMENTS = ("world", "num_envs", "autoreset_mode", "caution")
"""Of an open; its repetition has the same."""


class SessionService:
    """All sessions of one world on one replica. Called from one event loop."""

    def __init__(
        self,
        engine: LaneEngine,
        store: SessionStore,
        *,
        decode: Callable[[bytes], Command | Branch | Imagine],
        config: SessionConfig | None = None,
        replies: ReplyCodec | None = None,
        quotas: QuotaKeeper | None = None,
        observe_append: Observer | None = None,
        policies: Policies | None = None,
    ) -> None:
        self.engine = engine
        self.store = store
        self.config = config or SessionConfig()
        self.quotas = quotas or QuotaKeeper(MemoryLeases())
        self._decode = decode
        self._observe_append = observe_append
        engine.accompany(store.flush, store.receive)  # the journal of all sessions of a tick is one round trip
        self.held = Holdings(engine, self.quotas, self.config)
        self._stats = self.held.stats
        self._lose, self._renew, self._settled = self.held.lose, self.held.renew, self.held.settled
        self._install, self._remove, self._spawn = self.held.install, self.held.remove, self.held.spawn
        self._claims = Claims(store, self.held)
        self._doors: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self.deadlines = Deadlines(self.config.deadline_s, self._give_up)
        self._snapshots = Snapshots(engine, store, self.held, self.config, replies)
        self._branches = Branches(engine, store, self.held, self._snapshots, self.quotas, self.config)
        self._policies = policies or NoPolicies()
        where = engine, store, self.held, self._snapshots
        self._imagining = Imagining(*where, self._policies, self.config, observe_append)

    # ---- the calls -------------------------------------------------------------------------------------------------

    async def open(
        self,
        num_envs: int,
        mode: AutoresetMode,
        open_key: bytes,
        tenant: Tenant = ANYONE,
        caution: Caution = TRUSTING,
    ) -> Session:
        """A new session of the tenant, or the one that an earlier open of its own with the same key made."""
        check_caution(caution, self.engine.spec)
        if not 1 <= num_envs <= self.config.max_num_envs:
            raise InvalidInput("num_envs", f"{num_envs} is not between 1 and {self.config.max_num_envs}")
        if not 16 <= len(open_key) <= 64:
            raise InvalidInput("open_key", f"it has {len(open_key)} bytes; draw 16 to 64 at random")
        seeds = np.frombuffer(secrets.token_bytes(8 * num_envs), dtype="<u8") % SEED_LIMIT
        wanted = SessionRecord(
            token=secrets.token_hex(16),
            world=self.engine.spec.full_name,
            num_envs=num_envs,
            autoreset_mode=mode.value,
            seeds=seeds.astype("<i8").tobytes(),
            open_key=own_key(tenant, open_key),
            epoch=1,
            tenant=tenant.name,
            caution=caution,
        )
        record = await self.store.create(wanted)
        if record != wanted:
            if any(getattr(record, name) != getattr(wanted, name) for name in ARGUMENTS):
                raise InvalidInput("open_key", "an open with other arguments has used it; draw a new one")
            return await self.resume(record.token, tenant)
        try:
            await self.quotas.acquire(tenant, record.token, record.num_envs)
            lanes = self.engine.allocate(num_envs, mode, seeds.astype(np.int64), caution)
        except SimserviceError as error:
            self.quotas.release(record.tenant, record.token)
            await self.store.delete(record.token, record.epoch)
            if isinstance(error, CapacityExhausted):
                raise self.held.hinted(error) from error
            raise
        self._stats.opened += 1
        return self._install(Session(record, lanes, {}, 0, record.epoch, 0.0, self._snapshots.interval))

    async def resume(self, token: str, tenant: Tenant = ANYONE) -> Session:
        """Takes a session over, from another replica or from another stream of this one, which may not go on then."""
        door = self._doors.setdefault(token, asyncio.Lock())
        async with door:
            record = await self.store.record(token)
            if record.tenant != tenant.name:
                raise UnknownSession(token)  # to whom it does not belong it is not there
            if record.world != self.engine.spec.full_name:
                raise ModelRetired(record.world, self.engine.spec.full_name)
            local = self.held.get(token)
            try:
                return await (self._recover(token, None, tenant) if local is None else self._take_over(local, tenant))
            except CapacityExhausted as error:
                raise self.held.hinted(error) from error

    async def apply(self, session: Session, sequence: int, command: Command, payload: bytes) -> Result:
        """Steps or resets the session's lanes: `sequence` is one more than the last, or a repeat of a kept one.

        `payload` is what the store keeps of the command; `decode` makes the command of it again. A recoverable error
        has changed nothing and used no number; after any other the session must be resumed.
        """
        async with session.turn:
            if session.unsettled is not None or session.end is not None:
                await in_a_task()
                await self._settled(session)
            kept = session.kept(sequence)
            if kept is not None:
                self._stats.repeats += 1
                return kept
            appends: list[asyncio.Future[None]] = []

            def journal() -> None:
                appends.append(self.store.append(session.token, session.epoch, sequence, payload, self._observe_append))

            stepped = submit(self.engine, session.lanes, command, journal)
            if not appends:
                refusal = stepped.exception()  # at once: there is nothing to journal
                assert refusal is not None
                raise self._refused(session, refusal)
            session.newest_bytes = len(payload)
            journaled = appends[0]
            try:
                if not stepped.done():
                    await ended(stepped)
                if not journaled.done():
                    await ended(journaled)
            except asyncio.CancelledError:
                # The caller has gone. Its request is dropped if it has not begun; whoever comes next waits for its end.
                self.engine.abandon(session.lanes)
                session.unsettled = self._spawn(self._settle(session, sequence, stepped, journaled))
                raise
            if journaled.exception() is None and stepped.exception() is None:
                return self._done(session, sequence, stepped.result())
            return await self._outcome(session, sequence, stepped, journaled)

    async def branch(
        self, session: Session, sequence: int, command: Branch, payload: bytes, tenant: Tenant = ANYONE
    ) -> Result:
        """Forks, saves, restores or forgets; the rules are those of apply. A forked session is the tenant's."""
        return await self._branches.apply(session, sequence, command, payload, tenant)

    def imagine(
        self, session: Session, sequence: int, command: Imagine, payload: bytes, timeout_ms: int = 0
    ) -> AsyncGenerator[Imagined | Result, None]:
        """The parts of a rollout as they are made; it has ended (0: within the service's own deadline) or is not done.

        One that advances the session is a request like those of apply: when its last part is here it is journaled. A
        number that another request had gives that one's answer.
        """
        return self._imagining.play(session, sequence, command, payload, timeout_ms)

    async def render(self, session: Session) -> Array:
        """Pictures of all lanes, (num_envs, height, width, 3) uint8."""
        async with session.turn:
            await self._settled(session)
            frames = self.engine.render(session.lanes)
            touched = asyncio.ensure_future(self.store.touch(session.token, session.epoch))
            for future in (frames, touched):
                future.add_done_callback(heard)  # the caller may go
            await asyncio.wait((frames, touched))
            if (error := touched.exception()) is not None:
                raise error if isinstance(error, StoreUnavailable) else self._lose(session, error)
            self._renew(session)
            return frames.result()

    async def close(self, session: Session) -> None:
        """Frees the lanes and forgets the session. Closing twice is no error."""
        async with session.turn:
            if session.forgotten:
                return
            if session.end is None:
                await self._settled(session)
                self._remove(session, SessionClosed)
            elif isinstance(error := session.end(), SessionFenced):
                raise error
            await self.store.delete(session.token, session.epoch)
            await self.quotas.settle()  # so that whoever closed can open again
            session.forgotten = True

    def detach(self, session: Session) -> None:
        """Tells that the session's stream broke: unless it is resumed here soon, its lanes are given up."""
        self.held.detach(session)

    async def put_down(self, session: Session) -> None:
        """Gives a session up to whoever resumes it, elsewhere and without a replay; after the request under way.

        A rollout that has not ended is not done; its caller goes on elsewhere, too.
        """
        self._imagining.stop(session, ReplicaDraining())
        async with session.turn:
            if session.unsettled is not None:
                await asyncio.wait([session.unsettled])
            if session.end is None:
                await self._snapshots.put_down(session)
            if session.end is None:
                self._remove(session, ReplicaDraining)
                self._stats.put_down += 1

    async def put_down_all(self) -> None:
        """Gives up all sessions that are left."""
        await asyncio.gather(*(self.put_down(session) for session in self.held.all()))

    async def stop(self) -> None:
        """Frees all lanes after the requests under way; the sessions stay in the store for other replicas."""
        self.deadlines.stop()
        self._imagining.stop_all()
        await self.held.stop()

    def stats(self) -> SessionStats:
        """The counters as they are now."""
        return self.held.counted()

    # ---- one request -----------------------------------------------------------------------------------------------

    def _give_up(self, session: Session) -> None:
        """Nobody waits for the session's request any more. Lanes that it no longer has may be another's by now."""
        if session.end is None:
            self.engine.abandon(session.lanes)

    async def _outcome(
        self, session: Session, sequence: int, stepped: asyncio.Future[Result], journaled: asyncio.Future[None]
    ) -> Result:
        """What becomes of a request that the engine and the journal are both done with."""
        if (failure := journaled.exception()) is not None:
            stepped.exception()
            raise self._lose(session, failure)
        if (refusal := stepped.exception()) is not None:
            await self._take_back(session, sequence, refusal)
            raise self._refused(session, refusal)
        return self._done(session, sequence, stepped.result())

    def _done(self, session: Session, sequence: int, result: Result) -> Result:
        """Counts a request that was done and journaled."""
        session.commit(sequence, result, self.config.replies_kept)
        self._stats.requests += 1
        self._renew(session)
        session.journal_bytes += session.newest_bytes
        self._snapshots.after(session, sequence)
        return result

    async def _take_back(self, session: Session, sequence: int, refusal: BaseException) -> None:
        """Removes a refused request from the journal, so that its number is free again."""
        try:
            await in_a_task()
            session.epoch = await self.store.retract(session.token, session.epoch, sequence)
        except BaseException as error:  # also when cancelled: the journal may or may not hold the request
            raise self._lose(session, error) from refusal

    def _refused(self, session: Session, refusal: BaseException) -> BaseException:
        """The error to raise for a request that the engine did not do; only a recoverable one leaves the lanes."""
        if isinstance(refusal, SimserviceError) and refusal.recoverable:
            self._stats.refused += 1
            return refusal
        return self._lose(session, refusal)

    async def _settle(
        self, session: Session, sequence: int, stepped: asyncio.Future[Result], journaled: asyncio.Future[None]
    ) -> None:
        await asyncio.wait((stepped, journaled))
        try:
            await self._outcome(session, sequence, stepped, journaled)
        except SimserviceError as error:
            log.info("request %d of session %s failed after its stream had gone: %s", sequence, session.token, error)

    # ---- who holds what --------------------------------------------------------------------------------------------

    async def _take_over(self, local: Session, tenant: Tenant) -> Session:
        """Resumes what another stream of this replica holds: with its lanes, when they are where the store is."""
        self._imagining.stop(local, SessionFenced(local.token))
        async with local.turn:
            if local.unsettled is not None:
                await asyncio.wait([local.unsettled])
            return await self._recover(local.token, local, tenant)

    async def _recover(self, token: str, local: Session | None, tenant: Tenant) -> Session:
        recovery = await self._claims.make(token)
        record = recovery.record
        if local is not None and local.end is None:
            current = record.epoch == local.epoch + 1 and recovery.last_sequence == local.last_sequence
            if current:
                session = local.handed_on(record)
                self._remove(local, partial(SessionFenced, token), release=False)
                self._stats.resumed += 1
                self._stats.adopted += 1
                return await self._settled_claim(self._install(session))
            self._remove(local, partial(SessionFenced, token))
        if recovery.claims > self.config.claims_in_replay:
            await self._claims.over(record, False)
            raise SessionQuarantined(token, self.config.claims_in_replay)
        try:
            await self.quotas.acquire(tenant, record.token, record.num_envs)
            session = self._install(await self._revived(recovery))
        except BaseException:
            self.quotas.release(record.tenant, record.token)
            await self._claims.over(record, False)
            raise
        return await self._settled_claim(session)

    async def _settled_claim(self, session: Session) -> Session:
        try:
            await self._claims.over(session.record, True)
        except asyncio.CancelledError:  # the caller has gone
            self.held.detach(session)
            raise
        return session

    async def _revived(self, recovery: Recovery) -> Session:
        record, epoch = recovery.record, recovery.record.epoch
        revived = await revive(
            recovery,
            self.engine,
            self.store,
            self._decode,
            self.config.replies_kept,
            self._snapshots.replies,
            self._policies,
        )
        if revived.refused:
            try:
                epoch = await self.store.retract(record.token, epoch, recovery.last_sequence)
            except BaseException:
                self.engine.release(revived.lanes)
                raise
        session = Session(record, revived.lanes, revived.replies, revived.last_sequence, epoch, 0.0)
        session.snapshot_due = recovery.snapshot_sequence + self._snapshots.interval
        session.journal_bytes = sum(map(len, recovery.journal))
        session.snapshot_bytes, session.point_bytes = len(recovery.snapshot or b""), recovery.point_bytes
        self._stats.resumed += 1
        return session
