"""Mutated messages against a served world: every one is answered, none crashes it, none is INTERNAL or UNKNOWN."""

import asyncio
import collections
import contextlib
import multiprocessing
import os
import random
import time
from concurrent.futures import ProcessPoolExecutor

import grpc
import numpy as np
from google.protobuf.message import DecodeError
from gymnasium import spaces
from line import Line, Seen, at_least, at_most, exactly
from local_process import LocalProcess, memory_mb
from mutations import mutated, requests
from toy import Toy, ToyConfig, toy_spec

from simservice.client.worlds import list_worlds
from simservice.errors import SimserviceError
from simservice.protocol.v1 import service_pb2 as pb
from simservice.serving.facade import WorldService
from simservice.serving.stream import Stream
from simservice.serving.wiring import Replica, ReplicaConfig
from simservice.sessions.memory_store import MemoryStore
from simservice.sessions.quotas import ANYONE
from simservice.types import Provenance

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


async def in_process(count, seed=0, told=lambda done: None):
    """Codes by how often they were answered."""
    codes = collections.Counter()
    for place, space in enumerate(SPACES):
        store = MemoryStore()
        world = Toy(toy_spec(name="toy", action_space=space), ToyConfig())
        replica = Replica(world, Provenance(), store, ReplicaConfig(capacity=64))
        await replica.start()
        try:
            codes += await _played(
                replica, store, action_of(space), count // len(SPACES), random.Random(seed + place), told
            )
            assert replica.engine.running
        finally:
            await replica.stop()
    return codes


async def _played(replica, store, action, count, rng, told):
    service = WorldService([replica.hosted], store)
    codes = collections.Counter()
    stream, token = await _opened(service, rng)
    for done in range(count):
        if done % 1_000 == 0:
            told(done)
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
    reply = pb.PlayReply.FromString(await stream.answer(opening))
    await stream.answer(pb.PlayRequest(sequence=1, reset=pb.Reset()))
    return stream, reply.opened.session


async def _answer(stream, raw):
    """(code, message, whether the stream is over)."""
    try:
        request = pb.PlayRequest.FromString(raw)
    except DecodeError:
        return "bytes that are no message", "", False
    try:
        replies = [reply async for reply in stream.imagine(request)] if request.HasField("imagine") else []
        reply = pb.PlayReply.FromString(replies[-1] if replies else await stream.answer(request))
    except SimserviceError as error:
        return error.code, str(error), True
    if reply.WhichOneof("result") == "error":
        return grpc_name(reply.error.code), reply.error.message, False
    return "OK", "", stream.closed


def grpc_name(number):
    """The name of a status by its number."""
    return next(code.name for code in grpc.StatusCode if code.value[0] == number)


def over_a_socket(address, count, seed=0, told=lambda done: None):
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
            told(codes.total())
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


def in_process_line(stage, options, told):
    """Facade, sessions and engine, without a socket; half of the messages in another process."""
    count = 40_000 if options.short else 1_000_000
    began, before = time.monotonic(), memory_mb(os.getpid())
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        other = pool.submit(_other_half, count // 2, options.seed + 100)
        try:
            codes = asyncio.run(in_process(count - count // 2, options.seed, _progress(told, count // 2)))
            codes += other.result()
            found = ""
        except Found as problem:
            codes, found = collections.Counter(), str(problem)
    yield from _rows(codes, count, found, time.monotonic() - began)
    yield at_most("growth of this process's memory", memory_mb(os.getpid()) - before, 60, " MB")


def over_a_socket_line(stage, options, told):
    """Over gRPC, and the server's memory meanwhile."""
    count = 4_000 if options.short else 50_000
    began = time.monotonic()
    with LocalProcess(stage.toy) as server:
        over_a_socket(server.address, 2_000, options.seed + 1)  # its first messages make it grow
        before = server.memory_mb()
        try:
            codes, found = over_a_socket(server.address, count, options.seed, _progress(told, count)), ""
        except Found as problem:
            codes, found = collections.Counter(), str(problem)
        after, worlds = server.memory_mb(), len(list_worlds(server.address))
    yield from _rows(codes, count, found, time.monotonic() - began)
    yield exactly("worlds that it serves afterwards", worlds, 1)
    yield at_most("growth of the server's memory", 100 * (after / before - 1), 10, " %")


LINES = (
    Line("fuzz", "a million mutated messages in process", in_process_line),
    Line("socket", "50,000 mutated messages over a socket", over_a_socket_line),
)


def _rows(codes, count, found, seconds):
    yield at_least(f"messages answered, {codes.total() / seconds:,.0f} a second", codes.total(), count)
    yield exactly(
        "answers that are INTERNAL or UNKNOWN", sum(codes[name] for name in FORBIDDEN) + bool(found), 0, found
    )
    yield Seen("answers", "all of the table", ", ".join(f"{name} {n:,}" for name, n in codes.most_common(5)), not found)


def _other_half(count, seed):
    return asyncio.run(in_process(count, seed))


def _progress(told, count):
    return lambda done: told(f"{done:,} of {count:,}", done / count)
