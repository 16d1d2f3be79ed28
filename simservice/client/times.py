"""Which times to wait a client takes from its user, and which times the server tells it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from simservice.errors import InvalidInput
from simservice.protocol.v1 import service_pb2 as pb

LONGEST_WAIT_S = 1e9  # 31 years; the operating system's clocks take little more


def check_seconds(**times: Any) -> None:
    """Refuses what is no time to wait, before a wait of it goes wrong in a thread nobody sees."""
    for name, seconds in times.items():
        number = isinstance(seconds, int | float | np.number) and not isinstance(seconds, bool)
        if not (number and 0 <= seconds <= LONGEST_WAIT_S and (seconds > 0 or name != "timeout_s")):
            raise InvalidInput(name, f"{seconds!r} is no time to wait; take seconds, at most {LONGEST_WAIT_S:,.0f}")


class ServerTimes(NamedTuple):
    """Seconds that one request spent in the server; but for the first all are 0 where it was no step done now."""

    total_s: float
    queue_s: float  # until it was read, checked and handed to the engine
    wait_s: float  # for the batch before
    model_s: float  # in the world's call, which all requests of the batch share
    encode_s: float  # until the reply was written, and packed

    @property
    def rest_s(self) -> float:
        """The journal's, and that of whatever else the server did meanwhile."""
        return self.total_s - self.queue_s - self.wait_s - self.model_s - self.encode_s


def server_times(reply: pb.PlayReply) -> ServerTimes:
    """What a reply tells of them."""
    return ServerTimes(
        reply.server_ns * 1e-9,
        reply.queue_ns * 1e-9,
        reply.wait_ns * 1e-9,
        reply.model_ns * 1e-9,
        reply.encode_ns * 1e-9,
    )


def times_of(reply: pb.PlayReply) -> bytes:
    """What a reply tells of them, and nothing else of it."""
    told = pb.PlayReply(
        server_ns=reply.server_ns,
        queue_ns=reply.queue_ns,
        wait_ns=reply.wait_ns,
        model_ns=reply.model_ns,
        encode_ns=reply.encode_ns,
    )
    return told.SerializeToString()
