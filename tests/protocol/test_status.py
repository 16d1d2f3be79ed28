"""Every error keeps its class, message, details and code over the wire."""

import pytest

from simservice import errors
from simservice.protocol.status import error_from_message, error_to_message, grpc_code
from simservice.protocol.v1 import service_pb2 as pb

EXAMPLES = [
    errors.InvalidInput("action/0", "holds nan"),
    errors.UnsupportedSpace("observation", "Text"),
    errors.ConfigError("no key 'devise'; did you mean 'device'?", key="devise"),
    errors.UnknownWorld("pong", ["ping", "cartpole"]),
    errors.UnknownFamily("rsm", ["rssm"]),
    errors.UnknownEnvironment("CartPol-v1", "no such id"),
    errors.MissingDataset("cartpole/random-v0", "/data"),
    errors.UnknownSession("0123456789abcdef"),
    errors.SessionClosed("environment"),
    errors.SequenceGap(7, 5),
    errors.NeedsReset([0, 3]),
    errors.ModelRetired("a@1", "a@2"),
    errors.SessionFenced("0123456789abcdef"),
    errors.CapacityExhausted(64, 1000, 1024),
    errors.RealStepBudgetExceeded(10, 3000, 3000),
    errors.CorruptCheckpoint("runs/world", "weights.safetensors is missing"),
    errors.StoreUnavailable("redis://nowhere"),
    errors.ServerUnavailable("localhost:1", "connection refused"),
    errors.SessionLost("0123456789abcdef", 60.0, "no answer"),
    errors.PortInUse("0.0.0.0:50051"),
    errors.DeadlineExceeded("no answer within 30 s"),
    errors.InternalError("the tick failed"),
]


def all_classes(cls=errors.SimserviceError):
    return {child for direct in cls.__subclasses__() for child in {direct, *all_classes(direct)}}


def test_the_table_holds_every_class():
    ours = {cls for cls in all_classes() if cls.__module__ == errors.__name__}
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


def test_an_error_of_a_newer_server_is_an_internal_error_that_names_its_reason():
    found = error_from_message(pb.Error(reason="FROM_TOMORROW", message="who knows"))
    assert type(found) is errors.InternalError
    assert (str(found), found.details) == ("who knows", {"reason": "FROM_TOMORROW"})
