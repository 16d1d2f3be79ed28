"""The access list of deploy/: the service's user can do all that the service does, and nothing beside its keys."""

import asyncio
import hashlib
from pathlib import Path

import pytest
import redis

from simservice.errors import StoreUnavailable
from simservice.sessions.embedded import EmbeddedStore
from simservice.sessions.policies import PolicyStoreConfig
from simservice.sessions.redis_leases import RedisLeases
from simservice.sessions.redis_policies import RedisPolicies
from simservice.sessions.redis_reports import RedisReports
from simservice.sessions.redis_store import RedisStore
from simservice.sessions.reports import ReportConfig
from simservice.sessions.store import SessionRecord

DEPLOY = Path(__file__).parents[2] / "deploy"
PASSWORD = "correct horse"
TOKEN = "0123456789abcdef" * 2
RECORD = SessionRecord(
    token=TOKEN, world="toy@1", num_envs=1, autoreset_mode="NextStep", seeds=bytes(8), open_key=bytes(16), epoch=1
)


@pytest.fixture
def url(tmp_path):
    """A Valkey server with the access list of deploy/, as its user sees it."""
    [line] = [line for line in (DEPLOY / "users.acl").read_text().splitlines() if line.startswith("user simservice ")]
    rules = [
        f"#{hashlib.sha256(PASSWORD.encode()).hexdigest()}" if rule == "#" + "0" * 64 else rule
        for rule in line.split()[2:]
    ]
    with EmbeddedStore(tmp_path) as server:
        with redis.Redis.from_url(server.url) as admin:
            admin.set("other:key", "theirs")
            admin.execute_command("ACL", "SETUSER", "simservice", *rules)
        yield server.url.replace("unix://", f"unix://simservice:{PASSWORD.replace(' ', '%20')}@")


def test_the_services_user_can_do_all_that_the_service_does(url):
    async def use():
        store = RedisStore(url)
        try:
            await store.create(RECORD)
            await store.append(TOKEN, 1, 1, b"one")
            await store.snapshot(TOKEN, 1, 1, b"state")
            await store.append(TOKEN, 1, 2, b"two")
            assert await store.retract(TOKEN, 1, 2) == 2
            assert (await store.record(TOKEN)).epoch == 2
            assert (await store.claim(TOKEN)).snapshot == b"state"
            await store.touch(TOKEN, 3)
            await store.announce("toy@1", b"contract", 60)
            assert await store.worlds() == {"toy@1": b"contract"}
            leases = RedisLeases(store)
            assert (await leases.lease("lab", "a", "me", 2, (1, None), 10)).granted
            assert not (await leases.lease("lab", "b", "me", 2, (1, None), 10)).granted
            assert await leases.renew("lab", "me", {"a": 2}, 10) == 2
            await leases.release("lab", "a", "me")
            reports = RedisReports(store, ReportConfig(most_episodes=1))
            assert await reports.add("toy", "lab", b"first", b"payload")
            assert await reports.add("toy", "lab", b"second", b"payload")
            assert len((await reports.read("toy", 0, 8, 1000, None))[0]) == 1
            policies = RedisPolicies(store, PolicyStoreConfig(most_policies=1))
            for name in ("first", "second"):
                await policies.put("lab", name, "graph", b"graph", b"weights")
            assert (await policies.get("lab", "second")).weights == b"weights"
            assert await policies.graph("lab", "graph") == b"graph"
            await store.delete(TOKEN, 3)
        finally:
            await store.close()

    asyncio.run(use())


FORBIDDEN = """
GET other:key
SET other:key mine
DEL other:key
KEYS *
SCAN 0
RANDOMKEY
FLUSHALL
CONFIG GET *
ACL LIST
SCRIPT FLUSH
SHUTDOWN
MONITOR
SUBSCRIBE other
CLIENT LIST
EVAL return(redis.call('GET',KEYS[1])) 1 other:key
EVAL return(redis.call('KEYS','*')) 0
"""


@pytest.mark.parametrize("command", FORBIDDEN.strip().splitlines())
def test_and_nothing_beside_it(url, command):
    with redis.Redis.from_url(url) as client, pytest.raises(redis.exceptions.ResponseError, match="ermission"):
        client.execute_command(*command.split())


def test_a_wrong_password_is_told_at_once(url):
    async def use():
        store = RedisStore(url.replace("horse", "donkey"))
        try:
            await store.create(RECORD)
        finally:
            await store.close()

    with pytest.raises(StoreUnavailable) as refused:
        asyncio.run(use())
    assert PASSWORD not in str(refused.value) and "donkey" not in str(refused.value)


def test_the_default_user_is_off():
    assert "user default off" in (DEPLOY / "users.acl").read_text().splitlines()
