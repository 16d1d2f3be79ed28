"""Every error keeps its class, message, details and code over the wire."""

from pathlib import Path

import pytest
from error_examples import EXAMPLES
from google.rpc import error_details_pb2, status_pb2

from simservice import errors
from simservice.protocol.error_table import ROWS, markdown
from simservice.protocol.status import (
    STATUS_METADATA_KEY,
    error_from_message,
    error_from_metadata,
    error_from_status,
    error_metadata,
    error_to_message,
    error_to_status,
    grpc_code,
    wire_text,
)
from simservice.protocol.v1 import service_pb2 as pb


def all_classes(cls=errors.SimserviceError):
    return {child for direct in cls.__subclasses__() for child in {direct, *all_classes(direct)}}


def test_the_table_holds_every_class():
    ours = {cls for cls in all_classes() if cls.__module__.startswith(errors.__name__)}
    assert {type(error) for error in EXAMPLES} == ours


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_every_error_comes_out_as_it_went_in(error):
    message = pb.Error.FromString(error_to_message(error).SerializeToString())
    found = error_from_message(message)
    assert type(found) is type(error)
    assert str(found) == str(error)
    assert found.details == error.details
    assert found.recoverable == error.recoverable == message.recoverable
    assert grpc_code(found) is grpc_code(error)
    assert (message.code, message.reason) == (grpc_code(error).value[0], error.reason)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_every_error_has_a_row_and_the_standard_status_says_what_the_row_says(error):
    [row] = [row for row in ROWS if row.error is type(error)]
    status = status_pb2.Status.FromString(error_to_status(error).SerializeToString())
    found = error_from_status(status)
    assert (type(found), str(found), found.details) == (type(error), str(error), error.details)
    assert (status.code, status.message) == (grpc_code(error).value[0], str(error))
    names = [packed.TypeName().removeprefix("google.rpc.") for packed in status.details]
    assert not row.on_the_wire or names == list(row.details)
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain, dict(info.metadata)) == (error.reason, "simservice", error.details)
    for packed in status.details[1:]:
        bad, retry = error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
        if packed.Unpack(bad):
            [violation] = bad.field_violations
            assert (violation.field, violation.description) == (error.details["field"], str(error))
        if packed.Unpack(retry):
            assert retry.retry_delay.ToMicroseconds() == error.retry_after_s * 1e6


@pytest.mark.parametrize("text", ["a" * 100_000, "\N{SNOWMAN}" * 50_000, "\ud800" * 1000])
def test_what_a_client_sends_never_makes_an_error_too_long_for_a_header(text):
    error = errors.InvalidInput(text, text)
    metadata = error_metadata(error)
    assert sum(len(value) * 4 / 3 for _, value in metadata) + 3 * len(wire_text(error).encode()) < 8_000
    for key, value in metadata:
        found = error_from_metadata(key, value)
        assert type(found) is errors.InvalidInput
        assert len(found.details["field"].encode()) <= 120


def test_a_status_of_somebody_else_is_not_taken_for_ours():
    status = status_pb2.Status(code=5, message="no")
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="UNKNOWN_WORLD", domain="else.example"))
    assert error_from_metadata(STATUS_METADATA_KEY, status.SerializeToString()) is None
    assert error_from_metadata("other-bin", b"anything") is None


def test_the_document_is_made_of_the_table():
    written = Path(__file__).parents[2].joinpath("docs", "errors.md").read_text(encoding="utf-8")
    assert written == markdown(), "python -m simservice.protocol.error_table > docs/errors.md"


def test_a_wait_that_cannot_help_is_not_asked_for():
    assert errors.CapacityExhausted(2000, 0, 1024, retry_after_s=1.0).retry_after_s is None
    assert errors.InternalError("x", retry_after_s="soon").retry_after_s is None
    assert errors.QuotaExceeded("lab", "lanes", asked=1, active=2, limit=2, retry_after_s=2.0).retry_after_s == 2.0


def test_an_error_of_a_newer_server_is_an_internal_error_that_names_its_reason():
    found = error_from_message(pb.Error(reason="FROM_TOMORROW", message="who knows"))
    assert type(found) is errors.InternalError
    assert (str(found), found.details) == ("who knows", {"reason": "FROM_TOMORROW"})
