"""The toy world's dynamics in bare numpy: what stands behind the peers' wires, so that all step the same."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

FRAME = (64, 64, 3)
GROWTH, PUSH, BOUND = 0.9, 0.1, 3.0

Stepped = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


class NumpyLanes:
    """`lanes` environments; observations are 4 numbers, or with `frames` a picture of 64 x 64 x 3 bytes."""

    def __init__(self, lanes: int, frames: bool = False) -> None:
        self.lanes = lanes
        self.frames = frames
        self.state = np.random.default_rng(0).uniform(-0.5, 0.5, (lanes, 4))
        self._picture = np.random.default_rng(0).integers(0, 256, FRAME, dtype=np.uint8)
        self._never = np.zeros(lanes, dtype=np.bool_)

    def step(self, action: np.ndarray) -> Stepped:
        """(observation, reward, terminated, truncated) after action (lanes,) of 0, 1, 2."""
        self.state = self.state * GROWTH + PUSH * (action[:, None] - 1.0)
        return self.observe(), self.state.sum(-1), (np.abs(self.state) > BOUND).any(-1), self._never

    def observe(self) -> np.ndarray:
        """(lanes, 4) float32 or (lanes, 64, 64, 3) uint8."""
        if not self.frames:
            return self.state.astype(np.float32)
        shade = (self.state[:, 0] * 64.0 + 128.0).astype(np.uint8)
        return np.asarray(self._picture + shade[:, None, None, None])


def observation_space(frames: bool) -> spaces.Box:
    """Of one lane."""
    return spaces.Box(0, 255, FRAME, np.uint8) if frames else spaces.Box(-np.inf, np.inf, (4,), np.float32)


class NumpyEnv(gym.Env[np.ndarray, int]):
    """One lane of it, for those that know single environments only."""

    def __init__(self, frames: bool = False) -> None:
        self.observation_space = observation_space(frames)
        self.action_space = spaces.Discrete(3)
        self._lane = NumpyLanes(1, frames)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Goes on where it is: nothing in it ever ends."""
        return self._lane.observe()[0], {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        """As Gymnasium has it."""
        observation, reward, terminated, truncated = self._lane.step(np.array([action]))
        return observation[0], float(reward[0]), bool(terminated[0]), bool(truncated[0]), {}


class NumpyVectorEnv(gym.vector.VectorEnv):
    """All lanes of it, for those that know vector environments."""

    def __init__(self, lanes: int, frames: bool = False) -> None:
        self.num_envs = lanes
        self.single_observation_space, self.single_action_space = observation_space(frames), spaces.Discrete(3)
        self.observation_space = gym.vector.utils.batch_space(self.single_observation_space, lanes)
        self.action_space = gym.vector.utils.batch_space(self.single_action_space, lanes)
        self.metadata = {"autoreset_mode": gym.vector.AutoresetMode.NEXT_STEP}
        self._lanes = NumpyLanes(lanes, frames)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Goes on where it is."""
        return self._lanes.observe(), {}

    def step(self, actions: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict]:
        """As Gymnasium has it."""
        return *self._lanes.step(np.asarray(actions)), {}
