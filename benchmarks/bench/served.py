"""The service as its users have it: a Gymnasium environment at an address, stepped in a loop."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import gymnasium as gym

import simservice.client  # noqa: F401 - names simservice/World-v0 to Gymnasium
from bench.timing import Round, timed


class Served:
    """One environment, or a vector environment of many."""

    def __init__(self, env: Any, lanes: int) -> None:
        self._env, self.lanes = env, lanes
        self._actions = env.action_space.sample()
        self.observation, _ = env.reset(seed=0)

    def play(self, seconds: float) -> Round:
        """Steps for so long."""
        return timed(lambda: self._env.step(self._actions), self.lanes, seconds)


@contextlib.contextmanager
def served(address: str, world: str, lanes: int) -> Iterator[Served]:
    """A client of the world."""
    name, where = "simservice/World-v0", {"address": address, "world": world}
    if lanes == 1:
        env: Any = gym.make(name, **where)
    else:
        env = gym.make_vec(name, num_envs=lanes, vectorization_mode="vector_entry_point", **where)
    with contextlib.closing(env):
        yield Served(env, lanes)
