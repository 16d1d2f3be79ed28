"""Puts WorldService onto a gRPC server, plain or Ray Serve's, so that bytes that are no request get an answer of ours.

Generated code lets gRPC answer those with UNKNOWN and a Python exception's text before the servicer hears of it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message
from grpc._utilities import RpcMethodHandler

from simservice.errors import InvalidInput
from simservice.protocol.v1 import service_pb2 as pb
from simservice.serving.chunked import Begin, Behaviour, ChunkedServer
from simservice.serving.settings import MAX_MESSAGE_BYTES
from simservice.serving.stream import Incoming

NAME = pb.DESCRIPTOR.services_by_name["WorldService"].full_name

_streams: list[Behaviour] = []  # what Ray Serve has put in the place of Play, in this process


def add_world_service(servicer: Any, server: Any) -> None:
    """Registers the calls; named in Ray Serve's configuration as grpc_servicer_functions."""
    handlers = {
        "ListWorlds": grpc.unary_unary_rpc_method_handler(
            servicer.ListWorlds, _readable(pb.ListWorldsRequest), pb.ListWorldsReply.SerializeToString
        ),
        "GetWorld": grpc.unary_unary_rpc_method_handler(
            servicer.GetWorld, _readable(pb.GetWorldRequest), pb.GetWorldReply.SerializeToString
        ),
        "GetCapacity": grpc.unary_unary_rpc_method_handler(
            servicer.GetCapacity, _readable(pb.GetCapacityRequest), pb.GetCapacityReply.SerializeToString
        ),
        "Report": grpc.unary_unary_rpc_method_handler(
            servicer.Report, _readable(pb.ReportRequest), pb.ReportReply.SerializeToString
        ),
        "ReadReports": grpc.unary_unary_rpc_method_handler(
            servicer.ReadReports, _readable(pb.ReadReportsRequest), pb.ReadReportsReply.SerializeToString
        ),
        # Unary to its caller; here its one message is read when the facade wants it, see serving/policies.py.
        "PutPolicy": _Replaced(
            grpc.stream_unary_rpc_method_handler(servicer.PutPolicy, None, pb.PutPolicyReply.SerializeToString)
        ),
        # A stream's iterator raises DecodeError where the facade can answer it.
        "Play": _Replaced(grpc.stream_stream_rpc_method_handler(servicer.Play, pb.PlayRequest.FromString)),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(NAME, handlers),))
    server.add_registered_method_handlers(NAME, handlers)


class DirectCall:
    """A stream as gRPC has it, below what Ray Serve wraps around it: eight generators a message, 40 µs of a step."""

    def __init__(self, context: _StreamContext) -> None:
        self._read = context.read
        self.write = context.write  # sends one serialised reply
        self.attend: Callable[[Begin], None] | None = getattr(
            context, "attend", None
        )  # of ChunkedServer's streams, see there

    def __aiter__(self) -> AsyncIterator[Incoming]:
        return self

    async def __anext__(self) -> Incoming:
        request = await self._read()
        if request is grpc.aio.EOF:
            raise StopAsyncIteration
        return request  # type: ignore[no-any-return]


class _StreamContext(Protocol):
    read: Callable[[], Awaitable[Any]]
    write: Callable[[bytes], Awaitable[None]]


class _Replaced(RpcMethodHandler):  # type: ignore[misc]
    """A handler that reads its requests: what Ray Serve puts in its behaviour's place gets a DirectCall for them."""

    __slots__ = ()

    def __new__(cls, handler: RpcMethodHandler) -> _Replaced:
        return super().__new__(cls, *handler)  # type: ignore[no-any-return]

    def _replace(self, **changes: Any) -> RpcMethodHandler:
        if not self.response_streaming:
            return RpcMethodHandler(*self)._replace(**{**changes, "stream_unary": _directly(changes["stream_unary"])})
        behaviour = changes["stream_stream"]

        async def play(requests: AsyncIterator[pb.PlayRequest], context: _StreamContext) -> AsyncIterator[bytes]:
            async for reply in behaviour(DirectCall(context), context):
                yield reply

        _streams[:] = [play]
        return RpcMethodHandler(*self)._replace(**{**changes, "stream_stream": play})


def _directly(behaviour: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def call(requests: AsyncIterator[Any], context: _StreamContext) -> Any:
        return await behaviour(DirectCall(context), context)

    return call


async def serve_streams_at(path: str) -> ChunkedServer:
    """Takes streams from HAProxy at a socket's path, too, by the handler that Ray Serve's own server has for them."""
    (play,) = _streams
    server = ChunkedServer(path, f"/{NAME}/Play", play, pb.PlayRequest.FromString, MAX_MESSAGE_BYTES)
    await server.start()
    return server


def refuse_unreadable(request: Message) -> None:
    """InvalidInput for what stands for a unary request that could not be read."""
    if isinstance(request, pb.Error):
        raise InvalidInput("request", "its bytes are no such message; see protos/ for the wire")


def _readable(kind: type[Message]) -> Callable[[bytes], Message]:
    def read(raw: bytes) -> Message:
        try:
            return kind.FromString(raw)
        except DecodeError:
            return pb.Error(reason=InvalidInput.reason)

    return read
