"""A session of a world with a Discrete action, stepped with prepared bytes: the service without its client."""

from __future__ import annotations

import contextlib
import os
import time

import grpc
import numpy as np

from bench.peers.raw_echo import OPTIONS, PLAY
from simservice.client.wire import wire
from simservice.protocol.v1 import service_pb2 as pb


class OwnStream:
    """A stream of bytes by the way of the service's own client, without its encoding."""

    def __init__(self, address: str, application: str) -> None:
        self._channel = grpc.insecure_channel(address, options=OPTIONS)
        self._wire = wire(self._channel, PLAY, (("application", application),))

    def ask(self, request: bytes) -> bytes:
        """Sends, waits, returns."""
        self._wire.send(request)
        return self._wire.receive()

    def close(self) -> None:
        """Ends the stream."""
        self._wire.cancel()
        self._wire.drain()
        self._channel.close()


class RawSession:
    """Opens and resets; then steps."""

    def __init__(self, address: str, world: str, lanes: int) -> None:
        self.stream = OwnStream(address, world)
        self.sequence = 1
        opening = pb.Open(world=world, num_envs=lanes, open_key=os.urandom(16))
        self._checked(pb.PlayRequest(open=opening), "opened")
        seeds = np.arange(lanes, dtype="<i8").tobytes()
        self._checked(pb.PlayRequest(sequence=1, reset=pb.Reset(seeds=seeds)), "reset")
        self.action = np.random.default_rng(0).integers(0, 3, lanes).astype("<i8").tobytes()
        self.server_ns: list[int] = []

    def request(self) -> bytes:
        """The next step's bytes."""
        self.sequence += 1
        step = pb.Step(action=pb.Values(leaves=[self.action]))
        return pb.PlayRequest(sequence=self.sequence, step=step).SerializeToString()

    def time_steps(self, count: int) -> list[float]:
        """Seconds of each of `count` steps."""
        requests = [self.request() for _ in range(count)]
        times, replies = [], []
        for request in requests:
            began = time.perf_counter()
            replies.append(self.stream.ask(request))
            times.append(time.perf_counter() - began)
        for reply in replies:
            message = pb.PlayReply.FromString(reply)
            assert message.HasField("stepped"), message
            self.server_ns.append(message.server_ns)
        return times

    def close(self) -> None:
        """Frees the lanes."""
        self._checked(pb.PlayRequest(close=pb.Close()), "closed")
        self.stream.close()

    def _checked(self, request: pb.PlayRequest, result: str) -> bytes:
        reply = self.stream.ask(request.SerializeToString())
        assert pb.PlayReply.FromString(reply).HasField(result), pb.PlayReply.FromString(reply)
        return reply


def sizes_of_a_step(address: str, world: str, lanes: int) -> tuple[int, int]:
    """Bytes of a request and of its reply."""
    with contextlib.closing(RawSession(address, world, lanes)) as session:
        request = session.request()
        return len(request), len(session.stream.ask(request))
