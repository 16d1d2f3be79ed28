"""The requests of one stream, from whose wait one can be called away. Knows no gRPC and no sessions.

A read that gRPC has begun must not be cancelled, and a task or a second future for each would cost a message another
turn of the event loop. So the read is driven here by hand: the stream's task is woken by the read's own future, or by
being called away; the read then goes on alone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Generator
from typing import Any, Generic, TypeVar

from simservice.sessions.waiting import Wait

T = TypeVar("T")

_left_alone: set[asyncio.Task[Any]] = set()  # reads that end with their streams


class Inbox(Generic[T]):
    """`await inbox` is the next request, or None: at the end of the stream, or when called away."""

    def __init__(self, requests: AsyncIterator[T]) -> None:
        self._requests = requests
        self._wait: Wait | None = None
        self._called = False

    def call_away(self) -> None:
        """Whoever waits, or waits next, gets None."""
        self._called = True
        if self._wait is not None:
            self._wait.end()

    def __await__(self) -> Generator[Any, None, T | None]:
        if self._called:
            return None
        read = self._requests.__anext__().__await__()
        while True:
            try:
                awaited = next(read)
            except StopIteration as done:
                request: T = done.value
                return request
            except StopAsyncIteration:
                return None
            if awaited is None:  # a bare yield: it only wants the loop to turn
                yield None
                continue
            awaited._asyncio_future_blocking = False  # as the task would, which sees the wait instead
            self._wait = Wait(awaited)
            try:
                yield self._wait
            except BaseException:  # the task was cancelled, also where a message comes at that very moment
                _leave(read, awaited)
                raise
            finally:
                self._wait = None
            if self._called and not awaited.done():
                _leave(read, awaited)
                return None


def _leave(read: Generator[Any, None, Any], awaited: asyncio.Future[Any]) -> None:
    """Lets a read go on until the end of its stream; a message it still gets is lost, as its sender was told."""
    task = asyncio.ensure_future(_rest(read, awaited))
    _left_alone.add(task)
    task.add_done_callback(_left_alone.discard)


async def _rest(read: Generator[Any, None, Any], awaited: asyncio.Future[Any]) -> None:
    with contextlib.suppress(StopIteration, StopAsyncIteration, Exception):
        while True:
            if awaited is None:
                await asyncio.sleep(0)
            else:
                await asyncio.wait([awaited])
            awaited = next(read)
            if awaited is not None:
                awaited._asyncio_future_blocking = False
