"""RLMesh: its server around the numpy lanes as one vector environment, its own client for numpy.

As a program: `python -m bench.peers.rlmesh_vector LANES FRAMES`.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from rlmesh import EnvServer
from rlmesh.numpy import RemoteEnv, RemoteVectorEnv

from bench.numpy_lanes import NumpyEnv, NumpyVectorEnv
from bench.processes import served_by
from bench.timing import Round, timed

EDITION = "2026.06"  # of its protocol; it warns where none is named


class Mesh:
    """The client."""

    def __init__(self, env: Any, lanes: int) -> None:
        self._env, self._lanes = env, lanes
        actions = np.random.default_rng(0).integers(0, 3, lanes)
        self._actions: Any = actions if lanes > 1 else int(actions[0])
        env.reset()

    def play(self, seconds: float) -> Round:
        """Steps for so long."""
        return timed(lambda: self._env.step(self._actions), self._lanes, seconds)


@contextlib.contextmanager
def peer(lanes: int, frames: bool = False) -> Iterator[Mesh]:
    """Its own server and a client."""
    server, client = served_by("bench.peers.rlmesh_vector", lanes, int(frames)), RemoteVectorEnv
    with server as address, (client if lanes > 1 else RemoteEnv)(address) as env:
        yield Mesh(env, lanes)


def main() -> None:
    """Serves until it is ended."""
    lanes, frames = int(sys.argv[1]), sys.argv[2] == "1"
    os.environ["RLMESH_WORKFLOW_EDITION"] = EDITION
    server = EnvServer(NumpyVectorEnv(lanes, frames) if lanes > 1 else NumpyEnv(frames))
    print(server.address, flush=True)
    server.serve()


if __name__ == "__main__":
    main()
