"""Decides on which address and port a service may listen, before anything is started."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field

from simservice.errors import InternalError, PortInUse
from simservice.serving.settings import DoorSettings


def check_address(doors: DoorSettings) -> int:
    """The port to listen on (a free one for 0). PortInUse; ConfigError for a door that others find open."""
    doors.check_doors()
    return free_port(doors.host, doors.port)


def free_port(host: str = "127.0.0.1", port: int = 0) -> int:
    """The port, if nobody listens there, or a free one for 0; PortInUse otherwise."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            raise PortInUse(f"{host}:{port}") from error
        return int(probe.getsockname()[1])


PORT_RANGES = range(20_000, 32_000, 1_000)
"""Firsts of the ranges; all below the ports that Linux hands out by itself."""


SINGLE_PORTS = 20
"""As many ports of a range, behind its first, are handed out one by one; the others are the replicas'."""


@dataclass
class PortRange:
    """A thousand ports that no other service of ours on this machine uses while the range is held."""

    first: int
    holder: socket.socket
    _left: Iterator[int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._left = iter(range(self.first + 1, self.first + SINGLE_PORTS))

    def take(self, host: str = "127.0.0.1") -> int:
        """One port more, each handed out once.

        A free port that the system picks may be gone when its process comes to listen, seconds later: it is picked from
        those that every outgoing connection of the machine gets its own from.
        """
        for port in self._left:
            with contextlib.suppress(PortInUse):
                return free_port(host, port)
        raise InternalError(f"ports {self.first + 1} to {self.first + SINGLE_PORTS - 1} of this machine are all in use")

    def close(self) -> None:
        """Gives the range back."""
        self.holder.close()


def hold_ports() -> PortRange:
    """Takes a range of ports for one cluster.

    Ray Serve means to turn SO_REUSEPORT off for its replicas' gRPC servers, but hands gRPC the number as text, which it
    ignores: replicas of two clusters listen on one port without an error, and each gets calls meant for the other.
    """
    for first in PORT_RANGES:
        holder = socket.socket()
        try:
            holder.bind(("127.0.0.1", first))
        except OSError:
            holder.close()
        else:
            holder.listen(1)
            return PortRange(first, holder)
    raise InternalError(f"all {len(PORT_RANGES)} ranges of ports for services on Ray are in use on this machine")
