"""Over a wire that is cut again and again an episode on a real server is the same as over one that holds."""

import threading

import gymnasium as gym
import numpy as np
import pytest
from relay import Relay

import simservice.client  # noqa: F401  (registers the environment)

STEPS = 150


@pytest.fixture
def wire(worlds):
    wire = Relay(worlds)
    yield wire
    wire.close()


def episode(address, cut=lambda step: None):
    """All that a seeded run over several autoresets gives, and how often it was reconnected."""
    env = gym.make_vec("simservice/World-v0", num_envs=4, address=address, world="lucky")
    actions = np.random.default_rng(1).integers(0, 3, (STEPS, 4))
    seen = [env.reset(seed=11)[0]]
    for step, action in enumerate(actions):
        cut(step)
        observation, reward, terminated, truncated, _ = env.step(action)
        seen += [observation, reward, terminated, truncated]
    reconnects = env.unwrapped.session.reconnects
    env.close()
    return seen, reconnects


def test_cuts_between_steps_change_nothing(worlds, wire):
    expected, _ = episode(worlds)
    found, reconnects = episode(wire.address, lambda step: wire.cut() if step % 10 == 5 else None)
    assert reconnects == STEPS // 10
    assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))


def test_cuts_while_a_step_is_under_way_change_nothing(worlds, wire):
    expected, _ = episode(worlds)

    def cut_soon(step):
        if step % 15 == 5:
            threading.Timer(0.0005 * (step % 4), wire.cut).start()

    found, reconnects = episode(wire.address, cut_soon)
    assert reconnects >= 1
    assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))
