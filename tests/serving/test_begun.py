"""What is begun goes as far as it can at once, and then on like a task, without being one until it asks for it."""

import asyncio
from collections.abc import Coroutine

import pytest

from simservice.serving.begun import Begun
from simservice.sessions.waiting import ended, in_a_task


def running(main):
    return asyncio.run(main())


def test_work_that_never_waits_is_done_at_once():
    async def work():
        return asyncio.current_task()

    async def main():
        begun = Begun(work())
        assert begun.done
        assert begun.result is asyncio.current_task()  # that of whoever began it
        heard = []
        begun.then(heard.append)
        assert heard == []
        await asyncio.sleep(0)
        assert heard == [begun]
        assert await begun.rest() is begun.result

    running(main)


@pytest.mark.parametrize("wait", [ended, lambda future: future], ids=["ended", "the future itself"])
def test_work_goes_on_when_what_it_waits_for_ends(wait):
    async def main():
        loop = asyncio.get_running_loop()
        first, second = loop.create_future(), loop.create_future()

        async def work():
            await wait(first)
            await wait(second)
            return first.result() + second.result()

        begun, heard = Begun(work()), []
        begun.then(heard.append)
        first.set_result(1)
        await asyncio.sleep(0)
        assert not begun.done
        second.set_result(2)
        await asyncio.sleep(0)
        assert heard == [begun]
        assert begun.result == 3

    running(main)


def test_what_fails_is_heard_of_and_raised_again():
    async def main():
        future = asyncio.get_running_loop().create_future()

        async def work():
            await ended(future)
            raise ValueError("no")

        async def at_once():
            raise ValueError("no")

        for begun in (Begun(work()), Begun(at_once())):
            if not future.done():
                future.set_result(None)
            with pytest.raises(ValueError, match="no"):
                await begun.rest()
            assert isinstance(begun.error, ValueError)
            assert begun.result is None

    running(main)


def test_a_failed_future_is_met_by_who_looks_at_it():
    async def main():
        future = asyncio.get_running_loop().create_future()

        async def work():
            await ended(future)
            return str(future.exception())

        begun = Begun(work())
        future.set_exception(ValueError("why"))
        assert await begun.rest() == "why"

    running(main)


def test_what_needs_a_task_gets_one():
    async def main():
        async def work():
            assert asyncio.current_task() is mine
            await in_a_task()
            assert asyncio.current_task() is not mine
            async with asyncio.timeout(60):
                await asyncio.sleep(0.001)
            return "slept"

        mine = None
        loop, over = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()
        loop.call_soon(lambda: Begun(work()).then(lambda begun: over.set_result(begun.result)))
        assert await over == "slept"

    running(main)


def test_its_task_is_made_of_what_every_python_takes():
    async def main():
        others = asyncio.all_tasks()
        begun = Begun(asyncio.sleep(0, "slept"))
        (task,) = asyncio.all_tasks() - others
        assert isinstance(task.get_coro(), Coroutine)  # from 3.12 on a generator is refused
        assert await begun.rest() == "slept"

    running(main)


def test_cancelled_before_its_task_has_run_it_lets_go_of_what_it_holds():
    async def main():
        lock, seen = asyncio.Lock(), []

        async def work():
            async with lock:
                try:
                    await asyncio.sleep(0)
                except asyncio.CancelledError:
                    seen.append("cancelled")
                    await asyncio.sleep(0)
                    raise

        begun = Begun(work())
        begun.cancel()
        with pytest.raises(asyncio.CancelledError):
            await begun.rest()
        assert seen == ["cancelled"]
        assert not lock.locked()

    running(main)


@pytest.mark.parametrize("in_task", [False, True])
def test_cancelled_it_meets_the_cancellation_where_it_waits(in_task):
    async def main():
        loop = asyncio.get_running_loop()
        future, seen = loop.create_future(), []

        async def work():
            if in_task:
                await asyncio.sleep(0)
            try:
                await ended(future)
            except asyncio.CancelledError:
                seen.append("cancelled")
                raise

        begun = Begun(work())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        begun.cancel()
        for _ in range(3):
            await asyncio.sleep(0)
        assert seen == ["cancelled"]
        assert begun.done
        assert isinstance(begun.error, asyncio.CancelledError)
        assert not future.cancelled()  # it is somebody else's

    running(main)


def test_whoever_waits_for_the_rest_and_is_cancelled_cancels_it():
    async def main():
        future = asyncio.get_running_loop().create_future()
        begun = Begun(ended(future))
        waiting = asyncio.ensure_future(begun.rest())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await asyncio.sleep(0)
        assert begun.done

    running(main)
