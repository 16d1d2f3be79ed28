"""How long a request may wait to be begun: one alarm for all sessions, set to the earliest. Knows no engine."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from simservice.sessions.session import Session


class Deadlines:
    """Watches requests under way; `give_up` is called for a session whose request has not ended in time."""

    def __init__(self, default_s: float, give_up: Callable[[Session], None]) -> None:
        self._default_s = default_s
        self._give_up = give_up
        self._watched: set[Session] = set()
        self._alarm: asyncio.Handle | None = None
        self._rings_at = math.inf  # kept here: uvloop's handles of what is due within half a millisecond do not tell

    def begin(self, session: Session, timeout_ms: int) -> None:
        """A request begins; 0: the default."""
        loop = asyncio.get_running_loop()
        expires = session.expires = loop.time() + (timeout_ms / 1000 or self._default_s)
        self._watched.add(session)
        if expires < self._rings_at:
            self._set(loop, expires)

    def end(self, session: Session) -> None:
        """It has ended."""
        self._watched.discard(session)

    def stop(self) -> None:
        """Nothing is watched any more."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm, self._rings_at = None, math.inf

    def _set(self, loop: asyncio.AbstractEventLoop, when: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm, self._rings_at = loop.call_at(when, self._ring), when

    def _ring(self) -> None:
        loop = asyncio.get_running_loop()
        self._alarm, self._rings_at = None, math.inf
        for session in [session for session in self._watched if session.expires <= loop.time()]:
            session.expires = math.inf
            self._give_up(session)
        earliest = min((session.expires for session in self._watched), default=math.inf)
        if earliest < math.inf:
            self._set(loop, earliest)
