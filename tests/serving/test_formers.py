"""A new version takes the new sessions; those that are open go on in the version they began with, never in a mix."""

import asyncio
from functools import partial

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from simservice.client.session import RemoteSession
from simservice.client.worlds import list_worlds
from simservice.errors import ModelRetired, UnknownWorld
from simservice.serving.address import free_port
from simservice.serving.formers import Formers
from simservice.serving.local import LocalConfig, LocalServer
from simservice.serving.wiring import ReplicaConfig, build_replica
from simservice.sessions.embedded import EmbeddedStore
from simservice.sessions.memory_store import MemoryStore

LANES = 3


@pytest.fixture(scope="module")
def versions(save_toy):
    return [str(save_toy("grower", growth=growth, noise=0.05)) for growth in (0.95, 0.9, 0.85)]


@pytest.fixture
def serve(versions):
    """Serves a version, holding others, at one address and on one store; ends what it served before."""
    port, running = free_port(), []
    with EmbeddedStore() as store:

        def serve(version, formers=()):
            for server in running:
                server.stop()
            replica = ReplicaConfig(formers=tuple(versions[number] for number in formers))
            config = LocalConfig(grace_s=5.0, replica=replica)
            running.append(LocalServer([versions[version]], port=port, store_url=store.url, config=config).start())
            return running[-1]

        yield serve
        for server in running:
            server.stop()


def steps(session, last, first=0):
    """Observations under fixed actions."""
    actions = (np.full(LANES, number % 3) for number in range(first, last))
    return [session.step({"action": action}).observation["observation"] for action in actions]


def test_an_open_session_goes_on_in_its_own_version_and_new_ones_begin_in_the_new(serve):
    first = serve(0)
    session = RemoteSession(first.address, "grower", num_envs=LANES)
    session.reset(seeds=np.arange(LANES))
    point = session.save()
    whole = steps(session, 20)
    session.restore(point)
    begun = steps(session, 10)
    second = serve(1, formers=[0])
    assert np.array_equal(np.stack(begun + steps(session, 20, first=10)), np.stack(whole))
    new = RemoteSession(second.address, "grower", num_envs=LANES)
    assert new.contract.spec.version != session.contract.spec.version
    assert new.contract.spec.full_name in [world.spec.full_name for world in list_worlds(second.address)]
    with pytest.raises(UnknownWorld):  # nobody begins in a former version
        RemoteSession(second.address, session.contract.spec.full_name)
    seen = second.service.replicas[0].reading()
    assert (seen.sessions_open, seen.lanes_in_use) == (2, 2 * LANES), "former versions count as well"
    child = session.fork()
    assert np.array_equal(steps(child, 5)[-1], steps(session, 5)[-1])
    child.close()
    new.close()
    session.close()


def test_a_session_whose_version_is_held_no_more_is_told_so(serve):
    first = serve(0)
    session = RemoteSession(first.address, "grower", num_envs=LANES)
    session.reset()
    second = serve(2, formers=[1])
    with pytest.raises(ModelRetired, match=second.service.replicas[0].hosted.full_name):
        steps(session, 1)


def test_a_former_version_is_held_while_it_is_used_and_no_longer(versions):
    async def main():
        store = MemoryStore()
        formers = Formers([*versions[:2], "no such folder"], partial(build_replica, store=store), look_every_s=0.02)
        known = list(formers._folders)
        assert (len(known), formers.loaded) == (2, [])
        assert await formers.hosted("grower@000000000000") is None
        hosted = await formers.hosted(known[0])
        assert await formers.hosted(known[0]) is hosted
        session = await hosted.service.open(2, AutoresetMode.NEXT_STEP, bytes(16))
        await asyncio.sleep(0.1)
        assert formers.loaded == [hosted]
        await hosted.service.close(session)
        while formers.loaded:
            await asyncio.sleep(0.01)
        await formers.hosted(known[1])
        await formers.stop()
        assert formers.loaded == []

    asyncio.run(asyncio.wait_for(main(), 30))
