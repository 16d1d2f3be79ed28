"""What the toy world is a model of, step for step, as a Gymnasium environment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import gymnasium as gym
import numpy as np
from gymnasium import spaces

ENV_ID = "tests/ToyReality-v0"


class ToyReality(gym.Env):
    """See toy.py."""

    observation_space = spaces.Box(-np.inf, np.inf, (4,), np.float32)
    action_space = spaces.Discrete(3)

    def __init__(self) -> None:
        self.growth, self.push, self.start, self.bound = 1.05, 0.1, 0.5, 3.0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = self.np_random.uniform(-self.start, self.start, 4)
        return self.x.astype(np.float32), {}

    def step(self, action):
        self.x = self.x * self.growth + self.push * (float(action) - 1.0)
        return self.x.astype(np.float32), float(self.x.sum()), bool((abs(self.x) > self.bound).any()), False, {}


@contextmanager
def registered() -> Iterator[str]:
    """Gymnasium knows it as ENV_ID inside the block."""
    gym.register(ENV_ID, ToyReality, max_episode_steps=200, reward_threshold=50.0)
    try:
        yield ENV_ID
    finally:
        del gym.registry[ENV_ID]
