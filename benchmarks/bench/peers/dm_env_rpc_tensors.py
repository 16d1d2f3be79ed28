"""dm_env_rpc with all lanes in one tensor: its protocol allows it, its own adaptor does not. Its client is its own;
it brings no server, so the servicer is written here over its messages and its packing.

As a program: `python -m bench.peers.dm_env_rpc_tensors LANES FRAMES`.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
from dm_env_rpc.v1 import connection, dm_env_rpc_pb2, dm_env_rpc_pb2_grpc, tensor_utils

from bench.numpy_lanes import NumpyLanes
from bench.processes import served_by
from bench.timing import Round, timed

ACTION, OBSERVATION, REWARD, TERMINATED, TRUNCATED = 1, 1, 2, 3, 4
WANTED = [OBSERVATION, REWARD, TERMINATED, TRUNCATED]
OPTIONS = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))
PACK, UNPACK = tensor_utils.pack_tensor, tensor_utils.unpack_tensor


class Servicer(dm_env_rpc_pb2_grpc.EnvironmentServicer):
    """One world that is there already."""

    def __init__(self, world: NumpyLanes) -> None:
        self._world = world

    def Process(
        self, requests: Iterator[dm_env_rpc_pb2.EnvironmentRequest], context: grpc.ServicerContext
    ) -> Iterator[dm_env_rpc_pb2.EnvironmentResponse]:
        """Join, then step after step."""
        for request in requests:
            if request.WhichOneof("payload") != "step":
                yield dm_env_rpc_pb2.EnvironmentResponse(join_world=dm_env_rpc_pb2.JoinWorldResponse())
                continue
            arrays = self._world.step(UNPACK(request.step.actions[ACTION]))
            packed = {uid: PACK(array) for uid, array in zip(WANTED, arrays, strict=True)}
            observations = {uid: packed[uid] for uid in request.step.requested_observations}
            stepped = dm_env_rpc_pb2.StepResponse(state=dm_env_rpc_pb2.RUNNING, observations=observations)
            yield dm_env_rpc_pb2.EnvironmentResponse(step=stepped)


class Tensors:
    """The client."""

    def __init__(self, channel: connection.Connection, lanes: int) -> None:
        self._channel, self._lanes = channel, lanes
        self._action = np.random.default_rng(0).integers(0, 3, lanes)
        channel.send(dm_env_rpc_pb2.JoinWorldRequest(world_name="toy"))

    def step(self) -> list[np.ndarray]:
        """One step of all lanes."""
        request = dm_env_rpc_pb2.StepRequest(requested_observations=WANTED, actions={ACTION: PACK(self._action)})
        observations = self._channel.send(request).observations
        return [UNPACK(observations[uid]) for uid in WANTED]

    def play(self, seconds: float) -> Round:
        """Steps for so long."""
        return timed(self.step, self._lanes, seconds)


@contextlib.contextmanager
def peer(lanes: int, frames: bool = False) -> Iterator[Tensors]:
    """Its own server and a client."""
    server = served_by("bench.peers.dm_env_rpc_tensors", lanes, int(frames))
    with server as address, grpc.insecure_channel(address, options=OPTIONS) as wire:
        yield Tensors(connection.Connection(wire), lanes)


def main() -> None:
    """Serves until it is ended."""
    server = grpc.server(ThreadPoolExecutor(4), options=OPTIONS)
    servicer = Servicer(NumpyLanes(int(sys.argv[1]), sys.argv[2] == "1"))
    dm_env_rpc_pb2_grpc.add_EnvironmentServicer_to_server(servicer, server)
    print(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}", flush=True)
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
