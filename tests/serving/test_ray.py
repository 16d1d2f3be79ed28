"""Worlds on Ray Serve behind HAProxy, seen by a client. One cluster serves the whole suite (see conftest)."""

from __future__ import annotations

import os
import signal
import socket
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import grpc
import gymnasium as gym
import numpy as np
import policy_files
import pytest
import toy_reality
from processes import descendants, listening_addresses
from prometheus_client.parser import text_string_to_metric_families
from replicas import wait_until_up

from simservice.client.policies import put_policy
from simservice.client.reports import read_reports, report
from simservice.client.session import RemoteSession
from simservice.client.worlds import get_world, list_worlds
from simservice.data.collect import collect_episodes
from simservice.errors import (
    ConfigError,
    CorruptCheckpoint,
    InternalError,
    ModelRetired,
    PolicyLimitExceeded,
    PortInUse,
    UnknownWorld,
)
from simservice.serving.address import SINGLE_PORTS, check_address, hold_ports
from simservice.serving.haproxy_launcher import lead_strays, restrict
from simservice.serving.local import LocalServer
from simservice.serving.service import RayService
from simservice.serving.settings import DoorSettings, ServeConfig, parse_replicas

SEEDS = np.arange(8, dtype=np.int64)


def trajectory(session: RemoteSession, steps: int = 12) -> list[np.ndarray]:
    """Observations and rewards of seeded lanes under fixed actions."""
    rows = [session.reset(seeds=SEEDS).observation["observation"]]
    for step in range(steps):
        result = session.step({"action": (np.arange(8) + step) % 3})
        rows += [result.observation["observation"], result.reward]
    return rows


def scraped(service: RayService, name: str) -> dict[str, float]:
    """One metric's values by replica, as one scrape of the service's page shows them."""
    assert service.metrics_url is not None
    with urllib.request.urlopen(service.metrics_url, timeout=10) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    samples = [sample for family in families for sample in family.samples if sample.name == name]
    return {sample.labels["replica"]: sample.value for sample in samples}


def test_a_world_plays_the_same_on_ray_as_in_one_process(ray_service, noisy_folder):
    with LocalServer([noisy_folder], store_url="memory:") as local:
        alone = RemoteSession(local.address, "noisy", num_envs=8)
        expected = trajectory(alone)
        alone.close()
    session = RemoteSession(ray_service.address, "noisy", num_envs=8)
    for found, wanted in zip(trajectory(session), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)
    session.close()


def test_one_scrape_shows_every_replica_and_both_have_sessions(ray_service):
    wait_until_up(ray_service, "noisy", 2)  # whatever was tried before may have killed one
    sessions = [RemoteSession(ray_service.address, "noisy", num_envs=8) for _ in range(4)]
    for session in sessions:
        trajectory(session, steps=2)
    lanes = scraped(ray_service, "simservice_lanes_in_use")
    assert len(lanes) == len(ray_service.replica_pids("noisy")) == 2
    assert sorted(lanes.values()) == [16.0, 16.0]
    assert all(scraped(ray_service, "simservice_replica_up").values())
    for session in sessions:
        session.close()
    assert sum(scraped(ray_service, "simservice_lanes_in_use").values()) == 0


def test_real_episodes_are_reported_through_haproxy_and_read_at_any_replica(ray_service):
    with toy_reality.registered() as env_id:
        episodes = collect_episodes(env_id, episodes=3, seed=0, policy="random")
    assert report(ray_service.address, "noisy", episodes).accepted == 3
    assert report(ray_service.address, "noisy", episodes).repeated == 3
    contract = get_world(ray_service.address, "noisy")
    for _ in range(4):  # HAProxy takes turns
        assert len(read_reports(ray_service.address, contract)[0]) == 3


def test_a_policy_is_put_through_haproxy_and_acts_at_any_replica(ray_service):
    file = policy_files.mlp()
    receipt = put_policy(ray_service.address, "noisy", model=file, distribution="categorical")
    where = {"address": ray_service.address, "world": "noisy"}
    made = [gym.make_vec("simservice/World-v0", num_envs=4, **where) for _ in range(4)]  # HAProxy takes turns
    for envs in made:
        envs.reset()
        played = envs.unwrapped.imagine(policy=receipt.content_hash, steps=3)
        head, _ = policy_files.mlp_forward(file, played.start)
        np.testing.assert_allclose(played.outputs["action_dist_inputs"][0], head, atol=1e-4)
    for envs in made:
        envs.close()
    with pytest.raises(PolicyLimitExceeded, match="bytes of the file"):
        put_policy(ray_service.address, "noisy", model=bytes(20 * 2**20), distribution="categorical")
    with grpc.insecure_channel(ray_service.address) as channel, pytest.raises(grpc.RpcError) as found:
        call = channel.unary_unary("/simservice.protocol.v1.WorldService/ListWorlds")
        call(bytes(65 * 2**20), timeout=60, metadata=[("application", "noisy")])
    assert found.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_worlds_come_change_version_grow_and_go_while_others_are_served(ray_service, save_toy: Callable[..., Path]):
    other = RemoteSession(ray_service.address, "noisy", num_envs=8)
    first = ray_service.deploy(save_toy("guest"), replicas=(1, 1))
    assert [world.spec.name for world in list_worlds(ray_service.address)] == ["guest", "noisy"]
    with pytest.raises(UnknownWorld, match="did you mean 'guest'"):
        RemoteSession(ray_service.address, "gest")

    session = RemoteSession(ray_service.address, "guest", num_envs=8)
    before = trajectory(session)
    second = ray_service.deploy(save_toy("guest", growth=1.5), replicas=(1, 2))
    assert first != second
    assert get_world(ray_service.address, "guest").spec.full_name == second
    while not session.moves:  # the old replica asks it to go on elsewhere
        session.step({"action": np.ones(8, dtype=np.int64)})
    for found, wanted in zip(trajectory(session), before, strict=True):
        np.testing.assert_array_equal(found, wanted)  # in the version it began with, on the new replica
    renewed = RemoteSession(ray_service.address, "guest", num_envs=8)
    assert not np.array_equal(trajectory(renewed)[1], before[1])

    third = ray_service.deploy(save_toy("guest", growth=1.4), replicas=(1, 2))
    with pytest.raises(ModelRetired, match=third):
        while True:  # versions before the last are held no more
            session.step({"action": np.ones(8, dtype=np.int64)})
    trajectory(renewed, steps=2)
    renewed.close()

    crowd = [RemoteSession(ray_service.address, "guest") for _ in range(9)]  # two more than one replica should have
    deadline = time.monotonic() + 200
    while len(ray_service.replica_pids("guest")) < 2 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert len(ray_service.replica_pids("guest")) == 2
    for session in crowd:
        session.close()

    ray_service.remove("guest")
    with pytest.raises(UnknownWorld):
        RemoteSession(ray_service.address, "guest")
    assert trajectory(other, steps=2)
    other.close()


