"""One connection to a world service: addresses, streams, timeouts. The only client file that knows grpc.

What gRPC raises leaves here as one of our errors, or as Interrupted where trying again may help.
"""

from __future__ import annotations

import logging
import math
import os
import re
import threading
import weakref
from collections.abc import Callable
from time import monotonic
from typing import Any

from simservice.client.access import Access, Tls, access_to
from simservice.client.chunked_wire import ChunkedWire, NotTaken
from simservice.client.steps import StepRequest
from simservice.client.times import check_seconds
from simservice.client.wire import Ended, Wire, wire
from simservice.errors import (
    InternalError,
    InvalidInput,
    ReplicaDraining,
    ServerUnavailable,
    SimserviceError,
    Unauthenticated,
    UnknownWorld,
)
from simservice.protocol.error_table import BARE, RETRIED
from simservice.protocol.memory import keep_freed_memory
from simservice.protocol.packing import CODECS_KEY, Compression, offered, unpacked
from simservice.protocol.polling import grpc
from simservice.protocol.status import error_from_metadata
from simservice.protocol.step_replies import PlainReply
from simservice.protocol.v1 import service_pb2 as pb
from simservice.protocol.v1 import world_pb2 as world_pb
from simservice.protocol.v1.service_pb2_grpc import WorldServiceStub

log = logging.getLogger(__name__)

PLAY = "/" + pb.DESCRIPTOR.services_by_name["WorldService"].full_name + "/Play"
MAX_MESSAGE_BYTES = 256 * 2**20
LARGE_BYTES = 2**17  # of a reply, from which on memory is worth keeping
QUICK_ANSWER_S = 1.0  # for a stream's answer to begin, where it is tried by HTTP/1.1
STREAMS_VARIABLE = "SIMSERVICE_STREAMS"  # in the environment; "grpc": HTTP/1.1 is never tried

OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 10_000),  # so that a peer that vanished without a word is noticed
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.use_local_subchannel_pool", 1),  # else all sessions share one connection, and proxies bound its streams
    ("grpc.enable_http_proxy", 0),  # http_proxy in the environment is about the web
)

_HOST_PORT = re.compile(r"(\[[0-9a-fA-F:.%]+\]|[^\[\]:/\s]+):(\d{1,5})")


class Interrupted(Exception):
    """The stream broke before the answer came: whether the request took effect is not known."""

    def __init__(self, problem: str, cause: SimserviceError | None = None) -> None:
        super().__init__(problem)
        self.cause = cause  # what the server said, if it said something


class Moved(Interrupted):
    """The replica asks to go on elsewhere. The request was not done, and the session waits for a resume."""


def check_address(address: str) -> str:
    """The address as gRPC takes it: `host:port`, or `unix:/path`."""
    if not isinstance(address, str):
        raise InvalidInput("address", f"{address!r} is no text like 'localhost:50051'")
    if address.startswith("unix:"):
        return address
    found = _HOST_PORT.fullmatch(address.strip())
    if not found or not 0 < int(found[2]) < 65536:
        raise InvalidInput("address", f"{address!r} is not host:port, for example 'localhost:50051'")
    return address.strip()


def _here(address: str) -> bool:
    """Whether an address is of this machine, as far as it tells by itself."""
    host = address.rpartition(":")[0].strip("[]")
    return address.startswith("unix:") or host in ("localhost", "::1") or host.startswith("127.")


def _channel(address: str, access: Access) -> grpc.Channel:
    if not access.secure:
        return grpc.insecure_channel(address, options=OPTIONS)
    ca, certificate, key = (access.read(path) for path in (access.ca, access.certificate, access.key))
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(ca, key, certificate), options=OPTIONS)


