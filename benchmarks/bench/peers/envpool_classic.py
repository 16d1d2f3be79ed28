"""EnvPool's CartPole, in process, in C++: how fast environments can be where there is no wire and no model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import envpool
import numpy as np

from bench.timing import Round, timed

THREADS = 2


class Pool:
    """Steps all of them synchronously."""

    def __init__(self, lanes: int) -> None:
        self._envs = envpool.make_gymnasium("CartPole-v1", num_envs=lanes, num_threads=min(THREADS, lanes), seed=0)
        self._actions = np.random.default_rng(0).integers(0, 2, lanes).astype(np.int32)
        self._lanes = lanes
        self._envs.reset()

    def play(self, seconds: float) -> Round:
        """Steps for so long."""
        return timed(lambda: self._envs.step(self._actions), self._lanes, seconds)


@contextlib.contextmanager
def peer(lanes: int, frames: bool = False) -> Iterator[Pool]:
    """A pool."""
    assert not frames, "CartPole has four numbers"
    yield Pool(lanes)
