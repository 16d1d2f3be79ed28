"""Claims on sessions, each of which the store hears of twice: one whose end it never hears of may have ended a process.

Whoever asked may go meanwhile; the store is told all the same.
"""

from __future__ import annotations

import asyncio
import contextlib

from simservice.errors import StoreUnavailable
from simservice.sessions.holdings import Holdings
from simservice.sessions.store import Recovery, SessionRecord, SessionStore
from simservice.sessions.waiting import ended


class Claims:
    """Those of one service."""

    def __init__(self, store: SessionStore, held: Holdings) -> None:
        self._store = store
        self._held = held

    async def make(self, token: str) -> Recovery:
        """Claims the session; over() must follow, unless this is cancelled."""
        claiming = self._held.spawn(self._store.claim(token))
        try:
            await ended(claiming)
        except asyncio.CancelledError:  # the claim may be made all the same
            self._held.spawn(self._in_vain(claiming))
            raise
        return claiming.result()

    async def over(self, record: SessionRecord, brought_back: bool) -> None:
        """This process outlived a claim."""
        await ended(self._held.spawn(self._settle(record, brought_back)))

    async def _in_vain(self, claiming: asyncio.Task[Recovery]) -> None:
        await ended(claiming)
        if claiming.exception() is None:
            await self._settle(claiming.result().record, False)

    async def _settle(self, record: SessionRecord, brought_back: bool) -> None:
        with contextlib.suppress(StoreUnavailable):  # then it counts
            await self._store.settle(record.token, record.epoch, brought_back)
