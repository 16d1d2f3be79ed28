"""Puts a real environment where one observation says it is, for those whose state follows from it.

Knows the state variables of a few Gymnasium classics by id, and no framework: the environment is handed in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from simservice.types import Array


def can_place(env_id: str) -> bool:
    """Whether the state of this environment follows from one observation."""
    return env_id in _PLACERS


def place(env_id: str, env: Any, observation: Array) -> None:
    """Sets the state of an environment that was reset before; `observation` is one lane's, without a batch axis.

    float32 observations are taken as they are, so a state is exact where the observation is the state (CartPole,
    MountainCar) and within float32's rounding where angles must be found again (Pendulum, Acrobot).
    """
    _PLACERS[env_id](env.unwrapped, np.asarray(observation, dtype=np.float64))


def _cart_pole(env: Any, observation: Array) -> None:
    env.state = observation.copy()
    env.steps_beyond_terminated = None


def _pendulum(env: Any, observation: Array) -> None:
    env.state = np.array([np.arctan2(observation[1], observation[0]), observation[2]])
    env.last_u = None


def _mountain_car(env: Any, observation: Array) -> None:
    env.state = observation.copy()


def _acrobot(env: Any, observation: Array) -> None:
    first, second = (np.arctan2(observation[i + 1], observation[i]) for i in (0, 2))
    env.state = np.array([first, second, observation[4], observation[5]])


_PLACERS: dict[str, Callable[[Any, Array], None]] = {
    "CartPole-v0": _cart_pole,
    "CartPole-v1": _cart_pole,
    "Pendulum-v1": _pendulum,
    "MountainCar-v0": _mountain_car,
    "MountainCarContinuous-v0": _mountain_car,
    "Acrobot-v1": _acrobot,
}
