"""How a session begins, and what ends it: the first message is sent until it is answered, or until its time is over."""

from __future__ import annotations

import random
import time

from simservice.client.channel import Connection, Interrupted, Stream
from simservice.errors import (
    DeadlineExceeded,
    InternalError,
    ModelRetired,
    ServerUnavailable,
    SessionClosed,
    SessionFenced,
    SessionLost,
    SessionQuarantined,
    SimserviceError,
    Unauthenticated,
    UnknownSession,
)
from simservice.protocol.status import error_from_message
from simservice.protocol.v1 import service_pb2 as pb

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.02, 2.0
FINAL = (SessionLost, SessionFenced, SessionClosed, SessionQuarantined, UnknownSession, ModelRetired, Unauthenticated)
"""Errors after which a session cannot go on."""


def open_stream(
    connection: Connection, request: pb.PlayRequest, timeout_s: float, within_s: float
) -> tuple[Stream, pb.Opened]:
    """A stream whose `open` was answered. The request has a key, so that sending it again makes no second session."""
    give_up_at = time.monotonic() + within_s
    attempt = 0
    while True:
        stream = connection.play(request.open.world)
        try:
            reply = stream.converse(request, timeout_s)
        except Interrupted as problem:
            stream.end()
            left = give_up_at - time.monotonic()
            if left <= 0:
                raise problem.cause or ServerUnavailable(connection.address, str(problem)) from problem
            time.sleep(min(left, LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0**attempt))
            attempt += 1
            continue
        except BaseException:
            stream.end()
            raise
        try:
            return stream, opened(reply)
        except SimserviceError as error:
            stream.end()  # the next one may lead to another replica
            if not waited(error, give_up_at):
                raise


def opened(reply: pb.PlayReply) -> pb.Opened:
    """What the reply to an `open` or a `resume` says; raises the error where it is one."""
    if reply.WhichOneof("result") == "error":
        raise error_from_message(reply.error)
    if reply.WhichOneof("result") != "opened":
        raise InternalError(f"the server answered {reply.WhichOneof('result')} to the opening of a session")
    return reply.opened


def stands_at(last: int, ours: int, unanswered: int, failed: bool, token: str, patience_s: float) -> int:
    """How many requests this side counts after a resume: both sides stand where this one stands, or one further.

    `unanswered` is the number of the request under way (0: none), `failed` whether the last one ended with an error
    that may have come after its effect. Raises SessionLost where the server knows less, SessionFenced where more.
    """
    if last == ours + 1 and unanswered == last:
        return ours
    if last == ours + 1 and failed:  # the request that failed had taken effect
        return last
    if last < ours:
        raise SessionLost(token, patience_s, f"the server knows {last} requests of it, {ours} were answered")
    if last > ours:
        raise SessionFenced(token)
    return ours


def waited(error: SimserviceError, give_up_at: float) -> bool:
    """Waits as long as the error says, if it says so and that is within the time; tells whether it did."""
    if isinstance(error, DeadlineExceeded):
        return time.monotonic() < give_up_at  # it has waited long enough where it was
    wait_s = error.retry_after_s
    if wait_s is None or time.monotonic() + wait_s > give_up_at:
        return False
    time.sleep(min(wait_s * random.uniform(1.0, 1.25), max(wait_s, give_up_at - time.monotonic())))
    return True


def backoff_s(attempt: int) -> float:
    """How long to wait before an attempt: longer each time, and never in step with other clients."""
    if not attempt:  # the first one at once: another replica may be ready
        return 0.0
    return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0**attempt) * random.uniform(0.5, 1.0)
