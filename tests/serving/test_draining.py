"""A server that ends in order: its sessions go on in the next one, without a replay and without a failed step."""

import threading

import gymnasium as gym
import numpy as np
import pytest
from toy import Toy

import simservice.client  # noqa: F401  (registers the environment)
from simservice.client.session import RemoteSession
from simservice.serving.address import free_port
from simservice.serving.local import LocalConfig, LocalServer
from simservice.sessions.embedded import EmbeddedStore

LANES, STEPS = 8, 400


@pytest.fixture(scope="module")
def store():
    with EmbeddedStore() as embedded:
        yield embedded.url


@pytest.fixture
def place(save_toy, store):
    """Starts one server after the other at one address."""
    port, running = free_port(), []

    def start():
        folder = save_toy("mover", noise=0.05, growth=0.95)
        server = LocalServer([folder], port=port, store_url=store, config=LocalConfig(grace_s=5.0))
        running.append(server)
        return server.start()

    yield start
    for server in running:
        server.stop()


def test_a_loop_of_steps_goes_through_servers_that_end_in_order(place, store):
    server = place()
    envs = gym.make_vec(
        "simservice/World-v0",
        num_envs=LANES,
        vectorization_mode="vector_entry_point",
        address=server.address,
        world="mover",
    )
    actions = np.random.default_rng(0).integers(0, 3, (STEPS, LANES))
    envs.reset(seed=5)
    calm = [envs.step(action)[:4] for action in actions]
    envs.reset(seed=5)
    moved_at = {100, 200, 300}
    stormy, waited = [], 0
    for number, action in enumerate(actions):
        if number in moved_at:  # the steps go on while the server ends and its successor begins
            old, turned = server, threading.Event()

            def turn(old=old, turned=turned):
                old.stop()
                turned.server = place()
                turned.set()

            threading.Thread(target=turn).start()
        stormy.append(envs.step(action)[:4])
        if number in {at + 50 for at in moved_at}:
            assert turned.wait(30)
            server = turned.server
            replica = server.service.replicas[0]
            waited += replica.engine.stats().ticks
    for left, right in zip(calm, stormy, strict=True):
        assert all(np.array_equal(mine, yours) for mine, yours in zip(left, right, strict=True))
    assert envs.session.moves >= 1
    envs.close()


def test_an_idle_session_is_put_down_and_comes_back_without_a_replay(place, monkeypatch):
    first = place()
    session = RemoteSession(first.address, "mover", num_envs=LANES)
    session.reset(seeds=np.arange(LANES))
    action = {"action": np.ones(LANES, np.int64)}
    for _ in range(20):
        newest = session.step(action)
    stepped = []
    step = Toy.step
    first.stop()
    second = place()
    monkeypatch.setattr(Toy, "step", lambda *arguments: stepped.append(1) or step(*arguments))
    point = session.save()
    assert stepped == [], "its lanes came from the snapshot"
    shown = session.restore(point)
    assert np.array_equal(shown["observation"], newest.observation["observation"])
    assert (session.sequence, session.reconnects) == (23, 1)
    assert second.service.replicas[0].service.stats().resumed == 1
    session.close()


def test_the_answer_that_was_lost_with_the_server_is_fetched_from_the_next(place):
    first = place()
    session = RemoteSession(first.address, "mover", num_envs=LANES)
    session.reset(seeds=np.arange(LANES))
    action = {"action": np.ones(LANES, np.int64)}
    answers = [session.step(action) for _ in range(5)]
    first.stop()
    place()
    session.sequence -= 1  # as if the newest answer had not arrived
    again = session.step({"action": np.zeros(LANES, np.int64)})
    assert np.array_equal(again.observation["observation"], answers[-1].observation["observation"])
    assert np.array_equal(again.reward, answers[-1].reward)
    session.close()
