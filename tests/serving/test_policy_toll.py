"""Who sends many or large policies waits for them, or is sent away; others do not notice."""

import asyncio
from dataclasses import replace

import pytest

from simservice.errors import InvalidInput, PolicyLimitExceeded
from simservice.serving.policies import Toll, TollConfig

CONFIG = TollConfig(
    bytes_per_s=1000,
    burst_bytes=500,
    least_bytes=100,
    refused_times=8,
    longest_wait_s=0.3,
    longest_debt_s=2.0,
    waiting_calls=3,
    reading_calls=2,
    reading_s=0.05,
)


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def run(use, **changes):
    clock, waited = Clock(), []

    async def sleep(seconds):
        waited.append(round(seconds, 3))
        clock.now += seconds
        await asyncio.sleep(0)

    asyncio.run(use(Toll(replace(CONFIG, **changes), clock, sleep), clock, waited))


async def sent(*messages):
    for message in messages:
        yield message


async def sent_at(gate, *messages):
    await gate.wait()
    for message in messages:
        yield message


async def put(toll, tenant, size, refused=False):
    raw = await toll.read(tenant, sent(bytes(size)))
    assert len(raw) == size
    toll.judge(tenant, size, refused)


def test_a_burst_is_free_and_what_comes_after_it_waits_for_its_bytes():
    async def use(toll, clock, waited):
        await put(toll, "lab", 700)
        assert waited == []
        await put(toll, "lab", 1)  # counts for the least
        assert waited == [0.2]
        await put(toll, "lab", 200)
        assert waited == [0.2, 0.1]
        clock.now += 60.0
        await put(toll, "lab", 500)
        assert len(waited) == 2

    run(use)


def test_nobody_waits_for_another_tenant():
    async def use(toll, clock, waited):
        for _ in range(3):
            await put(toll, "lab", 300)
        await put(toll, "shop", 250)
        assert waited == [0.1]

    run(use)


def test_nothing_is_read_of_who_owes_too_much():
    async def use(toll, clock, waited):
        await put(toll, "lab", 900)
        requests = sent(b"never read")
        with pytest.raises(PolicyLimitExceeded, match="bytes a second") as found:
            await toll.read("lab", requests)
        assert waited == [0.3] and found.value.retry_after_s == pytest.approx(0.1)
        assert await anext(requests) == b"never read"
        clock.now += 0.1
        await put(toll, "lab", 100)

    run(use)


def test_what_is_refused_counts_for_more_each_time_and_what_is_taken_forgives():
    async def use(toll, clock, waited):
        debts = []
        for refused in (True, True, True, True, False, False, False, True):
            clock.now += 1e6  # all is paid
            await toll.read("lab", sent(bytes(200)))
            toll.judge("lab", 200, refused)
            debts.append(round(toll._budget.owed_s("lab") * 1000 + 500))
        assert debts == [500, 800, 1600, 1600, 500, 500, 500, 500]

    run(use)


def test_debts_do_not_grow_for_ever():
    async def use(toll, clock, waited):
        for _ in range(5):
            clock.now += 2.0
            await put(toll, "lab", 9_000, refused=True)
        with pytest.raises(PolicyLimitExceeded) as found:
            await put(toll, "lab", 1)
        assert found.value.retry_after_s == pytest.approx(2.0 - 0.3)

    run(use)


def test_of_calls_that_come_together_the_first_pays_for_what_the_last_message_was():
    async def use(toll, clock, waited):
        await put(toll, "lab", 900)
        clock.now += 60.0
        await asyncio.gather(*(put(toll, "lab", 100) for _ in range(2)))
        assert waited == []  # the first turned out to be small before the second came
        await put(toll, "lab", 900)
        clock.now += 60.0
        gate = asyncio.Event()

        first = asyncio.create_task(toll.read("lab", sent_at(gate, bytes(10))))
        await asyncio.sleep(0)
        second = asyncio.create_task(toll.read("lab", sent(bytes(10))))
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(first, second, return_exceptions=True)
        assert waited[:1] == [0.3]  # 900 bytes were expected of the first, and 500 were there

    run(use)


def test_too_many_calls_are_sent_away_at_once():
    async def use(toll, clock, waited):
        gate = asyncio.Event()

        calls = [asyncio.create_task(toll.read("lab", sent_at(gate, bytes(10)))) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(PolicyLimitExceeded, match="bytes a second"):
            await toll.read("lab", sent(bytes(10)))
        assert waited == [1.0]  # before it was told, so that who comes again at once does not come often
        gate.set()
        assert await asyncio.gather(*calls) == [bytes(10)] * 3
        await put(toll, "lab", 10)

    run(use)


def test_a_message_that_does_not_come_is_not_waited_for_and_none_is_named():
    async def use(toll, clock, waited):
        with pytest.raises(PolicyLimitExceeded, match="seconds for its message to arrive"):
            await toll.read("lab", sent_at(asyncio.Event()))
        with pytest.raises(InvalidInput, match="ended without a message"):
            await toll.read("lab", sent())
        assert toll._door("lab").times == 4  # as if both had been refused
        await put(toll, "lab", 10)  # its place is free again

    run(use)


def test_silent_calls_keep_nobody_waiting_for_longer_than_any_wait():
    async def use(toll, clock, waited):
        silent = [asyncio.create_task(toll.read("lab", sent_at(asyncio.Event()))) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(PolicyLimitExceeded, match="bytes a second"):
            await toll.read("lab", sent(b"x"))
        for call in silent:
            call.cancel()
        await asyncio.gather(*silent, return_exceptions=True)
        await put(toll, "lab", 10)
        assert toll._door("lab").calls == 0

    run(use, reading_s=60.0)


def test_what_breaks_off_counts_like_the_message_before_it():
    async def use(toll, clock, waited):
        await put(toll, "lab", 400)
        clock.now += 60.0

        call = asyncio.create_task(toll.read("lab", sent_at(asyncio.Event())))
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        assert toll._budget._level("lab") == pytest.approx(100)

    run(use, reading_s=60.0)
