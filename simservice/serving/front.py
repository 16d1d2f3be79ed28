"""Asks a service's front door which version of a world is behind it. Knows gRPC; used to see a deployment arrive."""

from __future__ import annotations

import grpc

from simservice.protocol.v1 import service_pb2 as pb
from simservice.protocol.v1.service_pb2_grpc import WorldServiceStub

TIMEOUT_S = 5.0


def version_served(address: str, world: str) -> str | None:
    """The version that answers for a world at an address, or None when nobody does."""
    options = [("grpc.use_local_subchannel_pool", 1)]  # a connection of its own: an old one may lead to old replicas
    with grpc.insecure_channel(address, options=options) as channel:
        try:
            stub = WorldServiceStub(channel)  # type: ignore[no-untyped-call]
            reply = stub.GetWorld(
                pb.GetWorldRequest(world=world), timeout=TIMEOUT_S, metadata=(("application", world),)
            )
        except grpc.RpcError:
            return None
    return str(reply.world.version)