class Connection:
    """A channel to one address, for calls to one world (without one: to whatever answers there)."""

    def __init__(
        self,
        address: str,
        world: str = "",
        *,
        token: str | None = None,
        tls: Tls = None,
        compression: Compression = "auto",  # of large replies
    ) -> None:
        self._door = (address, world, token, tls, compression)
        bare, access = access_to(address, token, tls)
        self.address = check_address(bare)
        name = world.partition("@")[0]
        if not (name.isascii() and name.isprintable()):  # gRPC would log, and try until the time is over
            raise InvalidInput("world", f"{world!r} is no world's name: ASCII without control characters")
        self._metadata = (*((("application", name),) if name else ()), *access.metadata)
        # Within one machine packing takes longer than what it saves: 64 frames of 64 x 64 x 3 in 2.36 ms, not 2.07.
        codecs = None if compression == "auto" and _here(self.address) else offered(compression)
        self._metadata_of_streams = (*self._metadata, *(() if codecs is None else ((CODECS_KEY, codecs),)))
        self._channel = _channel(self.address, access)
        self._stub: Any = WorldServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._reached = False
        self._quick = not access.secure and os.environ.get(STREAMS_VARIABLE) != "grpc"
        self._ready: ChunkedWire | None = None  # for the next stream
        self._wires: weakref.WeakSet[ChunkedWire] = weakref.WeakSet()

    def wait(self, timeout_s: float) -> None:
        """Returns once somebody listens at the address; ServerUnavailable says why nobody does."""
        self._ready = self._ready or self._quick_wire(timeout_s)
        if self._ready is None:
            self._wait_for_channel(timeout_s)

    def _wait_for_channel(self, timeout_s: float) -> None:
        try:
            grpc.channel_ready_future(self._channel).result(timeout=timeout_s)
        except grpc.FutureTimeoutError as error:
            raise ServerUnavailable(self.address, self._why_not() or f"no connection within {timeout_s:g} s") from error

    def _why_not(self) -> str:
        try:
            self._stub.ListWorlds(pb.ListWorldsRequest(), timeout=0.5, metadata=self._metadata)
        except grpc.RpcError as error:
            return str(error.details() or "").removeprefix("failed to connect to all addresses; last error: ")
        return ""

    def list_worlds(self, timeout_s: float) -> list[world_pb.World]:
        """All worlds served behind the address."""
        reply = self._unary(self._stub.ListWorlds, pb.ListWorldsRequest(), "", timeout_s)
        return list(reply.worlds)

    def get_world(self, world: str, timeout_s: float) -> world_pb.World:
        """One world's contract."""
        reply = self._unary(self._stub.GetWorld, pb.GetWorldRequest(world=world), world, timeout_s)
        contract: world_pb.World = reply.world
        return contract

    def get_capacity(self, world: str, timeout_s: float) -> pb.GetCapacityReply:
        """How much room there is."""
        reply: pb.GetCapacityReply = self._unary(
            self._stub.GetCapacity, pb.GetCapacityRequest(world=world), world, timeout_s
        )
        return reply

    def report(self, request: pb.ReportRequest, timeout_s: float) -> pb.ReportReply:
        """Hands real episodes in."""
        reply: pb.ReportReply = self._unary(self._stub.Report, request, request.world, timeout_s)
        return reply

    def read_reports(self, request: pb.ReadReportsRequest, timeout_s: float) -> pb.ReadReportsReply:
        """Reads what was handed in."""
        reply: pb.ReadReportsReply = self._unary(self._stub.ReadReports, request, request.world, timeout_s)
        return reply

    def put_policy(self, request: pb.PutPolicyRequest, timeout_s: float) -> pb.PutPolicyReply:
        """Hands a policy in."""
        reply: pb.PutPolicyReply = self._unary(self._stub.PutPolicy, request, request.world, timeout_s)
        return reply

    def _unary(self, call: Any, request: Any, world: str, timeout_s: float) -> Any:
        check_seconds(timeout_s=timeout_s)
        if not self._reached:  # once: gRPC's own thread that waits with us may not be there when the channel is closed
            self._wait_for_channel(timeout_s)
            self._reached = True
        try:
            return call(request, timeout=timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            end = Ended(error.code().name, error.details() or "", error.trailing_metadata() or ())
            found = translate(end, world)
            if isinstance(found, Interrupted):
                raise found.cause or ServerUnavailable(self.address, str(found)) from error
            raise found from error

    def play(self, world: str) -> Stream:
        """A new stream."""
        ready, self._ready = self._ready, None
        play: Wire | None = ready or self._quick_wire(QUICK_ANSWER_S)
        return Stream(play or wire(self._channel, PLAY, self._metadata_of_streams), world)

    def _quick_wire(self, timeout_s: float) -> ChunkedWire | None:
        """A stream by HTTP/1.1, where that is to be had."""
        if not self._quick:
            return None
        within = min(timeout_s, QUICK_ANSWER_S)
        try:
            found = ChunkedWire(self.address, PLAY, self._metadata_of_streams, MAX_MESSAGE_BYTES, within)
        except NotTaken as problem:
            log.debug("streams to %s go by gRPC: %s", self.address, problem)
            self._quick = not problem.late  # others refuse at once, so that trying again costs nothing
            return None
        self._wires.add(found)
        return found

    def renewed(self) -> Connection:
        """A new connection to the same address; this one is ended."""
        self.close()
        address, world, token, tls, compression = self._door
        return Connection(address, world, token=token, tls=tls, compression=compression)

    def close(self) -> None:
        """Ends the connection and all its streams."""
        for quick in list(self._wires):
            quick.cancel()
            quick.drain()
        self._channel.close()


class Stream:
    """One Play call, one request at a time.

    gRPC cannot bound the wait for one message of a stream, so a watchdog thread ends the stream when a deadline
    passes. It sleeps until the earliest moment that could happen; a request costs it nothing.
    """

    def __init__(self, play: Wire, world: str) -> None:
        self._world = world
        self._wire = play
        self._deadline = math.inf
        self._wakes_at = math.inf
        self._wake = threading.Event()
        self._ended = False
        self._late = False
        threading.Thread(target=self._watch, name="simservice watchdog", daemon=True).start()

    def converse(self, request: pb.PlayRequest, timeout_s: float) -> pb.PlayReply:
        """Sends a request that is no step and waits for its reply; the stream is of no use after an exception."""
        reply = self.exchange(request, timeout_s)
        assert not isinstance(reply, PlainReply)
        return reply

    def exchange(
        self,
        request: pb.PlayRequest | StepRequest,
        timeout_s: float,
        hear: Callable[[pb.Imagined], None] | None = None,
    ) -> pb.PlayReply | PlainReply:
        """Sends a request and waits for its reply; the stream is of no use after an exception.

        With `hear` the request is a rollout, whose parts are heard as they come; the last reply is returned, and the
        time holds for each of them.
        """
        self._wait_until(monotonic() + timeout_s)
        try:
            self._wire.send(request.SerializeToString())
            message = self._next()
            if isinstance(request, StepRequest) and (plain := request.read(message)) is not None:
                return plain
            reply = _parsed(message)
            while hear is not None and reply.HasField("imagined"):
                hear(reply.imagined)
                if reply.imagined.last:
                    break
                self._wait_until(monotonic() + timeout_s)
                reply = _parsed(self._next())
        except Ended as end:
            if end.code == "OK":
                raise Interrupted("the server ended the stream") from end
            if self._late:
                raise Interrupted(f"no answer within {timeout_s:g} s") from end
            raise translate(end, self._world) from end
        finally:
            self._deadline = math.inf
        if reply.HasField("migrate"):
            raise Moved("the replica is about to end")
        return reply

    def _next(self) -> bytes | bytearray:
        message = self._wire.receive()
        if len(message) > LARGE_BYTES:
            keep_freed_memory()
        return message

    def _wait_until(self, deadline: float) -> None:
        self._deadline = deadline
        if deadline < self._wakes_at:
            self._wake.set()

    def end(self) -> None:
        """Ends the stream; the session behind it stays."""
        self._ended = True
        self._wake.set()
        self._wire.cancel()
        self._wire.drain()

    def _watch(self) -> None:
        while not self._ended:
            self._wake.clear()
            # Infinity first: a request that comes between these lines sees it and wakes this thread.
            self._wakes_at = math.inf
            deadline = self._deadline
            self._wakes_at = deadline
            left = deadline - monotonic()
            if left <= 0:
                self._late = True
                self._wire.cancel()
                return
            self._wake.wait(None if math.isinf(left) else left)


def _parsed(message: bytes | bytearray) -> pb.PlayReply:
    reply = pb.PlayReply.FromString(message)  # type: ignore[arg-type]  # it takes any buffer
    return unpacked(reply) if reply.packed else reply


def translate(end: Ended, world: str) -> SimserviceError | Interrupted:
    """Our error where the server sent one; else what the status means."""
    for key, value in end.metadata:
        told = error_from_metadata(key, value)
        if told is not None:
            if isinstance(told, ReplicaDraining):
                return Moved(str(told), told)
            return Interrupted(str(told), told) if told.code == "UNAVAILABLE" else told
    code, details = end.code, end.details or "no details"
    if code in RETRIED:
        return Interrupted(f"{code}: {details}")
    found = BARE.get(code, InternalError)
    if found is UnknownWorld:
        return UnknownWorld(world, ())
    if found is InvalidInput:
        return InvalidInput("message", details)
    if found is Unauthenticated:
        return Unauthenticated(f"the service refused this client ({details})")
    return InternalError(f"the server answered {code}: {details}")
