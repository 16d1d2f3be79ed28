"""Who acts while data is recorded: random play, mixtures, any callable. Knows spaces, not environments."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

from simservice.types import Array, from_leaves, leaves_of, to_leaves

Policy = Callable[[Any], Any]
"""A batch of observations (each leaf with a leading lane axis) in, a batch of actions out."""


def batch_size(space: gym.Space[Any], observation: Any) -> int:
    """How many lanes a batch of observations holds."""
    return len(next(iter(to_leaves(space, observation, "observation").values())))


def random_policy(observation_space: gym.Space[Any], action_space: gym.Space[Any], seed: int) -> Policy:
    """Draws every action from the action space; two with the same seed draw the same actions."""
    space = _seeded(action_space, seed)

    def act(observation: Any) -> Any:
        return stack_values(space, [space.sample() for _ in range(batch_size(observation_space, observation))])

    return act


def sticky_policy(
    observation_space: gym.Space[Any], action_space: gym.Space[Any], seed: int, change_probability: float = 0.1
) -> Policy:
    """Random actions held for a while (10 steps on average): reaches states that trembling random play never does.

    Lanes keep their place from call to call; when the number of lanes changes all draw afresh.
    """
    space = _seeded(action_space, seed)
    generator = np.random.default_rng([seed, 2])
    held: list[Any] = []

    def act(observation: Any) -> Any:
        lanes = batch_size(observation_space, observation)
        if len(held) != lanes:
            held[:] = [space.sample() for _ in range(lanes)]
        for lane in np.flatnonzero(generator.random(lanes) < change_probability):
            held[lane] = space.sample()
        return stack_values(space, held)

    return act


def epsilon_mixture(
    policy: Policy, observation_space: gym.Space[Any], action_space: gym.Space[Any], epsilon: float, seed: int
) -> Policy:
    """Acts at random with probability `epsilon` in each lane and step, and as `policy` says otherwise."""
    explore = random_policy(observation_space, action_space, seed)
    generator = np.random.default_rng([seed, 1])

    def act(observation: Any) -> Any:
        chosen = to_leaves(action_space, policy(observation), "action")
        drawn = to_leaves(action_space, explore(observation), "action")
        lanes = batch_size(observation_space, observation)
        astray = generator.random(lanes) < epsilon
        mixed = {path: np.where(_broad(astray, drawn[path]), drawn[path], chosen[path]) for path in drawn}
        return from_leaves(action_space, mixed, "action")

    return act


def stack_values(space: gym.Space[Any], values: list[Any]) -> Any:
    """A batch from single values of a fixed-shape space, in the space's dtypes."""
    singles = [to_leaves(space, value, "value") for value in values]
    batch = {
        leaf.path: np.stack([np.asarray(single[leaf.path], dtype=leaf.dtype) for single in singles])
        for leaf in leaves_of(space, "value")
    }
    return from_leaves(space, batch, "value")


def take_value(space: gym.Space[Any], batch: Any, lane: int) -> Any:
    """One lane's value out of a batch, in the space's dtypes; what an environment's step takes."""
    leaves = to_leaves(space, batch, "value")
    single = {leaf.path: leaves[leaf.path][lane].astype(leaf.dtype) for leaf in leaves_of(space, "value")}
    return from_leaves(space, single, "value")


def _seeded(space: gym.Space[Any], seed: int) -> gym.Space[Any]:
    own = copy.deepcopy(space)  # the caller's space keeps its own generator
    own.seed(seed)
    return own


def _broad(mask: Array, like: Array) -> Array:
    return mask.reshape(mask.shape + (1,) * (like.ndim - 1))
