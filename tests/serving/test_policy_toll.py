"""Who sends many or large policies waits for them, or is sent away; others do not notice."""

import asyncio

import pytest

from simservice.errors import PolicyLimitExceeded
from simservice.serving.policies import Toll, TollConfig

CONFIG = TollConfig(bytes_per_s=1000, burst_bytes=500, least_bytes=100, longest_wait_s=0.3, waiting_bytes=1000)


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def run(use):
    clock, waited = Clock(), []

    async def sleep(seconds):
        waited.append(round(seconds, 3))
        clock.now += seconds

    asyncio.run(use(Toll(CONFIG, clock, sleep), clock, waited))


def test_a_burst_is_free_and_what_is_beyond_waits_for_its_bytes():
    async def use(toll, clock, waited):
        await toll.pay("lab", 500)
        assert waited == []
        await toll.pay("lab", 200)
        assert waited == [0.2]
        await toll.pay("lab", 1)  # counts for the least
        assert waited == [0.2, 0.1]
        clock.now += 60.0
        await toll.pay("lab", 500)
        assert len(waited) == 2

    run(use)


def test_nobody_waits_for_another_tenant():
    async def use(toll, clock, waited):
        for _ in range(3):
            await toll.pay("lab", 250)
        await toll.pay("shop", 250)
        assert waited == [0.25]

    run(use)


def test_a_debt_that_is_too_long_is_sent_away_with_the_time_and_does_not_grow_for_ever():
    async def use(toll, clock, waited):
        for _ in range(9):
            with pytest.raises(PolicyLimitExceeded) as found:
                await toll.pay("lab", 900)
        assert 0.3 < found.value.retry_after_s <= 0.6
        assert max(waited) == 0.3
        clock.now += 0.6
        await toll.pay("lab", 100)

    run(use)


def test_too_many_bytes_that_wait_are_sent_away_at_once():
    async def use(toll, clock, waited):
        with pytest.raises(PolicyLimitExceeded, match="bytes a second"):
            await toll.pay("lab", 5000)
        assert waited == []

    run(use)
