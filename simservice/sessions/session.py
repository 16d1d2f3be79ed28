"""One client's lease of lanes, as the replica that holds it sees it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gymnasium.vector import AutoresetMode

from simservice.errors import SequenceGap, SimserviceError
from simservice.sessions.lanes import Result, Rolled
from simservice.sessions.store import SessionRecord
from simservice.types import Array


@dataclass(eq=False, slots=True)
class Waiting:
    """A snapshot that is being taken, or was taken and is not yet old enough to be stored."""

    sequence: int  # the last request it holds
    journal_bytes: int  # of the requests that will be cut
    data: bytes | None


@dataclass(eq=False, slots=True)
class Session:
    """A stream's hold on a session. A later stream gets an object of its own and ends this one."""

    record: SessionRecord
    lanes: Array  # (num_envs,) int64, as the engine numbers them
    replies: dict[int, Result]  # the newest, by sequence; consecutive but for rollouts
    last_sequence: int
    epoch: int
    deadline: float  # of the event loop's clock: idle since then minus the time to live
    snapshot_due: int = 0  # the first sequence that a new snapshot may be taken at
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)  # one request at a time
    unsettled: asyncio.Task[Any] | None = None  # a request whose caller went away in the middle
    waiting_snapshot: Waiting | None = None
    newest_bytes: int = 0  # of the request under way
    journal_bytes: int = 0  # in the store, as are the next two
    snapshot_bytes: int = 0
    point_bytes: int = 0
    rolled_steps: int = 0  # by rollouts since what they began from was last stored
    expires: float = math.inf  # of the event loop's clock: the request under way must have begun by then
    end: Callable[[], SimserviceError] | None = None  # why this object may no longer drive the session
    detached: bool = False  # its stream broke
    forgotten: bool = False  # closed in the store as well

    def handed_on(self, record: SessionRecord) -> Session:
        """The same lanes held by a later stream, under the record's epoch."""
        session = Session(record, self.lanes, self.replies, self.last_sequence, record.epoch, 0.0, self.snapshot_due)
        if self.waiting_snapshot is not None:
            if self.waiting_snapshot.data is None:
                session.snapshot_due = self.last_sequence  # whoever takes it, takes it for this object
            else:
                session.waiting_snapshot = self.waiting_snapshot
        session.journal_bytes, session.snapshot_bytes = self.journal_bytes, self.snapshot_bytes
        session.point_bytes, session.rolled_steps = self.point_bytes, self.rolled_steps
        return session

    @property
    def token(self) -> str:
        """Who holds it drives the session."""
        return self.record.token

    @property
    def num_envs(self) -> int:
        """How many lanes."""
        return self.record.num_envs

    @property
    def stored_bytes(self) -> int:
        """What the session occupies in the store, but for its record."""
        return self.journal_bytes + self.snapshot_bytes + self.point_bytes

    @property
    def mode(self) -> AutoresetMode:
        """What follows the end of an episode."""
        return AutoresetMode(self.record.autoreset_mode)

    def kept(self, sequence: int) -> Result | None:
        """The stored answer of a request that was done before; None for the next request; else SequenceGap."""
        if sequence == self.last_sequence + 1:
            return None
        if sequence not in self.replies:
            raise SequenceGap(sequence, self.last_sequence + 1)
        return self.replies[sequence]

    def commit(self, sequence: int, result: Result, replies_kept: int) -> None:
        """Counts a request as done and keeps its answer among the newest; of a rollout only if it is the newest."""
        if type(self.replies.get(self.last_sequence)) is Rolled:
            del self.replies[self.last_sequence]
        self.last_sequence = sequence
        self.replies[sequence] = result
        self.replies.pop(sequence - replies_kept, None)
