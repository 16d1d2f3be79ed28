"""Mutated messages against a served world: every one is answered, none crashes it, none is INTERNAL or UNKNOWN.

python tests/faults/fuzz.py --count 1000000           in process: facade, sessions and engine, without a socket
python tests/faults/fuzz.py --count 50000 --socket    over gRPC
"""

import argparse
import asyncio
import collections
import contextlib
import os
import random
import sys
import tempfile
import time
from pathlib import Path

import grpc
import numpy as np
from google.protobuf.message import DecodeError
from gymnasium import spaces
from mutations import mutated, requests
from toy import Toy, ToyConfig, toy_spec

from simservice.errors import SimserviceError
from simservice.protocol.v1 import service_pb2 as pb
from simservice.serving.facade import Stream, WorldService
from simservice.serving.local import LocalConfig, LocalServer
from simservice.serving.wiring import Replica, ReplicaConfig
from simservice.sessions.memory_store import MemoryStore
from simservice.sessions.quotas import ANYONE
from simservice.types import Provenance
from simservice.worlds import checkpoint

LANES = 2
FORBIDDEN = frozenset({"INTERNAL", "UNKNOWN"})
SPACES = (spaces.Discrete(3), spaces.Box(-1, 1, (2,), np.float32))
CALLS = ("Play", "Play", "Play", "GetWorld", "ListWorlds")


def action_of(space):
    """Makes the bytes of a valid action for so many lanes."""
    if isinstance(space, spaces.Discrete):
        return lambda lanes: np.ones(lanes, "<i8").tobytes()
    return lambda lanes: np.full((lanes, 2), 0.5, "<f4").tobytes()


class Found(Exception):
    """A message that was answered as none may be."""

    def __init__(self, code, message, raw):
        super().__init__(f"{code}: {message}\nafter {raw.hex()}")


async def in_process(count, seed=0):
    """Codes by how often they were answered."""
    codes = collections.Counter()
    for place, space in enumerate(SPACES):
        store = MemoryStore()
        world = Toy(toy_spec(name="toy", action_space=space), ToyConfig())
        replica = Replica(world, Provenance(), store, ReplicaConfig(capacity=64))
        await replica.start()
        try:
            codes += await _played(replica, store, action_of(space), count // len(SPACES), random.Random(seed + place))
            assert replica.engine.running
        finally:
            await replica.stop()
    return codes


async def _played(replica, store, action, count, rng):
    service = WorldService([replica.hosted], store)
    codes = collections.Counter()
    stream, token = await _opened(service, rng)
    for _ in range(count):
        sequence = 0 if stream._session is None else stream._session.last_sequence + 1
        raw = mutated(rng, rng.choice(requests(rng, token, sequence, LANES, action)).SerializeToString())
        code, message, ended = await _answer(stream, raw)
        codes[code] += 1
        if code in FORBIDDEN:
            raise Found(code, message, raw)
        if ended:
            stream.leave()
            if rng.random() < 0.4:  # what comes is the first message, and the token may still be good
                stream = Stream(service, "", ANYONE)
                continue
            for session in replica.service.held.all():
                await replica.service.close(session)
            stream, token = await _opened(service, rng)
    return codes


async def _opened(service, rng):
    stream = Stream(service, "", ANYONE)
    opening = pb.PlayRequest(open=pb.Open(world="toy", num_envs=LANES, open_key=rng.randbytes(16)))
    reply = await stream.answer(opening)
    await stream.answer(pb.PlayRequest(sequence=1, reset=pb.Reset()))
    return stream, reply.opened.session


async def _answer(stream, raw):
    """(code, message, whether the stream is over)."""
    try:
        request = pb.PlayRequest.FromString(raw)
    except DecodeError:
        return "bytes that are no message", "", False
    try:
        reply = await stream.answer(request)
    except SimserviceError as error:
        return error.code, str(error), True
    if reply.WhichOneof("result") == "error":
        return grpc_name(reply.error.code), reply.error.message, False
    reply.SerializeToString()
    return "OK", "", stream.closed


def grpc_name(number):
    """The name of a status by its number."""
    return next(code.name for code in grpc.StatusCode if code.value[0] == number)


def over_a_socket(address, count, seed=0):
    """Codes by how often they were answered, of streams and unary calls that send whatever they like."""
    rng, action = random.Random(seed), action_of(SPACES[0])
    codes = collections.Counter()
    with grpc.insecure_channel(address) as channel:
        calls = {
            name: make(f"/simservice.protocol.v1.WorldService/{name}")
            for name, make in (
                ("Play", channel.stream_stream),
                ("GetWorld", channel.unary_unary),
                ("ListWorlds", channel.unary_unary),
            )
        }
        while codes.total() < count:
            name = rng.choice(CALLS)
            if name == "Play":
                sent = _conversation(rng, action)
                with contextlib.closing(_Drained(calls["Play"](iter(sent), timeout=30))) as drained:
                    code, message = drained.end()
                codes["OK"] += drained.replies
            else:
                raw = mutated(rng, pb.GetWorldRequest(world="toy").SerializeToString())
                sent = [raw]
                code, message = _unary(calls[name], raw)
            codes[code] += 1
            if code in FORBIDDEN:
                raise Found(code, message, b" ".join(sent))
    return codes


def _conversation(rng, action):
    """An opening and some messages after it, most of them wrong."""
    opening = pb.PlayRequest(open=pb.Open(world="toy", num_envs=LANES, open_key=rng.randbytes(16)))
    sent = [opening.SerializeToString(), pb.PlayRequest(sequence=1, reset=pb.Reset()).SerializeToString()]
    for sequence in range(2, 10):
        sent.append(mutated(rng, rng.choice(requests(rng, "0" * 32, sequence, LANES, action)).SerializeToString()))
    return [*sent, pb.PlayRequest(close=pb.Close()).SerializeToString()]


class _Drained:
    """A call read to its end."""

    def __init__(self, call):
        self.call = call
        self.replies = 0

    def end(self):
        """Its status and details."""
        try:
            for reply in self.call:
                self.replies += 1
                error = pb.PlayReply.FromString(reply).error
                if error.code and grpc_name(error.code) in FORBIDDEN:
                    return grpc_name(error.code), error.message
        except grpc.RpcError as error:
            return error.code().name, error.details()
        return "OK", ""

    def close(self):
        """Ends it early."""
        self.call.cancel()


def _unary(call, raw):
    try:
        call(raw, timeout=30)
    except grpc.RpcError as error:
        return error.code().name, error.details()
    return "OK", ""


def main():
    """Plays, and prints what was answered."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--count", type=int, default=1_000_000)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--socket", action="store_true")
    chosen = arguments.parse_args()
    began = time.monotonic()
    try:
        if chosen.socket:
            os.environ["SIMSERVICE_EXTRA_FAMILIES"] = "toy:Toy"
            with tempfile.TemporaryDirectory() as folder:
                checkpoint.save(Toy(toy_spec(name="toy")), Path(folder) / "toy", provenance=Provenance())
                config = LocalConfig(store_url="memory:", grace_s=0.1)
                with LocalServer([Path(folder) / "toy"], config=config) as server:
                    codes = over_a_socket(server.address, chosen.count, chosen.seed)
        else:
            codes = asyncio.run(in_process(chosen.count, chosen.seed))
    except Found as found:
        print(found, file=sys.stderr)
        sys.exit(1)
    print(f"{codes.total()} answers in {time.monotonic() - began:.0f} s: {dict(codes.most_common())}")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main()
