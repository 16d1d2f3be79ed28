"""Work that is done at once as far as it goes without waiting, and then goes on as what it waits for ends.

A task would begin on the event loop's next turn, and whoever awaits it would be woken on the turn after its end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_tasks: set[asyncio.Task[Any]] = set()


class Begun(Generic[T]):
    """A coroutine that has been run until it waits for the first time, or to its end.

    Where it only wants the loop to turn (`in_a_task`), it goes on in a task.
    """

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        self.done = False
        self.result: T | None = None  # of what is done, unless it failed
        self.error: BaseException | None = None
        self._work = work
        self._rest: _Rest[T] | None = None  # of the work, once it is a task's
        self._awaited: Any = None
        self._heard: Callable[[Begun[T]], None] | None = None
        self._wake(None)

    def then(self, heard: Callable[[Begun[T]], None]) -> None:
        """Has it called when this is done: not before the loop has turned."""
        self._heard = heard
        if self.done:
            asyncio.get_running_loop().call_soon(heard, self)

    def cancel(self) -> None:
        """Nobody waits for the result any more: what it waits for is cancelled, as in a task."""
        if not self.done and self._awaited is not None:
            self._awaited.cancel()

    async def rest(self) -> T:
        """Waits for the result; raises what the work raised. Cancelled, it cancels the work."""
        if not self.done:
            over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._heard = lambda _: None if over.done() else over.set_result(None)
            try:
                await over
            except asyncio.CancelledError:
                self.cancel()
                raise
        if self.error is not None:
            raise self.error
        return self.result  # type: ignore[return-value]

    def _wake(self, waited: Any) -> None:
        """Goes on until it waits again; does what a task does."""
        try:
            try:
                if waited is not None:
                    waited.result()
            except BaseException as error:
                awaited = self._work.throw(error)
            else:
                awaited = self._work.send(None)
        except StopIteration as end:
            self._end(end.value, None)
        except BaseException as error:
            self._end(None, error)
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
        else:
            if awaited is None:
                self._go_on_in_a_task(None)
            else:
                self._awaited = awaited
                awaited._asyncio_future_blocking = False  # as a task has it
                awaited.add_done_callback(self._wake)

    def _go_on_in_a_task(self, problem: BaseException | None) -> None:
        self._rest = _Rest(self._work, problem)
        self._awaited = task = asyncio.get_running_loop().create_task(_all_of(self._rest))
        _tasks.add(task)
        task.add_done_callback(self._task_ended)

    def _task_ended(self, task: asyncio.Task[T]) -> None:
        _tasks.discard(task)
        if not task.cancelled():
            error = task.exception()
            self._end(task.result() if error is None else None, error)
        elif self._rest is not None and not self._rest.entered:
            # A task that is cancelled before its first turn runs none of its work, which holds what it has locked.
            self._go_on_in_a_task(asyncio.CancelledError())
        else:
            self._end(None, asyncio.CancelledError())

    def _end(self, result: T | None, error: BaseException | None) -> None:
        self.done, self.result, self.error, self._awaited = True, result, error, None
        if self._heard is not None:
            self._heard(self)


class _Rest(Generic[T]):
    """A coroutine that has yielded None, for a task to await as any other; with a problem it hears of that first."""

    __slots__ = ("_problem", "_work", "entered")

    def __init__(self, work: Coroutine[Any, Any, T], problem: BaseException | None) -> None:
        self._work = work
        self._problem = problem
        self.entered = False

    def __await__(self) -> Generator[Any, Any, T]:
        self.entered = True
        problem, sent = self._problem, None
        while True:
            try:
                awaited = self._work.send(sent) if problem is None else self._work.throw(problem)
            except StopIteration as end:
                found: T = end.value
                return found
            problem = None
            try:
                sent = yield awaited
            except BaseException as error:  # the task was cancelled
                problem = error


async def _all_of(rest: _Rest[T]) -> T:
    """What a task is made of: no generator, which those of Python 3.12 on do not take."""
    return await rest
