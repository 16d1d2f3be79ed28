"""Errors on the wire: the exception tree to and from the Error message, gRPC's codes and google.rpc.Status."""

from __future__ import annotations

import math

from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from simservice.errors import InternalError, InvalidInput, SimserviceError, error_class
from simservice.protocol.error_table import DOMAIN
from simservice.protocol.polling import grpc
from simservice.protocol.v1 import service_pb2 as pb

ERROR_METADATA_KEY = "simservice-error-bin"
"""The trailing metadata key under which a failed call carries its serialised Error message."""

STATUS_METADATA_KEY = "grpc-status-details-bin"
"""The key that gRPC's own libraries of all languages read a google.rpc.Status from."""

PUSHBACK_METADATA_KEY = "grpc-retry-pushback-ms"
"""The key that gRPC's own retries read the time to come again from."""

MESSAGE_BYTES, DETAIL_BYTES = 700, 120
"""What is carried of a message and of a detail. Both travel several times in headers, which gRPC cuts off at 8 KiB."""


def grpc_code(error: SimserviceError) -> grpc.StatusCode:
    """The gRPC status of an error."""
    return grpc.StatusCode[error.code]


def wire_text(error: SimserviceError) -> str:
    """The error's message as a header takes it."""
    return _clipped(str(error), MESSAGE_BYTES)


def error_to_message(error: SimserviceError) -> pb.Error:
    """The error as the wire carries it."""
    return pb.Error(
        code=grpc_code(error).value[0],
        reason=error.reason,
        message=wire_text(error),
        details=_details(error),
        recoverable=error.recoverable,
    )


def error_from_message(message: pb.Error) -> SimserviceError:
    """The same class with the same message and details; InternalError for a reason this version does not know."""
    return _rebuilt(message.reason, message.message, dict(message.details))


def error_to_status(error: SimserviceError) -> status_pb2.Status:
    """The error in the standard form: ErrorInfo, with BadRequest and RetryInfo where they say more."""
    status = status_pb2.Status(code=grpc_code(error).value[0], message=wire_text(error))
    details = _details(error)
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=details))
    if isinstance(error, InvalidInput):
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=details.get("field", ""), description=status.message, reason=error.reason
        )
        status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    if (delay_s := error.retry_after_s) is not None:
        delay = Duration()
        delay.FromNanoseconds(round(delay_s * 1e9))
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    return status


def error_from_status(status: status_pb2.Status) -> SimserviceError | None:
    """The inverse of error_to_status; None when the status is not one of ours."""
    for packed in status.details:
        found = error_details_pb2.ErrorInfo()
        if packed.Unpack(found) and found.domain == DOMAIN:
            return _rebuilt(found.reason, status.message, dict(found.metadata))
    return None


def error_metadata(error: SimserviceError) -> list[tuple[str, bytes]]:
    """The trailing metadata of a call that ends with the error."""
    metadata = [
        (ERROR_METADATA_KEY, error_to_message(error).SerializeToString()),
        (STATUS_METADATA_KEY, error_to_status(error).SerializeToString()),
    ]
    if error.retry_after_s is not None:  # what gRPC's own retries obey
        metadata.append((PUSHBACK_METADATA_KEY, b"%d" % math.ceil(1000 * error.retry_after_s)))
    return metadata


def error_from_metadata(key: str, value: bytes) -> SimserviceError | None:
    """The error that one entry of trailing metadata carries, if it carries one."""
    if key == ERROR_METADATA_KEY:
        return error_from_message(pb.Error.FromString(value))
    if key == STATUS_METADATA_KEY:
        return error_from_status(status_pb2.Status.FromString(value))
    return None


def _rebuilt(reason: str, message: str, details: dict[str, str]) -> SimserviceError:
    cls = error_class(reason)
    if cls is InternalError and reason != InternalError.reason:
        details["reason"] = reason
    return cls.from_wire(message, details)


def _details(error: SimserviceError) -> dict[str, str]:
    return {key: _clipped(value, DETAIL_BYTES) for key, value in error.details.items()}


def _clipped(text: str, limit: int) -> str:
    """The text in at most so many bytes of UTF-8."""
    raw = text.encode("utf-8", errors="replace")
    return text if len(raw) <= limit and raw.decode() == text else raw[: limit - 3].decode(errors="ignore") + "…"
