"""How much room a served world has, asked before sessions are opened. Knows no grpc."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from simservice.client.access import Tls
from simservice.client.channel import Connection
from simservice.protocol.v1 import service_pb2 as pb


@dataclass(frozen=True)
class Room:
    """Lanes and sessions of one replica, or of all of a world's."""

    lanes_limit: int
    lanes_active: int
    sessions_active: int
    largest_free: int  # the most lanes that one session would find now


@dataclass(frozen=True)
class Use:
    """What a tenant uses of the whole fleet; a limit that is None is none."""

    sessions_active: int
    lanes_active: int
    sessions_limit: int | None
    lanes_limit: int | None
    steps_per_second_limit: float | None


@dataclass(frozen=True)
class Capacity:
    """The room of a world at one moment; an open may be refused all the same."""

    replica: Room  # the one that answered
    world: Room  # all of them
    replicas: int
    tenant: Use | None  # None: the caller is counted against no quota


def get_capacity(
    address: str, world: str, timeout_s: float = 5.0, *, token: str | None = None, tls: Tls = None
) -> Capacity:
    """The capacity of "name" or "name@version"; UnknownWorld names those there are."""
    with contextlib.closing(Connection(address, world, token=token, tls=tls)) as connection:
        reply = connection.get_capacity(world, timeout_s)
    return Capacity(_room(reply.replica), _room(reply.world), reply.replicas, _use(reply))


def _room(message: pb.GetCapacityReply.Room) -> Room:
    return Room(message.lanes_limit, message.lanes_active, message.sessions_active, message.largest_free)


def _use(reply: pb.GetCapacityReply) -> Use | None:
    if not reply.HasField("tenant"):
        return None
    use = reply.tenant
    return Use(
        sessions_active=use.sessions_active,
        lanes_active=use.lanes_active,
        sessions_limit=use.sessions_limit if use.HasField("sessions_limit") else None,
        lanes_limit=use.lanes_limit if use.HasField("lanes_limit") else None,
        steps_per_second_limit=use.steps_per_second_limit if use.HasField("steps_per_second_limit") else None,
    )
