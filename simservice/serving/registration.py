"""Puts WorldService onto a gRPC server, plain or Ray Serve's, so that bytes that are no request get an answer of ours.

Generated code lets gRPC answer those with UNKNOWN and a Python exception's text before the servicer hears of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message

from simservice.errors import InvalidInput
from simservice.protocol.v1 import service_pb2 as pb

NAME = pb.DESCRIPTOR.services_by_name["WorldService"].full_name


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
        # A stream's iterator raises DecodeError where the facade can answer it.
        "Play": grpc.stream_stream_rpc_method_handler(
            servicer.Play, pb.PlayRequest.FromString, pb.PlayReply.SerializeToString
        ),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(NAME, handlers),))
    server.add_registered_method_handlers(NAME, handlers)


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
