"""What worlds an address serves, asked without a session."""

from __future__ import annotations

import contextlib

from simservice.client.access import Tls
from simservice.client.channel import Connection
from simservice.protocol.messages import WorldContract, decode_world


def list_worlds(
    address: str, timeout_s: float = 5.0, *, token: str | None = None, tls: Tls = None
) -> list[WorldContract]:
    """The contracts of all worlds served at the address, in name order."""
    with contextlib.closing(Connection(address, token=token, tls=tls)) as connection:
        return [decode_world(world) for world in connection.list_worlds(timeout_s)]


def get_world(
    address: str, world: str, timeout_s: float = 5.0, *, token: str | None = None, tls: Tls = None
) -> WorldContract:
    """The contract of "name" or "name@version"; UnknownWorld names those there are."""
    with contextlib.closing(Connection(address, world, token=token, tls=tls)) as connection:
        return decode_world(connection.get_world(world, timeout_s))
