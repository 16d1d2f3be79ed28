"""The least that a remote environment can be: raw bytes over grpc.aio, numpy lanes behind, arrays at the client.

No sessions, no contract, no checks, no journal. As a program: `python -m bench.peers.raw_numpy LANES FRAMES`.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import numpy as np

from bench.numpy_lanes import FRAME, NumpyLanes
from bench.peers.raw_echo import RawStream, serve
from bench.processes import served_by
from bench.timing import Round, timed


class RawLanes:
    """The client: encodes actions, copies arrays out of the reply."""

    def __init__(self, stream: RawStream, lanes: int, frames: bool) -> None:
        self._stream, self._lanes, self._frames = stream, lanes, frames
        self._action = np.random.default_rng(0).integers(0, 3, lanes)

    def step(self) -> tuple[np.ndarray, ...]:
        """One step of all lanes."""
        reply, lanes = self._stream.ask(self._action.tobytes()), self._lanes
        shape, kind = ((lanes, *FRAME), np.uint8) if self._frames else ((lanes, 4), np.float32)
        size = len(reply) - 10 * lanes
        observation = np.frombuffer(reply, kind, count=size // np.dtype(kind).itemsize).reshape(shape).copy()
        reward = np.frombuffer(reply, np.float64, lanes, size).copy()
        terminated = np.frombuffer(reply, np.bool_, lanes, size + 8 * lanes).copy()
        return observation, reward, terminated, np.frombuffer(reply, np.bool_, lanes, size + 9 * lanes).copy()

    def play(self, seconds: float) -> Round:
        """Steps for so long."""
        return timed(self.step, self._lanes, seconds)


@contextlib.contextmanager
def peer(lanes: int, frames: bool = False) -> Iterator[RawLanes]:
    """Its own server and a client."""
    server = served_by("bench.peers.raw_numpy", lanes, int(frames))
    with server as address, contextlib.closing(RawStream(address)) as stream:
        yield RawLanes(stream, lanes, frames)


def main() -> None:
    """Serves until it is ended."""
    world = NumpyLanes(int(sys.argv[1]), sys.argv[2] == "1")

    def answer(request: bytes) -> bytes:
        return b"".join(array.tobytes() for array in world.step(np.frombuffer(request, np.int64)))

    serve(answer)


if __name__ == "__main__":
    main()