def test_a_damaged_world_is_refused_and_the_service_goes_on(ray_service, tmp_path):
    with pytest.raises(CorruptCheckpoint):
        ray_service.deploy(tmp_path)
    assert get_world(ray_service.address, "noisy").spec.name == "noisy"


def test_more_sessions_than_a_connection_has_streams_by_default(ray_service):
    sessions = [RemoteSession(ray_service.address, "noisy") for _ in range(110)]
    for session in sessions:
        session.reset(seeds=np.zeros(1, dtype=np.int64))
    for session in sessions:
        session.close()


def test_haproxy_listens_on_loopback_only(ray_service):
    haproxies = [process.pid for process in descendants(ray_service.pid) if "/haproxy -db" in process.command]
    assert haproxies
    # One that was replaced listens no more and only keeps its streams.
    assert set().union(*map(listening_addresses, haproxies)) == {"127.0.0.1"}


def test_a_driver_that_is_killed_leaves_no_process_behind(save_toy: Callable[..., Path]):
    with RayService([save_toy("orphan")]) as service:
        session = RemoteSession(service.address, "orphan", num_envs=8, patience_s=0.0)
        trajectory(session, steps=2)
        processes = descendants(service.pid)
        names = " ".join(process.command for process in processes)
        assert [name for name in ("raylet", "haproxy", "valkey", "ServeReplica") if name not in names] == []
        os.kill(service.pid, signal.SIGKILL)
        deadline = time.monotonic() + 60
        while any(process.runs for process in processes) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert [process.command for process in processes if process.runs] == []
        session.close()


def test_a_port_in_use_is_told_before_anything_starts(toy_folder):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortInUse, match=str(port)), RayService([toy_folder], port=port):
            pytest.fail("it started")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(replicas=(0, 1)), "1 <= MIN <= MAX, found 0-1"),
        (dict(replicas=(3, 2)), "found 3-2"),
        (dict(device="cpu", gpus_per_replica=0.5), "needs a GPU device"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        ServeConfig(**settings)


def test_replicas_are_written_as_a_number_or_a_range():
    assert parse_replicas("3") == (3, 3)
    assert parse_replicas("1-8") == (1, 8)
    with pytest.raises(ConfigError, match="'many'"):
        parse_replicas("many")


def test_plaintext_beyond_this_machine_must_be_asked_for():
    with pytest.raises(ConfigError, match="--insecure"):
        check_address(DoorSettings(host="0.0.0.0"))
    assert check_address(DoorSettings(host="0.0.0.0", insecure=True)) > 0
    assert check_address(DoorSettings(host="localhost")) > 0


def test_two_services_on_a_machine_hold_different_ports():
    one, other = hold_ports(), hold_ports()
    assert abs(one.first - other.first) >= 1000
    one.close()
    again = hold_ports()
    assert again.first != other.first
    other.close()
    again.close()


def test_a_port_of_a_range_is_handed_out_once_and_only_while_nobody_listens_there():
    held = hold_ports()
    with socket.create_server(("127.0.0.1", held.first + 1)):
        assert [held.take(), held.take()] == [held.first + 2, held.first + 3]
    for _ in range(SINGLE_PORTS - 4):
        held.take()
    with pytest.raises(InternalError, match="all in use"):
        held.take()
    held.close()


def test_listeners_without_an_address_get_one():
    text = "frontend a\n    bind :9101\nfrontend b\n    bind 1.2.3.4:80 proto h2\nlisten stats\n  bind *:8404\n"
    assert restrict(text, "127.0.0.1").count("127.0.0.1:") == 2
    assert "bind 1.2.3.4:80 proto h2" in restrict(text, "127.0.0.1")


def test_strays_are_led_to_the_first_world():
    text = (
        "frontend http\n    default_backend x\nfrontend grpc_frontend\n    use_backend fallback if is_list\n"
        "    use_backend grpc-a if is_grpc-a\n    use_backend grpc-b if is_grpc-b\n"
        "    default_backend default_grpc_backend\nbackend fallback\n    default_backend y\n"
    )
    led = lead_strays(text)
    assert "http-request del-header application if !is_grpc-a !is_grpc-b\n    default_backend grpc-a\n" in led
    assert "default_backend x" in led and "default_backend y" in led
    assert lead_strays("frontend http\n    default_backend x\n") == "frontend http\n    default_backend x\n"
