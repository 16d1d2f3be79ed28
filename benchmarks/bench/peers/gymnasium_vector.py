"""Gymnasium's own vector environments, in process: one loop over environments, and a process for each of them."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Iterator
from functools import partial

import gymnasium as gym

from bench.numpy_lanes import NumpyEnv
from bench.timing import Round, timed


class Vector:
    """Whatever vector environment."""

    def __init__(self, envs: gym.vector.VectorEnv) -> None:
        self._envs = envs
        self._actions = envs.action_space.sample()
        envs.reset(seed=0)

    def play(self, seconds: float) -> Round:
        """Steps for so long."""
        return timed(lambda: self._envs.step(self._actions), self._envs.num_envs, seconds)


@contextlib.contextmanager
def synchronous(lanes: int, frames: bool = False) -> Iterator[Vector]:
    """SyncVectorEnv."""
    with contextlib.closing(gym.vector.SyncVectorEnv([partial(NumpyEnv, frames)] * lanes)) as envs:
        yield Vector(envs)


@contextlib.contextmanager
def asynchronous(lanes: int, frames: bool = False) -> Iterator[Vector]:
    """AsyncVectorEnv with shared memory; a fork of this process would copy gRPC's threads, so another one forks."""
    multiprocessing.set_forkserver_preload(["bench.numpy_lanes"])
    makers = [partial(NumpyEnv, frames)] * lanes
    with contextlib.closing(gym.vector.AsyncVectorEnv(makers, context="forkserver")) as envs:
        yield Vector(envs)
