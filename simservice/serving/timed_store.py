"""A session store whose journal writes are timed. Knows no metric."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter

from simservice.sessions.store import SessionStore


class TimedStore:
    """The given store; `observe` gets the seconds of every append that was acknowledged."""

    def __init__(self, store: SessionStore, observe: Callable[[float], None]) -> None:
        self.address = store.address
        self.create, self.record, self.claim, self.retract = store.create, store.record, store.claim, store.retract
        self.snapshot, self.touch, self.delete = store.snapshot, store.touch, store.delete
        self.settle, self.save, self.restore, self.point, self.forget = (
            store.settle,
            store.save,
            store.restore,
            store.point,
            store.forget,
        )
        self.announce_room, self.rooms = store.announce_room, store.rooms
        self.announce, self.worlds, self.close = store.announce, store.worlds, store.close
        self._append = store.append
        self._observe = observe

    def append(self, token: str, epoch: int, sequence: int, payload: bytes) -> asyncio.Future[None]:
        """Journals one request."""
        began = perf_counter()
        future = self._append(token, epoch, sequence, payload)

        def acknowledged(done: asyncio.Future[None]) -> None:
            if not done.cancelled() and done.exception() is None:
                self._observe(perf_counter() - began)

        future.add_done_callback(acknowledged)
        return future
