"""How much room a world has over its replicas, and how much of it a tenant uses. Knows no gRPC."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from simservice.protocol.v1 import service_pb2 as pb
from simservice.sessions.quotas import Tenant
from simservice.sessions.store import SessionStore

if TYPE_CHECKING:
    from simservice.serving.facade import Hosted


class CapacityDesk:
    """The call GetCapacity, but for who may come in and how errors leave."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store

    async def capacity(self, host: Hosted, tenant: Tenant) -> pb.GetCapacityReply:
        """The rooms of this process and of its world, and the tenant's use."""
        here = room_of(host)
        rooms = [here]
        for owner, told in (await self._store.rooms()).items():
            world, _, replica = owner.rpartition("/")
            if world == host.full_name and replica != host.replica:
                rooms.append(pb.GetCapacityReply.Room(**json.loads(told)))
        whole = pb.GetCapacityReply.Room(
            lanes_limit=sum(room.lanes_limit for room in rooms),
            lanes_active=sum(room.lanes_active for room in rooms),
            sessions_active=sum(room.sessions_active for room in rooms),
            largest_free=max(room.largest_free for room in rooms),
        )
        reply = pb.GetCapacityReply(replica=here, world=whole, replicas=len(rooms))
        used = await host.service.quotas.used(tenant)
        if used is not None:
            reply.tenant.CopyFrom(
                pb.GetCapacityReply.Use(
                    sessions_active=used.sessions,
                    lanes_active=used.lanes,
                    sessions_limit=tenant.sessions,
                    lanes_limit=tenant.lanes,
                    steps_per_second_limit=tenant.steps_per_second,
                )
            )
        return reply


def room_of(host: Hosted) -> pb.GetCapacityReply.Room:
    """The room of one process's world as it is now."""
    engine = host.service.engine
    free = engine.capacity - engine.lanes_in_use
    return pb.GetCapacityReply.Room(
        lanes_limit=engine.capacity,
        lanes_active=engine.lanes_in_use,
        sessions_active=host.service.stats().open,
        largest_free=min(free, host.contract.limits.max_num_envs),
    )


def told(host: Hosted) -> bytes:
    """The room as the store has it, for the other replicas."""
    room = room_of(host)
    return json.dumps({field.name: getattr(room, field.name) for field in room.DESCRIPTOR.fields}).encode()
