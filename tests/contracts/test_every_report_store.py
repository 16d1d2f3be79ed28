"""Every store of reported episodes keeps the promises of simservice/sessions/reports.py."""

import asyncio

import pytest

from simservice.sessions.embedded import EmbeddedStore
from simservice.sessions.redis_reports import RedisReports
from simservice.sessions.redis_store import RedisStore
from simservice.sessions.reports import MemoryReports, ReportConfig

CONFIG = ReportConfig(most_episodes=4, most_bytes=1000, ids_kept=6)
NUMBERS = iter(range(1000))


@pytest.fixture(scope="module")
def server():
    with EmbeddedStore() as embedded:
        yield embedded


@pytest.fixture(params=["memory", "redis"])
def run(request, server):
    """Runs a test's coroutine function with a store and the name of a world nobody else uses."""

    async def within(use):
        world = f"world{next(NUMBERS)}"
        if request.param == "memory":
            await use(MemoryReports(CONFIG), world)
            return
        store = RedisStore(server.url)
        try:
            await use(RedisReports(store, CONFIG), world)
        finally:
            await store.close()

    return lambda use: asyncio.run(within(use))


async def all_of(store, world, tenant=None, after=0):
    found, _ = await store.read(world, after, 100, 10_000, tenant)
    return [(report.tenant, report.payload) for report in found]


def test_an_episode_is_kept_once_however_often_it_is_reported(run):
    async def use(store, world):
        assert await store.add(world, "lab", b"id", b"payload")
        assert not await store.add(world, "lab", b"id", b"payload")
        assert await all_of(store, world) == [("lab", b"payload")]

    run(use)


def test_copies_that_arrive_together_are_one(run):
    async def use(store, world):
        added = await asyncio.gather(*(store.add(world, "lab", b"id", b"x") for _ in range(10)))
        assert sum(added) == 1

    run(use)


def test_an_episode_that_gave_way_is_still_known(run):
    async def use(store, world):
        for number in range(5):
            assert await store.add(world, "lab", b"%d" % number, b"%d" % number)
        assert not await store.add(world, "lab", b"0", b"0")
        assert [payload for _, payload in await all_of(store, world)] == [b"1", b"2", b"3", b"4"]

    run(use)


def test_what_is_kept_is_bounded_by_episodes_bytes_and_ids_and_nobody_crowds_others_out(run):
    async def use(store, world):
        await store.add(world, "shop", b"ours", b"ours")
        for number in range(50):
            await store.add(world, "lab", b"%d" % number, b"x" * 300)
        kept = await all_of(store, world)
        assert kept == [("shop", b"ours"), *[("lab", b"x" * 300)] * 3]  # three of 300 bytes are all that 1000 hold
        assert await store.add(world, "lab", b"0", b"x")  # its id was forgotten long ago

    run(use)


def test_a_tenant_reads_its_own_and_a_monitor_everybodys(run):
    async def use(store, world):
        await store.add(world, "lab", b"a", b"lab's")
        await store.add(world, "", b"a", b"nobody's")
        await store.add(world, "shop", b"a", b"shop's")
        assert await all_of(store, world, "shop") == [("shop", b"shop's")]
        assert await all_of(store, world, "") == [("", b"nobody's")]
        assert len(await all_of(store, world)) == 3
        assert await all_of(store, "elsewhere") == []

    run(use)


def test_a_reader_goes_on_where_it_was_and_reads_nothing_twice(run):
    async def use(store, world):
        for number in range(4):
            await store.add(world, "lab", b"%d" % number, b"%d" % number)
        found, place, pages = [], 0, 0
        while True:
            reports, place = await store.read(world, place, 3, 10_000, None)
            if not reports:
                break
            pages += 1
            found += [report.payload for report in reports]
        assert (found, pages) == ([b"0", b"1", b"2", b"3"], 2)
        assert await store.read(world, place, 3, 10_000, None) == ([], place)

    run(use)


def test_a_page_holds_as_many_bytes_as_asked_for_and_at_least_one_episode(run):
    async def use(store, world):
        for number in range(3):
            await store.add(world, "lab", b"%d" % number, b"x" * 300)
        assert len((await store.read(world, 0, 100, 10, None))[0]) == 1
        assert len((await store.read(world, 0, 100, 600, None))[0]) == 2

    run(use)
