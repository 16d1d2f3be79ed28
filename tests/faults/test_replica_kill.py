"""A replica that dies in mid-episode: the client's loop sees a slow step, and the trajectory is the undisturbed one."""

from __future__ import annotations

import os
import signal
import urllib.request
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from relay import Relay

from simservice.client.session import RemoteSession
from simservice.serving.service import RayService

LANES, STEPS = 64, 40
SEEDS = np.arange(LANES, dtype=np.int64) * 7919


def play(session: RemoteSession, events: dict[int, Callable[[], None]] | None = None) -> list[tuple[np.ndarray, ...]]:
    """All that seeded lanes give under fixed actions; `events` happen before their step."""
    rows: list[tuple[np.ndarray, ...]] = [(session.reset(seeds=SEEDS).observation["observation"],)]
    for step in range(STEPS):
        if events and step in events:
            events[step]()
        result = session.step({"action": (np.arange(LANES) * 3 + step) % 3})
        rows.append((result.observation["observation"], result.reward, result.terminated, result.truncated))
    return rows


def assert_same(found: list[tuple[np.ndarray, ...]], wanted: list[tuple[np.ndarray, ...]]) -> None:
    for step, (row, other) in enumerate(zip(found, wanted, strict=True)):
        for array, expected in zip(row, other, strict=True):
            np.testing.assert_array_equal(array, expected, err_msg=f"step {step}")


def busy_pids(service: RayService) -> set[int]:
    """Processes of the replicas that hold lanes of the world now, as their own metrics tell."""
    found = set()
    for replica in service.replicas():
        with urllib.request.urlopen(f"http://{replica['target']}/metrics", timeout=10) as answer:
            families = text_string_to_metric_families(answer.read().decode())
        lanes = [s.value for family in families for s in family.samples if s.name == "simservice_lanes_in_use"]
        if replica["world"] == "noisy" and sum(lanes) > 0:
            found.add(replica["pid"])
    return found


@pytest.fixture(scope="module")
def undisturbed(ray_service: RayService) -> list[tuple[np.ndarray, ...]]:
    session = RemoteSession(ray_service.address, "noisy", num_envs=LANES)
    rows = play(session)
    session.close()
    assert session.reconnects == 0
    return rows


@pytest.fixture
def wire(ray_service: RayService) -> Iterator[Relay]:
    with Relay(ray_service.address) as relay:
        yield relay


def test_two_replicas_give_the_same_trajectory(ray_service, undisturbed):
    sessions = [RemoteSession(ray_service.address, "noisy", num_envs=LANES) for _ in range(2)]
    assert len(busy_pids(ray_service)) == 2
    for session in sessions:
        assert_same(play(session), undisturbed)
        session.close()


def test_a_cut_connection_in_mid_episode_changes_nothing(wire, undisturbed):
    session = RemoteSession(wire.address, "noisy", num_envs=LANES)
    rows = play(session, dict.fromkeys((7, 19, 20), wire.cut))
    session.close()
    assert session.reconnects == 3
    assert_same(rows, undisturbed)


def test_a_replica_killed_in_mid_episode_changes_nothing(ray_service, undisturbed):
    # With both replicas killed the second time has to wait for a new one.
    session = RemoteSession(ray_service.address, "noisy", num_envs=LANES, patience_s=200.0)

    def kill() -> None:
        [serving] = busy_pids(ray_service)
        os.kill(serving, signal.SIGKILL)

    rows = play(session, {15: kill, 30: kill})
    session.close()
    assert session.reconnects >= 2
    assert_same(rows, undisturbed)
