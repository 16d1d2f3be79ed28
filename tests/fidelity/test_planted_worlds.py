"""The benchmark's worlds are Gymnasium's, step for step."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
from planted_worlds import HORIZON, Reality, cartpole_random, cartpole_step, pendulum_step, play_cartpole


def test_cartpole_is_gymnasiums_step_for_step():
    for gravity, length, force in ((9.8, 1.0, 1.0), (12.0, 1.5, 0.9)):
        real = gym.make("CartPole-v1").unwrapped
        real.gravity, real.length, real.force_mag = gravity, 0.5 * length, 10.0 * force
        real.polemass_length = real.masspole * real.length
        for seed in range(5):
            real.reset(seed=seed)
            state, generator = np.array([real.state]), np.random.default_rng(seed)
            for _ in range(200):
                action = int(generator.integers(2))
                observation, _, terminated, _, _ = real.step(action)
                reality = Reality(gravity=gravity, length=length, force=force)
                state, ended = cartpole_step(state, np.array([action]), reality)
                np.testing.assert_array_equal(state[0].astype(np.float32), observation)
                assert bool(ended[0]) == terminated
                if terminated:
                    break
            assert terminated


def test_pendulum_is_gymnasiums_step_for_step():
    real = gym.make("Pendulum-v1").unwrapped
    for seed in range(5):
        real.reset(seed=seed)
        state, generator = np.array([real.state]), np.random.default_rng(seed)
        for _ in range(100):
            action = generator.uniform(-2.5, 2.5, 1).astype(np.float32)
            observation, reward, *_ = real.step(action)
            state, expected = pendulum_step(state, action, Reality())
            np.testing.assert_allclose(state[0, 1], observation[2], rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(np.cos(state[0, 0]), observation[0], rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(expected[0], reward, rtol=1e-5, atol=1e-6)


def test_a_delay_plays_the_action_before():
    generator = np.random.default_rng(0)
    traces = play_cartpole(50, cartpole_random, Reality(delay=1), generator)
    push = np.sign(np.diff(traces.observation[:, :, 1], axis=1))  # the cart's speed follows the push at once
    done = np.where(traces.action[:, :, 1] == 1, 1.0, -1.0)
    both = traces.valid[:, 1:]
    assert np.mean((push[:, 1:] == done[:, :-1])[both]) > 0.99
    assert traces.horizon == HORIZON


def test_an_episode_ends_where_the_pole_falls():
    traces = play_cartpole(200, cartpole_random, Reality(), np.random.default_rng(1))
    ends = traces.terminated.any(axis=1)
    assert 0.05 < ends.mean() < 0.95
    last = traces.valid.sum(axis=1)
    angle = np.abs(traces.observation[np.arange(200), last, 2])
    assert np.all((angle > 12 * np.pi / 180) == ends)
