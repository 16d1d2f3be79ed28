"""How a process leaves its streams: each is told between two requests to go on elsewhere. Knows no gRPC."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

from simservice.errors import ReplicaDraining
from simservice.serving.inbox import Inbox
from simservice.serving.stream import Incoming

log = logging.getLogger(__name__)


class Streams:
    """The streams that are open in this process."""

    def __init__(self) -> None:
        self.leaving = False  # no session begins here any more
        self._inboxes: set[Inbox[Incoming]] = set()
        self._fewer = asyncio.Event()

    def enter(self, requests: AsyncIterator[Incoming]) -> Inbox[Incoming]:
        """The requests of a new stream."""
        inbox = Inbox(requests)
        self._inboxes.add(inbox)
        if self.leaving:
            inbox.call_away()
        return inbox

    def leave(self, inbox: Inbox[Incoming]) -> None:
        """A stream has ended."""
        self._inboxes.discard(inbox)
        self._fewer.set()

    def refuse_new(self) -> None:
        """ReplicaDraining when no session may begin here any more."""
        if self.leaving:
            raise ReplicaDraining()

    async def drain(self, within_s: float) -> None:
        """Calls every stream away; returns when all have ended, or when the time is over."""
        self.leaving = True
        for inbox in list(self._inboxes):
            inbox.call_away()
        try:
            async with asyncio.timeout(within_s):
                while self._inboxes:
                    self._fewer.clear()
                    await self._fewer.wait()
        except TimeoutError:
            log.warning("%d streams had not ended %g s after they were called away", len(self._inboxes), within_s)
