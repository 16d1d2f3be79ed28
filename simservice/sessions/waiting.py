"""Waits for a future without owning it. Knows no sessions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextvars import Context
from typing import Any


async def ended(future: asyncio.Future[Any]) -> None:
    """Waits for a future as asyncio.wait does (a cancelled wait does not cancel it), at a fifth of its cost."""
    if not future.done():
        await _Ended(future)


async def in_a_task() -> None:
    """From here on the caller runs in a task, which some libraries ask for: also one that was begun without (Begun)."""
    if asyncio.current_task() is None:
        await asyncio.sleep(0)


def heard(future: asyncio.Future[Any]) -> None:
    """To be told of a future's end: what it failed with is no surprise, even if nobody waits for it any more."""
    if not future.cancelled():
        future.exception()


class _Ended:
    __slots__ = ("_future",)

    def __init__(self, future: asyncio.Future[Any]) -> None:
        self._future = future

    def __await__(self) -> Generator[Any, None, None]:
        yield Wait(self._future)


class Wait:
    """What a task is given to wait for in place of a future: it hears of the future's end, and can be woken before.

    The methods are those that asyncio's tasks call of whatever a coroutine yields to them.
    """

    __slots__ = ("_asyncio_future_blocking", "_callback", "_cancelled", "_context", "_future")

    def __init__(self, future: asyncio.Future[Any]) -> None:
        self._asyncio_future_blocking = True
        self._future = future
        self._callback: Callable[[Any], object] | None = None
        self._context: Context | None = None
        self._cancelled = False

    def end(self) -> None:
        """Wakes the task; the future goes on."""
        if self._callback is not None and self._future.remove_done_callback(self._heard):
            self.get_loop().call_soon(self._callback, self, context=self._context)

    def add_done_callback(self, callback: Callable[[Any], object], *, context: Context | None = None) -> None:
        """Called by the task that begins to wait."""
        self._callback, self._context = callback, context
        self._future.add_done_callback(self._heard, context=context)

    def _heard(self, _: asyncio.Future[Any]) -> None:
        assert self._callback is not None
        self._callback(self)

    def cancel(self, msg: object = None) -> bool:
        """Called by a task that is cancelled."""
        self._cancelled = True
        self.end()
        return True

    def result(self) -> None:
        """Called by the task that was woken."""
        if self._cancelled:
            raise asyncio.CancelledError

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """The future's."""
        return self._future.get_loop()
