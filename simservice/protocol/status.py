"""Errors on the wire: the exception tree to and from the Error message and gRPC's status codes."""

from __future__ import annotations

import grpc

from simservice.errors import InternalError, SimserviceError, error_class
from simservice.protocol.v1 import service_pb2 as pb

ERROR_METADATA_KEY = "simservice-error-bin"
"""The trailing metadata key under which a failed call carries its serialised Error message."""


def grpc_code(error: SimserviceError) -> grpc.StatusCode:
    """The gRPC status of an error."""
    return grpc.StatusCode[error.code]


def error_to_message(error: SimserviceError) -> pb.Error:
    """The error as the wire carries it; the message travels whole."""
    return pb.Error(
        code=grpc_code(error).value[0],
        reason=error.reason,
        message=str(error),
        details=error.details,
        recoverable=error.recoverable,
    )


def error_from_message(message: pb.Error) -> SimserviceError:
    """The same class with the same message and details; InternalError for a reason this version does not know."""
    cls = error_class(message.reason)
    details = dict(message.details)
    if cls is InternalError and message.reason != InternalError.reason:
        details["reason"] = message.reason
    return cls.from_wire(message.message, details)
