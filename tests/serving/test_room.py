"""How much room there is: of one replica, of all, of a tenant; and what sessions occupy in the store."""

from dataclasses import astuple

import numpy as np
import pytest
from serving_tools import tenants_file

from simservice.client.capacity import Capacity, Room, Use, get_capacity
from simservice.client.session import RemoteSession
from simservice.errors import Unauthenticated, UnknownWorld
from simservice.serving.local import LocalConfig, LocalServer
from simservice.serving.wiring import ReplicaConfig
from simservice.sessions.embedded import EmbeddedStore
from simservice.telemetry import exposition


def test_the_room_of_all_replicas_is_told_by_each_and_the_unknown_is_named(toy_folder):
    config = LocalConfig(grace_s=0.1, replica=ReplicaConfig(capacity=40, announce_every_s=0.05))
    with (
        EmbeddedStore() as store,
        LocalServer([toy_folder], store_url=store.url, config=config) as first,
        LocalServer([toy_folder], store_url=store.url, config=config) as second,
    ):
        session = RemoteSession(first.address, "toy", num_envs=30)
        told = get_capacity(first.address, "toy")
        assert told == Capacity(Room(40, 30, 1, 10), Room(80, 30, 1, 40), 2, None)
        while (other := get_capacity(second.address, "toy")).world.lanes_active < 30:
            assert other.replica == Room(40, 0, 0, 40)
        assert other.world == told.world
        with pytest.raises(UnknownWorld, match="there are: toy"):
            get_capacity(first.address, "tent")
        session.close()


def test_a_tenant_sees_its_own_use_over_the_whole_fleet(toy_folder, tmp_path):
    path, tokens = tenants_file(tmp_path, lab={"sessions": 4, "lanes": 50}, shop={})
    config = LocalConfig(grace_s=0.1, tenants=str(path))
    with LocalServer([toy_folder], store_url="memory:", config=config) as server:
        session = RemoteSession(server.address, "toy", num_envs=7, token=tokens["lab"])
        assert get_capacity(server.address, "toy", token=tokens["lab"]).tenant == Use(1, 7, 4, 50, None)
        child = session.fork(copies=2)
        assert astuple(get_capacity(server.address, "toy", token=tokens["lab"]).tenant)[:2] == (2, 21)
        assert get_capacity(server.address, "toy", token=tokens["shop"]).tenant is None
        with pytest.raises(Unauthenticated):
            get_capacity(server.address, "toy")
        child.close()
        session.close()
        assert astuple(get_capacity(server.address, "toy", token=tokens["lab"]).tenant)[:2] == (0, 0)


def test_what_sessions_occupy_in_the_store_is_published_and_shrinks_when_they_go(toy_folder):
    with LocalServer([toy_folder], store_url="memory:", config=LocalConfig(grace_s=0.1)) as server:
        replica = server.service.replicas[0]

        def stored(stat):
            asked = f'simservice_session_store_bytes{{stat="{stat}",world="toy"}} '
            [line] = [line for line in exposition(replica.metrics.registry).splitlines() if line.startswith(asked)]
            return float(line.removeprefix(asked))

        assert stored("sum") == stored("max") == 0
        small, large = (RemoteSession(server.address, "toy", num_envs=lanes) for lanes in (1, 50))
        for session in (small, large):
            session.reset()
            session.step({"action": np.zeros(session.num_envs, np.int64)})
        assert stored("sum") > stored("max") > 0
        before = stored("max")
        large.forget(large.save())
        large.save()
        price = 50 * large.contract.limits.snapshot_lane_bytes
        assert before + price <= stored("max") <= before + 1.2 * price + 2000
        small.close()
        large.close()
        assert stored("sum") == 0
