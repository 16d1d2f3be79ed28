"""Quotas of a tenant over several replicas, with both lease stores; and the budget of steps."""

import asyncio
import secrets

import numpy as np
import pytest
from counter_lanes import CounterLanes, decode
from gymnasium.vector import AutoresetMode

from simservice.errors import CapacityExhausted, QuotaExceeded, StoreUnavailable, UnknownSession
from simservice.sessions.embedded import EmbeddedStore
from simservice.sessions.leases import MemoryLeases
from simservice.sessions.memory_store import MemoryStore
from simservice.sessions.quotas import ANYONE, QuotaKeeper, StepBudget, Tenant, own_key
from simservice.sessions.redis_leases import RedisLeases, lease_store
from simservice.sessions.redis_store import RedisStore
from simservice.sessions.service import SessionService

LAB = Tenant(name="lab", sessions=2, lanes=5)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with EmbeddedStore(tmp_path_factory.mktemp("leases")) as embedded:
        yield embedded


@pytest.fixture(params=["memory", "redis"])
def run(request, server):
    """Runs a coroutine with a lease store whose tenants nobody else uses: run(lambda leases, tenant: ...)."""

    def within(test, **quotas):
        tenant = Tenant(name=f"lab-{secrets.token_hex(4)}", **quotas)

        async def main():
            if request.param == "memory":
                return await test(MemoryLeases(), tenant)
            store = RedisStore(server.url)
            try:
                return await test(RedisLeases(store), tenant)
            finally:
                await store.close()

        return asyncio.run(main())

    return within


def test_replicas_count_together_and_a_lease_is_counted_once(run):
    async def test(leases, tenant):
        one, other = QuotaKeeper(leases), QuotaKeeper(leases)
        await one.acquire(tenant, "a", 2)
        await one.acquire(tenant, "a", 2)
        with pytest.raises(QuotaExceeded, match="4 lanes, but 2 of its 5") as refused:
            await other.acquire(tenant, "b", 4)
        assert 1.0 <= refused.value.retry_after_s <= 15.0
        await other.acquire(tenant, "b", 3)
        with pytest.raises(QuotaExceeded, match="1 sessions, but 2 of its 2"):
            await one.acquire(tenant, "c", 1)
        one.release(tenant.name, "a")
        one.release(tenant.name, "a")  # again: nothing to do
        await one.stop()
        await other.acquire(tenant, "c", 2)
        await other.stop()
        await one.acquire(tenant, "d", 5)
        await one.stop()

    run(test, sessions=2, lanes=5)


def test_leases_of_a_replica_that_died_lapse_and_those_of_a_living_one_do_not(run):
    async def test(leases, tenant):
        dead, living = QuotaKeeper(leases, ttl_s=0.3), QuotaKeeper(leases, ttl_s=0.3, renew_every_s=0.05)
        await dead.acquire(tenant, "a", 1)
        await living.acquire(tenant, "b", 1)
        dead._renewing.cancel()  # as a killed process renews nothing
        await asyncio.sleep(0.6)
        await living.acquire(tenant, "c", 1)
        with pytest.raises(QuotaExceeded):
            await living.acquire(tenant, "d", 1)
        await living.stop()

    run(test, sessions=2)


def test_a_session_that_moved_is_not_given_back_by_the_replica_it_left(run):
    async def test(leases, tenant):
        left, now = QuotaKeeper(leases), QuotaKeeper(leases)
        await left.acquire(tenant, "a", 1)
        await now.acquire(tenant, "a", 1)
        await left.stop()
        with pytest.raises(QuotaExceeded):
            await left.acquire(tenant, "b", 1)
        await now.stop()

    run(test, sessions=1)


def test_a_lease_that_is_taken_again_while_it_is_given_back_stays(run):
    async def test(leases, tenant):
        keeper = QuotaKeeper(leases)
        await keeper.acquire(tenant, "a", 1)
        keeper.release(tenant.name, "a")
        await keeper.acquire(tenant, "a", 1)
        await asyncio.gather(*keeper._background)
        with pytest.raises(QuotaExceeded):
            await keeper.acquire(tenant, "b", 1)
        await keeper.stop()

    run(test, sessions=1)


def test_the_rate_is_shared_by_lanes(run):
    async def test(leases, tenant):
        one, other = QuotaKeeper(leases, renew_every_s=0.05), QuotaKeeper(leases, renew_every_s=0.05)
        await one.acquire(tenant, "a", 3)
        assert one.budget(tenant).rate == 100.0
        await other.acquire(tenant, "b", 1)
        assert other.budget(tenant).rate == 25.0
        async with asyncio.timeout(5):
            while one.budget(tenant).rate != 75.0:
                await asyncio.sleep(0.02)
        await one.stop()
        await other.stop()

    run(test, steps_per_second=100.0)


