"""When a session's lanes are snapshotted, and when its journal is cut: so neither grows with the session's age.

A snapshot taken at request n is stored once n + replies_kept requests are journaled; see service.py for why. One waits
at a time. It is taken every so many requests, after so many bytes of journal, and at every fork, save and restore.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from simservice.errors import SimserviceError
from simservice.sessions.holdings import Holdings
from simservice.sessions.lanes import LaneEngine, Result, Rolled
from simservice.sessions.replies import pack_replies
from simservice.sessions.session import Session, Waiting
from simservice.sessions.settings import SessionConfig
from simservice.sessions.store import SessionStore

log = logging.getLogger(__name__)


class ReplyCodec(Protocol):
    """Answers as bytes and back. Only a session that is put down has its answers stored: no replay makes them again."""

    def reply(self, sequence: int, result: Result, lanes: int) -> bytes: ...

    def kept_reply(self, raw: bytes) -> Result: ...


class Snapshots:
    """Takes and stores the snapshots of one service's sessions."""

    def __init__(
        self,
        engine: LaneEngine,
        store: SessionStore,
        held: Holdings,
        config: SessionConfig,
        replies: ReplyCodec | None = None,
    ) -> None:
        self._engine = engine
        self._store = store
        self._held = held
        self._config = config
        self.replies = replies
        # A snapshot waits for replies_kept requests, and only one can wait.
        self.interval = max(config.snapshot_every_steps, config.replies_kept + 1)

    def after(self, session: Session, sequence: int, data: bytes | None = None) -> None:
        """Called when a request is done; `data` is what the lanes are now, where somebody has that already."""
        waiting = session.waiting_snapshot
        if waiting is None:
            if data is None and sequence < session.snapshot_due and not self._heavy(session):
                return
            session.snapshot_due = sequence + self.interval
            session.waiting_snapshot = Waiting(sequence, session.journal_bytes, data)
            if data is None:
                taken = self._engine.snapshot(session.lanes)
                self._held.spawn(self._take(session, session.waiting_snapshot, taken))
        elif waiting.data is not None and sequence >= waiting.sequence + self._config.replies_kept:
            session.waiting_snapshot = None
            self._held.spawn(self._keep(session, waiting, waiting.data))

    def rolled(self, session: Session, steps: int, payload_bytes: int, before: bytes) -> None:
        """Called when a rollout of so many steps is done, which is the newest request; `before` was at its beginning.

        A replay of it takes as long as it did, so what it began from is stored as soon as rollouts have made as many
        steps as requests lie between two snapshots. Then it is the one entry of the journal.
        """
        cut, session.journal_bytes = session.journal_bytes, session.journal_bytes + payload_bytes
        session.rolled_steps += steps
        if session.rolled_steps < self._config.snapshot_every_steps and cut < self._config.max_journal_bytes:
            return
        replies = self._packed(session)
        if replies is None:
            return
        session.rolled_steps, session.waiting_snapshot = 0, None
        session.snapshot_due = session.last_sequence + self.interval
        self._held.spawn(self._cut(session, session.last_sequence - 1, cut, before, replies))

    async def _cut(self, session: Session, sequence: int, cut: int, data: bytes, replies: bytes) -> None:
        await asyncio.sleep(0)  # the rollout's last part leaves first: its listener waits for it, and nobody for this
        try:
            await self._store.snapshot(session.token, session.epoch, sequence, data, replies)
        except SimserviceError as error:
            log.warning("the snapshot of session %s at %d was not stored: %s", session.token, sequence, error)
            return
        session.journal_bytes = max(0, session.journal_bytes - cut)
        session.snapshot_bytes = len(data)
        self._held.stats.snapshots += 1

    def _packed(self, session: Session) -> bytes | None:
        """The kept answers as bytes, but for a rollout's, which a replay makes; None: too many or not possible."""
        if self.replies is None:
            return None
        replies = [
            (sequence, self.replies.reply(sequence, result, session.num_envs))
            for sequence, result in session.replies.items()
            if not isinstance(result, Rolled)
        ]
        small = sum(len(raw) for _, raw in replies) <= self._config.max_replies_bytes
        return pack_replies(replies) if small else None

    def _heavy(self, session: Session) -> bool:
        return session.journal_bytes >= self._config.max_journal_bytes

    async def _take(self, session: Session, waiting: Waiting, taken: asyncio.Future[bytes]) -> None:
        try:
            waiting.data = await taken
        except SimserviceError as error:
            log.warning("no snapshot of session %s at %d: %s", session.token, waiting.sequence, error)
            if session.waiting_snapshot is waiting:
                session.waiting_snapshot = None

    async def _keep(self, session: Session, waiting: Waiting, data: bytes) -> None:
        try:
            await self._store.snapshot(session.token, session.epoch, waiting.sequence, data)
        except SimserviceError as error:  # the journal still holds everything
            if session.end is None:  # of one that has just been closed or taken over nobody needs it
                words = "the snapshot of session %s at %d was not stored: %s"
                log.warning(words, session.token, waiting.sequence, error)
            return
        session.journal_bytes = max(0, session.journal_bytes - waiting.journal_bytes)
        session.snapshot_bytes = len(data)
        self._held.stats.snapshots += 1

    async def put_down(self, session: Session) -> None:
        """Stores the lanes as they are, with the answers that may be asked for again; the journal ends there.

        Where that cannot be, the journal holds everything and whoever resumes the session replays it.
        """
        replies = self._packed(session) if session.last_sequence else None
        if replies is None:
            return
        newest = session.replies.get(session.last_sequence)
        try:
            if isinstance(newest, Rolled):  # whoever resumes plays it again, and has its answer then
                data, sequence = newest.before, session.last_sequence - 1
            else:
                data, sequence = await self._engine.snapshot(session.lanes), session.last_sequence
            await self._store.snapshot(session.token, session.epoch, sequence, data, replies)
        except SimserviceError as error:
            log.warning("session %s is put down with its journal alone: %s", session.token, error)
        else:
            self._held.stats.snapshots += 1
