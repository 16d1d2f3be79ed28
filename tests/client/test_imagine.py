"""Rollouts as a user has them: many steps in one call, what if or for good, with Gymnasium's words."""

import gymnasium as gym
import numpy as np
import pytest

import simservice.client  # noqa: F401  (registers the environment)

LANES, STEPS = 5, 30


def made(address, world, mode="next_step", **settings):
    return gym.make_vec(
        "simservice/World-v0",
        num_envs=LANES,
        vectorization_mode="vector_entry_point",
        address=address,
        world=world,
        autoreset_mode=mode,
        **settings,
    )


@pytest.fixture
def pair(worlds):
    """Twins of the noisy world, after the same reset."""
    twins = [made(worlds, "lucky") for _ in range(2)]
    for env in twins:
        env.reset(seed=3)
    yield twins
    for env in twins:
        env.close()


def script(steps=STEPS, lanes=LANES, seed=0):
    return np.random.default_rng(seed).integers(0, 3, (steps, lanes))


def stepped(env, actions):
    """Observations, rewards and ends of the same actions, one by one."""
    return [np.stack(column) for column in zip(*(env.step(action)[:4] for action in actions), strict=True)]


def same(imagined, expected):
    found = (imagined.observation, imagined.reward, imagined.terminated, imagined.truncated)
    return [a.tobytes() for a in found] == [b.tobytes() for b in expected]


def test_an_advancing_rollout_gives_the_bits_of_its_steps_one_by_one(pair):
    first, second = pair
    for seed in range(3):
        imagined = first.imagine(script(seed=seed), advance=True)
        assert same(imagined, stepped(second, script(seed=seed)))
