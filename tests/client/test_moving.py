"""A session goes where it is asked to, comes again when it is told to, and waits no longer than it says."""

import time

import pytest
from test_session import ACTION, at, connect, count, only, peer  # noqa: F401 (fixtures)

from simservice.errors import CapacityExhausted, DeadlineExceeded, ReplicaDraining, SessionLost
from simservice.protocol.status import error_to_message
from simservice.protocol.v1 import service_pb2 as pb


def an_error(number, error):
    return pb.PlayReply(sequence=number, error=error_to_message(error))


def test_a_session_that_is_asked_to_move_sends_what_was_not_done_elsewhere(peer, connect):  # noqa: F811
    session = connect()
    session.reset()
    peer.fault = at(3, pb.PlayReply(sequence=2, migrate=pb.Migrate()))
    assert [count(session.step(ACTION)) for _ in range(3)] == [1, 2, 3]
    assert (session.moves, session.reconnects, only(peer).applied) == (1, 1, [1, 2, 3, 4])
    assert peer.streams == 2


def test_a_replica_that_takes_no_sessions_any_more_is_left_for_another(peer, connect):  # noqa: F811
    refusals = [ReplicaDraining()] * 3

    def fault(stream, request):
        if request.sequence == 2 and stream == 0:
            return pb.PlayReply(sequence=1, migrate=pb.Migrate())
        return refusals.pop() if request.HasField("resume") and refusals else None

    session = connect()
    session.reset()
    peer.fault = fault
    assert count(session.step(ACTION)) == 1
    assert (session.reconnects, only(peer).applied) == (1, [1, 2])


def test_a_resume_that_finds_no_room_comes_again_when_it_is_told_to(peer, connect):  # noqa: F811
    refused_at = []

    def fault(stream, request):
        if request.sequence == 2 and stream == 0:
            return pb.PlayReply(sequence=1, migrate=pb.Migrate())
        if request.HasField("resume") and not refused_at:
            refused_at.append(time.monotonic())
            return an_error(0, CapacityExhausted(2, 9, 10, retry_after_s=0.6))
        return None

    session = connect()
    session.reset()
    peer.fault = fault
    assert count(session.step(ACTION)) == 1
    assert time.monotonic() - refused_at[0] >= 0.6


def test_a_request_that_waited_too_long_is_sent_again_within_the_patience(peer, connect):  # noqa: F811
    session = connect()
    session.reset()
    peer.fault = at(2, *(an_error(2, DeadlineExceeded.not_begun()) for _ in range(3)))
    assert count(session.step(ACTION)) == 1
    peer.fault = lambda stream, request: an_error(request.sequence, DeadlineExceeded.not_begun())
    session.patience_s = 0.2
    with pytest.raises(DeadlineExceeded, match="had not begun"):
        session.step(ACTION)


def test_a_patience_of_its_own_travels_with_the_request(connect, peer):  # noqa: F811
    told = []
    peer.fault = lambda stream, request: told.append(request.timeout_ms)
    hasty, usual = connect(timeout_s=2.5), connect(timeout_s=30.0)
    for session in (hasty, usual):
        session.reset()
        session.step(ACTION)
    assert [wait for wait in told if wait] == [2500, 2500]


def test_a_service_that_only_ever_moves_a_session_loses_it_in_the_end(connect, peer):  # noqa: F811
    session = connect(patience_s=0.3)
    session.reset()
    peer.fault = lambda stream, request: (
        None if request.HasField("resume") else pb.PlayReply(sequence=1, migrate=pb.Migrate())
    )
    with pytest.raises(SessionLost, match="about to end"):
        session.step(ACTION)
