"""Rollouts of sessions: what if, which leaves no trace, and those that advance a session exactly once.

An advancing rollout is played by copies of the lanes. Only when it is over is it journaled, then the lanes become what
the copies are, then its last part is answered. So one that is broken off anywhere has not been done, and one whose last
part was lost has. Its answer, which may be megabytes, is not kept: what the lanes were before it is, and whoever asks
again has it played again. A replay of the journal plays it, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace
from typing import Any, Protocol

from simservice.errors import (
    InternalError,
    InvalidInput,
    ReplicaDraining,
    SimserviceError,
    StoreUnavailable,
    UnknownPolicy,
)
from simservice.sessions.holdings import Holdings
from simservice.sessions.lanes import LaneEngine, Result, Rolled, Rollout
from simservice.sessions.session import Session
from simservice.sessions.settings import SessionConfig
from simservice.sessions.snapshots import Snapshots
from simservice.sessions.store import Observer, SessionRecord, SessionStore
from simservice.sessions.waiting import ended, heard
from simservice.types import Array, Imagine, Imagined


class Policies(Protocol):
    """The policies that tenants have put, on any replica."""

    async def loaded(self, tenant: str, content_hash: str) -> Any:
        """The policy, ready for the engine; its time to live begins anew. UnknownPolicy."""


class NoPolicies:
    """Where none can be put."""

    async def loaded(self, tenant: str, content_hash: str) -> Any:
        """UnknownPolicy."""
        raise UnknownPolicy(content_hash)


class Imagining:
    """Does rollouts for the sessions of one service."""

    def __init__(
        self,
        engine: LaneEngine,
        store: SessionStore,
        held: Holdings,
        snapshots: Snapshots,
        policies: Policies,
        config: SessionConfig,
        observe_append: Observer | None,
    ) -> None:
        self._engine = engine
        self._store = store
        self._held = held
        self._snapshots = snapshots
        self._policies = policies
        self._config = config
        self._observe_append = observe_append
        self._beginning: dict[asyncio.Future[Rollout | Result], Session] = {}  # they wait for the turn, or a policy
        self._under_way: dict[Session, Rollout] = {}

    async def play(
        self, session: Session, sequence: int, command: Imagine, payload: bytes, timeout_ms: int
    ) -> AsyncGenerator[Imagined | Result, None]:
        """The parts of a rollout, or the kept answer of another request that had this number.

        The session's turn is held by a task of its own: a reader that hangs keeps the session from nobody.
        """
        begun: asyncio.Future[Rollout | Result] = asyncio.get_running_loop().create_future()
        work = self._held.spawn(self._drive(session, sequence, command, payload, timeout_ms, begun))
        begun.add_done_callback(heard)
        work.add_done_callback(heard)  # of what went wrong behind its listener's back hears whoever resumes the session
        self._beginning[begun] = session
        try:
            await ended(begun)
        except asyncio.CancelledError:
            work.cancel()
            raise
        finally:
            del self._beginning[begun]
        rollout = begun.result()
        if not isinstance(rollout, AsyncIterator):
            yield rollout
            return
        try:
            async for part in rollout:
                if part.last:
                    await ended(work)
                    work.result()
                yield part
        except SimserviceError as error:
            if session.end is not None:  # lanes that are given back end a rollout, too, and do not know why they are
                raise session.end() from error
            raise
        finally:
            rollout.stop()

    def stop(self, session: Session, error: SimserviceError) -> None:
        """Ends the session's rollout, if one begins or is under way, with an error."""
        for begun, waiting in self._beginning.items():
            if waiting is session and not begun.done():
                begun.set_exception(error)
        if (rollout := self._under_way.get(session)) is not None:
            rollout.stop(error)

    def stop_all(self) -> None:
        """Ends all of them: their sessions go on elsewhere."""
        for session in {*self._beginning.values(), *self._under_way}:
            self.stop(session, ReplicaDraining())

    # ---- one rollout -------------------------------------------------------------------------------------------------

    async def _drive(
        self,
        session: Session,
        sequence: int,
        command: Imagine,
        payload: bytes,
        timeout_ms: int,
        begun: asyncio.Future[Rollout | Result],
    ) -> None:
        """Begins it, waits for its end, and does what makes it count before its last part is answered."""
        async with session.turn:
            kept: Rolled | None = None
            try:
                await self._held.settled(session)
                if begun.done():  # it was stopped meanwhile
                    return
                answer = self._kept(session, sequence, command)
                if answer is not None and not isinstance(answer, Rolled):
                    begun.set_result(answer)
                    return
                kept = answer
                played = command if kept is None else kept.command
                policy = await self._policy(session, played)
                if begun.done():
                    return
                rollout = self._engine.imagine(session.lanes, played, policy, None if kept is None else kept.before)
            except Exception as error:
                if not begun.done():
                    begun.set_exception(error)
                return
            seconds = timeout_ms / 1000 or self._config.rollout_deadline_s
            alarm = asyncio.get_running_loop().call_later(seconds, rollout.stop)
            self._under_way[session] = rollout
            begun.set_result(rollout)
            # One that leaves no trace tells the store meanwhile that the session is driven, and hears whose it is.
            touched = None if command.advance else asyncio.ensure_future(self._touched(session))
            try:
                if await rollout.over() and command.advance and kept is None:
                    await self._settle(session, sequence, command, payload, rollout)
            finally:
                rollout.stop()  # which is over, unless its caller went before it heard of it
                alarm.cancel()
                del self._under_way[session]
                if touched is not None:
                    await touched
            self._held.renew(session)

    def _kept(self, session: Session, sequence: int, command: Imagine) -> Result | None:
        """The answer to a request with this number, if it is done already."""
        if not command.advance:
            if sequence:
                raise InvalidInput("sequence", f"is {sequence}; a rollout that does not advance carries 0")
            return None
        answer = session.kept(sequence)
        if answer is not None:
            self._held.stats.repeats += 1
        return answer

    async def _policy(self, session: Session, command: Imagine) -> Any:
        """What acts in it, ready for the engine; None: a script does."""
        if command.policy is None:
            return None
        return await self._policies.loaded(session.record.tenant, command.policy.content_hash)

    async def _touched(self, session: Session) -> None:
        """A session that is imagined from is driven, and must still be ours."""
        try:
            await self._store.touch(session.token, session.epoch)
        except SimserviceError as error:
            raise error if isinstance(error, StoreUnavailable) else self._held.lose(session, error) from error

    async def _settle(
        self, session: Session, sequence: int, command: Imagine, payload: bytes, rollout: Rollout
    ) -> None:
        try:
            if session.end is not None:
                raise session.end()
            await self._store.append(session.token, session.epoch, sequence, payload, self._observe_append)
            if session.end is not None:
                raise session.end()
            await self._engine.commit(session.lanes, rollout)
        except Exception as error:
            raise self._held.lose(session, error) from error
        assert rollout.before is not None
        session.commit(sequence, Rolled(command, rollout.before), self._config.replies_kept)
        self._held.stats.requests += 1
        self._held.stats.rollouts += 1
        self._snapshots.rolled(session, command.steps, len(payload), rollout.before)


async def replayed(
    engine: LaneEngine, lanes: Array, record: SessionRecord, command: Imagine, policies: Policies
) -> Rolled:
    """A journaled rollout, done once more."""
    try:
        policy = None
        if command.policy is not None:
            policy = await policies.loaded(record.tenant, command.policy.content_hash)
        quiet = replace(command, observation=False, action=False, outputs=False)
        rollout = engine.imagine(lanes, quiet, policy, None)
        async for _ in rollout:
            pass
        await engine.commit(lanes, rollout)
    except SimserviceError as error:
        raise error if not error.recoverable else InternalError(f"a rollout cannot be played again: {error}") from error
    assert rollout.before is not None
    return Rolled(command, rollout.before)
