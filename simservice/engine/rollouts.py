"""Rollouts under way: each plays on a thread of its own and is heard on the event loop, part by part.

A thread that got far ahead of its listener waits; one that nobody listens to any more stops after the step it is in.
Knows no tensors and no worlds.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

from simservice.errors import DeadlineExceeded, InternalError, SimserviceError
from simservice.sessions.waiting import ended
from simservice.types import Imagined

log = logging.getLogger(__name__)

PARTS_AHEAD = 4  # that wait for their listener before the thread waits, too


class Rollout(AsyncIterator[Imagined]):
    """The parts of one rollout, in order. Used on the event loop, but for the methods of its thread."""

    def __init__(self, forget: Callable[[Rollout], None]) -> None:
        self.before: bytes | None = None  # what the lanes were, where the rollout is to advance them
        self.after: Any = None  # what they are, once it is over
        self._loop = asyncio.get_running_loop()
        self._parts: asyncio.Queue[Imagined | SimserviceError] = asyncio.Queue()
        self._room = threading.Semaphore(PARTS_AHEAD)
        self.stopped: SimserviceError | None = None  # what its listener gets in place of more
        self._end: asyncio.Future[bool] = self._loop.create_future()  # whether it was played to its end
        self._heard = False  # all of it
        self._forget = forget

    # ---- the event loop ---------------------------------------------------------------------------------------------

    async def __anext__(self) -> Imagined:
        if self._heard:
            raise StopAsyncIteration
        part = await self._parts.get()
        self._room.release()
        if isinstance(part, SimserviceError):
            self._heard = True
            raise part
        self._heard = part.last
        return part

    def stop(self, error: SimserviceError | None = None) -> None:
        """Ends it after the step it is in, unless it is over; whoever listens gets the error."""
        if self.stopped is None and not self._end.done():
            self.stopped = error or DeadlineExceeded.not_ended()
            self._room.release()

    def fail(self, error: BaseException) -> None:
        """It cannot even begin."""
        self._finish(error if isinstance(error, SimserviceError) else InternalError(f"no rollout ({error})"))

    async def over(self) -> bool:
        """Waits until its thread has nothing more to do; tells whether it was played to its end."""
        await ended(self._end)
        return self._end.result()

    # ---- its thread -------------------------------------------------------------------------------------------------

    def run(self, play: Callable[[Rollout], None]) -> None:
        """Plays; whatever goes wrong is heard."""
        failure: SimserviceError | None = None
        try:
            play(self)
        except SimserviceError as error:
            failure = error
        except Exception as error:  # heard by the caller, and told in the log
            log.exception("a rollout failed")
            failure = InternalError(f"the rollout failed ({type(error).__name__}); the server's log tells more")
        self._call(self._finish, failure)

    def check(self) -> None:
        """Raises what it was stopped with."""
        if self.stopped is not None:
            raise self.stopped

    def give(self, part: Imagined) -> None:
        """Hands a part to the listener; waits while many are waiting."""
        self._room.acquire()
        self.check()
        self._call(self._parts.put_nowait, part)

    def _finish(self, failure: SimserviceError | None) -> None:
        self._end.set_result(failure is None)
        if failure is not None:
            self._parts.put_nowait(failure)
        self._forget(self)

    def _call(self, method: Callable[..., object], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(method, *arguments)
        except RuntimeError:
            log.info("the event loop closed while a rollout was under way")
