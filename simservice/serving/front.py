"""Asks the front door what is behind it: which version of a world answers, which replicas HAProxy sends streams to."""

from __future__ import annotations

import csv
import socket
from collections.abc import Iterable
from pathlib import Path

import grpc

from simservice.protocol.v1 import service_pb2 as pb
from simservice.protocol.v1.service_pb2_grpc import WorldServiceStub

TIMEOUT_S = 5.0


def version_served(address: str, world: str, token: str) -> str | None:
    """The version that answers for a world at an address, or None when nobody does."""
    options = [("grpc.use_local_subchannel_pool", 1)]  # a connection of its own: an old one may lead to old replicas
    with grpc.insecure_channel(address, options=options) as channel:
        try:
            stub = WorldServiceStub(channel)  # type: ignore[no-untyped-call]
            reply = stub.GetWorld(
                pb.GetWorldRequest(world=world),
                timeout=TIMEOUT_S,
                metadata=(("application", world), ("authorization", f"Bearer {token}")),
            )
        except grpc.RpcError:
            return None
    return str(reply.world.version)


def replicas_up(admin_sockets: Iterable[Path]) -> set[str]:
    """Server names of the replicas that HAProxy gives new gRPC streams to; a name ends with the replica's id."""
    up: set[str] = set()
    for path in admin_sockets:
        for row in csv.reader(_ask(path, "show stat").splitlines()):
            # pxname, svname, ..., status: "UP 1/2" is a server that has failed a check
            if len(row) > 17 and row[0].startswith("grpc") and row[17] == "UP":
                up.add(row[1])
    return up


def _ask(path: Path, command: str) -> str:
    answer = b""
    with socket.socket(socket.AF_UNIX) as admin:
        admin.settimeout(TIMEOUT_S)
        try:
            admin.connect(str(path))
            admin.sendall(command.encode() + b"\n")
            while part := admin.recv(1 << 16):
                answer += part
        except OSError:  # HAProxy is being replaced
            return ""
    return answer.decode()
