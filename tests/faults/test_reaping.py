"""Sessions that nobody drives any more: idle ones, and those of clients that vanished without closing anything."""

import os
import queue
import time

import grpc
import pytest
import redis
from relay import Relay

from simservice.protocol.v1 import service_pb2 as pb
from simservice.protocol.v1.service_pb2_grpc import WorldServiceStub
from simservice.serving.local import LocalConfig, LocalServer
from simservice.serving.wiring import ReplicaConfig
from simservice.sessions.embedded import EmbeddedStore
from simservice.sessions.settings import SessionConfig

SESSIONS = 500
TTL_S = 3.0
GRACE_S = 10.0


@pytest.fixture(scope="module")
def server(toy_folder, tmp_path_factory):
    sessions = SessionConfig(idle_ttl_s=TTL_S, detached_ttl_s=1.0)
    with EmbeddedStore(tmp_path_factory.mktemp("reaping")) as store:
        replica = ReplicaConfig(capacity=SESSIONS, sessions=sessions)
        config = LocalConfig(store_url=store.url, grace_s=0.1, replica=replica)
        with LocalServer([toy_folder], config=config) as server:
            server.store_url = store.url
            yield server


def opened(stub, count):
    """So many streams with a session each, all kept open."""
    streams = []
    for _ in range(count):
        requests = queue.SimpleQueue()
        requests.put(pb.PlayRequest(open=pb.Open(world="toy", num_envs=1, open_key=os.urandom(16))))
        streams.append((stub.Play(iter(requests.get, None)), requests))
    for call, _ in streams:
        assert next(call).WhichOneof("result") == "opened"
    return streams


def lanes_freed_after(server):
    """Seconds until no lane is held."""
    service, began = server.service.replicas[0].service, time.monotonic()
    while service.engine.lanes_in_use:
        assert time.monotonic() - began < TTL_S + GRACE_S, f"{service.engine.lanes_in_use} lanes are still held"
        time.sleep(0.05)
    assert service.stats().open == 0
    return time.monotonic() - began


def sessions_stored(server):
    with redis.Redis.from_url(server.store_url) as client:
        return [key for key in client.keys("*") if key.endswith(b":session") or b":journal" in key or b"open:" in key]


def test_five_hundred_idle_sessions_give_their_lanes_back(server):
    with grpc.insecure_channel(server.address) as channel:
        streams = opened(WorldServiceStub(channel), SESSIONS)
        lanes_freed_after(server)
        for call, requests in streams:
            requests.put(None)
            call.cancel()
    deadline = time.monotonic() + TTL_S + GRACE_S
    while sessions_stored(server) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert sessions_stored(server) == []


def test_five_hundred_sessions_behind_a_half_open_connection_give_their_lanes_back(server):
    wire = Relay(server.address)
    with grpc.insecure_channel(wire.address) as channel:
        streams = opened(WorldServiceStub(channel), SESSIONS)
        wire.freeze()
        lanes_freed_after(server)
        with grpc.insecure_channel(server.address) as other:  # and there is room again
            again = opened(WorldServiceStub(other), SESSIONS)
            for call, requests in again:
                requests.put(None)
                call.cancel()
        for call, requests in streams:
            requests.put(None)
            call.cancel()
    wire.close()
    lanes_freed_after(server)
