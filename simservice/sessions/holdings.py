"""The sessions whose lanes one service holds: how a hold begins, is renewed, and ends by loss, expiry or hand-over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from simservice.errors import (
    CapacityExhausted,
    InternalError,
    SessionClosed,
    SessionFenced,
    SimserviceError,
    UnknownSession,
)
from simservice.sessions.lanes import LaneEngine
from simservice.sessions.quotas import QuotaKeeper, hinted
from simservice.sessions.session import Session
from simservice.sessions.settings import SessionConfig, SessionStats

T = TypeVar("T")


class Holdings:
    """Sessions by token, and the reaper of those that nobody drives. Called from one event loop."""

    def __init__(self, engine: LaneEngine, quotas: QuotaKeeper, config: SessionConfig) -> None:
        self.stats = SessionStats()
        self._engine = engine
        self._quotas = quotas
        self._config = config
        self._sessions: dict[str, Session] = {}
        self._background: set[asyncio.Task[Any]] = set()
        self._reaper: asyncio.Task[None] | None = None
        self._earlier = asyncio.Event()  # a deadline came nearer than the reaper knows

    def get(self, token: str) -> Session | None:
        """The hold on a session, if it is here."""
        return self._sessions.get(token)

    def all(self) -> list[Session]:
        """Every session with lanes here."""
        return list(self._sessions.values())

    def counted(self) -> SessionStats:
        """The counters as they are now."""
        lanes = sum(session.num_envs for session in self.all())
        return replace(self.stats, open=len(self._sessions), lanes=lanes)

    def install(self, session: Session) -> Session:
        """Begins a hold."""
        self._sessions[session.token] = session
        self.renew(session)
        if self._reaper is None:
            self._reaper = asyncio.create_task(self._reap())
        self._earlier.set()
        return session

    def remove(self, session: Session, end: Callable[[], SimserviceError], *, release: bool = True) -> None:
        """Ends a hold; `end` makes the error that it raises from now on. Lanes go back, unless a successor has them."""
        assert session.end is None
        session.end = end
        session.waiting_snapshot = None
        if self._sessions.get(session.token) is session:
            del self._sessions[session.token]
        if release:
            self._engine.release(session.lanes)
            self._quotas.release(session.record.tenant, session.token)

    def lose(self, session: Session, error: BaseException) -> BaseException:
        """Drops lanes that can no longer be trusted to be where the journal is; returns the error to raise."""
        if session.end is None:
            if isinstance(error, SessionFenced):
                self.stats.fenced += 1
            else:
                self.stats.lost += 1
            known = error if isinstance(error, SimserviceError) else InternalError(f"the session was dropped ({error})")
            self.remove(session, partial(type(known).from_wire, str(known), known.details))
        return error

    async def settled(self, session: Session) -> None:
        """Waits for a request that lost its caller, then raises what ended the session, if anything did."""
        if session.unsettled is not None:
            await asyncio.wait([session.unsettled])
            session.unsettled = None
        if session.end is not None:
            raise session.end()

    def detach(self, session: Session) -> None:
        """Tells that the session's stream broke: unless it is resumed here soon, its lanes are given up."""
        if session.end is None:
            session.detached = True
            self.renew(session)
            self._earlier.set()

    def renew(self, session: Session) -> None:
        """Somebody drives the session."""
        ttl_s = self._config.detached_ttl_s if session.detached else self._config.idle_ttl_s
        session.deadline = _now() + ttl_s

    def hinted(self, error: CapacityExhausted) -> CapacityExhausted:
        """The same, with the time until a session here may end."""
        return hinted(error, (session.deadline - _now() for session in self._sessions.values()))

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Runs work that stop() waits for."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    async def stop(self) -> None:
        """Ends all holds after the requests under way."""
        if self._reaper is not None:
            self._reaper.cancel()
            await asyncio.wait([self._reaper])
            self._reaper = None
        for session in self.all():
            async with session.turn:
                if session.end is None:
                    self.remove(session, SessionClosed)
        while self._background:
            await asyncio.wait(self._background)

    # ---- idle sessions ---------------------------------------------------------------------------------------------

    async def _reap(self) -> None:
        """Ends idle sessions; sleeps until the next deadline, or until a nearer one is set."""
        loop = asyncio.get_running_loop()
        while True:
            self._earlier.clear()
            for session in [session for session in self._sessions.values() if session.deadline <= loop.time()]:
                await self._expire(session)
            deadline = min((session.deadline for session in self._sessions.values()), default=None)
            alarm = None if deadline is None else loop.call_at(deadline, self._earlier.set)
            try:
                await self._earlier.wait()
            finally:
                if alarm is not None:
                    alarm.cancel()

    async def _expire(self, session: Session) -> None:
        if session.turn.locked():  # in use after all
            self.renew(session)
            return
        async with session.turn:
            if session.end is None and session.deadline <= _now():
                self.stats.expired += 1
                self.remove(session, partial(UnknownSession, session.token))


def _now() -> float:
    return asyncio.get_running_loop().time()
