"""Every store of uploaded policies keeps the promises of simservice/sessions/policies.py."""

import asyncio

import pytest

from simservice.errors import UnknownPolicy
from simservice.sessions.embedded import EmbeddedStore
from simservice.sessions.policies import MemoryPolicies, PolicyStoreConfig, StoredPolicy
from simservice.sessions.redis_policies import RedisPolicies
from simservice.sessions.redis_store import RedisStore

CONFIG = PolicyStoreConfig(most_policies=3, most_bytes=1000, ttl_s=60.0)
NUMBERS = iter(range(1000))


@pytest.fixture(scope="module")
def server():
    with EmbeddedStore() as embedded:
        yield embedded


@pytest.fixture(params=["memory", "redis"])
def run(request, server):
    """Runs a test's coroutine function with a store and the name of a tenant nobody else is."""

    def within(use, config=CONFIG):
        async def main():
            tenant = f"tenant{next(NUMBERS)}"
            if request.param == "memory":
                await use(MemoryPolicies(config), tenant)
                return
            store = RedisStore(server.url)
            try:
                await use(RedisPolicies(store, config), tenant)
            finally:
                await store.close()

        asyncio.run(main())

    return within


async def known(store, tenant, *hashes):
    """Those of the hashes that touch() finds, which renews them."""
    found = []
    for name in hashes:
        try:
            await store.touch(tenant, name)
            found.append(name)
        except UnknownPolicy:
            pass
    return found


def test_what_was_put_is_got_and_putting_it_again_changes_nothing(run):
    async def use(store, tenant):
        for _ in range(2):
            await store.put(tenant, "a", "g", b"graph", b"\0weights\xff")
        assert await store.get(tenant, "a") == StoredPolicy("g", b"graph", b"\0weights\xff")
        assert await store.graph(tenant, "g") == b"graph"

    run(use)


def test_copies_that_arrive_together_are_one(run):
    async def use(store, tenant):
        await asyncio.gather(*(store.put(tenant, "a", "g", b"g", b"w") for _ in range(10)))
        await store.put(tenant, "b", "g", b"g", b"w")
        await store.put(tenant, "c", "g", b"g", b"w")
        assert await known(store, tenant, "a", "b", "c") == ["a", "b", "c"]

    run(use)


def test_what_nobody_put_is_unknown_in_every_way(run):
    async def use(store, tenant):
        for ask in (store.get, store.touch, store.graph):
            with pytest.raises(UnknownPolicy, match="put it again"):
                await ask(tenant, "nothing")

    run(use)


def test_another_tenants_policy_is_as_unknown_as_one_that_never_was(run):
    async def use(store, tenant):
        await store.put(tenant, "0123", "g", b"graph", b"weights")
        messages = set()
        for whose, name in ((f"{tenant}x", "0123"), (tenant, "4567"), ("", "0123")):
            with pytest.raises(UnknownPolicy) as found:
                await store.get(whose, name)
            messages.add(str(found.value).replace(name, "?"))
        assert len(messages) == 1
        with pytest.raises(UnknownPolicy):
            await store.graph(f"{tenant}x", "g")

    run(use)


def test_the_longest_unused_gives_way_when_there_are_too_many(run):
    async def use(store, tenant):
        for name in "abc":
            await store.put(tenant, name, f"g{name}", b"g", b"w")
        await store.get(tenant, "a")
        await store.put(tenant, "d", "gd", b"g", b"w")
        assert await known(store, tenant, "b", "a", "c", "d") == ["a", "c", "d"]
        with pytest.raises(UnknownPolicy):  # its graph went with it
            await store.graph(tenant, "gb")

    run(use)


def test_the_longest_unused_give_way_when_they_are_too_large_together(run):
    async def use(store, tenant):
        await store.put(tenant, "a", "g", b"g", b"w" * 400)
        await store.put(tenant, "b", "g", b"g", b"w" * 400)
        await store.put(tenant, "c", "g", b"g", b"w" * 590)
        assert await known(store, tenant, "a", "b", "c") == ["b", "c"]
        await store.put(tenant, "d", "g", b"g", b"w" * 5000)  # larger than all that is kept of a tenant
        assert await known(store, tenant, "a", "b", "c", "d") == []

    run(use)


def test_a_graph_stays_while_a_policy_has_it(run):
    async def use(store, tenant):
        await store.put(tenant, "a", "shared", b"graph", b"1")
        await store.put(tenant, "b", "shared", b"graph", b"2")
        await store.put(tenant, "c", "other", b"other", b"3")
        await store.put(tenant, "d", "other", b"other", b"4")
        assert await store.graph(tenant, "shared") == b"graph"  # "a" gave way, "b" has it
        await store.put(tenant, "e", "other", b"other", b"5")
        with pytest.raises(UnknownPolicy):
            await store.graph(tenant, "shared")
        assert (await store.get(tenant, "e")).graph == b"other"

    run(use)


def test_nobody_crowds_another_tenant_out(run):
    async def use(store, tenant):
        await store.put(f"{tenant}-other", "mine", "g", b"g", b"w")
        for number in range(20):
            await store.put(tenant, str(number), "g", b"g", b"w" * 300)
        assert await known(store, f"{tenant}-other", "mine") == ["mine"]

    run(use)


def test_a_policy_nobody_uses_is_forgotten_and_use_keeps_it(run):
    async def use(store, tenant):
        await store.put(tenant, "idle", "gi", b"g", b"w")
        await store.put(tenant, "used", "gu", b"g", b"w")
        for _ in range(4):
            await asyncio.sleep(0.1)
            await store.touch(tenant, "used")
        with pytest.raises(UnknownPolicy):
            await store.get(tenant, "idle")
        with pytest.raises(UnknownPolicy):
            await store.graph(tenant, "gi")
        await store.put(tenant, "new", "gn", b"g", b"w")
        assert await known(store, tenant, "idle", "used", "new") == ["used", "new"]

    run(use, PolicyStoreConfig(most_policies=3, most_bytes=1000, ttl_s=0.3))