def test_a_changed_quota_holds_from_the_next_session_on(run):
    async def test(leases, tenant):
        keeper = QuotaKeeper(leases)
        await keeper.acquire(tenant, "a", 1)
        wider = Tenant(name=tenant.name, sessions=2, steps_per_second=7.0)
        await keeper.acquire(wider, "b", 1)
        assert keeper.budget(wider).tenant is wider
        await keeper.stop()

    run(test, sessions=1)


def test_a_budget_lets_one_second_of_steps_through_and_then_its_rate():
    clock = [0.0]
    budget = StepBudget(Tenant(name="lab", steps_per_second=100.0), now=lambda: clock[0])
    for _ in range(10):
        budget.spend(10)
    with pytest.raises(QuotaExceeded) as refused:
        budget.spend(10)
    assert refused.value.retry_after_s == pytest.approx(0.001)
    clock[0] += 0.05
    budget.spend(64)  # in debt by 59
    with pytest.raises(QuotaExceeded) as refused:
        budget.spend(1)
    assert refused.value.retry_after_s == pytest.approx(0.59, abs=0.01)
    assert refused.value.recoverable
    clock[0] += 0.6
    budget.spend(64)
    taken, clock[0] = 0, clock[0] + 1.0
    for _ in range(1000):
        clock[0] += 0.01
        try:
            budget.spend(10)
        except QuotaExceeded:
            continue
        taken += 10
    assert taken == pytest.approx(100 * 10, rel=0.1)  # ten seconds at its rate


def test_a_tenant_without_limits_asks_the_store_nothing():
    async def test():
        keeper = QuotaKeeper(leases=None)
        await keeper.acquire(ANYONE, "a", 10)
        assert keeper.budget(ANYONE) is None
        keeper.release("", "a")
        await keeper.stop()

    asyncio.run(test())


def test_leases_live_where_the_sessions_do(server):
    async def test():
        store = RedisStore(server.url)
        assert isinstance(lease_store(store), RedisLeases)
        await store.close()

    asyncio.run(test())
    assert isinstance(lease_store(MemoryStore()), MemoryLeases)


def test_a_store_that_is_gone_lets_a_lease_lapse(tmp_path):
    async def test():
        with EmbeddedStore(tmp_path) as gone:
            store = RedisStore(gone.url, patience_s=0.2)
            keeper = QuotaKeeper(RedisLeases(store))
            await keeper.acquire(LAB, "a", 1)
        with pytest.raises(StoreUnavailable):
            await keeper.acquire(LAB, "b", 1)
        await keeper.stop()
        await store.close()

    asyncio.run(test())


def test_open_keys_are_a_tenants_own():
    assert own_key(ANYONE, b"k" * 16) == b"k" * 16
    keys = {own_key(Tenant(name=name), b"k" * 16) for name in ("a", "b", "a")}
    assert len(keys) == 2 and {len(key) for key in keys} == {32}


# ---- in the service -------------------------------------------------------------------------------------------------


def served(capacity=8, **tenant):
    """A service over the counter's lanes, its keeper, and a tenant."""
    keeper = QuotaKeeper(MemoryLeases())
    service = SessionService(CounterLanes(capacity=capacity), MemoryStore(), decode=decode, quotas=keeper)
    return service, keeper, Tenant(name="lab", **tenant)


def opened(service, tenant, lanes=1):
    return service.open(lanes, AutoresetMode.NEXT_STEP, secrets.token_bytes(16), tenant)


def test_a_session_holds_its_lease_from_open_to_close_and_not_when_lanes_are_missing():
    async def test():
        service, keeper, lab = served(capacity=4, lanes=8)
        session = await opened(service, lab, 3)
        with pytest.raises(CapacityExhausted) as refused:
            await opened(service, lab, 3)
        assert 1.0 <= refused.value.retry_after_s <= 30.0
        assert list(keeper._accounts["lab"].held) == [session.token]
        await service.close(session)
        assert keeper._accounts["lab"].held == {}
        await service.stop()
        await keeper.stop()

    asyncio.run(test())


def test_a_refused_open_leaves_no_session_behind():
    async def test():
        service, keeper, lab = served(sessions=1)
        await opened(service, lab)
        with pytest.raises(QuotaExceeded):
            await opened(service, lab)
        assert len(service.store._sessions) == 1
        assert service.engine.lanes_in_use == 1
        await service.stop()
        await keeper.stop()

    asyncio.run(test())


def test_only_its_tenant_resumes_a_session_and_its_lease_moves_along():
    async def test():
        service, keeper, lab = served(sessions=1)
        session = await opened(service, lab)
        for stranger in (ANYONE, Tenant(name="shop"), Tenant(name="LAB")):
            with pytest.raises(UnknownSession):
                await service.resume(session.token, stranger)
        again = await service.resume(session.token, lab)
        assert again.token == session.token
        with pytest.raises(QuotaExceeded):
            await opened(service, lab)
        await service.close(again)
        assert np.all(np.array(list(keeper._accounts["lab"].held.values())) == 0)
        await service.close(await opened(service, lab))
        await service.stop()
        await keeper.stop()

    asyncio.run(test())
